import assert from 'node:assert/strict';
import { it } from 'node:test';
import { beaconLogSuite, entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { HoldfastError } from '../core/errors.ts';
import type { RpcClient, RpcHandler, RpcMessage, RpcServer, RpcStreamHandler } from '../core/rpc.ts';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { expectNone } from './log.ts';
import { MemoryLog } from './memory.ts';
import { RemoteLog } from './remote.ts';
import { serveBeacon } from './serve.ts';

const peer = 'steward';

beaconLogSuite('remote', async () => {
  const rpc = new Loopback();
  const served = new MemoryLog();
  serveBeacon(rpc, served, { idleMs: 5 });
  const log = new RemoteLog(rpc, () => peer);
  return {
    log,
    [Symbol.asyncDispose]: async () => {
      await log[Symbol.asyncDispose]();
      await served[Symbol.asyncDispose]();
    },
  };
});

for (const lost of ['question', 'answer'] as const) {
  it(`sends an append again whose ${lost} was lost, and it takes effect once`, async () => {
    const rpc = new Loopback();
    await using served = new MemoryLog();
    serveBeacon(rpc, served);
    await using log = new RemoteLog(rpc, () => peer, { pauseMs: 1 });
    rpc.lose = [lost, lost];
    const entry = await log.append(someAppend('addr/a', { expected: expectNone }));
    assert.equal(entry.revision, 1);
    assert.equal((await entriesOf(served)).length, 1);
  });
}

it('gives up after its time and says that the outcome is unknown', async () => {
  const rpc = new Loopback();
  await using log = new RemoteLog(rpc, () => peer, { pauseMs: 1, retryMs: 5 });
  rpc.lose = Array.from({ length: 100 }, () => 'question' as const);
  await assert.rejects(log.append(someAppend('addr/a')), {
    code: 'BEACON_UNAVAILABLE',
    message: /may have taken effect/,
  });
});

it('refuses who may not append, and what the check refuses', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served, {
    mayAppend: (name) => name === 'door',
    check: async ({ subject }) => {
      if (subject === 'bad') throw new HoldfastError('RECORD_INVALID', 'no');
    },
  });
  await using log = new RemoteLog(rpc, () => peer);
  await assert.rejects(log.append(someAppend('addr/a')), { code: 'FORBIDDEN' });
  rpc.caller = 'door';
  await assert.rejects(log.append(someAppend('bad')), { code: 'RECORD_INVALID' });
  await log.append(someAppend('addr/a'));
});

it('notices entries that do not follow the ones before', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served);
  await using log = new RemoteLog(rpc, () => peer);
  const big = { records: [{ key: 'k', bytes: new Uint8Array(60_000) }] };
  for (let count = 0; count < 12; count++) await served.append(someAppend('a', big));
  assert.equal((await entriesOf(log)).length, 12);
  let page = 0;
  rpc.tamper = (message) =>
    page++ === 1 ? { ...message, head: { ...Object(message.head), chain: new Uint8Array(32) } } : message;
  await assert.rejects(entriesOf(log), { code: 'RECORD_CORRUPT' });
});

it('says that it lives while nothing happens, and ends with its reader', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served, { idleMs: 1 });
  let pages = 0;
  for await (const { head } of rpc.stream(peer, 'beacon.watch', { head: { from: 1 } })) {
    assert.deepEqual(head, { revision: 0, chain: new Uint8Array(32), sizes: [] });
    if (++pages === 3) break;
  }
});

/** Calls handlers in this process, heads and bodies copied as a wire would. Loses what `lose` says, call by call. */
class Loopback implements RpcClient, RpcServer {
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
