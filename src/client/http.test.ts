import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { test, type TestContext } from 'node:test';
import { utf8 } from '../core/bytes.ts';
import { DoorHttp } from './http.ts';

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => void;

test('data comes out of the envelope, and the token and body go in', async (t) => {
  let seen = '';
  const door = await doorOf(t, (request, response) => {
    seen = `${request.method} ${request.url} ${request.headers.authorization} ${request.headers['content-length']}`;
    request.resume();
    good(response, { n: 1 });
  });
  const query = { a: 'x y', b: undefined, c: ['1', '2'] };
  assert.deepEqual(await door.data({ method: 'POST', path: '/p', query, body: [utf8('ab'), utf8('c')] }), {
    n: 1,
  });
  assert.equal(seen, 'POST /p?a=x+y&c=1&c=2 Bearer secret 3');
});

test('an idempotent call is sent again while the door is short of something', async (t) => {
  const door = await doorOf(t, (_, response, count) => {
    if (count < 3) bad(response, 503, 'BEACON_UNAVAILABLE');
    else good(response, count);
  });
  assert.equal(await door.data({ method: 'GET', path: '/' }), 3);
});

test('attempts are bounded, and the last error is thrown', async (t) => {
  let counted = 0;
  const door = await doorOf(t, (_, response, count) => {
    counted = count;
    bad(response, 503, 'BEACON_UNAVAILABLE');
  });
  await assert.rejects(door.data({ method: 'GET', path: '/' }), { code: 'BEACON_UNAVAILABLE' });
  assert.equal(counted, 3);
});

test('a call that must not happen twice is sent once when its answer is lost', async (t) => {
  let counted = 0;
  const door = await doorOf(t, (request, _, count) => {
    counted = count;
    request.socket.destroy();
  });
  const call = { method: 'POST', path: '/', body: [utf8('x')] } as const;
  await assert.rejects(door.data(call), { code: 'PEER_UNREACHABLE' });
  assert.equal(counted, 1);
  await assert.rejects(door.data({ ...call, idempotent: true }), { code: 'PEER_UNREACHABLE' });
  assert.equal(counted, 4);
});

test('a body that breaks off is an error, never a short body', async (t) => {
  const door = await doorOf(t, (_, response) => {
    response.writeHead(200);
    response.write('abc', () => response.destroy());
  });
  const answer = await door.open({ method: 'GET', path: '/' });
  await assert.rejects(Array.fromAsync(answer.bytes), { code: 'PEER_UNREACHABLE' });
});

test('a silent door is given up', async (t) => {
  const door = await doorOf(t, () => undefined);
  await assert.rejects(door.data({ method: 'POST', path: '/', idleMs: 50 }), { code: 'TIMEOUT' });
});

test('the reason of the signal is what an aborted call throws', async (t) => {
  const door = await doorOf(t, () => undefined);
  const reason = new Error('enough');
  const stop = new AbortController();
  const call = door.data({ method: 'GET', path: '/', signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(call, reason);
});

test('nobody there is said at once', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  await new Promise((resolve) => server.close(resolve));
  using door = new DoorHttp({
    url: `http://127.0.0.1:${address.port}`,
    token: 't',
    onRetry: () => t.assert.fail(),
  });
  await assert.rejects(door.data({ method: 'GET', path: '/' }), { code: 'CLUSTER_NOT_RUNNING' });
});

test('a URL that is none is refused', () => {
  assert.throws(() => new DoorHttp({ url: 'ftp://x', token: '' }), { code: 'ARGUMENT_INVALID' });
});

async function doorOf(t: TestContext, handler: Handler): Promise<DoorHttp> {
  let count = 0;
  const server = createServer((request, response) => handler(request, response, ++count));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const door = new DoorHttp({ url: `http://127.0.0.1:${address.port}`, token: 'secret', attemptsMax: 3 });
  t.after(() => {
    door[Symbol.dispose]();
    server.closeAllConnections();
    server.close();
  });
  return door;
}

function good(response: ServerResponse, data: unknown): void {
  response.end(JSON.stringify({ response: { data } }));
}

function bad(response: ServerResponse, status: number, reason: string): void {
  response.statusCode = status;
  response.end(JSON.stringify({ error: { message: 'no', details: { reason } } }));
}
