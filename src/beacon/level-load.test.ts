// Rows become tables, a MANIFEST and CURRENT without LevelDB: it must find in them what it would have written itself.

import assert from 'node:assert/strict';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import { ClassicLevel } from 'classic-level';
import fc from 'fast-check';
import { each, pagesOf, pagesOfRuns, type SealedRow, sealedRows } from '../../test/support/snapshot-pages.ts';
import { random } from '../../test/support/threshold.ts';
import { asBuffer, utf8 } from '../core/bytes.ts';
import { liveFiles, readLog, tableProblem } from './level-format.ts';
import { trailerBytes } from './level-format.ts';
import { RunRows } from './level-rows.ts';
import { blocksOf, type BuiltTable, tableKey, TableBuilder } from './level-tables.ts';
import { sealValue } from './seal.ts';
import { pageSlabs } from './snapshot.ts';
import { LevelKv } from './view-level.ts';

it('is read by LevelDB as what it was made of, and written to like any store', async (t) => {
  const path = await directory(t);
  const rows = manyRows();
  const kv = await LevelKv.open(path);
  await kv.write(new Map([['before', utf8('gone afterwards')]]));
  await kv.replaceAll(each(pagesOf(rows)));
  assert.deepEqual(await sealedRows(kv), rows);
  assert.equal(await kv.get('before'), undefined);
  await kv.write(
    new Map([
      ['k\0later', utf8('new')],
      [textOf(rows[7]), utf8('changed')],
      [textOf(rows[8]), null],
    ]),
  );
  await kv[Symbol.asyncDispose]();
  await using again = await LevelKv.open(path);
  assert.equal(await textAt(again, 'k\0later'), 'new');
  assert.equal(await textAt(again, textOf(rows[7])), 'changed');
  assert.equal(await again.get(textOf(rows[8])), undefined);
  assert.equal((await sealedRows(again)).length, rows.length);
  for (const row of rows.filter((_, index) => index > 8 && index % 5 === 0)) {
    assert(await again.get(textOf(row)));
    assert.equal(await again.get(`${textOf(row)}~`), undefined, 'what is not there is not found');
  }
});

it('has every byte under a checksum, and only tables that its MANIFEST names', async (t) => {
  const path = await directory(t);
  const rows = manyRows();
  {
    await using kv = await LevelKv.open(path);
    await kv.replaceAll(each(pagesOf(rows)));
  }
  const names = await readdir(join(path, 'db'));
  const tables = names.filter((name) => name.endsWith('.ldb'));
  assert(tables.length > 1, 'so many rows need more than one table');
  for (const name of tables) assert.equal(tableProblem(await readFile(join(path, 'db', name))), undefined);
  const manifest = (await readFile(join(path, 'db', 'CURRENT'), 'utf8')).trim();
  const live = liveFiles(readLog(await readFile(join(path, 'db', manifest))).records);
  assert.deepEqual(
    [...live.tables.keys()].map((number) => `${String(number).padStart(6, '0')}.ldb`).toSorted(),
    tables.toSorted(),
  );
  assert.deepEqual(await readdir(path), ['born.json', 'db'], 'nothing is left beside the store');
});

it('makes the data blocks and the filter that LevelDB makes of the same rows', async (t) => {
  const path = await directory(t);
  const rows = manyRows().slice(0, 1000);
  const db = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    compression: false,
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  await db.batch(rows.map(([key, value]) => ({ type: 'put', key, value })));
  await db.compactRange(new Uint8Array(), Uint8Array.of(0xff));
  await db.close();
  const [name = ''] = (await readdir(path)).filter((each) => each.endsWith('.ldb'));
  const theirs = await readFile(join(path, name));
  const { bytes: ours } = tableOf(rows);
  assert.equal(tableProblem(ours), undefined);
  const [own, other] = [filterOf(ours), filterOf(theirs)];
  assert(own.filter.length > 1000);
  assert.equal(own.at, other.at, 'all blocks in front of it are as long');
  assert.deepEqual(own.filter, other.filter);
});

