// Every byte of a small view's files is flipped: it is found before anything is served, or it changes no answer.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { putAppend, someAddress, someId, someManifest, writer } from '../../test/suites/beacon-records.ts';
import { ClassicLevel } from 'classic-level';
import { isHoldfastError } from '../core/errors.ts';
import { parsePattern } from '../ucxl/match.ts';
import { checkLevel, keepChecking } from './level-check.ts';
import { liveFiles, readLog, tableProblem } from './level-format.ts';
import { MemoryLog } from './memory.ts';
import { BeaconView } from './view.ts';
import { LevelKv } from './view-level.ts';

const bk = someId('bk');
const count = 8;

describe('a flipped byte in the files of a view', () => {
  let directory = '';
  let files: ReadonlyMap<string, Buffer> = new Map();
  let answers = '';

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'holdfast-flips-'));
    await makeView(directory);
    answers = await answersOf(directory);
    files = await filesOf(directory);
  });
  after(() => rm(directory, { recursive: true }));

  it('is found in every byte of a table', () => {
    const tables = [...files].filter(([name]) => name.endsWith('.ldb'));
    assert(tables.length > 0);
    const unseen = tables.flatMap(([name, bytes]) =>
      everyFlip(bytes)
        .filter(({ flipped }) => tableProblem(flipped) === undefined)
        .map(({ offset }) => `${name} ${offset}`)
        .toArray(),
    );
    assert.deepEqual(unseen, []);
  });

  it('is found in every byte of a MANIFEST, or leaves fewer edits, which the tables then contradict', () => {
    const [manifest] = [...files].filter(([name]) => name.startsWith('MANIFEST')).map(([, bytes]) => bytes);
    assert(manifest !== undefined);
    const whole = liveFiles(readLog(manifest).records);
    for (const { flipped, offset } of everyFlip(manifest)) {
      const { records, problem } = readLog(flipped);
      if (problem !== undefined) continue;
      assert.notDeepEqual(
        liveFiles(records),
        whole,
        `byte ${offset} is neither found nor does it change anything`,
      );
    }
  });

  it('never makes an opened view answer otherwise: flips all over the files, opened in earnest', async () => {
    const bad = `${directory}-bad`;
    const outcomes = { refused: 0, behind: 0, same: 0 };
    for (const [name, bytes] of files) {
      for (const { flipped, offset } of everyFlip(bytes, Math.ceil(bytes.length / 12))) {
        await rm(bad, { recursive: true, force: true });
        await cp(directory, bad, { recursive: true });
        await writeFile(join(bad, 'db', name), flipped);
        const found = await answersOrRefusal(bad);
        if (found === 'refused' || found === 'behind') outcomes[found]++;
        else {
          assert.equal(found, answers, `byte ${offset} of ${name}`);
          outcomes.same++;
        }
      }
    }
    await rm(bad, { recursive: true });
    assert(outcomes.refused > 24, JSON.stringify(outcomes));
  });

  it('is found in a view that is open', async (t) => {
    const copy = await copied(t, directory);
    await using kv = await LevelKv.open(copy, { checkBytesMax: 0 });
    const [name, bytes] = firstTable(files);
    await writeFile(join(copy, 'db', name), everyFlip(bytes, bytes.length).next().value?.flipped ?? '');
    const giveUpAt = performance.now() + 20_000;
    const isRefused = async (): Promise<boolean> => {
      try {
        await Array.fromAsync(kv.range({ from: 'path', to: 'patz' }));
        return false;
      } catch (error) {
        return isHoldfastError(error, 'RECORD_CORRUPT');
      }
    };
    while (!(await isRefused())) assert(performance.now() < giveUpAt, 'still served');
  });

  it('keeps the very first list from being answered, however large the store was to check before', async (t) => {
    const [name, bytes] = firstTable(files);
    for (let at = bytes.length - 1; at > 0; at -= Math.ceil(bytes.length / 12)) {
      const copy = await copied(t, directory);
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      await writeFile(join(copy, 'db', name), flipped);
      const kv = await LevelKv.open(copy, { checkBytesMax: 0 }).catch((error: unknown) => error);
      if (!(kv instanceof LevelKv)) continue; // LevelDB itself saw it
      await assert.rejects(
        Array.fromAsync(kv.range({ from: 'tag', to: 'tah' })),
        { code: 'RECORD_CORRUPT' },
        `byte ${at}`,
      );
      await kv[Symbol.asyncDispose]();
    }
  });

  it('is told by the check that goes on while a store is open, which a compaction does not disturb', async (t) => {
    const copy = await copied(t, directory);
    const path = join(copy, 'db');
    const [name, bytes] = firstTable(files);
    await writeFile(join(path, name), everyFlip(bytes, bytes.length).next().value?.flipped ?? '');
    const unchecked = [Number.parseInt(name, 10)];
    await assert.rejects(keepChecking(path, { unchecked }, AbortSignal.timeout(20_000)), {
      code: 'RECORD_CORRUPT',
    });
    // A table that is no part of the store any more is nobody's damage.
    const stop = new AbortController();
    const others = keepChecking(path, { unchecked: [999_999] }, stop.signal);
    stop.abort();
    await others;
  });
});

