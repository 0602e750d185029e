// The door of a real cluster, as callers meet it: what it answers, what it refuses, and that both are documented.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import type {
  ChangeEvent,
  HistoryAnswer,
  NavigateAnswer,
  ProviderInfo,
  PutAnswer,
  QueryAnswer,
} from '../../src/api/types.ts';
import { rawBlock } from '../../src/core/block.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { carHeader, carSection } from '../../src/manifest/car.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { readExposition } from '../support/prometheus.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.start({ settings: { beatMs: 300 } });
});
after(() => cluster[Symbol.asyncDispose]());

const key = (path: string): string => `ucxl://ann:writer@door:test/*^/${path}`;
const query = (values: Record<string, string>): string => new URLSearchParams(values).toString();
const at = (route: string, values: Record<string, string>): string => `/ucxi/v1/${route}?${query(values)}`;

interface Envelope<T> {
  readonly response: { readonly code: string; readonly data: T };
}

async function data<T>(response: Response): Promise<T> {
  const text = await response.text();
  assert.ok(response.ok, `${response.status}: ${text}`);
  const envelope: Envelope<T> = JSON.parse(text);
  return envelope.response.data;
}

async function put(
  path: string,
  body: string | Uint8Array<ArrayBuffer>,
  more: Record<string, string> = {},
): Promise<PutAnswer> {
  const response = await cluster.fetch(at('put', { address: key(path), ...more }), { method: 'PUT', body });
  assert.equal(response.status, 201);
  return data(response);
}

/** Asserts a refusal: HTTP status, UCXL code, our code. */
async function refused(
  response: Response,
  status: number,
  code: string,
  reason: string,
): Promise<Record<string, unknown>> {
  const body: { error: { code: string; details: Record<string, unknown> } } = JSON.parse(
    await response.text(),
  );
  assert.deepEqual([response.status, body.error.code, body.error.details['reason']], [status, code, reason]);
  return body.error.details;
}

