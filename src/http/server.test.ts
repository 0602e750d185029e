import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { utf8 } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Reply } from './answer.ts';
import { HttpDoor, type HttpOptions, type Request, type Route } from './server.ts';

const token = 'correct horse battery staple';
const clock: Clock = { now: () => 1_700_000_000_000, monotonic: () => performance.now() };

interface Running {
  readonly url: string;
  readonly port: number;
  readonly answered: [operation: string, status: number][];
  readonly faults: unknown[];
  /** Resolves when an answer of this operation is done. */
  settled(operation: string): Promise<number>;
}

async function running(
  t: TestContext,
  handlers: Record<string, (request: Request) => Promise<Reply>>,
  options: Partial<HttpOptions> = {},
): Promise<Running> {
  const answered: [string, number][] = [];
  const faults: unknown[] = [];
  const bell = new EventTarget();
  const routes = Object.entries(handlers).map(([line, handle]): Route => {
    const [, path = ''] = line.split(' ');
    const method =
      (['GET', 'PUT', 'POST', 'DELETE'] as const).find((each) => line.startsWith(`${each} `)) ?? 'HEAD';
    const operationId = path.slice(1).split('/')[0] ?? '';
    return {
      method,
      path,
      operationId,
      summary: '',
      tag: 'ucxi',
      statuses: [200],
      token: operationId !== 'open',
      lasting: operationId === 'lasting',
      handle,
    };
  });
  const door = await HttpDoor.listen({
    host: '127.0.0.1',
    port: 0,
    token,
    clock,
    routes,
    onAnswered: (operation, status) => {
      answered.push([operation, status]);
      bell.dispatchEvent(new Event('answered'));
    },
    onFault: (_operation, error) => faults.push(error),
    ...options,
  });
  t.after(() => door[Symbol.asyncDispose]());
  const settled = async (operation: string): Promise<number> => {
    for (;;) {
      const found = answered.find(([name]) => name === operation);
      if (found !== undefined) return found[1];
      await once(bell, 'answered');
    }
  };
  return { url: `http://127.0.0.1:${door.port}`, port: door.port, answered, faults, settled };
}

type Init = Omit<RequestInit, 'headers'> & { readonly headers?: Record<string, string> };

function ask(door: Running, path: string, init: Init = {}): Promise<Response> {
  return fetch(`${door.url}${path}`, {
    ...init,
    headers: { authorization: `Bearer ${token}`, ...init.headers },
  });
}

async function failure(
  response: Response,
): Promise<{ code: string; reason: string; message: string; id: string }> {
  const {
    error,
  }: {
    error: { code: string; message: string; request_id: string; details: { reason: string } };
  } = JSON.parse(await response.text());
  return { code: error.code, reason: error.details.reason, message: error.message, id: error.request_id };
}

const ok = async (): Promise<Reply> => ({ status: 200, message: 'fine', data: { a: 1 } });
const swallow = async (request: Request): Promise<Reply> => {
  let sizeBytes = 0;
  for await (const chunk of request.body(1000)) sizeBytes += chunk.length;
  return { status: 200, message: 'swallowed', data: { sizeBytes } };
};

/** A connection by hand: what it receives, as text, until it closes. */
class Wire {
  readonly socket: Socket;
  received = '';

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    this.socket.on('error', () => undefined);
    this.socket.setEncoding('latin1').on('data', (text: string) => {
      this.received += text;
    });
  }

  send(...lines: readonly string[]): void {
    this.socket.write(lines.join('\r\n'));
  }

  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.received)) await once(this.socket, 'data');
    return this.received;
  }

  async closed(): Promise<string> {
    if (!this.socket.closed) {
      this.socket.once('end', () => this.socket.end());
      await once(this.socket, 'close');
    }
    return this.received;
  }
}

const head = (line: string, ...more: readonly string[]): string[] => [
  `${line} HTTP/1.1`,
  'host: door',
  `authorization: Bearer ${token}`,
  ...more,
  '',
  '',
];

