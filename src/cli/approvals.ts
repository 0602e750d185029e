// Approvals that a command brings to the custodians: of keys that lie at hand while it runs, each of somebody whom the
// policy lists. What is approved is said every time.

import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { approveRequest } from '../custody/request.ts';
import type { Approve } from '../custody/tdec.ts';
import type { Context } from './command.ts';
import { openKeyOf } from './connect.ts';

export const approveOption = {
  approve: {
    type: 'string',
    value: 'KEY-FILE',
    text: 'identity key of who approves, if the policy wants that; several with commas',
  },
} as const;

/** Undefined when none is brought. Throws ARGUMENT_INVALID for a key that is given twice, and what opening them throws. */
export async function approvalsOf(context: Context): Promise<Approve | undefined> {
  const text = context.text('approve');
  if (text === undefined) return undefined;
  if (context.text('agent') !== undefined)
    throw new HoldfastError('ARGUMENT_INVALID', '--approve is for custodians: key agents bring no approvals');
  const signers = await Promise.all(text.split(',').map((path) => openKeyOf(path)));
  if (new Set(signers.map(({ publicKey }) => toHex(publicKey))).size !== signers.length)
    throw new HoldfastError('ARGUMENT_INVALID', '--approve: different keys expected; one counts once');
  return async (encoded, labels) => {
    const what = new Set(labels.map(({ project, cls }) => `${cls} content of project ${project}`));
    context.screen.say(`approving: ${labels.length} keys, ${[...what].join(', ')}`);
    return signers.map((signer) => approveRequest(encoded, signer));
  };
}
