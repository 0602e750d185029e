// The answering half of one lane: runs handlers for what the other side asks, a bounded number at a time.
//
// A request counts against the caller's credit until its answer was handed to the stream, and so does its
// slot; what a peer can make us hold is therefore its request window plus one answer per slot.

import { describeError, HoldfastError } from '../core/errors.ts';
import { rpcHandlersMax, rpcStreamsMax } from '../core/limits.ts';
import type { PeerName, RpcHandler, RpcMessage, RpcStreamHandler } from '../core/rpc.ts';
import {
  amountOf,
  checkBody,
  decodeCall,
  emptyBytes,
  encodeError,
  encodeHead,
  type Frame,
  frameCost,
  frameTypes,
  malformed,
  smallFrame,
} from './rpc-frames.ts';
import type { Slabs } from '../core/slabs.ts';
import type { Outbox } from './rpc-outbox.ts';

/** What this peer answers, shared by all lanes. */
export interface Handlers {
  readonly calls: ReadonlyMap<string, RpcHandler>;
  readonly streams: ReadonlyMap<string, RpcStreamHandler>;
  /** Methods whose handlers are done with the body when they are done. */
  readonly borrowing: ReadonlySet<string>;
  /** Where the bodies of requests are put. */
  readonly slabs: Slabs;
}

interface Serving {
  readonly controller: AbortController;
  /** Streams only: bytes of items that may be sent, overdrawn by one item at most. */
  credit: number;
  wake: (() => void) | undefined;
}

export interface AnswersOptions {
  readonly peer: PeerName;
  readonly lane: 'control' | 'bulk';
  readonly handlers: Handlers;
  readonly outbox: Outbox;
  /** Bytes of requests taken before credit is given. */
  readonly requestWindow: number;
}

export class Answers {
  readonly #options: AnswersOptions;
  readonly #serving = new Map<number, Serving>();
  /** Requests that wait for a slot, in order. */
  readonly #waiting = new Map<number, Frame>();
  #running = 0;
  #streaming = 0;
  /** Bytes of requests taken and not credited yet. */
  #held = 0;
  #owed = 0;
  #itemWindow = 0;
  #isClosed = false;

  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /** The other side takes `itemWindow` bytes per stream. */
  open(itemWindow: number): void {
    this.#itemWindow = itemWindow;
  }

  /** Takes an asking frame in. Throws RECORD_INVALID when it breaks the rules of credit or numbering. */
  receive(frame: Frame): void {
    switch (frame.type) {
      case frameTypes.request:
      case frameTypes.subscribe:
        return this.#admit(frame);
      case frameTypes.cancel:
        return this.#cancel(frame.id);
      case frameTypes.itemCredit:
        return this.#addItemCredit(frame.id, amountOf(frame));
      default:
        throw malformed(`type ${frame.type} asks nothing`);
    }
  }

