// The RPC port over lanes: finds the lane to a peer, and keeps what this peer answers.

import { HoldfastError } from '../core/errors.ts';
import type {
  PeerName,
  RpcCallOptions,
  RpcClient,
  RpcHandler,
  RpcMessage,
  RpcServer,
  RpcStreamHandler,
} from '../core/rpc.ts';
import { Slabs } from '../core/slabs.ts';
import type { Handlers } from './rpc-answers.ts';
import type { Lane, LaneStream } from './rpc-stream.ts';

/** Where the lanes come from: undefined = no connection to that peer now. */
export type LaneLookup = (peer: PeerName, lane: Lane) => LaneStream | undefined;

/** What the blocks of a busy moment need: 16 being written, and as many on their way in. */
const slabsKept = 32;

export class Rpc implements RpcClient, RpcServer {
  readonly #calls = new Map<string, RpcHandler>();
  readonly #streams = new Map<string, RpcStreamHandler>();
  readonly #borrowing = new Set<string>();
  readonly #slabs = new Slabs(slabsKept);
  readonly #lane: LaneLookup;

  constructor(lane: LaneLookup) {
    this.#lane = lane;
  }

  get handlers(): Handlers {
    return {
      calls: this.#calls,
      streams: this.#streams,
      borrowing: this.#borrowing,
      slabs: this.#slabs,
    };
  }

  async call(
    peer: PeerName,
    method: string,
    message: RpcMessage,
    options: RpcCallOptions = {},
  ): Promise<Required<RpcMessage>> {
    return this.#find(peer, method, options).call(method, message, options);
  }

  async *stream(
    peer: PeerName,
    method: string,
    message: RpcMessage,
    options: RpcCallOptions = {},
  ): AsyncGenerator<Required<RpcMessage>> {
    yield* this.#find(peer, method, options).stream(method, message, options);
  }

  handle(method: string, handler: RpcHandler, { borrows = false } = {}): void {
    this.#refuseTwice(method);
    if (borrows) this.#borrowing.add(method);
    this.#calls.set(method, handler);
  }

  handleStream(method: string, handler: RpcStreamHandler): void {
    this.#refuseTwice(method);
    this.#streams.set(method, handler);
  }

  #find(peer: PeerName, method: string, { lane = 'control' }: RpcCallOptions): LaneStream {
    const found = this.#lane(peer, lane);
    if (found !== undefined) return found;
    throw new HoldfastError('PEER_UNREACHABLE', `${method}: not connected to ${peer}`, {
      details: { peer, method },
    });
  }

  #refuseTwice(method: string): void {
    if (this.#calls.has(method) || this.#streams.has(method))
      throw new Error(`rpc method ${method} is named twice`);
  }
}
