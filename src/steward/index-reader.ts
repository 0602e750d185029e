// Reads indexes of large objects from their holders: only then is every block that the object needs known.

import { type CID, matchesCid } from '../core/block.ts';
import type { Clock } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { RpcClient } from '../core/rpc.ts';
import { indexBlocks } from '../manifest/segments.ts';
import type { Notices } from './notices.ts';
import type { PlanNode } from './plan.ts';
import type { ObjectView } from './view.ts';
import { readFound } from './wire.ts';

const indexesAtOnce = 4;
/** Indexes taken up in one run: a round begins the next. */
const indexesPerRun = 16 * indexesAtOnce;

export interface IndexReaderPorts {
  readonly rpc: RpcClient;
  readonly view: ObjectView;
  readonly clock: Clock;
  readonly notices: Notices;
  /** One block, ms. */
  readonly deadlineMs: number;
  /** By the ledger's node numbers. */
  nodes(): readonly PlanNode[];
}

export class IndexReader {
  readonly #ports: IndexReaderPorts;
  readonly #signal: AbortSignal;
  #reading = false;

  constructor(ports: IndexReaderPorts, signal: AbortSignal) {
    this.#ports = ports;
    this.#signal = signal;
  }

  /** A run over some of those that wait; undefined while one is under way, or none waits. */
  run(): Promise<void> | undefined {
    const { view } = this.#ports;
    if (this.#reading || view.pendingCount === 0) return undefined;
    this.#reading = true;
    const pending = view.pendingIndexes(indexesPerRun);
    const lanes = Array.from({ length: indexesAtOnce }, async () => {
      for (let next = pending.shift(); next !== undefined; next = pending.shift()) await this.#read(next);
    });
    return Promise.all(lanes).then(() => {
      this.#reading = false;
    });
  }

  async #read({ manifest, root }: { readonly manifest: CID; readonly root: CID }): Promise<void> {
    const { view, clock, notices } = this.#ports;
    try {
      const blocks: CID[] = [];
      for await (const cid of indexBlocks(root, (index) => this.#load(index))) blocks.push(cid);
      view.indexRead(manifest, root, blocks, clock.now());
    } catch (error) {
      view.indexFailed(manifest);
      if (!this.#signal.aborted) notices.problem(`index ${root.toString()}`, describeError(error));
    }
  }

  /** An index block from any holder that answers with the right bytes. */
  async #load(cid: CID): Promise<Uint8Array> {
    const { rpc, view, deadlineMs } = this.#ports;
    const { ledger } = view;
    const nodes = this.#ports.nodes();
    const slot = ledger.find(cid);
    const holders = slot < 0 ? [] : ledger.holderNodes(slot).filter((node) => nodes[node]?.state === 'up');
    const options = { timeoutMs: deadlineMs, signal: this.#signal, lane: 'bulk' } as const;
    let cause: unknown;
    for (const node of holders) {
      try {
        const { head, body } = await rpc.call(ledger.peer(node), 'block.get', { head: { cid } }, options);
        if (readFound(head) && matchesCid(cid, body)) return body;
      } catch (error) {
        cause = error;
      }
    }
    throw new HoldfastError(
      'BLOCK_UNAVAILABLE',
      `none of ${holders.length} live holders gave ${cid.toString()}`,
      { cause },
    );
  }
}
