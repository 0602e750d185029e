// The way to the custodians through a door. Those who are asked the same thing in the same moment are asked in one
// call, whose answer has a line for each of them as it comes: a call costs the door and the client more than the line.

import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import type { DoorClient } from './door-client.ts';
import { backoffMs } from './failure.ts';

/** Tries of a custodian that has too much to do: about 1.5 s of pauses. */
const attemptsMax = 5;

/** One call that is being put together, or is under way. */
interface Call {
  readonly request: Uint8Array;
  readonly signal: AbortSignal;
  readonly asked: Map<PeerName, PromiseWithResolvers<Uint8Array>>;
}

export class CustodyRelay {
  readonly #door: Pick<DoorClient, 'custodyRelay'>;
  /** Leaves when whoever asks now has asked everybody. */
  #next: Call | undefined;

  constructor(door: Pick<DoorClient, 'custodyRelay'>) {
    this.#door = door;
  }

  /**
   * Sends a signed request to a custodian and resolves with its sealed answer. Throws what the custodian or the door
   * throws, RATE_LIMITED only after some tries.
   */
  async ask(peer: PeerName, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#askOnce(peer, request, signal);
      } catch (error) {
        if (attempt === attemptsMax || !isHoldfastError(error, 'RATE_LIMITED')) throw error;
        await sleep(backoffMs(attempt + 1), undefined, { signal });
      }
    }
  }

  #askOnce(peer: PeerName, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const open = this.#next;
    const isSame = open?.request === request && open.signal === signal && !open.asked.has(peer);
    const call = open !== undefined && isSame ? open : this.#begin(request, signal);
    const answered = Promise.withResolvers<Uint8Array>();
    call.asked.set(peer, answered);
    return answered.promise;
  }

  #begin(request: Uint8Array, signal: AbortSignal): Call {
    const call: Call = { request, signal, asked: new Map() };
    this.#next = call;
    queueMicrotask(() => {
      if (this.#next === call) this.#next = undefined;
      void this.#send(call);
    });
    return call;
  }

  /** Never rejects: each that was asked has its outcome. */
  async #send({ request, signal, asked }: Call): Promise<void> {
    let failure: unknown;
    // Nobody asks any more who has the last answer: the connection is good for the next call once the end was read.
    const stop = new AbortController();
    const onAbort = (): void => {
      if (asked.size > 0) stop.abort(signal.reason);
    };
    signal.addEventListener('abort', onAbort);
    const peers = [...asked.keys()];
    try {
      signal.throwIfAborted();
      for await (const { peer, ...outcome } of this.#door.custodyRelay(peers, request, stop)) {
        if ('answer' in outcome) asked.get(peer)?.resolve(outcome.answer);
        else asked.get(peer)?.reject(outcome.error);
        asked.delete(peer);
      }
    } catch (error) {
      failure = error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
    if (asked.size === 0) return;
    failure ??= new HoldfastError('PEER_UNREACHABLE', 'the door ended without its answer');
    for (const { reject } of asked.values()) reject(failure);
  }
}
