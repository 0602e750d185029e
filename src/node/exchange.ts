// Blocks from and to other members: the client side of block transfer.
//
// One source at a time. A source that is slow gets company after a while, a source that fails is followed
// by the next at once, and whoever first delivers bytes that hash to the CID wins. Bytes that do not are
// reported, and that source is not asked for that block again.
//
// What bounds the traffic is bytes, not the number of wants: bitswap drops every want over 1,024 and never
// asks again, and a server that loads every wanted block first needs the memory of all of them. Here any
// number of wants may stand, and as many are under way as fit in the window.

import { type Block, type CID, verifiedBlock } from '../core/block.ts';
import { servedItsPurpose, unlessAborted } from '../core/concurrency.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import type { PeerName, RpcCallOptions, RpcClient } from '../core/rpc.ts';
import { PushBatches, pushTogetherBytesMax } from './push-batch.ts';

export interface ExchangeOptions {
  /** Bytes that fetches and pushes under way may hold together. Default 64 MiB; at least one block. */
  readonly windowBytes?: number;
  /** Longest wait for one source's answer, ms. Default 10,000. */
  readonly requestMs?: number;
  /** Told of a source whose bytes did not hash to the CID. Must not throw. */
  readonly onWrongBytes?: (event: { readonly cid: CID; readonly peer: PeerName }) => void;
  /** Told of every source that failed to answer, wrong bytes included. Must not throw. */
  readonly onFailure?: (event: {
    readonly cid: CID;
    readonly peer: PeerName;
    readonly error: unknown;
  }) => void;
}

export interface FetchOptions {
  readonly signal?: AbortSignal;
  /** How long a source may be silent before the next is asked as well, ms. Default 300; 0 = all at once. */
  readonly hedgeAfterMs?: number;
  /** Size, if known: more fits in the window. Larger answers are still taken. Default: the largest block. */
  readonly sizeBytes?: number;
}

export type CallOptions = Pick<RpcCallOptions, 'signal' | 'timeoutMs'>;

export interface Exchange {
  /**
   * Asks `sources` in order. Two calls for one CID share one transfer, and the sources of both.
   * @returns the block, verified; `undefined` when every source answered that it has none, or failed
   * @throws the signal's reason when aborted
   */
  fetchBlock(cid: CID, sources: readonly PeerName[], options?: FetchOptions): Promise<Block | undefined>;
  /** Resolves once `peer` has verified and synced the block. Throws PEER_UNREACHABLE, TIMEOUT or its answer. */
  pushBlock(
    peer: PeerName,
    block: Block,
    options?: { readonly signal?: AbortSignal },
  ): Promise<'stored' | 'present'>;
  /** Which of `cids` (at most 1,024) `peer` has, in their order. */
  hasBlocks(peer: PeerName, cids: readonly CID[], options?: CallOptions): Promise<boolean[]>;
  status(): ExchangeStatus;
}

export interface ExchangeStatus {
  /** Fetches that callers wait for, by CID. */
  readonly fetchesCount: number;
  /** Bytes of the window taken now. */
  readonly windowUsedBytes: number;
  /** Most of it that was ever taken. */
  readonly windowPeakBytes: number;
  readonly wrongBytesCount: number;
  readonly hedgedCount: number;
  readonly fetchedBytes: number;
  readonly pushedBytes: number;
}

const windowBytesDefault = 64 * 1024 * 1024;
const requestMsDefault = 10_000;
const hedgeAfterMsDefault = 300;
/** Pairs of source and block that are remembered as wrong; the oldest is forgotten first. */
const wrongPairsMax = 4096;

export function createExchange(rpc: RpcClient, options: ExchangeOptions = {}): Exchange {
  return new BlockExchange(rpc, options);
}

class BlockExchange implements Exchange {
  readonly #rpc: RpcClient;
  readonly #options: ExchangeOptions;
  readonly #window: ByteWindow;
  readonly #batches: PushBatches;
  readonly #flights = new Map<string, Flight>();
  readonly #wrong = new Set<string>();
  #wrongBytesCount = 0;
  #hedgedCount = 0;
  #fetchedBytes = 0;
  #pushedBytes = 0;

  constructor(rpc: RpcClient, options: ExchangeOptions) {
    this.#rpc = rpc;
    this.#options = options;
    this.#batches = new PushBatches(rpc, () => this.#callOptions(undefined));
    this.#window = new ByteWindow(Math.max(blockBytesMax, options.windowBytes ?? windowBytesDefault));
  }

  async fetchBlock(
    cid: CID,
    sources: readonly PeerName[],
    options: FetchOptions = {},
  ): Promise<Block | undefined> {
    options.signal?.throwIfAborted();
    const key = cid.toString();
    let flight = this.#flights.get(key);
    if (flight === undefined || flight.stop.signal.aborted) flight = this.#launch(key, cid, sources, options);
    else flight.add(sources);
    return waitFor(flight, options.signal);
  }

