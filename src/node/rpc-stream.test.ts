// Two lanes joined in memory: credit, bounds and failures, without a network.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { rpcHandlersMax, rpcItemWindowBytes, rpcRequestWindowBytes } from '../core/limits.ts';
import type { RpcHandler, RpcStreamHandler } from '../core/rpc.ts';
import { Slabs } from '../core/slabs.ts';
import { encodeCall, frameBytes, frameTypes, helloFrame } from './rpc-frames.ts';
import { type Lane, LaneStream, lost } from './rpc-stream.ts';

interface Side {
  readonly lane: LaneStream;
  readonly calls: Map<string, RpcHandler>;
  readonly streams: Map<string, RpcStreamHandler>;
  readonly borrowing: Set<string>;
  readonly closed: Promise<HoldfastError>;
  sentBytes: number;
}

/** Both ends of one lane. Bytes arrive in a later turn, as on a network. */
async function pair(name: Lane = 'control'): Promise<readonly [Side, Side]> {
  const greeted = Promise.withResolvers<void>();
  const sides: Side[] = [];
  const make = (index: number): Side => {
    const calls = new Map<string, RpcHandler>();
    const streams = new Map<string, RpcStreamHandler>();
    const borrowing = new Set<string>();
    const closed = Promise.withResolvers<HoldfastError>();
    const side: Side = {
      calls,
      streams,
      borrowing,
      closed: closed.promise,
      sentBytes: 0,
      lane: new LaneStream({
        peer: `peer-${1 - index}`,
        handlers: { calls, streams, borrowing, slabs: new Slabs(4) },
        wire: {
          write: (bytes) => {
            side.sentBytes += bytes.length;
            setImmediate(() => sides[1 - index]?.lane.receive(bytes));
            return true;
          },
          abort: () => undefined,
        },
        onHello: (hello) => (index === 1 ? side.lane.greet(hello.lane, hello.link) : greeted.resolve()),
        onClose: closed.resolve,
      }),
    };
    return side;
  };
  const [left, right] = [make(0), make(1)] as const;
  sides.push(left, right);
  left.lane.greet(name, '00'.repeat(16));
  await greeted.promise;
  return [left, right];
}

const echo: RpcHandler = async (message) => message;
const body64 = new Uint8Array(65_536).fill(5);

function turns(count: number): Promise<void> {
  return new Promise((resolve) => {
    const next = (left: number): void => {
      if (left === 0) resolve();
      else setImmediate(next, left - 1);
    };
    next(count);
  });
}

test('both sides call each other at once', async () => {
  const [left, right] = await pair();
  left.calls.set('echo', echo);
  right.calls.set('echo', echo);
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? left : right).lane.call('echo', { head: n }, {})),
  );
  assert.deepEqual(
    answers.map(({ head }) => head),
    Array.from({ length: 100 }, (_, n) => n),
  );
});

test('errors cross with code and details; a fault in a handler is INTERNAL; an unknown method says its name', async () => {
  const [left, right] = await pair();
  right.calls.set('conflict', () =>
    Promise.reject(new HoldfastError('VERSION_CONFLICT', 'no', { details: { current: 2 } })),
  );
  right.calls.set('fault', () => Promise.reject(new TypeError('oops')));
  await assert.rejects(left.lane.call('conflict', { head: 0 }, {}), {
    code: 'VERSION_CONFLICT',
    details: { current: 2 },
  });
  await assert.rejects(left.lane.call('fault', { head: 0 }, {}), {
    code: 'INTERNAL',
    message: 'fault failed: oops',
  });
  await assert.rejects(left.lane.call('none', { head: 0 }, {}), {
    code: 'PEER_REFUSED',
    details: { method: 'none' },
  });
});

test('5,000 calls of 64 KiB: the answering side holds no more than its window and its slots', async () => {
  const [left, right] = await pair('bulk');
  let running = 0;
  let runningMax = 0;
  right.calls.set('work', async ({ body }) => {
    running += 1;
    runningMax = Math.max(runningMax, running);
    await turns(1);
    running -= 1;
    return { head: null, body };
  });
  const gate = Promise.withResolvers<void>();
  right.calls.set('hold', async () => {
    await gate.promise;
    return { head: null };
  });
  const held = Array.from({ length: 5000 }, () =>
    left.lane.call('hold', { head: 0, body: body64 }, { timeoutMs: 60_000 }),
  );
  await turns(50);
  assert.ok(
    left.sentBytes <= rpcRequestWindowBytes.bulk + 2 * body64.length,
    `${left.sentBytes} bytes were sent`,
  );
  assert.ok(left.sentBytes >= rpcRequestWindowBytes.bulk, 'the window was used');
  gate.resolve();
  await Promise.all(held);
  const answers = await Promise.all(
    Array.from({ length: 5000 }, () =>
      left.lane.call('work', { head: 0, body: body64 }, { timeoutMs: 60_000 }),
    ),
  );
  assert.ok(answers.every(({ body }) => body.length === body64.length));
  assert.equal(runningMax, rpcHandlersMax.bulk);
});

