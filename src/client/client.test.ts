import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CID, codecRaw } from '../core/block.ts';
import { signerFromSeed } from '../core/hash.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { carHeader, carSection, readCar } from '../manifest/car.ts';
import { parseManifest } from '../manifest/manifest.ts';
import { openRecord } from '../manifest/record.ts';
import { canonicalKey, parseAddress } from '../ucxl/address.ts';
import { type ClientOptions, HoldfastClient } from './client.ts';
import type { SourceFile } from './directory.ts';

const address = 'ucxl://a:b@c:d/*^/x';

test('what was put comes back, whole and in ranges, and the door saw only ciphertext', async (t) => {
  const { client, door } = await pair(t);
  const content = randomBytes(9_000_000); // two uploads, 35 segments, an index
  const done = await client.put(address, [content.subarray(0, 100), content.subarray(100)], { media: 'x/y' });
  assert.equal(done.address, 'ucxl://a:b@c:d/*~1/x');
  assert.equal(done.short, true, 'the door made 2 of 3 copies');
  const opened = await client.get(address);
  assert.equal(opened.media, 'x/y');
  assert.ok((await collect(opened.bytes)).equals(content));
  const part = await client.get(done.address, { range: { first: 262_000, last: 262_300 } });
  assert.ok((await collect(part.bytes)).equals(content.subarray(262_000, 262_301)));
  for (const bytes of door.blocks.values())
    assert.equal(Buffer.from(bytes).includes(content.subarray(0, 64)), false);
});

test('small content is stored with the registration, and what is told of its copies comes from there', async (t) => {
  const { client, door } = await pair(t);
  const done = await client.put(address, [Buffer.from('once')]);
  assert.deepEqual(
    door.asked.filter((path) => /blocks|register/.test(path)),
    ['/ucxi/v1/register'],
  );
  assert.deepEqual([done.copies, done.wanted, done.short], [2, 3, true]);
  assert.equal((await collect((await client.get(address)).bytes)).toString(), 'once');
});

test('a lost answer to a registration does not become a second version', async (t) => {
  const { client, door } = await pair(t);
  door.loseAnswers = 1;
  const done = await client.put(address, [Buffer.from('once')]);
  assert.equal(done.version, 1);
  assert.equal(done.revision, 1);
  assert.equal(door.versions.get(canonicalKey(parseAddress(address, { profile: 'lenient' })))?.length, 1);
});

test('reads name the newest revision that this client wrote', async (t) => {
  const { client, door } = await pair(t);
  await client.put(address, [Buffer.from('1')]);
  await client.put(address, [Buffer.from('2')]);
  assert.equal((await collect((await client.get(address)).bytes)).toString(), '2');
  assert.equal(door.revisionAsked, '2');
});

test('a door that answers with another object is found out', async (t) => {
  const { client, door } = await pair(t);
  await client.put(address, [Buffer.from('1')]);
  await client.put(`${address}2`, [Buffer.from('2')]);
  door.swap = true;
  await assert.rejects(client.get(address), { code: 'RECORD_INVALID' });
});

test('blocks that a door breaks off at are asked for alone', async (t) => {
  const { client, door } = await pair(t);
  const content = randomBytes(3_000_000);
  await client.put(address, [content]);
  door.breakFetches = 3;
  assert.ok((await collect((await client.get(address)).bytes)).equals(content));
  assert.equal(door.breakFetches, 0);
});

test('a directory comes back file by file, and each file has an address of its own', async (t) => {
  const { client } = await pair(t);
  const files: SourceFile[] = ['a.md', 'sub/b'].map((name) => ({
    name,
    sizeBytes: name.length,
    open: async function* () {
      yield Buffer.from(name);
    },
  }));
  const { tree } = await client.putDirectory('ucxl://a:b@c:d/*^/dir', files);
  const { entries } = await client.getTree(tree.address);
  assert.deepEqual(
    entries.map(({ name }) => name),
    ['a.md', 'sub/b'],
  );
  for (const entry of entries)
    assert.equal((await collect((await client.getEntry(entry)).bytes)).toString(), entry.name);
  const file = await client.get('ucxl://a:b@c:d/*^/dir/a.md');
  assert.equal(file.media, 'text/markdown; charset=utf-8');
  await assert.rejects(client.getTree(file.address), { code: 'ARGUMENT_INVALID' });
});