describe('a good answer', () => {
  test('comes in the envelope, under the id that the caller gave', async (t) => {
    const door = await running(t, { 'GET /ok': ok });
    const response = await ask(door, '/ok', { headers: { 'x-request-id': 'my-id:1' } });
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('x-request-id'), 'my-id:1');
    assert.deepEqual(await response.json(), {
      response: {
        code: 'UCXL-200-OK',
        message: 'fine',
        data: { a: 1 },
        request_id: 'my-id:1',
        timestamp: '2023-11-14T22:13:20.000Z',
      },
    });
  });

  test('has an id of ours when the caller gave none that can be written into a log', async (t) => {
    const door = await running(t, { 'GET /ok': ok });
    for (const bad of ['', 'a b', 'x'.repeat(129)]) {
      const response = await ask(door, '/ok', { headers: { 'x-request-id': bad } });
      assert.match(response.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/);
      await response.body?.cancel();
    }
  });

  test('HEAD has the headers of GET and no body', async (t) => {
    const bytes = async (): Promise<Reply> => ({
      status: 200,
      headers: { etag: '"x"' },
      bytes: utf8('four'),
    });
    const door = await running(t, { 'GET /bytes': bytes });
    const response = await ask(door, '/bytes', { method: 'HEAD' });
    assert.deepEqual(
      [
        response.status,
        response.headers.get('content-length'),
        response.headers.get('etag'),
        await response.text(),
      ],
      [200, '4', '"x"', ''],
    );
  });

  test('path parts are percent-decoded', async (t) => {
    const door = await running(t, {
      'GET /part/{name}': async (request) => ({ status: 200, message: request.path['name'] ?? '' }),
    });
    const response = await ask(door, `/part/${encodeURIComponent('réunion/1')}`);
    assert.match(await response.text(), /réunion\/1/);
  });
});

describe('who may not', () => {
  test('no token, a wrong one, another scheme: 401, saying which', async (t) => {
    const door = await running(t, { 'GET /ok': ok });
    const cases = [
      [undefined, /no bearer token/],
      ['Basic dXNlcjpwYXNz', /no bearer token/],
      ['Bearer wrong', /wrong bearer token/],
      [`Bearer ${token}x`, /wrong bearer token/],
      [`Bearer ${token.slice(0, -1)}`, /wrong bearer token/],
    ] as const;
    for (const [authorization, text] of cases) {
      const response = await fetch(`${door.url}/ok`, {
        headers: authorization === undefined ? {} : { authorization },
      });
      assert.equal(response.status, 401);
      assert.equal(response.headers.get('www-authenticate'), 'Bearer');
      const { code, message } = await failure(response);
      assert.equal(code, 'UCXL-401-UNAUTHORIZED');
      assert.match(message, text);
    }
  });

  test('the scheme may be written in any case; an open route needs none', async (t) => {
    const door = await running(t, { 'GET /ok': ok, 'GET /open': ok });
    assert.equal(
      (await fetch(`${door.url}/ok`, { headers: { authorization: `bearer ${token}` } })).status,
      200,
    );
    assert.equal((await fetch(`${door.url}/open`)).status, 200);
  });
});

describe('what is not there', () => {
  test('404 names the way out', async (t) => {
    const door = await running(t, { 'GET /ok': ok });
    const response = await ask(door, '/nowhere');
    assert.equal(response.status, 404);
    assert.match((await failure(response)).message, /openapi\.json/);
  });

  test('405 says what would do', async (t) => {
    const door = await running(t, { 'GET /ok': ok, 'DELETE /ok': ok });
    const response = await ask(door, '/ok', { method: 'PUT' });
    assert.equal(response.status, 405);
    assert.equal(response.headers.get('allow'), 'GET, DELETE');
    assert.equal((await failure(response)).reason, 'METHOD_NOT_ALLOWED');
  });

  test('bad percent-encoding is refused, not taken as it stands', async (t) => {
    const door = await running(t, { 'GET /ok': ok, 'GET /part/{name}': ok });
    for (const path of ['/ok?address=100%', '/ok?address=%ff', '/part/%zz']) {
      const wire = new Wire(door.port);
      wire.send(...head(`GET ${path}`, 'connection: close'));
      assert.match(await wire.closed(), /^HTTP\/1\.1 400 [^]*ARGUMENT_INVALID/);
    }
  });

  test('bytes that are no HTTP get an answer all the same', async (t) => {
    const door = await running(t, { 'GET /ok': ok });
    const wire = new Wire(door.port);
    wire.send('hello?', '', '');
    assert.match(await wire.closed(), /^HTTP\/1\.1 400 [^]*UCXL-400-INVALID_FORMAT/);
    const large = new Wire(door.port);
    large.send(`GET /ok?a=${'x'.repeat(40_000)} HTTP/1.1`, '', '');
    assert.match(await large.closed(), /^HTTP\/1\.1 431 /);
  });
});