/** A request by hand, whose connection ends when `body` is sent; the whole answer. */
async function cutShort(path: string, length: number, body: string): Promise<string> {
  const token = await cluster.token();
  const socket = connect({ port: cluster.port, host: '127.0.0.1', allowHalfOpen: true });
  const head = [
    `PUT ${path} HTTP/1.1`,
    'host: door',
    `authorization: Bearer ${token}`,
    `content-length: ${length}`,
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
  let answer = '';
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

describe('put and get', () => {
  test('bytes come back, whole and in part, under an ETag that is the CID', async () => {
    const plain = new Uint8Array(randomBytes(600_000));
    const done = await put('bytes', plain);
    const whole = await cluster.fetch(at('get', { address: key('bytes') }));
    assert.equal(whole.headers.get('etag'), `"${done.cid}"`);
    assert.equal(whole.headers.get('content-length'), '600000');
    assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), plain);
    const cases: [string, number, number, number][] = [
      ['bytes=0-0', 206, 0, 1],
      ['bytes=262111-262112', 206, 262_111, 262_113],
      ['bytes=599990-', 206, 599_990, 600_000],
      ['bytes=-10', 206, 599_990, 600_000],
      ['bytes=500000-9999999', 206, 500_000, 600_000],
      ['bytes=5-2', 200, 0, 600_000],
      ['bytes=0-1,4-5', 200, 0, 600_000],
    ];
    for (const [range, status, from, to] of cases) {
      const part = await cluster.fetch(at('get', { address: key('bytes') }), { headers: { range } });
      assert.equal(part.status, status, range);
      if (status === 206) assert.equal(part.headers.get('content-range'), `bytes ${from}-${to - 1}/600000`);
      assert.deepEqual(new Uint8Array(await part.arrayBuffer()), plain.slice(from, to), range);
    }
    const beyond = await cluster.fetch(at('get', { address: key('bytes') }), {
      headers: { range: 'bytes=600000-' },
    });
    assert.equal(beyond.headers.get('content-range'), 'bytes */600000');
    await refused(beyond, 416, 'UCXL-400-INVALID_FORMAT', 'RANGE_INVALID');
  });

  test('what the caller has already is not sent; a range of another version is not mixed in', async () => {
    const { cid } = await put('cached', 'text');
    const get = (headers: Record<string, string>) =>
      cluster.fetch(at('get', { address: key('cached') }), { headers });
    for (const tag of [`"${cid}"`, `W/"${cid}"`, `"x", "${cid}"`, '*'])
      assert.equal((await get({ 'if-none-match': tag })).status, 304, tag);
    assert.equal((await get({ 'if-none-match': '"x"' })).status, 200);
    assert.equal((await get({ range: 'bytes=1-2', 'if-range': `"${cid}"` })).status, 206);
    assert.equal((await get({ range: 'bytes=1-2', 'if-range': '"x"' })).status, 200);
  });

  test('nothing at all is content too; HEAD says how much; names may be any language', async () => {
    await put('empty', '');
    const empty = await cluster.fetch(at('get', { address: key('empty') }));
    assert.deepEqual([empty.status, await empty.text()], [200, '']);
    const named = await put('réunion notes/été.md', 'oui');
    assert.equal(named.address, 'ucxl://ann:writer@door:test/*~1/réunion notes/été.md');
    const head = await cluster.fetch(at('get', { address: key('réunion notes/été.md') }), { method: 'HEAD' });
    assert.equal(head.headers.get('content-length'), '3');
    assert.equal(decodeURI(head.headers.get('x-ucxl-address') ?? ''), named.address);
  });

  test('POST makes the first version only; `expected` and Idempotency-Key keep a write single', async () => {
    const post = () => cluster.fetch(at('post', { address: key('once') }), { method: 'POST', body: 'one' });
    assert.equal((await post()).status, 201);
    await refused(await post(), 409, 'UCXL-409-CONFLICT', 'VERSION_CONFLICT');
    const write = (body: string) =>
      cluster.fetch(at('put', { address: key('once'), expected: '1' }), {
        method: 'PUT',
        body,
        headers: { 'idempotency-key': 'door-test-1' },
      });
    const [first, again] = [
      await data<PutAnswer>(await write('two')),
      await data<PutAnswer>(await write('two')),
    ];
    assert.deepEqual(again, first);
    await refused(await write('other'), 409, 'UCXL-409-CONFLICT', 'IDEMPOTENCY_MISMATCH');
    await refused(
      await cluster.fetch(at('put', { address: key('once'), expected: '1' }), {
        method: 'PUT',
        body: 'late',
      }),
      409,
      'UCXL-409-CONFLICT',
      'VERSION_CONFLICT',
    );
  });

  test('removed: gone for readers of the newest, there for who cites a version', async () => {
    const { address } = await put('short-lived', 'text');
    const remove = () => cluster.fetch(at('delete', { address: key('short-lived') }), { method: 'DELETE' });
    assert.equal((await remove()).status, 200);
    await refused(
      await cluster.fetch(at('get', { address: key('short-lived') })),
      404,
      'UCXL-404-NOT_FOUND',
      'GONE',
    );
    await refused(await remove(), 404, 'UCXL-404-NOT_FOUND', 'GONE');
    assert.equal(await (await cluster.fetch(at('get', { address }))).text(), 'text');
  });
});

