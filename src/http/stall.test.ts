// Who sends nothing, or takes nothing, for two minutes is treated as gone. The clock is the test's.

import assert from 'node:assert/strict';
import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { CallerGone, sendReply } from './answer.ts';
import { readBody, stallMs } from './body.ts';

const never = new AbortController().signal;

test('an upload may pause for almost two minutes, again and again, and is cut when it stalls', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const req = request(t);
  req.headers['transfer-encoding'] = 'chunked';
  const body = readBody(req, { maxBytes: 1000, cut: never });
  for (const text of ['one', 'two']) {
    const piece = body.next();
    await turns();
    t.mock.timers.tick(stallMs - 1);
    req.push(text);
    assert.equal(Buffer.from((await piece).value ?? []).toString(), text);
  }
  const settled = outcome(body.next());
  await turns();
  t.mock.timers.tick(stallMs - 1);
  assert.equal(await settled.now(), 'pending');
  t.mock.timers.tick(1);
  await assert.rejects(settled.promise, { code: 'UPLOAD_TRUNCATED', message: /after 6 bytes/ });
});

test('an answer that nobody takes ends after two minutes, and its source with it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const req = request(t);
  const res = new ServerResponse(req); // without a connection: what is written stays where it is
  const facts = { requestId: 'x', path: '/', nowMs: 0 };
  let ended = false;
  const bytes = async function* (): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield new Uint8Array(1024 * 1024);
    } finally {
      ended = true;
    }
  };
  const exchange = { req, res, facts, gone: never, cut: never, bodyHeldBack: false };
  const settled = outcome(sendReply(exchange, { status: 200, headers: {}, bytes: bytes() }));
  await turns();
  t.mock.timers.tick(stallMs - 1);
  assert.equal(await settled.now(), 'pending');
  t.mock.timers.tick(1);
  await assert.rejects(settled.promise, CallerGone);
  assert.equal(ended, true);
});

function request(t: TestContext): IncomingMessage {
  const socket = new Socket();
  const req = new IncomingMessage(socket);
  t.after(() => {
    req.destroy();
    socket.destroy();
  });
  return req;
}

function outcome<T>(promise: Promise<T>): { promise: Promise<T>; now(): Promise<'pending' | 'settled'> } {
  let state: 'pending' | 'settled' = 'pending';
  const settle = (): void => {
    state = 'settled';
  };
  promise.then(settle, settle);
  return {
    promise,
    now: async () => {
      await turns();
      return state;
    },
  };
}

/** Time for everything that does not wait for a timer. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await nextTurn();
}