test('a file that fails leaves no tree behind', async (t) => {
  const { client, door } = await pair(t);
  const bad: SourceFile = {
    name: 'bad',
    sizeBytes: 1,
    // oxlint-disable-next-line require-yield -- it fails before it has anything to give
    open: async function* () {
      throw new Error('unreadable: bad');
    },
  };
  await assert.rejects(client.putDirectory('ucxl://a:b@c:d/*^/dir', [bad]), /unreadable: bad/);
  assert.equal(door.versions.size, 0);
});

test('content that was removed and reclaimed is GONE; what is merely missing is not', async (t) => {
  const { client, door } = await pair(t, { attemptsMax: 1 });
  await client.put(address, [randomBytes(600_000)]);
  await client.put(`${address}2`, [randomBytes(600_000)]);
  await client.remove(address);
  const before = await client.get('ucxl://a:b@c:d/*~1/x');
  assert.equal((await collect(before.bytes)).length, 600_000, 'not reclaimed yet');
  door.blocks.clear();
  const read = async (which: string): Promise<Buffer> => collect((await client.get(which)).bytes);
  await assert.rejects(read('ucxl://a:b@c:d/*~1/x'), (error: Error & { readonly code?: string }) => {
    assert.equal(error.code, 'GONE');
    assert.match(error.message, /removed by version 2 and has been reclaimed/);
    return true;
  });
  await assert.rejects(read(address), { code: 'GONE' });
  await assert.rejects(read(`${address}2`), { code: 'BLOCK_UNAVAILABLE' });
});

/** What a door remembers and may be told to do wrong: enough of its routes for one client. */
interface FakeDoor {
  /** Paths of all requests, in order. */
  readonly asked: string[];
  readonly blocks: Map<string, Uint8Array>;
  /** Records of each version, the manifest last. */
  readonly versions: Map<string, Uint8Array[][]>;
  revisionAsked: string | undefined;
  loseAnswers: number;
  breakFetches: number;
  swap: boolean;
}