describe('refusals', () => {
  test('addresses that are none, and wildcards where one key is needed', async () => {
    for (const address of [
      'http://example.org',
      'ucxl://a@b:c/*^/x',
      'ucxl://a:b@c:d/*~0/x',
      'ucxl://a:b@c:d/*^/../x',
    ]) {
      const details = await refused(
        await cluster.fetch(at('put', { address }), { method: 'PUT', body: 'x' }),
        400,
        'UCXL-400-INVALID_ADDRESS',
        'ADDRESS_INVALID',
      );
      assert.equal(typeof details['field'], 'string');
    }
    for (const address of ['ucxl://any:writer@door:test/*^/x', 'ucxl://ann:writer@*:test/*^/x'])
      for (const [route, method] of [
        ['put', 'PUT'],
        ['get', 'GET'],
        ['delete', 'DELETE'],
      ] as const)
        await refused(
          await cluster.fetch(at(route, { address }), { method }),
          400,
          'UCXL-400-INVALID_ADDRESS',
          'ADDRESS_WILDCARD',
        );
    await refused(await cluster.fetch('/ucxi/v1/get'), 400, 'UCXL-400-MISSING_FIELD', 'ARGUMENT_MISSING');
  });

  test('no token and a wrong one', async () => {
    for (const headers of [{}, { authorization: 'Bearer wrong' }] as Record<string, string>[])
      await refused(
        await fetch(`${cluster.url}${at('get', { address: key('bytes') })}`, { headers }),
        401,
        'UCXL-401-UNAUTHORIZED',
        'UNAUTHORIZED',
      );
  });

  test('a truncated upload registers nothing', async () => {
    const answer = await cutShort(at('put', { address: key('truncated') }), 1_000_000, 'x'.repeat(400_000));
    assert.match(answer, /^HTTP\/1\.1 422 /);
    assert.match(answer, /UPLOAD_TRUNCATED/);
    const found = await data<NavigateAnswer>(
      await cluster.fetch(at('navigate', { address: key('truncated') })),
    );
    assert.equal(found.newest, 0);
  });

  test('an upload of blocks beyond its limit, or broken off', async () => {
    const block = rawBlock(new Uint8Array(randomBytes(262_144)));
    const car = Buffer.concat([carHeader([]), ...carSection(block)]);
    const store = (body: Uint8Array<ArrayBuffer>) =>
      cluster.fetch('/ucxi/v1/blocks', { method: 'POST', body });
    await refused(
      await store(new Uint8Array(65 * 1024 * 1024)),
      413,
      'UCXL-422-UNPROCESSABLE_ENTITY',
      'TOO_LARGE',
    );
    await refused(
      await store(car.subarray(0, 200_000)),
      422,
      'UCXL-422-UNPROCESSABLE_ENTITY',
      'UPLOAD_TRUNCATED',
    );
    const flipped = Buffer.from(car);
    flipped[1000] = (flipped[1000] ?? 0) ^ 1;
    await refused(await store(flipped), 400, 'UCXL-400-INVALID_FORMAT', 'ARGUMENT_INVALID');
    assert.equal((await store(car)).status, 201);
    const back = await cluster.fetch(`/ucxi/v1/blocks/${block.cid.toString()}`);
    assert.ok(Buffer.from(await back.arrayBuffer()).equals(block.bytes));
  });

  test('versions that are not there, addresses that never were, values out of bounds', async () => {
    await put('one-version', 'text');
    for (const temporal of ['*~2', '~~1', '^^1', '2001-01-01T00:00:00Z'])
      await refused(
        await cluster.fetch(at('get', { address: key('one-version').replace('*^', temporal) })),
        404,
        'UCXL-404-NOT_FOUND',
        'NOT_FOUND',
      );
    await refused(
      await cluster.fetch(at('get', { address: key('never') })),
      404,
      'UCXL-404-NOT_FOUND',
      'NOT_FOUND',
    );
    for (const wrong of [
      { min: '0' },
      { min: '4', max: '3' },
      { cls: 'secret' },
      { tag: 'two words' },
      { expected: '-1' },
    ])
      await refused(
        await cluster.fetch(at('put', { address: key('x'), ...wrong }), { method: 'PUT', body: 'x' }),
        400,
        'UCXL-400-INVALID_FORMAT',
        'ARGUMENT_INVALID',
      );
    await refused(
      await cluster.fetch(at('put', { address: key('x').replace('*^', '*~1') }), {
        method: 'PUT',
        body: 'x',
      }),
      400,
      'UCXL-400-INVALID_FORMAT',
      'ARGUMENT_INVALID',
    );
    await refused(
      await cluster.fetch(at('query', { pattern: 'nonsense' })),
      400,
      'UCXL-400-INVALID_ADDRESS',
      'ADDRESS_INVALID',
    );
    await refused(
      await cluster.fetch(at('discover', { cid: 'nonsense' })),
      400,
      'UCXL-400-INVALID_FORMAT',
      'ARGUMENT_INVALID',
    );
    await refused(
      await cluster.fetch('/ucxi/v1/get', { method: 'PATCH' }),
      405,
      'UCXL-400-INVALID_FORMAT',
      'METHOD_NOT_ALLOWED',
    );
  });
});