it('takes any rows in order: short keys, long ones, empty and large values', () =>
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.uint8Array({ minLength: 1, maxLength: 300 }), {
        minLength: 1,
        maxLength: 40,
        selector: (key) => asBuffer(key).toString('hex'),
      }),
      fc.nat({ max: 9000 }),
      (keys, sizeBytes) => {
        const sorted = keys.toSorted((a, b) => asBuffer(a).compare(b));
        const { bytes, table } = tableOf(
          sorted.map((key, index) => [key, new Uint8Array((sizeBytes * (index % 3)) >>> 1)]),
        );
        assert.equal(tableProblem(bytes), undefined);
        assert.equal(table.sizeBytes, bytes.length);
        assert.deepEqual(plain(table.smallest.subarray(0, -8)), sorted[0]);
        assert.deepEqual(plain(table.largest.subarray(0, -8)), sorted.at(-1));
      },
    ),
    { numRuns: 50 },
  ));

for (const [what, spoil] of [
  ['are not in order', (rows: SealedRow[]) => rows.toSpliced(3, 2, ...rows.slice(3, 5).toReversed())],
  ['have a key twice', (rows: SealedRow[]) => rows.toSpliced(3, 0, ...rows.slice(3, 4))],
] as const)
  it(`refuses rows that ${what}, and keeps those that are there`, async (t) => {
    const path = await directory(t);
    await using kv = await LevelKv.open(path);
    await kv.write(new Map([['before', utf8('stays')]]));
    await assert.rejects(kv.replaceAll(each(pagesOf(spoil(manyRows())))), { code: 'RECORD_CORRUPT' });
    assert.equal(await textAt(kv, 'before'), 'stays');
    assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db']);
  });

it('refuses rows that end in the middle of a block', async (t) => {
  await using kv = await LevelKv.open(await directory(t));
  await kv.write(new Map([['before', utf8('stays')]]));
  const bytes = Buffer.concat(pagesOf(manyRows()));
  await assert.rejects(kv.replaceAll(each([bytes.subarray(0, -1)])), { code: 'RECORD_CORRUPT' });
  assert.deepEqual(await textsOf(kv), ['before']);
});

it('says that the disk is full, and keeps the rows that are there', async (t) => {
  const path = await directory(t);
  await using kv = await LevelKv.open(path);
  await kv.write(new Map([['before', utf8('stays')]]));
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  onRename(t, () => Promise.reject(full));
  await assert.rejects(kv.replaceAll(each(pagesOf(manyRows()))), {
    code: 'DISK_FULL',
    details: { readOnly: true },
    cause: full,
  });
  assert.equal(await textAt(kv, 'before'), 'stays');
});

it('is all of the old rows or all of the new ones after a crash at any step', async (t) => {
  const path = await directory(t);
  const crashed = await directory(t);
  const rows = manyRows();
  const kv = await LevelKv.open(path);
  await kv.write(new Map([['before', utf8('stays')]]));
  let steps = 0;
  const keep = (): Promise<void> => cp(path, join(crashed, String(steps++)), { recursive: true });
  const restore = onRename(t, keep);
  await kv.replaceAll(each(pagesOf(rows)));
  restore();
  await keep();
  await kv[Symbol.asyncDispose]();
  const found: string[] = [];
  for (let step = 0; step < steps; step++) {
    await using one = await LevelKv.open(join(crashed, String(step)));
    const isOld = (await one.get('before')) !== undefined;
    assert.deepEqual(isOld ? await textsOf(one) : await sealedRows(one), isOld ? ['before'] : rows);
    assert.deepEqual((await readdir(join(crashed, String(step)))).sort(), ['born.json', 'db']);
    found.push(isOld ? 'old' : 'new');
  }
  assert(steps > 3, 'tables are moved, and then CURRENT');
  assert.deepEqual(found, [...Array<string>(steps - 1).fill('old'), 'new']);
});

