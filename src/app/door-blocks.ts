// The door's way to blocks: where they go, where they are found, and how many nodes vouch for them.

import { type Block, CID, codecRaw } from '../core/block.ts';
import type { ProviderInfo } from '../api/types.ts';
import { second } from '../core/clock.ts';
import { Gate } from '../core/concurrency.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { fetchBlock } from '../flows/fetch.ts';
import type { Copies } from '../flows/put.ts';
import { storeBlock } from '../flows/store.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import { createExchange, type Exchange } from '../node/exchange.ts';
import type { NodePeer } from '../node/peer.ts';
import { findProviders } from '../node/providers.ts';
import type { PlacementMember } from '../steward/place.ts';
import { Leases } from './leases.ts';
import { peersWithRole, systemClock } from './member.ts';
import { copiesOn, rankedNodes } from './node-blocks.ts';
import { Receipts } from './receipts.ts';
import type { StewardClient } from './steward-client.ts';

/** Blocks under way to the nodes, over all requests: each is up to 256 KiB times its copies. */
const storesUnderway = 16;
const fetchesUnderway = 16;
/** Bytes on their way to and from nodes, copies counted: half of what the nodes can take keeps them busy. */
const exchangeWindowBytes = 16 * 1024 * 1024;
const hedgeAfterMs = 1 * second;
const callMs = 5 * second;

export class DoorBlocks {
  readonly #peer: NodePeer;
  readonly #steward: StewardClient;
  readonly #exchange: Exchange;
  readonly #receipts = new Receipts(() => systemClock.monotonic());
  readonly #leases: Leases;
  readonly #storing = new Gate(storesUnderway);
  readonly #fetching = new Gate(fetchesUnderway);
  readonly #free = new Map<PeerName, number>();
  #freeAt = Number.NEGATIVE_INFINITY;

  constructor(peer: NodePeer, steward: StewardClient) {
    this.#peer = peer;
    this.#steward = steward;
    this.#exchange = createExchange(peer.rpc, { windowBytes: exchangeWindowBytes });
    this.#leases = new Leases((cids) => steward.stage(cids), this.#receipts);
  }

  /** Renews leases of uploads under way, and of what is pinned, until the stack is disposed. */
  keepLeases(stack: AsyncDisposableStack, pinned: () => readonly CID[]): void {
    this.#leases.keep(stack, pinned);
  }

  /** Leases blocks at the steward for a quarter of an hour. */
  async lease(cids: readonly CID[]): Promise<void> {
    await this.#leases.lease(cids);
  }

