// One block on enough disks: the part of put that runs at the door.
//
// The nodes are asked in their placement order, as many at once as copies are wanted. One that refuses or
// fails is replaced by the next; one that is merely slow gets company after `hedgeAfterMs` and still counts
// if it answers first. When no node is left to keep it company, and `enough` copies are made, the slow ones
// are given that long once more and then left to the steward. So a frozen node costs its hedge delay and not
// a time-out.

import type { Block } from '../core/block.ts';
import { servedItsPurpose } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';

/** A storage node that may take a copy, in placement order. */
export interface Candidate {
  readonly peer: PeerName;
  readonly zone: string;
}

/** Where copies were verified and synced. */
export interface StoreReceipt {
  readonly holders: readonly Candidate[];
  /** Copies wanted. Fewer holders than this = short: accepted, healed later, said to the caller. */
  readonly wanted: number;
}

export interface StorePorts {
  /** Reachable nodes for this block, best first, zones spread over every prefix. */
  candidates(block: Block): readonly Candidate[];
  /** Storage nodes that exist at all, reachable or not. */
  nodesCount(): number;
  /** Resolves once the node has verified and synced the block. */
  push(peer: PeerName, block: Block, signal: AbortSignal): Promise<void>;
  /** Resolves after `ms`, rejects with the reason of `signal` when that is aborted. */
  delay(ms: number, signal: AbortSignal): Promise<void>;
}

export interface StoreOptions {
  /** How long a node may be slow before the next one is asked as well, ms. */
  readonly hedgeAfterMs: number;
  /** Copies worth waiting for however long a node takes. Default all that are wanted. */
  readonly enough?: number;
}

/**
 * Stores `block` on `copies` nodes.
 *
 * @returns the holders, fewer than `copies` when fewer nodes can be had
 * @throws QUORUM_UNAVAILABLE when not even two copies (or one, where only one node exists) could be made
 */
export async function storeBlock(
  ports: StorePorts,
  block: Block,
  copies: number,
  options: StoreOptions,
): Promise<StoreReceipt> {
  // 1. The nodes in placement order for this block.
  const waiting = [...ports.candidates(block)];
  const holders: Candidate[] = [];
  const failures: string[] = [];
  const underway = new Set<Promise<void>>();
  const stop = new AbortController();

  const launch = (): boolean => {
    const candidate = waiting.shift();
    if (candidate === undefined) return false;
    const attempt = ports
      .push(candidate.peer, block, stop.signal)
      .then(
        () => void holders.push(candidate),
        (error: unknown) => void failures.push(`${candidate.peer}: ${describeError(error)}`),
      )
      .finally(() => underway.delete(attempt));
    underway.add(attempt);
    return true;
  };

  const enough = Math.min(options.enough ?? copies, copies);
  while (holders.length < copies) {
    // 2. As many at once as copies are wanted; one that failed is replaced by the next.
    while (underway.size < copies - holders.length && launch());
    if (underway.size === 0) break;
    if (waiting.length === 0 && holders.length < enough) await Promise.race(underway);
    // 3. One that is slow gets company.
    else if ((await slowerThan(ports, options.hedgeAfterMs, underway)) && !launch()) break;
  }
  stop.abort(servedItsPurpose);

  // 4. Two copies, or one where there is one node: with fewer nothing is acknowledged.
  const floor = Math.min(2, ports.nodesCount(), copies);
  if (holders.length < Math.max(1, floor)) throw quorumError(block, copies, holders, failures);
  return { holders: holders.slice(), wanted: copies };
}

/** True when none of `underway` settles within `ms`. */
async function slowerThan(
  ports: StorePorts,
  ms: number,
  underway: ReadonlySet<Promise<void>>,
): Promise<boolean> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      ports.delay(ms, timer.signal).then(
        () => true,
        () => false,
      ),
      Promise.race(underway).then(() => false),
    ]);
  } finally {
    timer.abort(servedItsPurpose);
  }
}

function quorumError(
  block: Block,
  copies: number,
  holders: readonly Candidate[],
  failures: readonly string[],
): HoldfastError {
  const reasons = failures.length === 0 ? 'no storage node is reachable' : failures.join('; ');
  return new HoldfastError(
    'QUORUM_UNAVAILABLE',
    `block ${block.cid.toString()} reached ${holders.length} of ${copies} nodes, too few to acknowledge: ${reasons}`,
    { details: { cid: block.cid.toString(), wanted: copies, got: holders.length } },
  );
}