  #launch(key: string, cid: CID, sources: readonly PeerName[], options: FetchOptions): Flight {
    const flight = new Flight(cid);
    this.#flights.set(key, flight);
    flight.add(sources);
    flight.outcome = this.#fly(flight, options).finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    flight.outcome.catch(() => undefined); // every waiter gets it by its own race
    return flight;
  }

  async pushBlock(
    peer: PeerName,
    block: Block,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<'stored' | 'present'> {
    const release = await this.#window.take(block.bytes.length, options.signal);
    try {
      if (block.bytes.length < pushTogetherBytesMax) {
        const pushed = await unlessAborted(this.#batches.push(peer, block), options.signal);
        this.#pushedBytes += block.bytes.length;
        return pushed;
      }
      const answer = await this.#rpc.call(
        peer,
        'block.put',
        { head: { cid: block.cid }, body: block.bytes },
        this.#callOptions(options.signal),
      );
      const result = field(answer.head, 'result');
      if (result !== 'stored' && result !== 'present') throw badAnswer(peer, 'block.put');
      this.#pushedBytes += block.bytes.length;
      return result;
    } finally {
      release();
    }
  }

  async hasBlocks(peer: PeerName, cids: readonly CID[], options: CallOptions = {}): Promise<boolean[]> {
    const answer = await this.#rpc.call(peer, 'block.has', { head: { cids: [...cids] } }, options);
    const have = field(answer.head, 'have');
    if (!Array.isArray(have) || have.length !== cids.length) throw badAnswer(peer, 'block.has');
    return have.map((each) => each === true);
  }

  status(): ExchangeStatus {
    return {
      fetchesCount: this.#flights.size,
      windowUsedBytes: this.#window.usedBytes,
      windowPeakBytes: this.#window.peakBytes,
      wrongBytesCount: this.#wrongBytesCount,
      hedgedCount: this.#hedgedCount,
      fetchedBytes: this.#fetchedBytes,
      pushedBytes: this.#pushedBytes,
    };
  }

  // The window is taken once per flight and not per source: what a losing source still sends is dropped
  // by the abort, and hedges of one block never hold more than the block.
  async #fly(flight: Flight, options: FetchOptions): Promise<Block | undefined> {
    const sizeBytes = Math.min(options.sizeBytes ?? blockBytesMax, blockBytesMax);
    const release = await this.#window.take(sizeBytes, flight.stop.signal);
    try {
      return await this.#race(flight, options.hedgeAfterMs ?? hedgeAfterMsDefault);
    } finally {
      flight.stop.abort(servedItsPurpose);
      release();
    }
  }

  async #race(flight: Flight, hedgeAfterMs: number): Promise<Block | undefined> {
    const underway = new Set<Promise<Block | undefined>>();
    for (;;) {
      flight.stop.signal.throwIfAborted();
      const peer = flight.next((each) => !this.#wrong.has(pairKey(each, flight.cid)));
      if (peer !== undefined) {
        if (underway.size > 0) this.#hedgedCount++;
        const attempt: Promise<Block | undefined> = this.#ask(peer, flight).finally(() =>
          underway.delete(attempt),
        );
        underway.add(attempt);
      } else if (underway.size === 0) return undefined;
      const found = await firstFound(underway, flight.hasNext() ? hedgeAfterMs : undefined, flight.joined);
      if (found !== undefined) return found;
    }
  }

  /** One source's block, or `undefined` when it has none, fails or lies: the reason counts, not the kind. */
  async #ask(peer: PeerName, flight: Flight): Promise<Block | undefined> {
    try {
      const answer = await this.#rpc.call(
        peer,
        'block.get',
        { head: { cid: flight.cid } },
        this.#callOptions(flight.stop.signal),
      );
      if (field(answer.head, 'found') !== true) return undefined;
      const block = verifiedBlock(flight.cid, answer.body, peer);
      this.#fetchedBytes += block.bytes.length;
      return block;
    } catch (error) {
      if (flight.stop.signal.aborted) return undefined; // it lost the race, or nobody waits any more
      if (isHoldfastError(error, 'BLOCK_CORRUPT') && error.details['origin'] === peer)
        this.#distrust(peer, flight.cid);
      this.#options.onFailure?.({ cid: flight.cid, peer, error });
      return undefined;
    }
  }

  #distrust(peer: PeerName, cid: CID): void {
    const oldest = this.#wrong.values().next();
    if (this.#wrong.size >= wrongPairsMax && oldest.done !== true) this.#wrong.delete(oldest.value);
    this.#wrong.add(pairKey(peer, cid));
    this.#wrongBytesCount++;
    this.#options.onWrongBytes?.({ cid, peer });
  }

  #callOptions(signal: AbortSignal | undefined) {
    const timeoutMs = this.#options.requestMs ?? requestMsDefault;
    return { lane: 'bulk' as const, timeoutMs, ...(signal === undefined ? {} : { signal }) };
  }
}