describe('finding', () => {
  test('query goes through all matches page by page, each once', async () => {
    const names = Array.from({ length: 7 }, (_, index) => `page/${index}`);
    await Promise.all(names.map((name) => put(name, name)));
    const found: string[] = [];
    let next: string | undefined;
    do {
      const after = next === undefined ? {} : { after: next };
      const page: QueryAnswer = await data(
        await cluster.fetch(
          at('query', { pattern: 'ucxl://any:any@door:test/*^/page/*', limit: '3', ...after }),
        ),
      );
      assert.ok(page.items.length <= 3);
      found.push(...page.items.map((item) => item.key));
      next = page.next;
    } while (next !== undefined);
    assert.deepEqual(found.toSorted(), names.map(key).toSorted());
  });

  test('navigate understands every temporal segment', async () => {
    const times: string[] = [];
    for (const text of ['one', 'two', 'three']) {
      await put('history', text);
      times.push(new Date().toISOString());
      await new Promise((resolve) => setTimeout(resolve, 5)); // versions a millisecond apart have times apart
    }
    const navigate = async (temporal: string) => {
      const address = key('history').replace('*^', temporal);
      return data<NavigateAnswer>(await cluster.fetch(at('navigate', { address })));
    };
    const cases: [string, number | undefined][] = [
      ['*^', 3],
      ['#', 3],
      ['*~', 1],
      ['*~2', 2],
      ['*~4', undefined],
      ['~~1', 2],
      ['~~', 2],
      ['~~2', 1],
      ['~~3', undefined],
      ['^^1', undefined],
      [times[1] ?? '', 2],
      ['2001-01-01T00:00:00Z', undefined],
      ['2999-01-01T00:00:00Z', 3],
    ];
    for (const [temporal, version] of cases)
      assert.equal((await navigate(temporal)).selected?.version, version, temporal);
    const middle = await navigate('*~2');
    assert.match(middle.previous ?? '', /\*~1/);
    assert.match(middle.following ?? '', /\*~3/);
    const log = await data<HistoryAnswer>(await cluster.fetch(at('log', { address: key('history') })));
    assert.deepEqual(
      log.items.map(({ version }) => version),
      [3, 2, 1],
    );
  });

  test('the holders of a block announce it, and discover finds them with addresses to dial', async () => {
    await put('announced', 'text');
    const { selected } = await data<NavigateAnswer>(
      await cluster.fetch(at('navigate', { address: key('announced') })),
    );
    const cid = selected?.root ?? '';
    const announced = await cluster.fetch(at('announce', { cid }), { method: 'POST' });
    assert.equal(announced.status, 202);
    assert.ok((await data<{ providers: number }>(announced)).providers >= 3);
    const deadline = Date.now() + 15_000;
    let found: readonly ProviderInfo[] = [];
    while (found.length < 3 && Date.now() < deadline) {
      found = (
        await data<{ providers: readonly ProviderInfo[] }>(await cluster.fetch(at('discover', { cid })))
      ).providers;
      if (found.length < 3) await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.ok(found.length >= 3, `${found.length} providers`);
    for (const { peer, addrs } of found)
      assert.ok(addrs.every((addr) => addr.includes(`/p2p/${peer}`) || addr.includes('/tcp/')));
    const absent = rawBlock(utf8('nobody has this')).cid.toString();
    assert.equal(
      (
        await data<{ providers: number }>(
          await cluster.fetch(at('announce', { cid: absent }), { method: 'POST' }),
        )
      ).providers,
      0,
    );
  });
});

describe('subscribe', () => {
  test('tells what matches as it comes, and resumes after the last event seen', async () => {
    const pattern = 'ucxl://any:any@door:test/*^/watched/**';
    const first = await events(at('subscribe', { pattern }));
    await put('unwatched', 'x');
    const done = await put('watched/a', 'one');
    const [event] = await first.take(1);
    assert.deepEqual([event?.id, event?.data.version.key], [String(done.revision), key('watched/a')]);
    first.stop();
    await put('watched/a', 'two');
    await put('watched/b', 'three');
    const resumed = await events(at('subscribe', { pattern }), { 'last-event-id': event?.id ?? '' });
    const missed = await resumed.take(2);
    assert.deepEqual(
      missed.map(({ data: { version } }) => [version.key, version.version]),
      [
        [key('watched/a'), 2],
        [key('watched/b'), 1],
      ],
    );
    resumed.stop();
  });
});

interface SseEvent {
  readonly id: string | undefined;
  readonly data: ChangeEvent;
}

async function events(path: string, headers: Record<string, string> = {}) {
  const stop = new AbortController();
  const response = await cluster.fetch(path, { headers, signal: stop.signal });
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const read = async (): Promise<void> => {
    const chunk = await reader?.read();
    assert.ok(chunk?.value !== undefined, 'the stream ended');
    text += chunk.value;
  };
  await read(); // the first line says that the subscription stands
  return {
    stop: () => stop.abort(),
    async take(count: number): Promise<SseEvent[]> {
      for (;;) {
        const found = text
          .split('\n\n')
          .slice(0, -1)
          .filter((part) => /^data: /m.test(part));
        if (found.length >= count) return found.slice(0, count).map(parseEvent);
        await read();
      }
    },
  };
}

function parseEvent(text: string): SseEvent {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1];
  assert.equal(field('event'), 'version');
  const data: ChangeEvent = JSON.parse(field('data') ?? '');
  return { id: field('id'), data };
}