  /** All storage nodes of the membership, reachable or not. */
  nodes(): PeerName[] {
    return peersWithRole(this.#peer.membership(), 'node');
  }

  /** Leases and stores them: content on `min` nodes, index blocks on `max`. Throws QUORUM_UNAVAILABLE. */
  async store(blocks: readonly Block[], policy: ReplicationPolicy): Promise<Copies> {
    await Promise.all([this.#refreshFree(), this.#leases.lease(blocks.map(({ cid }) => cid))]);
    const all = await Promise.all(
      // Index blocks are worth all they list: they get as many copies as records do.
      blocks.map((block) =>
        this.#storeOne(block, block.cid.code === codecRaw ? policy.min : policy.max, policy.min),
      ),
    );
    const copies = Math.min(...all.map((each) => each.copies));
    return { copies, wanted: policy.min };
  }

  /** Leases and stores a record, on up to `max` nodes. Throws QUORUM_UNAVAILABLE. */
  async storeRecord(block: Block, policy: ReplicationPolicy): Promise<Copies> {
    await this.#leases.lease([block.cid]);
    return this.#storeOne(block, policy.max, policy.min);
  }

  /** In the order asked. Throws BLOCK_UNAVAILABLE, TIMEOUT, or the reason of `signal`. */
  async load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]> {
    return Promise.all(
      cids.map((cid) =>
        this.#fetching.run(() =>
          fetchBlock(
            {
              placed: (each) => this.#ranked(each).map(({ peer }) => peer),
              holders: (each) => this.#steward.holders(each),
              providers: async (each) => (await this.#find(each, signal)).map(({ peer }) => peer),
              fetch: (each, sources, stop) => this.#exchange.fetchBlock(each, sources, { signal: stop }),
            },
            cid,
            signal,
          ),
        ),
      ),
    );
  }

  /** Peers that announce the block in the DHT. */
  async discover(cid: CID, signal: AbortSignal): Promise<readonly ProviderInfo[]> {
    return (await this.#find(cid, signal)).map(({ peer, addrs }) => ({ peer, addrs: addrs.map(String) }));
  }

  /** Has its holders announce the block again now; how many do. */
  async announce(cid: CID): Promise<number> {
    const asked = await Promise.allSettled(
      this.#ranked(cid).map(({ peer }) =>
        this.#peer.rpc.call(peer, 'block.announce', { head: { cids: [cid] } }, { timeoutMs: callMs }),
      ),
    );
    return asked.filter((each) => each.status === 'fulfilled' && fieldOf(each.value.head, 'announced') === 1)
      .length;
  }

  /** On how many nodes each block is: as this door remembers, else as the nodes say, under a lease. */
  async copiesOf(cids: readonly CID[]): Promise<number[]> {
    const unknown = cids.filter((cid) => this.#receipts.copies(cid) === undefined);
    await this.#leases.lease(unknown); // first: what is counted must not be collected before it is registered
    const { copies } = await copiesOn(this.#exchange, this.nodes(), unknown, { timeoutMs: callMs });
    const counts = new Map(unknown.map((cid, index) => [cid.toString(), copies[index] ?? 0] as const));
    return cids.map((cid) => this.#receipts.copies(cid) ?? counts.get(cid.toString()) ?? 0);
  }

  /** Those of `cids` that this door remembers to have stored. */
  remembered(cids: readonly CID[]): CID[] {
    return cids.filter((cid) => this.#receipts.copies(cid) !== undefined);
  }

  /** Forgets blocks whose object is registered now. */
  settle(cids: readonly CID[]): void {
    this.#receipts.settle(cids);
  }

  /** Tries for `copies`; `wanted` of them are what the caller is told of. */
  async #storeOne(block: Block, copies: number, wanted: number): Promise<Copies> {
    let isFresh = true;
    const receipt = await this.#storing.run(() =>
      storeBlock(
        {
          candidates: (each) => this.#ranked(each.cid),
          nodesCount: () => this.nodes().length,
          push: async (peer, each, signal) => {
            if ((await this.#exchange.pushBlock(peer, each, { signal })) === 'present') isFresh = false;
          },
          delay,
        },
        block,
        Math.min(copies, this.nodes().length),
        { hedgeAfterMs, enough: wanted },
      ),
    );
    // A copy that was there already may be about to be collected: registering asks for it again.
    if (isFresh) this.#receipts.add(block.cid, receipt.holders.length);
    return { copies: receipt.holders.length, wanted };
  }

  /** Reachable nodes in placement order for a CID. */
  #ranked(cid: CID): PlacementMember[] {
    return rankedNodes(this.#peer, cid, (node) => this.#free.get(node) ?? 1);
  }

  async #refreshFree(): Promise<void> {
    const now = systemClock.monotonic();
    if (now - this.#freeAt < 5 * second) return;
    this.#freeAt = now;
    try {
      const { nodes } = await this.#steward.status();
      for (const node of nodes)
        this.#free.set(node.peer, node.state === 'read-only' ? 0 : (node.freeBytes ?? 1));
    } catch {
      // Without a steward nobody knows how full they are: a full node refuses, and the next one is asked.
    }
  }

  #find(cid: CID, signal: AbortSignal): ReturnType<typeof findProviders> {
    return findProviders(this.#peer, cid, { signal, enough: this.nodes().length });
  }
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
