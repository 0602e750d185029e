// The calling half of one lane: calls in flight, calls that wait for credit, and streams being read.

import { decodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { rpcItemWindowBytes, rpcWaitingMax } from '../core/limits.ts';
import type { PeerName, RpcCallOptions, RpcMessage } from '../core/rpc.ts';
import {
  allocate,
  amountOf,
  checkBody,
  decodeError,
  emptyBytes,
  encodeCall,
  type Frame,
  frameCost,
  frameTypes,
  malformed,
  smallFrame,
  subscribeBodyBytesMax,
} from './rpc-frames.ts';
import type { Outbox } from './rpc-outbox.ts';

type Answer = Required<RpcMessage>;

const timeoutMsDefault = 10_000;
/** Longer than a timer can run: no time limit. */
const timerMsMax = 0x7fff_ffff;

interface PendingCall {
  readonly frame: Frame;
  settle(outcome: Answer | HoldfastError): void;
}

export class Calls {
  readonly #peer: PeerName;
  readonly #outbox: Outbox;
  /** Called and not answered, by id, whether sent or not. */
  readonly #pending = new Map<number, PendingCall>();
  readonly #streams = new Map<number, IncomingStream>();
  /** Ids that wait for credit, in order. */
  readonly #unsent = new Map<number, Frame>();
  #lastId = 0;
  /** May be overdrawn by one frame: a call is sent while it is positive. */
  #credit = 0;
  /** Set when the lane is gone. */
  #lost: HoldfastError | undefined;

  constructor(peer: PeerName, outbox: Outbox) {
    this.#peer = peer;
    this.#outbox = outbox;
  }

  /** Calls and streams not finished yet. */
  get inFlight(): number {
    return this.#pending.size + this.#streams.size;
  }

  call(method: string, message: RpcMessage, options: RpcCallOptions): Promise<Answer> {
    const frame = this.#frame(frameTypes.request, method, message, options.signal);
    return new Promise<Answer>((resolve, reject) => {
      const settle = (outcome: Answer | HoldfastError): void => {
        stopWatching();
        this.#forget(frame.id);
        if (outcome instanceof HoldfastError) reject(outcome);
        else resolve(outcome);
      };
      const stopWatching = watch(
        options,
        (error) => {
          this.#abandon(frame.id);
          settle(error);
        },
        () => timedOut(this.#peer, method, options),
      );
      this.#pending.set(frame.id, { frame, settle });
      this.#submit(frame);
    });
  }

  /** Starts when the first item is asked for. */
  async *stream(method: string, message: RpcMessage, options: RpcCallOptions): AsyncGenerator<Answer> {
    const frame = this.#frame(frameTypes.subscribe, method, message, options.signal);
    const giveCredit = (bytes: number): void => this.#giveItemCredit(frame.id, bytes);
    const stream = new IncomingStream(giveCredit, options.memory ?? allocate);
    this.#streams.set(frame.id, stream);
    this.#submit(frame);
    try {
      for (;;) {
        const item = await this.#nextItem(stream, method, options);
        if (item === undefined) return;
        yield item;
      }
    } finally {
      if (!stream.isEnded) this.#abandon(frame.id);
      this.#forget(frame.id);
    }
  }

  #nextItem(stream: IncomingStream, method: string, options: RpcCallOptions): Promise<Answer | undefined> {
    const ready = stream.poll();
    if (ready !== 'wait') return Promise.resolve(ready);
    return new Promise((resolve, reject) => {
      const stopWatching = watch(
        options,
        (error) => {
          stream.stopWaiting();
          reject(error);
        },
        () => timedOut(this.#peer, method, options),
      );
      stream.wait(() => {
        stopWatching();
        try {
          const item = stream.poll();
          if (item !== 'wait') resolve(item);
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** The other side takes requests up to `window` bytes from now on. */
  open(window: number): void {
    this.addCredit(window);
  }

  addCredit(amount: number): void {
    this.#credit += amount;
    for (const [id, frame] of this.#unsent) {
      if (this.#credit <= 0) return;
      this.#unsent.delete(id);
      this.#send(frame);
    }
  }

  /** For the body of an item of stream `id`. */
  memoryFor(id: number, sizeBytes: number): Uint8Array {
    return (this.#streams.get(id)?.memory ?? allocate)(sizeBytes);
  }

  /** Takes an answering frame in. Throws RECORD_INVALID when it makes no sense. */
  receive(frame: Frame): void {
    switch (frame.type) {
      case frameTypes.requestCredit:
        return this.addCredit(amountOf(frame));
      case frameTypes.response:
        return this.#pending.get(frame.id)?.settle(answerOf(frame));
      case frameTypes.item:
        return this.#streams.get(frame.id)?.push(answerOf(frame), frameCost(frame));
      case frameTypes.end:
        return this.#streams.get(frame.id)?.end(undefined);
      case frameTypes.error: {
        const error = decodeError(frame.head);
        this.#pending.get(frame.id)?.settle(error);
        return this.#streams.get(frame.id)?.end(error);
      }
      default:
        throw malformed(`type ${frame.type} is no answer`);
    }
  }

  /** Rejects everything in flight, and every later call, with `error`. */
  lose(error: HoldfastError): void {
    this.#lost = error;
    this.#unsent.clear();
    for (const call of this.#pending.values()) call.settle(error);
    for (const stream of this.#streams.values()) stream.end(error);
  }

  #frame(type: Frame['type'], method: string, message: RpcMessage, signal: AbortSignal | undefined): Frame {
    if (this.#lost !== undefined) throw this.#lost;
    if (signal?.aborted === true) throw aborted(signal, method);
    if (this.#unsent.size >= rpcWaitingMax) {
      throw new HoldfastError(
        'RATE_LIMITED',
        `${method}: ${rpcWaitingMax} calls wait for ${this.#peer} already`,
      );
    }
    const bodyMax = type === frameTypes.subscribe ? subscribeBodyBytesMax : undefined;
    const body = checkBody(message.body ?? emptyBytes, method, bodyMax);
    return { type, id: this.#freeId(), head: encodeCall(method, message.head), body };
  }

  #freeId(): number {
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#lastId === 0 || this.#pending.has(this.#lastId) || this.#streams.has(this.#lastId));
    return this.#lastId;
  }

  #submit(frame: Frame): void {
    if (this.#credit > 0) this.#send(frame);
    else this.#unsent.set(frame.id, frame);
  }

  #send(frame: Frame): void {
    this.#credit -= frameCost(frame);
    this.#outbox.push(frame);
  }

  /** Not wanted any more: a call that was never sent is taken back, else the other side is told. */
  #abandon(id: number): void {
    if (!this.#unsent.delete(id) && this.#lost === undefined) {
      // Behind its own request, which may still wait to be written.
      this.#outbox.push(smallFrame(frameTypes.cancel, id));
    }
  }

  #forget(id: number): void {
    this.#pending.delete(id);
    this.#streams.delete(id);
    this.#unsent.delete(id);
  }

  #giveItemCredit(id: number, bytes: number): void {
    if (this.#lost === undefined) this.#outbox.pushUrgent(smallFrame(frameTypes.itemCredit, id, bytes));
  }
}

/** Items that came and were not taken. The sender stops when its credit is used up, so they stay within the window. */
class IncomingStream {
  readonly memory: (sizeBytes: number) => Uint8Array;
  readonly #giveCredit: (bytes: number) => void;
  #items: { readonly answer: Answer; readonly cost: number }[] = [];
  #isEnded = false;
  #error: HoldfastError | undefined;
  #wake: (() => void) | undefined;
  #owed = 0;

  constructor(giveCredit: (bytes: number) => void, memory: (sizeBytes: number) => Uint8Array) {
    this.#giveCredit = giveCredit;
    this.memory = memory;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  push(answer: Answer, cost: number): void {
    this.#items.push({ answer, cost });
    this.#wakeUp();
  }

  end(error: HoldfastError | undefined): void {
    this.#isEnded = true;
    this.#error = error;
    this.#wakeUp();
  }

  /** The next item, `undefined` at the end, `wait` when there is none yet. Throws what ended the stream. */
  poll(): Answer | undefined | 'wait' {
    const next = this.#items.shift();
    if (next !== undefined) {
      this.#owed += next.cost;
      // By the quarter window, not by the item: a frame per item would cost a write per item.
      if (!this.#isEnded && this.#owed >= rpcItemWindowBytes / 4) {
        this.#giveCredit(this.#owed);
        this.#owed = 0;
      }
      return next.answer;
    }
    if (this.#error !== undefined) throw this.#error;
    return this.#isEnded ? undefined : 'wait';
  }

  wait(wake: () => void): void {
    this.#wake = wake;
  }

  stopWaiting(): void {
    this.#wake = undefined;
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

function answerOf(frame: Frame): Answer {
  return { head: decodeCbor(frame.head, 'head of an answer'), body: frame.body };
}

/** Calls `giveUp` once when time is up or the signal aborts. Returns what stops it. */
function watch(
  { signal, timeoutMs = timeoutMsDefault }: RpcCallOptions,
  giveUp: (error: HoldfastError) => void,
  late: () => HoldfastError,
): () => void {
  const timer = timeoutMs > timerMsMax ? undefined : setTimeout(() => end(late()), timeoutMs);
  const onAbort = (): void => end(aborted(signal, 'call'));
  signal?.addEventListener('abort', onAbort, { once: true });
  function stop(): void {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
  function end(error: HoldfastError): void {
    stop();
    giveUp(error);
  }
  return stop;
}

function timedOut(
  peer: PeerName,
  method: string,
  { timeoutMs = timeoutMsDefault }: RpcCallOptions,
): HoldfastError {
  return new HoldfastError('TIMEOUT', `${method}: no answer from ${peer} within ${timeoutMs} ms`, {
    details: { peer, method, timeoutMs },
  });
}

function aborted(signal: AbortSignal | undefined, what: string): HoldfastError {
  if (signal?.reason instanceof HoldfastError) return signal.reason;
  return new HoldfastError('TIMEOUT', `${what}: given up by the caller`, { cause: signal?.reason });
}