it('reads tables that LevelDB compressed, and a log longer than a block', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-level-'));
  t.after(() => rm(path, { recursive: true }));
  const text = 'the same words again and again '.repeat(40);
  for (let round = 0; round < 3; round++) {
    const db = new ClassicLevel(path);
    for (let index = 0; index < 200; index++) await db.put(`key ${round} ${index}`, `${index} ${text}`);
    if (round === 1) await db.compactRange('', '~');
    await db.close();
    assert.deepEqual(await checkLevel(path), { unchecked: [] });
  }
  const log = (await readdir(path)).find((name) => name.endsWith('.log')) ?? '';
  const bytes = await readFile(join(path, log));
  assert(bytes.length > 64 * 1024);
  const whole = readLog(bytes).records.length;
  assert.equal(whole, 200);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  await writeFile(join(path, log), bytes);
  await assert.rejects(checkLevel(path), { code: 'RECORD_CORRUPT', message: /damaged record at 0/ });
});

it('takes a torn end of a log for what it is', async () => {
  const record = (text: string): Buffer => Buffer.from(text);
  assert.deepEqual(readLog(record('')).records, []);
  assert.equal(readLog(new Uint8Array(40_000)).problem, undefined);
  assert.equal(readLog(Buffer.alloc(3000, 0xaa)).problem, undefined);
});

async function makeView(directory: string): Promise<void> {
  await using log = new MemoryLog();
  for (let index = 0; index < count; index++) {
    await log.append(putAppend(someManifest(someAddress(`f/${index}`), { tags: ['kept'] }), bk));
  }
  {
    await using view = await BeaconView.open(await LevelKv.open(directory));
    await view.apply(await Array.fromAsync(log.read(1)));
  }
  // Opened anew, what was in the write-ahead log goes into a table.
  await using _settled = await LevelKv.open(directory);
}

/** Everything that lists rows, as text. */
async function answersOf(directory: string): Promise<string> {
  await using view = await BeaconView.open(await LevelKv.open(directory), { cacheBytes: 0 });
  if (view.position().revision < count) return 'behind';
  const addressesOf = (page: { readonly items: readonly { readonly address: string }[] }): string =>
    page.items.map(({ address }) => address).join(' ');
  return [
    addressesOf(await view.query(parsePattern('ucxl://*:*@holdfast:*/*^/**'))),
    addressesOf(await view.query(parsePattern('ucxl://ann:writer@holdfast:beacon/*^/**'))),
    addressesOf(await view.tagged('kept')),
    addressesOf(await view.writtenBy(writer.publicKey)),
    String((await view.objectsOfBranchKey(bk)).items.length),
    String((await view.versions(someAddress('f/3'))).items.length),
    String((await Array.fromAsync(view.catalogue())).length),
    String((await Array.fromAsync(view.rows())).length),
  ].join('\n');
}

async function answersOrRefusal(directory: string): Promise<string> {
  try {
    return await answersOf(directory);
  } catch (error) {
    if (isHoldfastError(error)) return 'refused';
    throw error;
  }
}

async function filesOf(directory: string): Promise<ReadonlyMap<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const name of await readdir(join(directory, 'db'))) {
    const bytes = await readFile(join(directory, 'db', name));
    if (bytes.length > 0 && /\.(?:ldb|log)$|^MANIFEST|^CURRENT/.test(name)) files.set(name, bytes);
  }
  return files;
}

/** One flip in every `step`-th byte, each in a copy. */
function* everyFlip(bytes: Buffer, step = 1): Generator<{ offset: number; flipped: Buffer }, undefined> {
  for (let offset = step >> 1; offset < bytes.length; offset += step) {
    const flipped = Buffer.from(bytes);
    flipped[offset] = (flipped[offset] ?? 0) ^ (1 << (offset % 8));
    yield { offset, flipped };
  }
}

function firstTable(files: ReadonlyMap<string, Buffer>): [string, Buffer] {
  for (const [name, bytes] of files) if (name.endsWith('.ldb')) return [name, bytes];
  throw new RangeError('no table');
}

async function copied(t: TestContext, directory: string): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), 'holdfast-flips-copy-'));
  t.after(() => rm(copy, { recursive: true }));
  await cp(directory, copy, { recursive: true });
  return copy;
}