describe('bodies', () => {
  test('beyond the limit: 413, told before the first byte when the length is declared', async (t) => {
    let reads = 0;
    const door = await running(t, {
      'PUT /put': async (request) => {
        for await (const chunk of request.body(1000)) reads += chunk.length;
        return { status: 200, message: '' };
      },
    });
    const declared = await ask(door, '/put', { method: 'PUT', body: new Uint8Array(1001) });
    assert.equal(declared.status, 413);
    assert.equal((await failure(declared)).reason, 'TOO_LARGE');
    assert.equal(reads, 0);
  });

  test('beyond the limit without a declared length: 413 in the middle, and the answer arrives', async (t) => {
    const door = await running(t, { 'PUT /put': swallow });
    const wire = new Wire(door.port);
    wire.send(...head('PUT /put', 'transfer-encoding: chunked'));
    const chunk = `8000\r\n${'x'.repeat(0x8000)}\r\n`;
    for (let sent = 0; sent < 100 && wire.socket.writable; sent++)
      if (!wire.socket.write(chunk))
        await Promise.race([once(wire.socket, 'drain'), once(wire.socket, 'close')]);
    assert.match(await wire.until(/TOO_LARGE/), /^HTTP\/1\.1 413 [^]*connection: close/i);
    wire.socket.destroy();
  });

  test('an error in the middle of reading does not cost the caller the answer', async (t) => {
    const door = await running(t, {
      'PUT /put': async (request) => {
        for await (const _ of request.body(1e9)) throw new HoldfastError('QUORUM_UNAVAILABLE', 'no nodes');
        return { status: 200, message: '' };
      },
    });
    const response = await ask(door, '/put', { method: 'PUT', body: new Uint8Array(8 * 1024 * 1024) });
    assert.equal(response.status, 503);
    assert.equal(response.headers.get('retry-after'), '1');
    assert.equal((await failure(response)).reason, 'QUORUM_UNAVAILABLE');
  });

  test('cut short by the end of the connection: 422, with what arrived', async (t) => {
    const door = await running(t, { 'PUT /put': swallow });
    for (const [coding, body] of [
      ['content-length: 500', 'only this'],
      ['transfer-encoding: chunked', '9\r\nonly this\r\n'],
      ['transfer-encoding: chunked', '50\r\nonly this'],
    ] as const) {
      const wire = new Wire(door.port);
      wire.send(...head('PUT /put', coding));
      wire.socket.end(body);
      const answer = await wire.closed();
      assert.match(answer, /^HTTP\/1\.1 422 /);
      assert.match(answer, /"reason":"UPLOAD_TRUNCATED"/);
      assert.match(answer, /"receivedBytes":9/);
    }
    assert.deepEqual(door.faults, []);
  });

  test('a caller who vanishes in the middle ends the upload', async (t) => {
    const seen = Promise.withResolvers<unknown>();
    const door = await running(t, {
      'PUT /put': async (request) => {
        try {
          return await swallow(request);
        } catch (error) {
          seen.resolve(error);
          throw error;
        }
      },
    });
    const wire = new Wire(door.port);
    wire.send(...head('PUT /put', 'content-length: 500'));
    wire.socket.write('some', () => wire.socket.resetAndDestroy());
    const error = await seen.promise;
    assert.ok(error instanceof HoldfastError && error.code === 'UPLOAD_TRUNCATED');
    assert.equal(await door.settled('put'), 499);
    assert.deepEqual(door.faults, []);
  });

  test('a connection goes on after an error when nothing of the body is left', async (t) => {
    const door = await running(t, { 'PUT /put': swallow, 'GET /ok': ok });
    const wire = new Wire(door.port);
    wire.send(...head('GET /nowhere'));
    await wire.until(/404 [^]*\}\n/);
    wire.send(`${head('PUT /nowhere', 'content-length: 4').join('\r\n')}body`);
    await wire.until(/404 [^]*404 [^]*\}\n/);
    wire.send(...head('GET /ok', 'connection: close'));
    assert.match(await wire.closed(), /404 [^]*404 [^]*200 OK/);
  });

  test('who waits for "100 Continue" is not asked for a body that nobody wants', async (t) => {
    const door = await running(t, { 'PUT /put': swallow });
    const refused = new Wire(door.port);
    refused.send(...head('PUT /put', 'content-length: 5000', 'expect: 100-continue'));
    assert.match(await refused.closed(), /^HTTP\/1\.1 413 /);
    const taken = new Wire(door.port);
    taken.send(...head('PUT /put', 'content-length: 4', 'expect: 100-continue', 'connection: close'));
    await taken.until(/^HTTP\/1\.1 100 Continue/);
    taken.send('body');
    assert.match(await taken.closed(), /200 OK[^]*"sizeBytes":4/);
  });

  test('JSON that is none: 400', async (t) => {
    const door = await running(t, {
      'POST /json': async (request) => ({ status: 200, message: '', data: await request.json() }),
    });
    const response = await ask(door, '/json', { method: 'POST', body: '{"a":' });
    assert.equal(response.status, 400);
    assert.equal((await failure(response)).reason, 'ARGUMENT_INVALID');
  });
});