it('puts own rows over all others, whatever numbers those have', async (t) => {
  await using kv = await LevelKv.open(await directory(t));
  const value = utf8('theirs');
  const runs = [
    { level: 0, rows: [['sig', value, 2 ** 47 - 1] as const] },
    { level: 1, rows: [['cop', value, 900] as const, ['sig', null, 80] as const] },
    { level: 6, rows: [['b', value, 1] as const, ['cop', null, 4] as const] },
  ];
  const own = new Map([
    ['sig', utf8('own')],
    ['cop', null],
    ['a', utf8('own')],
  ]);
  await kv.replaceAll(each(pagesOfRuns(runs)), own);
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(await textsOf(kv), ['a', 'b', 'sig']);
    assert.equal(await textAt(kv, 'sig'), 'own');
    assert.equal(await kv.get('cop'), undefined);
    await kv.reopen();
  }
  await kv.write(new Map([['sig', utf8('later')]]));
  assert.equal(await textAt(kv, 'sig'), 'later', 'what is written afterwards is newer still');
});

it('removes the row with the highest number of all, for who asks for it and from a list', async (t) => {
  await using kv = await LevelKv.open(await directory(t));
  const value = utf8('theirs');
  const runs = [{ level: 0, rows: [['a', value, 900] as const, ['b', value, 800] as const] }];
  await kv.replaceAll(each(pagesOfRuns(runs)), new Map([['a', null]]));
  assert.equal(await kv.get('a'), undefined);
  assert.deepEqual(await textsOf(kv), ['b']);
});

for (const [how, sizeBytes] of [
  ['by this thread', 1000],
  ['by a thread of its own', 5_000_000],
] as const)
  it(`refuses what is damaged and keeps the rows that are there, walked ${how}`, async (t) => {
    const path = await directory(t);
    await using kv = await LevelKv.open(path);
    await kv.write(new Map([['before', utf8('stays')]]));
    const rows = Array.from({ length: 10 }, (_, index) => row(`k${index}`, new Uint8Array(sizeBytes / 10)));
    const bytes = Buffer.concat(pagesOf(rows));
    await kv.replaceAll(each([bytes]));
    assert.deepEqual(await sealedRows(kv), rows);
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
    await assert.rejects(kv.replaceAll(each([bytes])), {
      code: 'RECORD_CORRUPT',
      message: 'a copy of rows has a block that does not match its checksum',
    });
    assert.deepEqual(await sealedRows(kv), rows);
    assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db']);
  });

it('takes pages in memory that is used again as soon as they are walked', async (t) => {
  await using kv = await LevelKv.open(await directory(t));
  const rows = Array.from({ length: 900 }, (_, i) => row(textAtPlace(i), random(20_000)));
  const taken = new Set<ArrayBufferLike>();
  let pages = 0;
  async function* given(): AsyncGenerator<Uint8Array> {
    for (const bytes of pagesOf(rows, 200_000)) {
      const page = pageSlabs.take(bytes.length);
      page.set(bytes);
      taken.add(page.buffer);
      pages++;
      yield page;
    }
  }
  await kv.replaceAll(given());
  assert.deepEqual(await sealedRows(kv), rows);
  assert.ok(pages > 80 && taken.size < 40, `${pages} pages in ${taken.size} pieces of memory`);
});

for (const [how, sizeBytes] of [
  ['by this thread', 1000],
  ['by a thread of its own', 5_000_000],
] as const)
  it(`says that nothing can be written, and keeps the rows that are there, walked ${how}`, async (t) => {
    const path = await directory(t);
    await using kv = await LevelKv.open(path);
    await kv.write(new Map([['before', utf8('stays')]]));
    const rows = Array.from({ length: 10 }, (_, index) => row(`k${index}`, new Uint8Array(sizeBytes / 10)));
    async function* pages(): AsyncGenerator<Uint8Array> {
      await rm(join(path, 'db.next'), { recursive: true }); // where tables are made
      yield* each(pagesOf(rows));
    }
    await assert.rejects(kv.replaceAll(pages()), {
      code: 'BEACON_UNAVAILABLE',
      details: { readOnly: true },
      message: /ENOENT/,
    });
    assert.deepEqual(await textsOf(kv), ['before']);
  });

