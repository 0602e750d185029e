// The Beacon log of another process, over RPC.
//
// An append that was sent and not answered may or may not have taken effect. So every append gets an id here,
// and is sent again with the same id until it is answered: the engine recognises it and answers with the entry
// that it made the first time.

import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { sameBytes } from '../core/bytes.ts';
import { second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient, RpcMessage } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { parseLineage } from './lineage.ts';
import {
  type Append,
  appendIdBytes,
  type BeaconLog,
  decodeEntry,
  encodeAppend,
  type LogEntry,
  type LogHead,
  type LogPosition,
  nextChain,
} from './log.ts';
import { parsePageHead, parsePosition } from './serve.ts';
import { pageSlabs, snapshotForm } from './snapshot.ts';

export interface RemoteLogOptions {
  /** How long an append is sent again before it fails with BEACON_UNAVAILABLE, ms. Default 15 s; 0: sent once. */
  readonly retryMs?: number;
  /** Answers, and signs of life in a stream, must come within this time, ms. Default 10 s. */
  readonly timeoutMs?: number;
  /** First pause before sending again, ms; doubles up to 2 s. Default 100. */
  readonly pauseMs?: number;
  /** What the methods are called: `NAME.head` and so on. Default `beacon`; see `serveReading` for others. */
  readonly name?: string;
}

export class RemoteLog implements BeaconLog {
  readonly #rpc: RpcClient;
  readonly #peer: () => PeerName;
  readonly #options: Required<RemoteLogOptions>;
  readonly #closing = new AbortController();

  /** `peer`: who serves the log now; asked before each call, since a cluster may move it. */
  constructor(rpc: RpcClient, peer: () => PeerName, options: RemoteLogOptions = {}) {
    this.#rpc = rpc;
    this.#peer = peer;
    this.#options = {
      retryMs: 15 * second,
      timeoutMs: 10 * second,
      pauseMs: 100,
      name: 'beacon',
      ...options,
    };
  }

  async append(append: Append, options: { readonly signal?: AbortSignal } = {}): Promise<LogEntry> {
    const named = append.id === undefined ? { ...append, id: randomBytes(appendIdBytes) } : append;
    const message = { head: {}, body: encodeAppend(named) };
    const { head, body } = await this.#callUntilAnswered(
      `${this.#options.name}.append`,
      message,
      options.signal,
    );
    const { revision, chain } = parsePosition(head);
    return decodeEntry(revision, chain, body);
  }

  async *read(from: number, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<LogEntry> {
    const signal = this.#signal(options.signal);
    const { timeoutMs } = this.#options;
    if (Math.max(1, from) > (await this.head()).revision) return;
    const message = { head: { from: Math.max(1, from) } };
    yield* entriesOf(
      this.#rpc.stream(this.#peer(), `${this.#options.name}.read`, message, { signal, timeoutMs }),
    );
  }

  /** Throws PEER_UNREACHABLE or TIMEOUT when the connection is lost: whoever follows begins again (view.ts). */
  async *watch(from: number, options: { readonly signal: AbortSignal }): AsyncGenerator<LogEntry> {
    const signal = this.#signal(options.signal);
    const message = { head: { from: Math.max(1, from) } };
    try {
      const { timeoutMs } = this.#options;
      yield* entriesOf(
        this.#rpc.stream(this.#peer(), `${this.#options.name}.watch`, message, { signal, timeoutMs }),
      );
    } catch (error) {
      if (!options.signal.aborted) throw error;
    }
  }

  async *snapshot(options: { readonly signal: AbortSignal }): AsyncGenerator<Uint8Array> {
    const signal = this.#signal(options.signal);
    const { timeoutMs } = this.#options;
    const pages = this.#rpc.stream(
      this.#peer(),
      `${this.#options.name}.snapshot`,
      { head: { form: snapshotForm } },
      { signal, timeoutMs, lane: 'bulk', memory: (sizeBytes) => pageSlabs.take(sizeBytes) },
    );
    for await (const { body } of pages) yield body;
  }

  async head(): Promise<LogHead> {
    const { timeoutMs } = this.#options;
    const signal = this.#closing.signal;
    const answer = await this.#rpc.call(
      this.#peer(),
      `${this.#options.name}.head`,
      { head: {} },
      { timeoutMs, signal },
    );
    const lineage = parseLineage(fieldOf(answer.head, 'lineage'));
    return { ...parsePosition(answer.head), ...(lineage === undefined ? {} : { lineage }) };
  }

  /** Ends calls under way. The log at the other end stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new HoldfastError('BEACON_UNAVAILABLE', 'the log is closed'));
  }

  async #callUntilAnswered(
    method: string,
    message: RpcMessage,
    callerSignal: AbortSignal | undefined,
  ): Promise<Required<RpcMessage>> {
    const { retryMs, timeoutMs, pauseMs } = this.#options;
    const signal = this.#signal(callerSignal);
    const giveUpAt = performance.now() + retryMs;
    for (let pause = pauseMs; ; pause = Math.min(2 * pause, 2 * second)) {
      try {
        return await this.#rpc.call(this.#peer(), method, message, { signal, timeoutMs });
      } catch (cause) {
        signal.throwIfAborted();
        if (!isUnanswered(cause) && !isMoving(cause)) throw cause;
        if (performance.now() + pause >= giveUpAt) throw isMoving(cause) ? cause : unavailable(cause);
      }
      await delay(pause, undefined, { signal });
    }
  }

  #signal(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#closing.signal : AbortSignal.any([this.#closing.signal, signal]);
  }
}

/** Entries out of pages, their chain computed from where the pages say they begin. */
async function* entriesOf(pages: AsyncIterable<Required<RpcMessage>>): AsyncGenerator<LogEntry> {
  let position: LogPosition | undefined;
  for await (const { head, body } of pages) {
    const { revision, chain, sizes } = parsePageHead(head);
    position ??= { revision, chain };
    if (revision !== position.revision || !sameBytes(chain, position.chain)) {
      throw new HoldfastError('RECORD_CORRUPT', `log entries after ${position.revision} do not follow it`);
    }
    let offset = 0;
    for (const size of sizes) {
      const payload = body.subarray(offset, offset + size);
      offset += size;
      const entry = decodeEntry(position.revision + 1, nextChain(position, payload), payload);
      position = { revision: entry.revision, chain: entry.chain };
      yield entry;
    }
  }
}

function isUnanswered(error: unknown): boolean {
  return isHoldfastError(error, 'PEER_UNREACHABLE') || isHoldfastError(error, 'TIMEOUT');
}

/** The log is being put elsewhere: it takes the append there, or here again, in a moment. */
function isMoving(error: unknown): boolean {
  return isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['moving'] === true;
}

function unavailable(cause: unknown): HoldfastError {
  return new HoldfastError(
    'BEACON_UNAVAILABLE',
    'the Beacon did not answer; the append may have taken effect, sending it again with the same id is safe',
    { cause },
  );
}
