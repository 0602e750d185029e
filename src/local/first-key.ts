// The operator's order to make the first key of a local cluster's custody group: written once, followed by the
// steward as soon as all custodians are there, of no effect ever after.

import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { defaultPolicy } from '../custody/default-policy.ts';
import { groupNameOf } from '../custody/directory.ts';
import { signOrder } from '../custody/order.ts';
import { policyFamilyBytes } from '../custody/policy.ts';
import { errnoOf, fileError, makeDirectory, writeWhole } from '../files/whole.ts';
import { signRecord } from '../manifest/record.ts';
import { openIdentity } from '../node/identity.ts';
import { type Layout, layoutPaths } from './layout.ts';

/** Custodians needed of `n`: more than half, so that two halves that do not see each other never both work. */
export function thresholdOf(n: number): number {
  return Math.floor(n / 2) + 1;
}

/** Signs the order unless it is there. Nothing to do with fewer than two custodians: one alone shares nothing. */
export async function orderFirstKey({ dir, file }: Layout): Promise<void> {
  const paths = layoutPaths(dir);
  const custodians = file.processes.filter(({ role }) => role === 'custodian');
  const n = custodians.length;
  if (n < 2 || (await isThere(paths.custodyInitOrder))) return;
  await makeDirectory(paths.custody);
  const { signer } = await openIdentity(paths.operatorKey);
  const by = signer.publicKey;
  const cg = groupNameOf(file.cluster);
  const family = new Uint8Array(randomBytes(policyFamilyBytes));
  const policy = defaultPolicy({ cg, family, writer: by, authorities: [by] });
  const order = signOrder(
    {
      v: 1,
      cg,
      op: 'init',
      args: {
        ver: 1,
        t: thresholdOf(n),
        members: custodians.map(({ peer, name }) => ({ peer, org: name })),
        policy: signRecord(policy, signer).block.bytes,
        refreshEveryBars: policy.refreshEveryBars,
        development: n < 3,
      },
      nonce: new Uint8Array(randomBytes(32)),
      beat: 0,
      exp: Number.MAX_SAFE_INTEGER, // it is good until it has been followed, however long a first start takes
      by,
    },
    signer,
  );
  await writeWhole(paths.custodyInitOrder, order, 0o600);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return false;
    throw fileError(path, 'cannot be read', cause);
  }
}