it('begins with nothing but own rows where there are no others', async (t) => {
  await using kv = await LevelKv.open(await directory(t));
  await kv.write(new Map([['before', utf8('gone')]]));
  await kv.replaceAll(each(pagesOfRuns([])), new Map([['a', utf8('own')]]));
  assert.deepEqual(await textsOf(kv), ['a']);
  await kv.clear();
  assert.deepEqual(await textsOf(kv), []);
});

/** Several tables of rows, with keys that share much, little and nothing. */
function manyRows(): SealedRow[] {
  const keys = Array.from({ length: 9000 }, (_, index) => {
    const number = String(index).padStart(5, '0');
    return index % 3 === 0 ? `k\0${number}` : `path\0project\0task\0${number}\0agent`;
  });
  const rows = keys
    .toSorted()
    .map((key, index) => row(key, new Uint8Array((index * 997) % 1800).fill(index)));
  return rows.toSpliced(5, 1, row(textOf(rows[5]), new Uint8Array(600_000).fill(7)));
}

function textAtPlace(index: number): string {
  return `path\0${String(index).padStart(5, '0')}`;
}

function row(key: string, value = utf8('value')): SealedRow {
  return [utf8(key), sealValue(utf8(key), value)];
}

function tableOf(rows: readonly SealedRow[]): { readonly bytes: Uint8Array; readonly table: BuiltTable } {
  const builder = new TableBuilder(1024);
  const walk = new RunRows();
  for (const block of blocksOf(rows.map(([key, value]) => [tableKey(key, 1), value] as const)))
    builder.add(block, walk.add(block.subarray(0, -trailerBytes)));
  const begin = builder.take().slice(); // what is taken before the end goes on where it ended
  const table = builder.finish();
  return { bytes: Buffer.concat([begin, builder.take()]), table };
}

async function textAt(kv: LevelKv, key: string): Promise<string | undefined> {
  const value = await kv.get(key);
  return value && asBuffer(value).toString();
}

async function textsOf(kv: LevelKv): Promise<string[]> {
  return (await sealedRows(kv)).map(textOf);
}

function textOf(row: SealedRow | undefined): string {
  return asBuffer(row?.[0] ?? new Uint8Array()).toString();
}

function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** The filter block of a table, which lies in front of the metaindex block, and where that begins. */
function filterOf(table: Uint8Array): { readonly filter: Uint8Array; readonly at: number } {
  const buffer = asBuffer(table);
  const footer = buffer.subarray(-48);
  const [metaindexAt] = varintAt(footer, 0);
  const metaindex = buffer.subarray(metaindexAt);
  const name = 'filter.leveldb.BuiltinBloomFilter2';
  const [at, next] = varintAt(metaindex, metaindex.indexOf(name) + name.length);
  const [sizeBytes] = varintAt(metaindex, next);
  return { filter: plain(buffer.subarray(at, at + sizeBytes)), at };
}

function varintAt(bytes: Uint8Array, from: number): [value: number, next: number] {
  let value = 0;
  for (let at = from, scale = 1; ; at++, scale *= 128) {
    const byte = bytes[at] ?? 0;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return [value, at + 1];
  }
}

/** Runs `first` before each rename within tables, until the returned function is called. */
function onRename(t: TestContext, first: () => Promise<void>): () => void {
  const fs = createRequire(import.meta.url)('node:fs/promises') as typeof import('node:fs/promises');
  const { rename } = fs;
  const mock = t.mock.method(fs, 'rename', async (from: string, to: string) => {
    await first();
    await rename(from, to);
  });
  syncBuiltinESMExports();
  const restore = (): void => {
    mock.mock.restore();
    syncBuiltinESMExports();
  };
  t.after(restore);
  return restore;
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-load-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}