async function pair(
  t: TestContext,
  options: Partial<ClientOptions> = {},
): Promise<{ client: HoldfastClient; door: FakeDoor }> {
  const door: FakeDoor = {
    blocks: new Map(),
    versions: new Map(),
    asked: [],
    revisionAsked: undefined,
    loseAnswers: 0,
    breakFetches: 0,
    swap: false,
  };
  const server = createServer((request, response) => {
    answer(door, request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const where = server.address();
  assert.ok(typeof where === 'object' && where !== null);
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-client-'));
  const clock = { now: Date.now, monotonic: () => performance.now() };
  const provider = await openDevFile({ path: join(dir, 'key'), clock, create: true });
  const url = `http://127.0.0.1:${where.port}`;
  const client = new HoldfastClient({
    url,
    token: 't',
    signer: signerFromSeed(randomBytes(32)),
    provider,
    ...options,
  });
  t.after(async () => {
    await client[Symbol.asyncDispose]();
    await provider[Symbol.asyncDispose]();
    server.closeAllConnections();
    server.close();
    await rm(dir, { recursive: true });
  });
  return { client, door };
}

async function answer(door: FakeDoor, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '', 'http://door');
  const data = (value: unknown): void => void response.end(JSON.stringify({ response: { data: value } }));
  const body = await collect(request);
  const wanted = url.searchParams.get('address');
  door.asked.push(url.pathname);
  door.revisionAsked = url.searchParams.get('revision') ?? door.revisionAsked;
  switch (url.pathname) {
    case '/ucxi/v1/beat':
      return data({ index: 5, state: 'locked', kekPolicy: 'dev' });
    case '/ucxi/v1/blocks':
      for await (const { cid, bytes } of readCar(pieces(body))) door.blocks.set(cid.toString(), bytes);
      return data({ blocks: 1, copies: 2, wanted: 3 });
    case '/ucxi/v1/navigate':
      return data(navigate(door, wanted ?? ''));
    case '/ucxi/v1/records':
      return void response.end(carOf(recordsOf(door, wanted ?? '')));
    case '/ucxi/v1/register': {
      const records: Uint8Array[] = [];
      for await (const { cid, bytes } of readCar(pieces(body)))
        if (cid.code === codecRaw) door.blocks.set(cid.toString(), bytes);
        else records.push(bytes);
      const { ucxl_address: key, context_version: version } = manifestOf(records).body;
      const before = door.versions.get(key) ?? [];
      if (version !== before.length + 1) return refuse(response, 409, 'VERSION_CONFLICT');
      door.versions.set(key, [...before, records]);
      if (door.loseAnswers-- > 0) return void response.destroy();
      return data({ revision: version, copies: 2, wanted: 3 });
    }
    case '/ucxi/v1/blocks/fetch': {
      const { cids }: { cids: string[] } = JSON.parse(body.toString());
      if (!cids.some((cid) => door.blocks.has(cid))) return refuse(response, 503, 'BLOCK_UNAVAILABLE');
      const all = cids.map((cid) => door.blocks.get(cid) ?? new Uint8Array());
      const car = Buffer.concat([carHeader([]), ...cids.flatMap((cid, index) => section(cid, all[index]))]);
      if (door.breakFetches === 0) return void response.end(car);
      door.breakFetches--;
      response.writeHead(200);
      return void response.write(car.subarray(0, 300_000), () => response.destroy());
    }
    case '/ucxi/v1/log':
      return data({ items: history(door, wanted ?? '') });
    default:
      if (!door.blocks.has(url.pathname.split('/').at(-1) ?? ''))
        return refuse(response, 503, 'BLOCK_UNAVAILABLE');
      return void response.end(door.blocks.get(url.pathname.split('/').at(-1) ?? ''));
  }
}

function history(door: FakeDoor, text: string): unknown[] {
  const versions = door.versions.get(canonicalKey(parseAddress(text, { profile: 'lenient' }))) ?? [];
  return versions
    .map((records, at) => ({ version: at + 1, type: manifestOf(records).body.type }))
    .toReversed();
}

function navigate(door: FakeDoor, text: string): unknown {
  const parsed = parseAddress(text, { profile: 'lenient' });
  const versions = door.versions.get(canonicalKey(parsed)) ?? [];
  const { temporal_segment: temporal } = parsed;
  const number = temporal.type === 'specific' ? temporal.count : versions.length;
  const [selected, newest] = [versions[number - 1], versions.at(-1)];
  return {
    newest: versions.length,
    newestCid: newest === undefined ? null : manifestOf(newest).cid.toString(),
    tombstone: false,
    selected: selected === undefined ? null : { cid: manifestOf(selected).cid.toString(), revision: number },
  };
}

function recordsOf(door: FakeDoor, text: string): Uint8Array[] {
  const parsed = parseAddress(text, { profile: 'lenient' });
  const own = door.versions.get(canonicalKey(parsed)) ?? [];
  const versions = door.swap ? ([...door.versions.values()].at(-1) ?? []) : own;
  const records =
    parsed.temporal_segment.type === 'specific'
      ? versions[parsed.temporal_segment.count - 1]
      : versions.at(-1);
  // The registry knows a branch key that came with an earlier version.
  const keys = [...door.versions.values()]
    .flat(2)
    .filter((bytes) => openRecord(bytes).body.kind === 'branch-key');
  return [...(records ?? []), ...keys];
}

function carOf(records: readonly Uint8Array[]): Buffer {
  const blocks = records.map((bytes) => openRecord(bytes).block);
  return Buffer.concat([carHeader([]), ...blocks.flatMap((block) => carSection(block))]);
}

function section(cid: string, bytes: Uint8Array = new Uint8Array()): readonly Uint8Array[] {
  return carSection({ cid: CID.parse(cid), bytes });
}

function manifestOf(records: readonly Uint8Array[]): ReturnType<typeof parseManifest> {
  const last = records.at(-1);
  assert.ok(last !== undefined);
  return parseManifest(openRecord(last));
}

function refuse(response: ServerResponse, status: number, reason: string): void {
  response.statusCode = status;
  response.end(JSON.stringify({ error: { message: 'no', details: { reason } } }));
}

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function collect(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(bytes));
}
