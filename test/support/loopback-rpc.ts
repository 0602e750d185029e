// RPC within one process, for tests of both ends of a protocol.

import assert from 'node:assert/strict';
import { decodeCbor, encodeCbor } from '../../src/core/block.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { RpcClient, RpcHandler, RpcMessage, RpcServer, RpcStreamHandler } from '../../src/core/rpc.ts';

/** Calls handlers in this process, heads and bodies copied as a wire would. Loses what `lose` says, call by call. */
export class Loopback implements RpcClient, RpcServer {
  readonly #handlers = new Map<string, RpcHandler>();
  readonly #streams = new Map<string, RpcStreamHandler>();
  caller = 'somebody';
  lose: ('question' | 'answer')[] = [];
  tamper = (message: RpcMessage): RpcMessage => message;

  handle(method: string, handler: RpcHandler): void {
    this.#handlers.set(method, handler);
  }

  handleStream(method: string, handler: RpcStreamHandler): void {
    this.#streams.set(method, handler);
  }

  async call(_peer: string, method: string, message: RpcMessage, options: { signal?: AbortSignal } = {}) {
    const lost = this.lose.shift();
    if (lost === 'question') throw new HoldfastError('PEER_UNREACHABLE', 'connection lost');
    const handler = this.#handlers.get(method);
    assert(handler !== undefined);
    const signal = options.signal ?? new AbortController().signal;
    const answer = await handler(copied(message), { peer: this.caller, signal });
    if (lost === 'answer') throw new HoldfastError('PEER_UNREACHABLE', 'connection lost');
    return copied(answer);
  }

  async *stream(_peer: string, method: string, message: RpcMessage, options: { signal?: AbortSignal } = {}) {
    const handler = this.#streams.get(method);
    assert(handler !== undefined);
    const left = new AbortController();
    const signal = AbortSignal.any([left.signal, ...(options.signal === undefined ? [] : [options.signal])]);
    try {
      for await (const item of handler(copied(message), { peer: this.caller, signal }))
        yield copied(this.tamper(item));
    } finally {
      left.abort();
    }
  }
}

function copied({ head, body = new Uint8Array() }: RpcMessage): Required<RpcMessage> {
  return { head: decodeCbor(encodeCbor(head), 'head'), body: body.slice() };
}