test('a consumer that does not take items stops the sender, and delays no call', async () => {
  const [left, right] = await pair();
  let produced = 0;
  let isReleased = false;
  right.calls.set('echo', echo);
  right.streams.set('flood', async function* () {
    try {
      for (;;) {
        produced += 1;
        yield { head: produced, body: body64 };
      }
    } finally {
      isReleased = true;
    }
  });
  const flood = left.lane.stream('flood', { head: null }, {});
  assert.equal((await flood.next()).value?.head, 1);
  await turns(100);
  const bound = rpcItemWindowBytes / body64.length + 3;
  assert.ok(produced <= bound, `${produced} items for a window of ${bound}`);
  assert.equal((await left.lane.call('echo', { head: 'now' }, { timeoutMs: 1000 })).head, 'now');
  for (let n = 2; n <= 100; n++) assert.equal((await flood.next()).value?.head, n);
  await flood.return(undefined);
  await turns(20);
  assert.equal(isReleased, true);
});

test('the body of a request is lent to a handler that says so, and is everybody else’s to keep', async () => {
  const [left, right] = await pair('bulk');
  const bodies = new Map<string, Uint8Array[]>([
    ['keeps', []],
    ['borrows', []],
  ]);
  right.borrowing.add('borrows');
  for (const [method, seen] of bodies) {
    right.calls.set(method, async ({ body }) => {
      seen.push(body);
      if (seen.length === 2) throw new HoldfastError('DISK_FULL', 'no room');
      return { head: body.every((byte) => byte === seen.length) };
    });
    for (let n = 1; n <= 4; n++) {
      const answer = left.lane.call(method, { head: 0, body: new Uint8Array(100_000).fill(n) }, {});
      if (n === 2) await assert.rejects(answer, { code: 'DISK_FULL' });
      else assert.equal((await answer).head, true);
    }
    const memories = new Set(seen.map(({ buffer }) => buffer));
    assert.equal(memories.size, method === 'keeps' ? 4 : 1);
  }
  const kept = bodies.get('keeps') ?? [];
  assert.deepEqual(
    kept.map((body) => body[0]),
    [1, 2, 3, 4],
  );
});

test('items of a stream come in memory of whoever asked for it, others and other streams in their own', async () => {
  const [left, right] = await pair('bulk');
  right.streams.set('numbers', async function* () {
    for (let n = 1; n <= 3; n++) yield { head: n, body: new Uint8Array(1000 * n).fill(n) };
  });
  const given: Uint8Array[] = [];
  const memory = (sizeBytes: number): Uint8Array => {
    const bytes = new Uint8Array(new ArrayBuffer(5000), 7, sizeBytes);
    given.push(bytes);
    return bytes;
  };
  for (const options of [{ memory }, {}]) {
    const items = await Array.fromAsync(left.lane.stream('numbers', { head: null }, options));
    assert.deepEqual(
      items.map(({ body }) => [body.length, body.every((byte) => byte === body.length / 1000)]),
      [1, 2, 3].map((n) => [1000 * n, true]),
    );
    for (const [n, { body }] of items.entries()) assert.equal(body === given[n], options.memory === memory);
  }
  assert.equal(given.length, 3);
});

test('a stream ends, fails, and times out per item', async () => {
  const [left, right] = await pair();
  right.streams.set('three', async function* () {
    yield* [{ head: 1 }, { head: 2 }, { head: 3 }];
  });
  right.streams.set('fails', async function* () {
    yield { head: 1 };
    throw new HoldfastError('NOT_FOUND', 'no more');
  });
  right.streams.set('silent', async function* (_message, { signal }) {
    yield { head: 1 };
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  });
  const taken: unknown[] = [];
  for await (const { head } of left.lane.stream('three', { head: null }, {})) taken.push(head);
  assert.deepEqual(taken, [1, 2, 3]);
  for (const [method, code] of [
    ['fails', 'NOT_FOUND'],
    ['silent', 'TIMEOUT'],
    ['none', 'PEER_REFUSED'],
  ] as const) {
    await assert.rejects(Array.fromAsync(left.lane.stream(method, { head: null }, { timeoutMs: 50 })), {
      code,
    });
  }
});