describe('streams', () => {
  test('an error before the first byte is an answer', async (t) => {
    const door = await running(t, {
      'GET /stream': async () => ({
        status: 200,
        headers: { 'content-length': '10', 'content-type': 'text/plain' },
        bytes: (async function* () {
          yield await Promise.reject(new HoldfastError('BLOCK_UNAVAILABLE', 'no node has it'));
        })(),
      }),
    });
    const response = await ask(door, '/stream');
    assert.equal(response.status, 503);
    assert.match(response.headers.get('content-type') ?? '', /json/);
    assert.equal((await failure(response)).reason, 'BLOCK_UNAVAILABLE');
  });

  for (const [name, headers] of [
    ['with a length', { 'content-length': '10' }],
    ['without a length', {}],
  ] as const)
    test(`an error after the first byte breaks the transfer, ${name}, and is told as a fault`, async (t) => {
      const door = await running(t, {
        'GET /stream': async () => ({
          status: 200,
          headers,
          bytes: (async function* () {
            yield utf8('four');
            await new Promise((resolve) => setImmediate(resolve));
            throw new HoldfastError('DECRYPT_FAILED', 'segment 1');
          })(),
        }),
      });
      await assert.rejects(async () => (await ask(door, '/stream')).arrayBuffer());
      assert.equal(await door.settled('stream'), 200);
      assert.equal(door.faults.length, 1);
    });

  test('fewer bytes than announced are a broken transfer too', async (t) => {
    const door = await running(t, {
      'GET /stream': async () => ({
        status: 200,
        headers: { 'content-length': '10' },
        bytes: (async function* () {
          yield utf8('four');
        })(),
      }),
    });
    await assert.rejects(async () => (await ask(door, '/stream')).arrayBuffer());
    await door.settled('stream');
    assert.equal(door.faults.length, 1);
  });

  test('a caller who leaves stops the source, and is no fault', async (t) => {
    const ended = Promise.withResolvers<void>();
    let sent = 0;
    const door = await running(t, {
      'GET /stream': async () => ({
        status: 200,
        headers: {},
        bytes: (async function* () {
          try {
            for (;;) {
              sent += 65_536;
              yield new Uint8Array(65_536);
            }
          } finally {
            ended.resolve();
          }
        })(),
      }),
    });
    const response = await ask(door, '/stream');
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    await ended.promise;
    assert.equal(await door.settled('stream'), 200);
    assert.deepEqual(door.faults, []);
    assert.ok(sent < 64 * 1024 * 1024);
  });

  test('a caller who does not read holds the source up', async (t) => {
    let sent = 0;
    const door = await running(t, {
      'GET /stream': async () => ({
        status: 200,
        headers: {},
        bytes: (async function* () {
          for (;;) {
            sent += 1024 * 1024;
            yield new Uint8Array(1024 * 1024);
          }
        })(),
      }),
    });
    const wire = new Wire(door.port);
    wire.socket.pause();
    wire.send(...head('GET /stream'));
    let before = -1;
    // Not time but standstill is waited for: nothing more is sent although the loop turns.
    for (let still = 0; still < 20; still = sent === before ? still + 1 : 0) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.ok(sent > 0 && sent <= 64 * 1024 * 1024, `${sent} bytes`);
    wire.socket.destroy();
    await door.settled('stream');
  });
});

describe('too much at once', () => {
  test('429 with Retry-After; health is answered all the same; subscriptions take nobody’s place', async (t) => {
    const hold = Promise.withResolvers<void>();
    t.after(() => hold.resolve());
    const entered = Promise.withResolvers<void>();
    const door = await running(
      t,
      {
        'GET /held': async () => {
          entered.resolve();
          await hold.promise;
          return ok();
        },
        'GET /ok': ok,
        'GET /open': ok,
        'GET /lasting': ok,
      },
      { requestsMax: 1 },
    );
    const held = ask(door, '/held');
    await entered.promise;
    const busy = await ask(door, '/ok');
    assert.equal(busy.status, 429);
    assert.equal(busy.headers.get('retry-after'), '1');
    assert.equal((await failure(busy)).code, 'UCXL-429-RATE_LIMIT');
    assert.equal((await ask(door, '/open')).status, 200);
    assert.equal((await ask(door, '/lasting')).status, 200);
    hold.resolve();
    assert.equal((await held).status, 200);
    assert.equal((await ask(door, '/ok')).status, 200);
  });
});

test('a fault of ours is a 500 that tells nothing, and is reported inside', async (t) => {
  const door = await running(t, {
    'GET /fault': async () => {
      throw new TypeError('secret is undefined');
    },
  });
  const response = await ask(door, '/fault');
  assert.equal(response.status, 500);
  const text = await response.text();
  assert.ok(!text.includes('secret'));
  assert.match(text, /UCXL-500-INTERNAL_ERROR/);
  assert.match(String(door.faults[0]), /secret/);
});

test('a port in use is said by number', async (t) => {
  const door = await running(t, { 'GET /ok': ok });
  await assert.rejects(running(t, {}, { port: door.port }), (error) => {
    assert.ok(error instanceof HoldfastError && error.code === 'PORT_IN_USE');
    assert.ok(error.message.includes(String(door.port)));
    return true;
  });
});