/** One CID on its way, with everybody who waits for it. Ends when the block is there or nobody waits. */
class Flight {
  readonly cid: CID;
  readonly stop = new AbortController();
  outcome: Promise<Block | undefined> = Promise.resolve(undefined);
  waiters = 0;
  /** Resolves when a source was added, so that a race that has run out of sources goes on. */
  joined: Promise<void>;
  #wake: () => void = () => undefined;
  readonly #queue: PeerName[] = [];
  readonly #known = new Set<PeerName>();

  constructor(cid: CID) {
    this.cid = cid;
    this.joined = this.#nextJoin();
  }

  add(sources: readonly PeerName[]): void {
    let added = false;
    for (const source of sources) {
      if (this.#known.has(source)) continue;
      this.#known.add(source);
      this.#queue.push(source);
      added = true;
    }
    if (!added) return;
    const wake = this.#wake;
    this.joined = this.#nextJoin();
    wake();
  }

  hasNext(): boolean {
    return this.#queue.length > 0;
  }

  next(allowed: (peer: PeerName) => boolean): PeerName | undefined {
    for (let peer = this.#queue.shift(); peer !== undefined; peer = this.#queue.shift()) {
      if (allowed(peer)) return peer;
    }
    return undefined;
  }

  #nextJoin(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

async function waitFor(flight: Flight, signal: AbortSignal | undefined): Promise<Block | undefined> {
  flight.waiters++;
  try {
    return await unlessAborted(flight.outcome, signal);
  } finally {
    flight.waiters--;
    if (flight.waiters === 0) flight.stop.abort(servedItsPurpose);
  }
}

/**
 * The first block among `underway`; `undefined` as soon as one attempt ends without a block, a source
 * joins, or `hedgeAfterMs` pass.
 */
async function firstFound(
  underway: ReadonlySet<Promise<Block | undefined>>,
  hedgeAfterMs: number | undefined,
  joined: Promise<void>,
): Promise<Block | undefined> {
  const others: Promise<undefined>[] = [joined.then(() => undefined)];
  let timer: NodeJS.Timeout | undefined;
  if (hedgeAfterMs !== undefined) {
    others.push(
      new Promise((resolve) => {
        timer = setTimeout(() => resolve(undefined), hedgeAfterMs);
      }),
    );
  }
  try {
    return await Promise.race([...underway, ...others]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets holders in while their bytes fit; the others wait in the order they came. */
export class ByteWindow {
  readonly #limit: number;
  readonly #waiting: Waiter[] = [];
  #head = 0;
  usedBytes = 0;
  peakBytes = 0;

  /** @param limit bytes; a single larger holder is let in alone. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves to the function that gives the bytes back. Throws the signal's reason. */
  async take(sizeBytes: number, signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    if (this.#fits(sizeBytes) && this.#head === this.#waiting.length) this.#grant(sizeBytes);
    else await this.#queue(sizeBytes, signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.usedBytes -= sizeBytes;
      this.#admit();
    };
  }

  #fits(sizeBytes: number): boolean {
    return this.usedBytes === 0 || this.usedBytes + sizeBytes <= this.#limit;
  }

  #grant(sizeBytes: number): void {
    this.usedBytes += sizeBytes;
    this.peakBytes = Math.max(this.peakBytes, this.usedBytes);
  }

  #queue(sizeBytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        sizeBytes,
        gone: false,
        enter: () => {
          signal?.removeEventListener('abort', leave);
          resolve();
        },
      };
      const leave = () => {
        waiter.gone = true;
        reject(asError(signal?.reason));
        this.#admit();
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiter);
    });
  }

  // A moving head instead of shift(): five thousand waiters must not cost five thousand copies each.
  #admit(): void {
    for (;;) {
      const waiter = this.#waiting[this.#head];
      if (waiter === undefined) break;
      if (!waiter.gone) {
        if (!this.#fits(waiter.sizeBytes)) break;
        this.#grant(waiter.sizeBytes);
        waiter.enter();
      }
      this.#head++;
    }
    if (this.#head === this.#waiting.length || this.#head > 1024) {
      this.#waiting.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

interface Waiter {
  readonly sizeBytes: number;
  gone: boolean;
  readonly enter: () => void;
}

function pairKey(peer: PeerName, cid: CID): string {
  return `${peer} ${cid.toString()}`;
}

function field(head: unknown, name: string): unknown {
  return typeof head === 'object' && head !== null ? Reflect.get(head, name) : undefined;
}

function badAnswer(peer: PeerName, method: string): HoldfastError {
  return new HoldfastError('PEER_REFUSED', `${peer} answered ${method} with something else than an answer`);
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new HoldfastError('TIMEOUT', 'aborted', { cause: reason });
}