test('giving up aborts the handler; a call that waits for credit is taken back', async () => {
  const [left, right] = await pair();
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  right.calls.set('slow', (_message, { signal }) => {
    signal.addEventListener('abort', () => resolve());
    return aborted.then(() => ({ head: null }));
  });
  await assert.rejects(left.lane.call('slow', { head: 0 }, { timeoutMs: 30 }), { code: 'TIMEOUT' });
  await aborted;
  const controller = new AbortController();
  const given = left.lane.call('slow', { head: 0 }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(given, { code: 'TIMEOUT' });
});

test('at loss everything in flight rejects at once, and handlers are aborted', async () => {
  const [left, right] = await pair();
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  right.calls.set('never', (_message, { signal }) => {
    signal.addEventListener('abort', () => resolve());
    return aborted.then(() => ({ head: null }));
  });
  const calls = Array.from({ length: 10 }, () => left.lane.call('never', { head: 0 }, {}));
  right.streams.set('quiet', async function* () {
    await aborted;
    yield { head: null };
  });
  const stream = left.lane.stream('quiet', { head: 0 }, {}).next();
  await turns(5);
  left.lane.close(new HoldfastError('PEER_UNREACHABLE', 'cut'));
  right.lane.close(new HoldfastError('PEER_UNREACHABLE', 'cut'));
  const outcomes = await Promise.allSettled([...calls, stream]);
  assert.ok(
    outcomes
      .slice(0, 10)
      .every((o) => o.status === 'rejected' && isHoldfastError(o.reason, 'PEER_UNREACHABLE')),
  );
  await aborted;
  assert.throws(() => void left.lane.call('never', { head: 0 }, {}), { code: 'PEER_UNREACHABLE' });
});

test('silence is counted in ticks, and any byte ends it', async () => {
  const [left, right] = await pair();
  assert.equal(left.lane.tick(), 0, 'the hello was heard');
  await turns(5);
  assert.equal(left.lane.tick(), 1, 'what was heard asks for nothing');
  assert.equal(left.lane.tick(), 2);
  await turns(5);
  assert.equal(left.lane.tick(), 0, 'the pong was heard');
  assert.equal(right.lane.tick(), 0, 'a ping is heard as well');
  right.lane.close(new HoldfastError('PEER_UNREACHABLE', 'cut'));
  await turns(5);
  left.lane.tick();
  assert.ok(left.lane.tick() > 0);
});

function lonely(): { lane: LaneStream; closed: Promise<HoldfastError> } {
  const { promise: closed, resolve } = Promise.withResolvers<HoldfastError>();
  const wire = { write: () => true, abort: () => undefined };
  const handlers = {
    calls: new Map<string, RpcHandler>(),
    streams: new Map<string, RpcStreamHandler>(),
    borrowing: new Set<string>(),
    slabs: new Slabs(4),
  };
  const lane = new LaneStream({ peer: 'p', wire, handlers, onHello: () => undefined, onClose: resolve });
  return { lane, closed };
}

const helloBytes = frameBytes(
  helloFrame({ v: 1, lane: 'control', link: '00'.repeat(16), requestWindow: 1000, itemWindow: 1000 }),
);

test('a malformed frame, a second hello, or a request beyond the credit closes the lane', async () => {
  const tooMuch = frameBytes({
    type: frameTypes.request,
    id: 1,
    head: encodeCall('hold', 0),
    body: new Uint8Array(1_048_576),
  });
  const cases: readonly (readonly Uint8Array[])[] = [
    [new Uint8Array(12).fill(255)],
    [frameBytes({ type: frameTypes.ping, id: 0, head: new Uint8Array(0), body: new Uint8Array(0) })],
    [helloBytes, helloBytes],
    [helloBytes, tooMuch, tooMuch],
  ];
  for (const chunks of cases) {
    const { lane, closed } = lonely();
    for (const chunk of chunks) lane.receive(chunk);
    assert.equal((await closed).code, 'PEER_UNREACHABLE');
  }
});

test('whatever bytes come after the hello, the lane stays or closes; it never throws', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          type: fc.constantFrom(...Object.values(frameTypes)),
          id: fc.nat(3),
          head: fc.uint8Array({ maxLength: 12 }),
          body: fc.uint8Array({ maxLength: 12 }),
        }),
        { maxLength: 20 },
      ),
      (frames) => {
        const { lane } = lonely();
        lane.receive(helloBytes);
        for (const frame of frames) lane.receive(frameBytes(frame));
        lane.close(new HoldfastError('PEER_UNREACHABLE', 'done'));
      },
    ),
    { numRuns: 1000 },
  );
});

test('a lost peer is told once, with what happened', () => {
  assert.equal(describeError(lost('peer-1', 'closed')), 'lost peer-1: closed');
  assert.equal(describeError(lost('peer-1', new Error('read ECONNRESET'))), 'lost peer-1: read ECONNRESET');
});