  /**
   * Credit to give now, or 0. Given by the quarter window: a frame per request would cost a write per request,
   * and a caller that has used its window up is owed more than a quarter as soon as its requests are done.
   */
  takeOwed(): number {
    if (this.#owed < this.#options.requestWindow / 4) return 0;
    const owed = this.#owed;
    this.#owed = 0;
    return owed;
  }

  close(reason: HoldfastError): void {
    this.#isClosed = true;
    this.#waiting.clear();
    for (const serving of this.#serving.values()) stop(serving, reason);
  }

  #admit(frame: Frame): void {
    if (this.#held >= this.#options.requestWindow) throw malformed('a request beyond the credit');
    if (this.#serving.has(frame.id) || this.#waiting.has(frame.id))
      throw malformed(`id ${frame.id} is in use`);
    this.#held += frameCost(frame);
    if (frame.type === frameTypes.subscribe) this.#startStream(frame);
    else if (this.#running < rpcHandlersMax[this.#options.lane]) this.#startCall(frame);
    else this.#waiting.set(frame.id, frame);
  }

  #startCall(frame: Frame): void {
    this.#running += 1;
    void this.#answer(frame);
  }

  /** Never rejects: whatever a handler throws is the answer. */
  async #answer(frame: Frame): Promise<void> {
    const serving = this.#begin(frame.id);
    const outcome = await this.#outcome(frame, serving);
    this.#serving.delete(frame.id);
    // The caller does not listen any more when it cancelled; the slot is free either way.
    if (serving.controller.signal.aborted) this.#finishCall(frame);
    else this.#options.outbox.push(outcome, () => this.#finishCall(frame));
  }

  async #outcome(frame: Frame, serving: Serving): Promise<Frame> {
    let method = 'call';
    try {
      const call = decodeCall(frame.head);
      method = call.method;
      const handler = this.#options.handlers.calls.get(method);
      if (handler === undefined) throw this.#unknown(method, 'calls');
      const context = { peer: this.#options.peer, signal: serving.controller.signal };
      return answerFrame(
        frameTypes.response,
        frame.id,
        method,
        await handler({ head: call.head, body: frame.body }, context),
      );
    } catch (error) {
      return errorFrame(frame.id, method, error);
    } finally {
      if (this.#options.handlers.borrowing.has(method)) this.#options.handlers.slabs.give(frame.body);
    }
  }

  #finishCall(frame: Frame): void {
    this.#running -= 1;
    this.#release(frame);
    const next = this.#waiting.entries().next();
    if (next.done === true || this.#isClosed) return;
    const [id, waiting] = next.value;
    this.#waiting.delete(id);
    this.#startCall(waiting);
  }

  #startStream(frame: Frame): void {
    if (this.#streaming >= rpcStreamsMax) {
      const error = new HoldfastError('RATE_LIMITED', `${rpcStreamsMax} streams are open already`);
      this.#options.outbox.push(errorFrame(frame.id, 'stream', error), () => this.#release(frame));
      return;
    }
    this.#streaming += 1;
    // A stream may last for days; its question must not take credit from the calls meanwhile.
    this.#release(frame);
    void this.#pump(frame);
  }

  /** Sends items as credit allows. Never rejects. */
  async #pump(frame: Frame): Promise<void> {
    const serving = this.#begin(frame.id);
    const { signal } = serving.controller;
    let method = 'stream';
    let last = smallFrame(frameTypes.end, frame.id);
    try {
      const call = decodeCall(frame.head);
      method = call.method;
      const handler = this.#options.handlers.streams.get(method);
      if (handler === undefined) throw this.#unknown(method, 'streams');
      for await (const item of handler(
        { head: call.head, body: frame.body },
        { peer: this.#options.peer, signal },
      )) {
        await this.#sendItem(serving, answerFrame(frameTypes.item, frame.id, method, item));
        if (signal.aborted) break;
      }
    } catch (error) {
      last = errorFrame(frame.id, method, error);
    }
    this.#serving.delete(frame.id);
    this.#streaming -= 1;
    if (!signal.aborted) this.#options.outbox.push(last);
  }

  async #sendItem(serving: Serving, item: Frame): Promise<void> {
    while (serving.credit <= 0 && !serving.controller.signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      serving.wake = resolve;
      await promise;
    }
    if (serving.controller.signal.aborted) return;
    serving.credit -= frameCost(item);
    this.#options.outbox.push(item);
  }

  #begin(id: number): Serving {
    const serving: Serving = { controller: new AbortController(), credit: this.#itemWindow, wake: undefined };
    this.#serving.set(id, serving);
    return serving;
  }

  #cancel(id: number): void {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) {
      this.#waiting.delete(id);
      this.#release(waiting);
    }
    const serving = this.#serving.get(id);
    if (serving !== undefined) stop(serving, new HoldfastError('TIMEOUT', 'the caller gave up'));
  }

  #addItemCredit(id: number, amount: number): void {
    const serving = this.#serving.get(id);
    // A stream that just ended may still be given credit.
    if (serving === undefined) return;
    serving.credit = Math.min(serving.credit + amount, this.#itemWindow);
    wakeUp(serving);
  }

  #release(frame: Frame): void {
    this.#held -= frameCost(frame);
    this.#owed += frameCost(frame);
    if (this.#owed >= this.#options.requestWindow / 4) this.#options.outbox.schedule();
  }

  #unknown(method: string, kind: string): HoldfastError {
    const message = `this peer answers no ${kind} named ${JSON.stringify(method)}`;
    return new HoldfastError('PEER_REFUSED', message, { details: { method } });
  }
}

function stop(serving: Serving, reason: HoldfastError): void {
  serving.controller.abort(reason);
  wakeUp(serving);
}

function wakeUp(serving: Serving): void {
  const { wake } = serving;
  serving.wake = undefined;
  wake?.();
}

function answerFrame(type: Frame['type'], id: number, method: string, message: RpcMessage): Frame {
  return {
    type,
    id,
    head: encodeHead(message.head, method),
    body: checkBody(message.body ?? emptyBytes, method),
  };
}

function errorFrame(id: number, method: string, error: unknown): Frame {
  const known =
    error instanceof HoldfastError
      ? error
      : new HoldfastError('INTERNAL', `${method} failed: ${describeError(error)}`, { cause: error });
  return { type: frameTypes.error, id, head: encodeError(known), body: emptyBytes };
}
