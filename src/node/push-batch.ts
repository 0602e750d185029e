// Small blocks on their way to one peer, sent together.
//
// A put of a small object pushes several blocks to each of several nodes, and many puts run at once. One call
// for each would cost more in frames and sockets than the blocks themselves. So those of the same moment share
// a call, and at the node one flush of the disk; and while a node is busy with some calls, what comes meanwhile
// shares the next. Each keeps an answer of its own.

import type { Block } from '../core/block.ts';
import { concat } from '../core/bytes.ts';
import { type ErrorCode, errorCatalogue, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcCallOptions, RpcClient } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';

/** Larger blocks travel alone: joining them would copy them for nothing. */
export const pushTogetherBytesMax = 65_536;
/** One call: together less than an RPC body, and not more than the node writes at once. */
const batchBytesMax = 512 * 1024;
export const batchBlocksMax = 16;
/** Calls to one peer under way. A second one keeps its disk busy while the answer to the first travels. */
const callsUnderwayMax = 2;

type PushResult = 'stored' | 'present';

interface Waiting {
  readonly block: Block;
  readonly resolve: (result: PushResult) => void;
  readonly reject: (error: unknown) => void;
}

export class PushBatches {
  readonly #rpc: RpcClient;
  readonly #callOptions: () => RpcCallOptions;
  readonly #waiting = new Map<PeerName, Waiting[]>();
  readonly #underway = new Map<PeerName, number>();

  constructor(rpc: RpcClient, callOptions: () => RpcCallOptions) {
    this.#rpc = rpc;
    this.#callOptions = callOptions;
  }

  /** Resolves once `peer` has verified and synced the block. */
  push(peer: PeerName, block: Block): Promise<PushResult> {
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(peer);
      if (waiting !== undefined) {
        waiting.push({ block, resolve, reject });
        return;
      }
      this.#waiting.set(peer, [{ block, resolve, reject }]);
      setImmediate(() => this.#sendSome(peer));
    });
  }

  /** As many batches as may be under way; the next ones go when one of these is answered. */
  #sendSome(peer: PeerName): void {
    const batches = cut(this.#waiting.get(peer) ?? []);
    this.#waiting.delete(peer);
    let underway = this.#underway.get(peer) ?? 0;
    for (const batch of batches.splice(0, callsUnderwayMax - underway)) {
      underway += 1;
      void this.#send(peer, batch).finally(() => {
        this.#underway.set(peer, (this.#underway.get(peer) ?? 1) - 1);
        this.#sendSome(peer);
      });
    }
    this.#underway.set(peer, underway);
    if (batches.length > 0) this.#waiting.set(peer, batches.flat());
  }

  async #send(peer: PeerName, batch: readonly Waiting[]): Promise<void> {
    try {
      const head = { blocks: batch.map(({ block }) => ({ cid: block.cid, size: block.bytes.length })) };
      const body = concat(...batch.map(({ block }) => block.bytes));
      const answer = await this.#rpc.call(peer, 'block.putMany', { head, body }, this.#callOptions());
      const results = fieldOf(answer.head, 'results');
      if (!Array.isArray(results) || results.length !== batch.length) throw badAnswer(peer);
      for (const [index, waiting] of batch.entries()) settle(peer, waiting, results[index]);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}

function settle(peer: PeerName, { resolve, reject }: Waiting, result: unknown): void {
  if (result === 'stored' || result === 'present') {
    resolve(result);
    return;
  }
  const code = fieldOf(result, 'code');
  const message = fieldOf(result, 'message');
  reject(
    isErrorCode(code) && typeof message === 'string' ? new HoldfastError(code, message) : badAnswer(peer),
  );
}

function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && value in errorCatalogue;
}

function cut(gathered: readonly Waiting[]): Waiting[][] {
  const batches: Waiting[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const waiting of gathered) {
    const { length } = waiting.block.bytes;
    const last = batches.at(-1);
    if (last === undefined || bytes + length > batchBytesMax || last.length >= batchBlocksMax) {
      batches.push([waiting]);
      bytes = length;
    } else {
      last.push(waiting);
      bytes += length;
    }
  }
  return batches;
}

function badAnswer(peer: PeerName): HoldfastError {
  return new HoldfastError('PEER_REFUSED', `${peer} gave a malformed answer to block.putMany`);
}