interface Operation {
  readonly operationId: string;
  readonly responses: Record<
    string,
    { readonly content?: Record<string, { readonly schema: Record<string, unknown> }> }
  >;
}

describe('the document', () => {
  test('every operation in it answers with a status and a body that it documents', async () => {
    const { cid, address } = await put('documented', 'text');
    const { selected } = await data<NavigateAnswer>(await cluster.fetch(at('navigate', { address })));
    const root = selected?.root ?? '';
    const records = await (await cluster.fetch(at('records', { address }))).arrayBuffer();
    const car = Buffer.concat([carHeader([]), ...carSection(rawBlock(utf8('sealed')))]);
    const known: Record<string, [path: string, init?: RequestInit]> = {
      get: [at('get', { address })],
      getHead: [at('get', { address })],
      put: [at('put', { address: key('documented') }), { body: 'again' }],
      post: [at('post', { address: key('documented/new') }), { body: 'new' }],
      delete: [at('delete', { address: key('documented/new') })],
      query: [at('query', { pattern: 'ucxl://any:any@any:any/*^/' })],
      navigate: [at('navigate', { address })],
      log: [at('log', { address })],
      stat: [at('stat', { address })],
      subscribe: [at('subscribe', { from: '1' })],
      announce: [at('announce', { cid: root })],
      discover: [at('discover', { cid: root })],
      storeBlocks: ['/ucxi/v1/blocks', { body: car }],
      block: [`/ucxi/v1/blocks/${root}`],
      fetchBlocks: ['/ucxi/v1/blocks/fetch', { body: JSON.stringify({ cids: [root, cid] }) }],
      records: [at('records', { address })],
      register: ['/ucxi/v1/register', { body: records }],
      beaconRebuild: ['/ucxi/v1/beacon/rebuild', { method: 'GET' }],
      beaconReseed: ['/ucxi/v1/beacon/reseed', { method: 'GET' }],
      beaconAccept: ['/ucxi/v1/beacon/accept?log=none', { method: 'POST' }],
      beaconMigrate: ['/ucxi/v1/beacon/migrate', { body: '{"to":{"engine":"leveldb"}}' }],
      beaconImport: ['/ucxi/v1/beacon/import', { body: 'not a log' }],
      custodyLog: ['/v1/custody/log/custodian-1'],
      custodyRelay: ['/v1/custody/relay?peer=nobody', { body: 'no request' }],
      custodyFile: ['/v1/custody/records', { body: 'no record' }],
    };
    const document: {
      openapi: string;
      paths: Record<string, Record<string, Operation>>;
    } = JSON.parse(await (await fetch(`${cluster.url}/openapi.json`)).text());
    assert.equal(document.openapi, '3.1.0');
    const ajv = new Ajv2020({ strict: false });
    addFormats.default(ajv);
    ajv.addSchema(document, 'door');
    const seen: string[] = [];
    for (const [path, operations] of Object.entries(document.paths))
      for (const [method, operation] of Object.entries(operations)) {
        const [target, init] = known[operation.operationId] ?? [path];
        assert.ok(!target.includes('{'), `no example for ${operation.operationId}`);
        const response = await cluster.fetch(target, { method: method.toUpperCase(), ...init });
        await conforms(ajv, path, method, operation, response);
        seen.push(operation.operationId);
      }
    assert.equal(new Set(seen).size, seen.length, 'operation ids are unique');
    for (const id of Object.keys(known)) assert.ok(seen.includes(id), `${id} is not documented`);
  });

  test('every route in the source of the table is in it', async () => {
    const folder = new URL('../../src/http/', import.meta.url);
    const files = (await readdir(folder)).filter((name) => name.endsWith('-routes.ts'));
    const sources = await Promise.all(files.map((name) => readFile(new URL(name, folder), 'utf8')));
    const served = sources.flatMap((source) =>
      [...source.matchAll(/operationId: '(\w+)'/g)].map(([, id]) => id ?? ''),
    );
    const document = await (await fetch(`${cluster.url}/openapi.json`)).text();
    assert.ok(served.length > 20);
    for (const id of served) assert.ok(document.includes(`"operationId":"${id}"`), id);
  });
});

