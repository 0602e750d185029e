// One block from wherever it is: the part of get that runs at the door.
//
// Order of asking: the nodes that placement names (usually right, costs no lookup), then the holders that
// the steward has proven, then whoever announces it in the DHT. The steward may be dead, the DHT may be
// slow: either alone is enough, and so is neither while placement holds.

import type { Block, CID } from '../core/block.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';

export interface FetchPorts {
  /** Reachable nodes in placement order. */
  placed(cid: CID): readonly PeerName[];
  /** Nodes that the steward counts as holders. May reject: that is one source fewer. */
  holders(cid: CID): Promise<readonly PeerName[]>;
  /** Peers that announce the CID in the DHT. May reject. */
  providers(cid: CID): Promise<readonly PeerName[]>;
  /**
   * Tries the sources in turn with hedging; verified against the CID on arrival.
   * `undefined` when all of them answered that they do not have it or failed.
   */
  fetch(cid: CID, sources: readonly PeerName[], signal: AbortSignal): Promise<Block | undefined>;
}

/**
 * @returns the block, its bytes verified
 * @throws BLOCK_UNAVAILABLE naming the CID and who was asked
 */
export async function fetchBlock(ports: FetchPorts, cid: CID, signal: AbortSignal): Promise<Block> {
  const asked = new Set<PeerName>();
  const trouble: string[] = [];
  for (const [origin, find] of [
    // 1. Where placement would have put it.
    ['placement', async () => ports.placed(cid)],
    // 2. Where the steward knows it to be.
    ['steward', () => ports.holders(cid)],
    // 3. Where somebody says it is.
    ['DHT', () => ports.providers(cid)],
  ] as const) {
    signal.throwIfAborted();
    try {
      const sources = (await find()).filter((peer) => !asked.has(peer));
      if (sources.length === 0) continue;
      for (const peer of sources) asked.add(peer); // nobody is asked twice
      // 4. Checked against the CID on arrival.
      const block = await ports.fetch(cid, sources, signal);
      if (block !== undefined) return block;
    } catch (error) {
      signal.throwIfAborted();
      trouble.push(`${origin}: ${describeError(error)}`);
    }
  }
  const why = trouble.length === 0 ? '' : ` (${trouble.join('; ')})`;
  throw new HoldfastError(
    'BLOCK_UNAVAILABLE',
    `none of ${asked.size} nodes asked gave block ${cid.toString()}${why}`,
    {
      details: { cid: cid.toString(), asked: [...asked] },
    },
  );
}
