// A newcomer takes the rows of a view as they are, and is told of nothing in them that it has not proven.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { catchUp } from '../../test/suites/beacon-view.suite.ts';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { each, pagesOf, type SealedRow, sealedRows } from '../../test/support/snapshot-pages.ts';
import { encodeCbor, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { proveRows } from './copied.ts';
import type { LogEntry } from './log.ts';
import { MemoryLog } from './memory.ts';
import { readRegistryRecord } from './records.ts';
import { RemoteLog } from './remote.ts';
import { decodeHead, encodePointer, rowKey } from './rows.ts';
import { sealValue, unsealValue } from './seal.ts';
import { serveBeacon } from './serve.ts';
import { snapshotForm } from './snapshot.ts';
import { BeaconView } from './view.ts';
import { LevelKv } from './view-level.ts';

const bk = someId('bk');
const addresses = Array.from({ length: 60 }, (_, index) =>
  someAddress(`s/${String(index).padStart(2, '0')}`),
);
const [first = ''] = addresses;

it('begins with the rows of another view, follows from there, and proves them afterwards', async (t) => {
  const world = await World.create(t);
  const newcomer = await world.newcomer();
  await newcomer.view.waitFor(addresses.length, t.signal);
  assert(newcomer.view.isCopied);
  assert.equal((await newcomer.view.head(first))?.version, 1);
  await world.append(someAddress('later'));
  await newcomer.view.waitFor(addresses.length + 1, t.signal);
  assert.deepEqual(newcomer.readFrom, [addresses.length], 'no entry that it had a row of was sent');
  assert.throws(
    () => newcomer.view.snapshot(),
    { code: 'NOT_FOUND' },
    'it gives away what it has proven itself',
  );
  await newcomer.prove(t.signal);
  assert.equal(newcomer.view.isCopied, false);
  while (newcomer.view.health().state !== 'following') await sleep(5, undefined, { signal: t.signal });
  assert.deepEqual(await Array.fromAsync(newcomer.view.rows()), await Array.fromAsync(world.view.rows()));
});

const lies: Readonly<Record<string, (rows: SealedRow[]) => SealedRow[]>> = {
  'another record in the place of one': (rows) =>
    rows.map((row) => changed(row, `head\0addr/${first}`, (value) => otherBytes(value))),
  'a version that is not in the log': (rows) =>
    rows.map((row) =>
      changed(row, `head\0addr/${first}`, (value) =>
        encodePointer({ ...decodeHead(value), version: 7 }, decodeHead(value).bytes),
      ),
    ),
  'the CID of another record': (rows) =>
    rows.map((row) =>
      changed(row, `head\0addr/${first}`, (value) => {
        const head = decodeHead(value);
        return encodePointer({ ...head, cid: rawBlock(utf8('another one')).cid }, head.bytes);
      }),
    ),
  'the record of another address': (rows) => {
    const other = rows.find(([key]) => text(key) === `head\0addr/${addresses[1]}`);
    return rows.map((row) =>
      changed(row, `head\0addr/${first}`, () => (other === undefined ? utf8('') : unsealed(other))),
    );
  },
};
for (const [name, lie] of Object.entries(lies))
  it(`tells nobody ${name}`, async (t) => {
    const world = await World.create(t);
    const newcomer = await world.newcomer(lie);
    await newcomer.view.waitFor(addresses.length, t.signal);
    await assert.rejects(newcomer.view.head(first), { code: 'RECORD_CORRUPT', message: /is false/ });
    await newcomer.view.condemned;
    await assert.rejects(newcomer.view.head(addresses[2] ?? ''), { code: 'RECORD_CORRUPT' });
  });

it('finds a forged record that a copied row says was skipped', async (t) => {
  const world = await World.create(t, { forgedAt: 3 });
  const where = addresses[3] ?? '';
  const newcomer = await world.newcomer((rows) => {
    const named = new Set([`head\0addr/${first}`]);
    const [model] = rows.filter(([key]) => named.has(text(key)));
    assert(model !== undefined);
    const { bytes, cid, ...pointer } = decodeHead(unsealed(model));
    assert(bytes.length > 0 && cid !== null);
    // The head row that a fold without a look at signatures would have made, beside the note that it was skipped.
    const forged = world.forgedHead(pointer);
    return [...rows, sealedRow(`head\0addr/${where}`, forged)].sort(([a], [b]) => Buffer.compare(a, b));
  });
  await newcomer.view.waitFor(addresses.length, t.signal);
  await assert.rejects(newcomer.view.head(where), { code: 'RECORD_CORRUPT', message: /is false/ });
});

for (const [name, lie] of [
  ['hides', (rows: SealedRow[]) => rows.filter(([key]) => text(key) !== pathRow(rows))],
  [
    'adds',
    (rows: SealedRow[]) =>
      [...rows, sealedRow('tag\0zz\0nowhere', new Uint8Array())].sort(([a], [b]) => Buffer.compare(a, b)),
  ],
] as const)
  it(`condemns in the end a copy that ${name} a row of an index`, async (t) => {
    const world = await World.create(t);
    const newcomer = await world.newcomer(lie);
    await newcomer.view.waitFor(addresses.length, t.signal);
    await newcomer.prove(t.signal);
    await newcomer.view.condemned;
    assert.match(newcomer.view.health().reason, /row/);
    await assert.rejects(newcomer.view.head(first), { code: 'RECORD_CORRUPT' });
    await newcomer.close();
    await assert.rejects(newcomer.reopen(), { code: 'RECORD_CORRUPT' });
  });

for (const [name, spoil] of [
  ['breaks off', (pages: Uint8Array[]) => pages.map((page, at) => (at === 0 ? page : undefined))],
  ['is no rows at all', () => [utf8('nonsense that is long enough')]],
  ['ends too early', (pages: Uint8Array[]) => pages.slice(0, 1)],
  ['never begins', () => []],
  ['lacks its position', undefined],
] as const)
  it(`folds the log when a snapshot ${name}`, async (t) => {
    const world = await World.create(t);
    const withoutPosition = (rows: SealedRow[]): SealedRow[] => rows.filter(([key]) => text(key) !== 'pos');
    const newcomer = await world.newcomer(spoil === undefined ? withoutPosition : undefined, spoil);
    await newcomer.view.waitFor(addresses.length, t.signal);
    assert.equal(newcomer.view.isCopied, false);
    assert.deepEqual(newcomer.readFrom, [1]);
    assert.equal((await newcomer.view.head(first))?.version, 1);
  });

it('folds the log when a snapshot tells another history', async (t) => {
  const world = await World.create(t);
  const other = await World.create(t, { forgedAt: 3 });
  const rows = await other.rows();
  const newcomer = await world.newcomer(() => rows);
  await newcomer.view.waitFor(addresses.length, t.signal);
  assert.equal(newcomer.view.isCopied, false);
  assert.deepEqual(newcomer.readFrom, [1]);
});

// What the other end says of its own proofs is nothing to go by: the mark that the copy is not complete stays.
const proven = sealedRow('sig', encodeCbor({ next: 1_000_000, problem: '' }));
for (const [name, lie] of [
  ['', (rows: SealedRow[]) => rows],
  [
    ', whatever came along',
    (rows: SealedRow[]) => [...rows, proven].sort(([a], [b]) => Buffer.compare(a, b)),
  ],
] as const)
  for (const [when, spoil, stopsAt] of [
    ['in the middle of taking it', (pages: Uint8Array[]) => [...pages, 'stall'] as const, 'rows'],
    ['before all of it is compared with the log', (pages: Uint8Array[]) => pages, 'log'],
  ] as const)
    it(`is begun anew when the process ends ${when}${name}`, async (t) => {
      const world = await World.create(t);
      const newcomer = await world.newcomer(lie, spoil);
      if (stopsAt === 'log') newcomer.stallReads();
      const isThere = stopsAt === 'log' ? () => newcomer.isComparing() : () => newcomer.hasBegun();
      while (!(await isThere())) await sleep(5, undefined, { signal: t.signal });
      assert.equal(newcomer.view.position().revision, 0, 'nothing of it counts yet');
      await newcomer.crash();
    });

it('says that it lives while the first page is not there yet', async (t) => {
  const world = await World.create(t);
  const rpc = new Loopback();
  const isReady = Promise.withResolvers<void>();
  const rows = await world.rows();
  serveBeacon(rpc, world.log, {
    idleMs: 1,
    async *snapshot() {
      await isReady.promise;
      yield* pagesOf(rows);
    },
  });
  const log = new RemoteLog(rpc, () => 'steward');
  const pages: Uint8Array[] = [];
  for await (const page of log.snapshot({ signal: t.signal })) {
    pages.push(page);
    if (pages.length === 3) isReady.resolve();
  }
  assert.equal(pages[2]?.length, 0);
  const kv = await LevelKv.open(await directory(t));
  t.after(() => kv[Symbol.asyncDispose]());
  await kv.replaceAll(each(pages));
  assert.deepEqual(await sealedRows(kv), rows);
});

it('is not given to one who asks for it in another form', async (t) => {
  const world = await World.create(t);
  const rpc = new Loopback();
  serveBeacon(rpc, world.log, { snapshot: () => world.view.snapshot() });
  for (const head of [{}, { form: snapshotForm + 1 }])
    await assert.rejects(
      Array.fromAsync(rpc.stream('steward', 'beacon.snapshot', { head }, { signal: t.signal })),
      { code: 'NOT_FOUND', message: /another form/ },
    );
});

it('does not end as if it were whole when nobody waits for the rest', async (t) => {
  const world = await World.create(t);
  const rpc = new Loopback();
  const left = new AbortController();
  const rows = await world.rows();
  serveBeacon(rpc, world.log, {
    async *snapshot() {
      yield* pagesOf(rows);
      left.abort(new Error('left'));
      yield* pagesOf(rows);
    },
  });
  const message = { head: { form: snapshotForm } };
  const pages = rpc.stream('steward', 'beacon.snapshot', message, { signal: left.signal });
  await assert.rejects(Array.fromAsync(pages), /left/);
});

it('still has to prove what it took after it was started again', async (t) => {
  const world = await World.create(t);
  const newcomer = await world.newcomer();
  await newcomer.view.waitFor(addresses.length, t.signal);
  await newcomer.close();
  assert.equal(await newcomer.reopen(), true);
});

class World {
  readonly log = new MemoryLog();
  readonly view: BeaconView;
  readonly #t: TestContext;
  readonly #kv: LevelKv;
  #forged: Uint8Array | undefined;

  private constructor(t: TestContext, kv: LevelKv, view: BeaconView) {
    this.#t = t;
    this.#kv = kv;
    this.view = view;
  }

  static async create(t: TestContext, { forgedAt = -1 } = {}): Promise<World> {
    const kv = await LevelKv.open(await directory(t), { sync: false });
    const world = new World(t, kv, await BeaconView.open(kv));
    t.after(() => world.view[Symbol.asyncDispose]());
    for (const [index, address] of addresses.entries()) await world.append(address, index === forgedAt);
    return world;
  }

  async rows(): Promise<SealedRow[]> {
    return sealedRows(this.#kv);
  }

  async append(address: string, isForged = false): Promise<void> {
    const append = putAppend(someManifest(address), bk);
    const records = append.records.map(({ key, bytes }, at) => {
      if (!isForged || at > 0) return { key, bytes };
      const forged = bytes.slice();
      forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
      this.#forged = forged;
      return { key, bytes: forged };
    });
    await this.log.append({ ...append, records });
    await catchUp(this.view, this.log);
  }

  forgedHead(pointer: Omit<ReturnType<typeof decodeHead>, 'bytes' | 'cid'>): Uint8Array {
    const bytes = this.#forged ?? new Uint8Array();
    const { cid } = readRegistryRecord(bytes);
    return encodePointer({ ...pointer, revision: 4, index: 0, cid }, bytes);
  }

  async newcomer(
    lie: (rows: SealedRow[]) => SealedRow[] = (rows) => rows,
    spoil: (pages: Uint8Array[]) => readonly (Uint8Array | 'stall' | undefined)[] = (pages) => pages,
  ): Promise<Newcomer> {
    const rpc = new Loopback();
    const kv = this.#kv;
    async function* snapshot(): AsyncGenerator<Uint8Array> {
      for (const page of spoil(pagesOf(lie(await sealedRows(kv))))) {
        if (page === undefined) throw new TypeError('the other end is gone');
        if (page === 'stall') await sleep(2000);
        else yield page;
      }
    }
    serveBeacon(rpc, this.log, { idleMs: 5, snapshot });
    return Newcomer.create(this.#t, rpc);
  }
}

class Newcomer {
  readonly view: BeaconView;
  readonly readFrom: number[] = [];
  readonly #t: TestContext;
  readonly #directory: string;
  readonly #kv: LevelKv;
  readonly #stop = new AbortController();
  #following: Promise<void> = Promise.resolve();
  #readsStall = false;
  #isRead = false;

  private constructor(t: TestContext, path: string, kv: LevelKv, view: BeaconView) {
    this.#t = t;
    this.#directory = path;
    this.#kv = kv;
    this.view = view;
  }

  static async create(t: TestContext, rpc: Loopback): Promise<Newcomer> {
    const path = await directory(t);
    const kv = await LevelKv.open(path);
    const view = await BeaconView.open(kv, { signatures: 'after', snapshotFrom: 2, retryMsMax: 20 });
    const newcomer = new Newcomer(t, path, kv, view);
    const log = new RemoteLog(rpc, () => 'steward', { timeoutMs: 5000 });
    const { readFrom } = newcomer;
    const counted = {
      append: log.append.bind(log),
      async *read(from: number, options?: { readonly signal?: AbortSignal }): AsyncGenerator<LogEntry> {
        newcomer.#isRead = true;
        if (newcomer.#readsStall) await sleep(2000);
        yield* log.read(from, options);
      },
      head: log.head.bind(log),
      snapshot: log.snapshot.bind(log),
      watch: (from: number, options: { readonly signal: AbortSignal }): AsyncIterable<LogEntry> => {
        readFrom.push(from);
        return log.watch(from, options);
      },
      [Symbol.asyncDispose]: async () => undefined,
    };
    newcomer.#following = view.follow(counted, newcomer.#stop.signal);
    t.after(() => newcomer.close());
    return newcomer;
  }

  async prove(signal: AbortSignal): Promise<void> {
    await using scratch = await LevelKv.open(await directory(this.#t), { sync: false });
    await proveRows(this.view, scratch, signal);
  }

  /** All rows are in force, and the log is asked for where they end. */
  async isComparing(): Promise<boolean> {
    return this.#isRead && (await this.#kv.get(rowKey('log', 1))) !== undefined;
  }

  async hasBegun(): Promise<boolean> {
    return (await this.#kv.get('sig')) !== undefined;
  }

  /** From now on the log does not say what it holds. */
  stallReads(): void {
    this.#readsStall = true;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.view[Symbol.asyncDispose]();
  }

  /** Whether its rows are still those of another view, as it finds them. */
  async reopen(): Promise<boolean> {
    await using view = await BeaconView.open(await LevelKv.open(this.#directory));
    return view.isCopied;
  }

  /** What is on the disk now is refused at the next start. */
  async crash(): Promise<void> {
    const copy = await directory(this.#t);
    await cp(this.#directory, copy, { recursive: true });
    const kv = await LevelKv.open(copy);
    await assert.rejects(BeaconView.open(kv), { code: 'RECORD_CORRUPT', message: /not finished/ });
  }
}

function changed(row: SealedRow, key: string, change: (value: Uint8Array) => Uint8Array): SealedRow {
  return text(row[0]) === key ? sealedRow(key, change(unsealed(row))) : row;
}

function otherBytes(value: Uint8Array): Uint8Array {
  const head = decodeHead(value);
  const bytes = head.bytes.slice();
  bytes[60] = (bytes[60] ?? 0) ^ 1;
  return encodePointer(head, bytes);
}

function pathRow(rows: readonly SealedRow[]): string {
  return text(rows.find(([key]) => text(key).startsWith('path\0'))?.[0] ?? new Uint8Array());
}

function sealedRow(key: string, value: Uint8Array): SealedRow {
  return [utf8(key), sealValue(utf8(key), value)];
}

function unsealed([key, sealed]: SealedRow): Uint8Array {
  return unsealValue(key, sealed, 'a row');
}

function text(key: Uint8Array): string {
  return Buffer.from(key).toString();
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-snapshot-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}