async function conforms(
  ajv: Ajv2020,
  path: string,
  method: string,
  operation: Operation,
  response: Response,
): Promise<void> {
  const name = `${method} ${path}: ${response.status}`;
  const documented = operation.responses[String(response.status)] ?? operation.responses['default'];
  assert.ok(documented !== undefined, name);
  assert.ok(
    operation.responses[String(response.status)] !== undefined || response.status >= 400,
    `${name} is not documented`,
  );
  const media = (response.headers.get('content-type') ?? '').split(';')[0] ?? '';
  const content = documented.content?.[media] ?? documented.content?.['*/*'];
  const isBody = documented.content !== undefined && method !== 'head';
  assert.ok(!isBody || content !== undefined, `${name}: ${media} is not documented`);
  if (!isBody || documented.content?.['application/json'] === undefined || media !== 'application/json') {
    await response.body?.cancel();
    return;
  }
  const status =
    operation.responses[String(response.status)] === undefined ? 'default' : String(response.status);
  const pointer = ['paths', path, method, 'responses', status, 'content', media, 'schema']
    .map(escaped)
    .join('/');
  const validate: ValidateFunction | undefined = ajv.getSchema(`door#/${pointer}`);
  assert.ok(validate !== undefined, name);
  const body: unknown = await response.json();
  assert.ok(
    validate(body),
    `${name}: ${ajv.errorsText(validate.errors)}: ${JSON.stringify(body).slice(0, 400)}`,
  );
}

const escaped = (part: string): string =>
  encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'));

test('the metrics of a working door are taken by a strict scraper', async () => {
  const response = await cluster.fetch('/metrics');
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  const families = readExposition(await response.text());
  assert.equal(families.get('holdfast_node_up')?.samples.length, 5);
  assert.equal(families.get('holdfast_steward_up')?.samples[0]?.value, 1);
});
