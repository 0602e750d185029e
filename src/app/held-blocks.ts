// Which blocks the reachable nodes hold, asked of the nodes themselves: the last third of `beacon verify`.

import type { BeaconView } from '../beacon/view.ts';
import type { CID } from '../core/block.ts';
import { grouped, mapInOrder } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { indexBlocks, segmentsOf } from '../manifest/segments.ts';
import { createExchange, type Exchange } from '../node/exchange.ts';
import type { Member } from './member.ts';
import { copiesOn, reachableNodes } from './node-blocks.ts';

/** CIDs in one question. */
const askedAtOnce = 512;
const problemsMax = 1000;

export class HeldBlocks {
  readonly #exchange: Exchange;
  readonly #nodes: readonly PeerName[];
  readonly #signal: AbortSignal;

  constructor(member: Member, signal: AbortSignal) {
    this.#exchange = createExchange(member.peer.rpc);
    this.#nodes = reachableNodes(member.peer);
    this.#signal = signal;
  }

  /** True when a reachable node holds it. */
  async has(cid: CID): Promise<boolean> {
    return (await this.#missing([cid])).length === 0;
  }

  /** Looks up every content block of every version that must be kept. */
  async contentOf(
    view: BeaconView,
  ): Promise<{ readonly blocks: number; readonly problems: readonly string[] }> {
    const problems: string[] = [];
    let blocks = 0;
    for await (const entry of view.catalogue({ signal: this.#signal })) {
      const { cid: root, encryption } = entry.manifest;
      if (!entry.retained || root === null || encryption === null) continue;
      if (segmentsOf(encryption.ctLen) === 1) continue; // the root is the content, and was looked up
      const what = `${entry.address} version ${entry.version}`;
      try {
        const cids = indexBlocks(root, (cid) => this.#index(cid));
        for await (const { asked, missing } of mapInOrder(grouped(cids, askedAtOnce), 2, async (group) => ({
          asked: group.length,
          missing: await this.#missing(group),
        }))) {
          blocks += asked;
          for (const cid of missing)
            problems.push(`${what}: no reachable node holds block ${cid.toString()}`);
        }
      } catch (error) {
        this.#signal.throwIfAborted();
        problems.push(`${what}: its index cannot be read: ${describeError(error)}`);
      }
      if (problems.length >= problemsMax) break;
    }
    return { blocks, problems };
  }

  async #missing(cids: readonly CID[]): Promise<CID[]> {
    const { copies } = await copiesOn(this.#exchange, this.#nodes, cids, { signal: this.#signal });
    return cids.filter((_, index) => copies[index] === 0);
  }

  async #index(cid: CID): Promise<Uint8Array> {
    const block = await this.#exchange.fetchBlock(cid, this.#nodes, { signal: this.#signal });
    if (block !== undefined) return block.bytes;
    throw new HoldfastError('BLOCK_UNAVAILABLE', `no reachable node has index block ${cid.toString()}`);
  }
}
