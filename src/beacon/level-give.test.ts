// Rows read from the tables of a store that is open: the same as LevelDB gives, and those of one moment.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import fc from 'fast-check';
import { each } from '../../test/support/snapshot-pages.ts';
import { utf8 } from '../core/bytes.ts';
import type { KvRow } from './kv.ts';
import { LevelKv } from './view-level.ts';

const all = { from: '', to: '\u{10ffff}' };

it('gives what LevelDB gives, whatever was written, changed and removed in whatever tables', (t) =>
  fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.array(
          fc.record({
            key: fc.oneof(fc.nat({ max: 60 }).map(String), fc.string({ unit: 'binary', maxLength: 40 })),
            sizeBytes: fc.option(fc.nat({ max: 9000 }), { freq: 4 }),
          }),
          { minLength: 1, maxLength: 60 },
        ),
        { minLength: 1, maxLength: 9 },
      ),
      async (rounds) => {
        await using kv = await LevelKv.open(await directory(t), { sync: false });
        for (const [round, changes] of rounds.entries()) {
          const rows = changes.map(({ key, sizeBytes }, index) => {
            const value = sizeBytes === null ? null : new Uint8Array(sizeBytes).fill(round * 16 + index);
            return [`k${key}`, value] as const;
          });
          await kv.write(new Map(rows));
          // What was written so far becomes a table of its own.
          if (round % 3 !== 2) assert.deepEqual(await given(t, kv), await Array.fromAsync(kv.range(all)));
        }
        assert.deepEqual(await given(t, kv), await Array.fromAsync(kv.range(all)));
      },
    ),
    { numRuns: 25 },
  ));

it('gives the rows of one moment, whatever is written and compacted while they are read', async (t) => {
  const path = await directory(t);
  await using kv = await LevelKv.open(path, { sync: false });
  const value = randomBytes(2000); // which LevelDB does not compress
  const key = (index: number): string => `k${String(index).padStart(6, '0')}`;
  const write = async (from: number, step: number, fill: number): Promise<void> => {
    for (let at = from; at < 6000; at += 200 * step) {
      const keys = Array.from({ length: 200 }, (_, index) => key(at + index * step));
      const changed = value.map((byte) => byte ^ fill);
      await kv.write(new Map(keys.map((each) => [each, changed])));
    }
  };
  const writeTable = async (from: number, step: number, fill: number): Promise<void> => {
    await write(from, step, fill);
    await given(t, kv); // what is in memory becomes a table
  };
  for (let fill = 1; fill < 4; fill++) await writeTable(0, 2, fill);
  const before = await Array.fromAsync(kv.range(all));
  const pages: Uint8Array[] = [];
  for await (const page of kv.pages()) {
    pages.push(page);
    if (pages.length !== 1) continue;
    const tables = await tablesOf(path);
    const areThere = async (): Promise<boolean> => {
      const now = await tablesOf(path);
      return tables.every((name) => now.includes(name));
    };
    for (let fill = 4; await areThere(); fill++) {
      t.signal.throwIfAborted();
      await writeTable(fill % 2, 1, fill);
    }
  }
  assert(pages.length > 10);
  assert.deepEqual(await rowsIn(t, pages), before);
  assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db'], 'and lets go of them afterwards');
});

it('lets go of the tables when whoever reads them leaves, and of those of a process that ended', async (t) => {
  const path = await directory(t);
  {
    await using kv = await LevelKv.open(path, { sync: false });
    await kv.write(new Map([['a', new Uint8Array(300_000)]]));
    await kv.write(new Map([['b', utf8('b')]]));
    for await (const _page of kv.pages()) break;
    assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db']);
  }
  await mkdir(join(path, 'db.given-7'));
  await writeFile(join(path, 'db.given-7', '5'), 'a table');
  await using _kv = await LevelKv.open(path, { sync: false });
  assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db']);
});

it('says where files take no second name, or are gone, and leaves nothing behind', async (t) => {
  const path = await directory(t);
  await using kv = await LevelKv.open(path, { sync: false });
  await kv.write(new Map([['a', utf8('a')]]));
  await given(t, kv);
  const table = join(path, 'db', (await tablesOf(path))[0] ?? '');
  await rm(table);
  await assert.rejects(given(t, kv), { code: 'RECORD_CORRUPT', message: /has not the tables/ });
  await mkdir(table); // no file system gives a directory a second name
  await assert.rejects(given(t, kv), { code: 'NOT_FOUND', message: /hard link/ });
  assert.deepEqual((await readdir(path)).sort(), ['born.json', 'db']);
});

it('gives nothing of a table that is damaged', async (t) => {
  const path = await directory(t);
  await using kv = await LevelKv.open(path, { sync: false });
  await kv.write(new Map(Array.from({ length: 500 }, (_, index) => [`k${index}`, new Uint8Array(100)])));
  await given(t, kv);
  const [table = ''] = await tablesOf(path);
  const bytes = await readFile(join(path, 'db', table));
  for (const at of [10, bytes.length >>> 1, bytes.length - 60, bytes.length - 2]) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 4;
    await writeFile(join(path, 'db', table), flipped);
    await assert.rejects(given(t, kv), { code: 'RECORD_CORRUPT' }, `byte ${at} of ${bytes.length}`);
  }
});

/** What one has who takes its rows: the same in a list and when asked for one by one. */
async function given(t: TestContext, kv: LevelKv): Promise<KvRow[]> {
  return rowsIn(t, await Array.fromAsync(kv.pages()));
}

async function rowsIn(t: TestContext, pages: readonly Uint8Array[]): Promise<KvRow[]> {
  await using taker = await LevelKv.open(await directory(t), { sync: false });
  await taker.replaceAll(each(pages));
  const rows = await Array.fromAsync(taker.range(all));
  const keys = rows.map(([key]) => key);
  assert.deepEqual(
    await taker.getMany(keys),
    rows.map(([, value]) => value),
  );
  return rows;
}

async function tablesOf(path: string): Promise<string[]> {
  return (await readdir(join(path, 'db'))).filter((name) => name.endsWith('.ldb'));
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-give-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}
