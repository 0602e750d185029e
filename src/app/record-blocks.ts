// All signed records that the storage nodes hold, for a registry that is made again from them. A node that is not asked
// may be the last one that holds some record: so each is asked, or a person has said that it is to be done without.

import { setTimeout as delay } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { isRecordBytes } from '../manifest/record.ts';
import { memberOf } from '../node/membership.ts';
import type { NodePeer } from '../node/peer.ts';
import { peersWithRole } from './member.ts';

/** A process that has just started is still connecting to the others. */
const connectMs = 15 * second;
const pollMs = 100;
/** A node that gives nothing for so long has failed. */
const silenceMs = 60 * second;

/**
 * The storage nodes to ask: every member but those that `without` names. Throws PEER_UNREACHABLE naming those that are
 * not connected, ARGUMENT_INVALID for a name that no storage node has or when nobody would be left.
 */
export async function nodesToAsk(
  peer: Pick<NodePeer, 'membership' | 'connected'>,
  without: readonly string[],
  signal: AbortSignal,
  waitMs = connectMs,
): Promise<PeerName[]> {
  const membership = peer.membership();
  const nodes = new Map(
    peersWithRole(membership, 'node').map((each) => [memberOf(membership, each)?.name ?? each, each]),
  );
  const strange = without.filter((name) => !nodes.has(name));
  if (strange.length > 0)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `no storage node is called ${strange.join(', ')}; there are ${[...nodes.keys()].join(', ')}`,
    );
  const wanted = [...nodes].filter(([name]) => !without.includes(name));
  if (wanted.length === 0)
    throw new HoldfastError('ARGUMENT_INVALID', 'nobody would be left to ask: leave out fewer storage nodes');
  const deadline = performance.now() + waitMs;
  for (;;) {
    const up = new Set(peer.connected());
    const missing = wanted.filter(([, each]) => !up.has(each)).map(([name]) => name);
    if (missing.length === 0) return wanted.map(([, each]) => each);
    if (performance.now() >= deadline) throw unreachable(missing, without);
    await delay(pollMs, undefined, { signal });
  }
}

/** What `nodes` hold, as it comes; the same block may come from several. Throws when one of them fails. */
export async function* recordBlocks(
  { rpc }: Pick<NodePeer, 'rpc'>,
  nodes: readonly PeerName[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const options = { signal, lane: 'bulk', timeoutMs: silenceMs } as const;
  for (const node of nodes)
    for await (const { body } of rpc.stream(node, 'block.records', { head: {} }, options))
      if (isRecordBytes(body)) yield body;
}

function unreachable(missing: readonly string[], without: readonly string[]): HoldfastError {
  const names = [...without, ...missing].join(',');
  return new HoldfastError(
    'PEER_UNREACHABLE',
    `${missing.join(', ')} cannot be asked, and may hold what nobody else does. Start what is down; for nodes that never come back: holdfast beacon rebuild --without ${names}`,
    { details: { missing } },
  );
}
