// The key agent that a command was told to ask, as whom, and what it shows.

import type { KeyAgentPort } from '../client/client.ts';
import { keyOfHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { layoutPaths } from '../local/layout.ts';
import type { Context } from './command.ts';
import { openKeyOf, openWriter } from './connect.ts';

/** Undefined when none was named. Throws ARGUMENT_MISSING, ARGUMENT_INVALID, and what reading the files throws. */
export async function keyAgentOf(context: Context): Promise<KeyAgentPort | undefined> {
  const url = context.text('agent');
  const key = context.text('agent-key');
  if (url === undefined) {
    const stray = ['agent-key', 'capability', 'as'].find((name) => context.text(name) !== undefined);
    if (stray !== undefined) throw new HoldfastError('ARGUMENT_MISSING', `--${stray} goes with --agent URL`);
    return undefined;
  }
  const agent = keyOfHex(key);
  if (agent === undefined)
    throw new HoldfastError(
      'ARGUMENT_MISSING',
      '--agent needs --agent-key KEY, 64 hex digits: whose answers are taken',
    );
  const { data } = context;
  const [{ KeyAgentClient }, { readCapability }] = await Promise.all([
    import('../client/key-agent.ts'),
    import('../local/grants.ts'),
  ]);
  const as = context.text('as');
  const path = context.text('capability') ?? layoutPaths(data).capability('writer');
  const chain = await readCapability(path);
  if (chain.length === 0)
    throw new HoldfastError(
      'FILE_NOT_FOUND',
      `${path}: no capability to show the key agent; an authority grants one`,
    );
  return new KeyAgentClient({
    url,
    agent,
    signer: await (as === undefined ? openWriter(data) : openKeyOf(as)),
    chain,
  });
}
