// One lane to one peer: a long stream on which both sides call and answer.
//
// The sequence of a stream: both sides send `hello` first; from then on frames of calls and answers mix
// freely. Silence is measured in ticks, not in time: a tick in which nothing came is one silent tick, and asks the
// other side by a ping. A process that was itself frozen finds one late tick, not a dead peer.

import { HoldfastError } from '../core/errors.ts';
import { rpcItemWindowBytes, rpcRequestWindowBytes } from '../core/limits.ts';
import type { PeerName, RpcCallOptions, RpcMessage } from '../core/rpc.ts';
import { Answers, type Handlers } from './rpc-answers.ts';
import { Calls } from './rpc-calls.ts';
import {
  allocate,
  type Frame,
  FrameReader,
  frameBytes,
  frameTypes,
  type Hello,
  helloFrame,
  malformed,
  parseHello,
  smallFrame,
} from './rpc-frames.ts';
import { Outbox } from './rpc-outbox.ts';

export type Lane = 'control' | 'bulk';

/** Called with the plain bytes of every whole frame, before it is sent and after it is received. */
export type RpcTap = (direction: 'sent' | 'received', peer: PeerName, frame: Uint8Array) => void;

/** A byte stream in both directions, as little of it as we need. */
export interface Wire {
  /** False: full; `drained()` of the lane is called when it may go on. */
  write(bytes: Uint8Array): boolean;
  /** Ends it at once, in both directions. */
  abort(reason: Error): void;
}

export interface LaneStreamOptions {
  readonly peer: PeerName;
  readonly wire: Wire;
  readonly handlers: Handlers;
  readonly tap?: RpcTap | undefined;
  /** The other side's hello came. The accepting side answers it with `greet` in here. */
  onHello(hello: Hello): void;
  /** The lane is gone; called once. */
  onClose(reason: HoldfastError): void;
}

export class LaneStream {
  readonly #options: LaneStreamOptions;
  readonly #reader: FrameReader;
  readonly #outbox: Outbox;
  readonly #calls: Calls;
  #answers: Answers | undefined;
  #heard = false;
  #silentTicks = 0;
  #closed: HoldfastError | undefined;

  constructor(options: LaneStreamOptions) {
    const { peer, wire, tap, handlers } = options;
    this.#options = options;
    this.#reader = new FrameReader((type, id, length) => {
      if (type === frameTypes.request) return handlers.slabs.take(length);
      return type === frameTypes.item ? this.#calls.memoryFor(id, length) : allocate(length);
    });
    this.#outbox = new Outbox({
      write: (bytes) => wire.write(bytes),
      flushing: () => this.#giveRequestCredit(),
      failed: (error) => this.close(lost(peer, error)),
      tap: tap === undefined ? undefined : (frame) => tap('sent', peer, frame),
    });
    this.#calls = new Calls(peer, this.#outbox);
  }

  /** Sends our hello: first by the opener, in `onHello` by the acceptor. */
  greet(lane: Lane, link: string): void {
    this.#outbox.push(
      helloFrame({
        v: 1,
        lane,
        link,
        requestWindow: rpcRequestWindowBytes[lane],
        itemWindow: rpcItemWindowBytes,
      }),
    );
  }

  call(method: string, message: RpcMessage, options: RpcCallOptions): Promise<Required<RpcMessage>> {
    return this.#calls.call(method, message, options);
  }

  stream(method: string, message: RpcMessage, options: RpcCallOptions): AsyncGenerator<Required<RpcMessage>> {
    return this.#calls.stream(method, message, options);
  }

  /** Bytes from the wire, in order. A malformed frame closes the lane. */
  receive(chunk: Uint8Array): void {
    this.#heard = true;
    try {
      for (const frame of this.#reader.push(chunk)) {
        if (this.#closed !== undefined) return;
        this.#options.tap?.('received', this.#options.peer, frameBytes(frame));
        this.#dispatch(frame);
      }
    } catch (error) {
      this.close(lost(this.#options.peer, error));
    }
  }

  drained(): void {
    this.#outbox.drained();
  }

  /** True while a call or a stream of ours waits for the other side. */
  get isAsking(): boolean {
    return this.#calls.inFlight > 0;
  }

  /** One heartbeat: says how many in a row nothing came, and sends a ping after such a one. */
  tick(): number {
    this.#silentTicks = this.#heard ? 0 : this.#silentTicks + 1;
    this.#heard = false;
    if (this.#silentTicks === 0) return 0;
    this.#outbox.pushUrgent(smallFrame(frameTypes.ping, 0));
    return this.#silentTicks;
  }

  /** Ends the lane: calls in flight reject with `reason`, handlers are aborted. Again: nothing. */
  close(reason: HoldfastError): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#outbox.close();
    this.#options.wire.abort(reason);
    this.#calls.lose(reason);
    this.#answers?.close(reason);
    this.#options.onClose(reason);
  }

  #dispatch(frame: Frame): void {
    if (this.#answers === undefined) return this.#open(parseHello(frame));
    switch (frame.type) {
      case frameTypes.request:
      case frameTypes.subscribe:
      case frameTypes.cancel:
      case frameTypes.itemCredit:
        return this.#answers.receive(frame);
      case frameTypes.ping:
        return this.#outbox.pushUrgent(smallFrame(frameTypes.pong, 0));
      case frameTypes.pong:
        return;
      case frameTypes.hello:
        throw malformed('a second hello');
      default:
        this.#calls.receive(frame);
    }
  }

  #open(hello: Hello): void {
    const { peer, handlers } = this.#options;
    const requestWindow = rpcRequestWindowBytes[hello.lane];
    this.#answers = new Answers({ peer, lane: hello.lane, handlers, outbox: this.#outbox, requestWindow });
    this.#answers.open(hello.itemWindow);
    this.#options.onHello(hello);
    this.#calls.open(hello.requestWindow);
  }

  #giveRequestCredit(): void {
    const owed = this.#answers?.takeOwed() ?? 0;
    if (owed > 0) this.#outbox.pushUrgent(smallFrame(frameTypes.requestCredit, 0, owed));
  }
}

/** PEER_UNREACHABLE: with what happened as its cause, or in words where there is no error. */
export function lost(peer: PeerName, cause: unknown): HoldfastError {
  const details = { peer };
  return typeof cause === 'string'
    ? new HoldfastError('PEER_UNREACHABLE', `lost ${peer}: ${cause}`, { details })
    : new HoldfastError('PEER_UNREACHABLE', `lost ${peer}`, { details, cause });
}
