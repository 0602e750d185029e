// One test for each way in which log, view, keys and blocks can disagree.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { ClassicLevel } from 'classic-level';
import {
  contentOf,
  putAppend,
  someAddress,
  someBranchKey,
  someId,
  someManifest,
  withFalseSignature,
} from '../../test/suites/beacon-records.ts';
import type { CID } from '../core/block.ts';
import type { Append, BeaconLog } from './log.ts';
import { MemoryLog } from './memory.ts';
import { rowKey } from './rows.ts';
import { verifyBeacon, type VerifyPorts } from './verify.ts';
import { BeaconView } from './view.ts';
import { LevelKv } from './view-level.ts';
import { MemoryKv } from './view-memory.ts';

const bk = someId('bk');
const addresses = Array.from({ length: 6 }, (_, index) => someAddress(`v/${index}`));
const appends = addresses.map((address) => putAppend(someManifest(address), bk));
const third = addresses[3] ?? '';

it('finds nothing where all agree', async () => {
  await using world = await worldOf(appends);
  assert.deepEqual(await problemsOf(world, { hasBlock: async () => true }), []);
});

it('finds nothing where all agree and writers go on', async () => {
  await using world = await worldOf(appends);
  const { log, view } = world;
  const more = putAppend(someManifest(someAddress('v/late')), bk);
  const busy: BeaconLog = {
    append: (append) => log.append(append),
    head: () => log.head(),
    watch: (from, options) => log.watch(from, options),
    async *read(from) {
      for await (const entry of log.read(from)) {
        if (entry.revision === 3) await view.apply([await log.append(more)]);
        yield entry;
      }
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
  const { ok, problems, revision, counts } = await verifyBeacon({
    log: busy,
    view,
    scratch: new MemoryKv(),
    hasBlock: async () => true,
  });
  assert.deepEqual([ok, problems, revision, counts.entries], [true, [], appends.length, appends.length]);
  assert.equal(view.position().revision, appends.length + 1);
});

it('chain: the log tells another history', async () => {
  await using world = await worldOf(appends);
  await using other = await logOf(
    appends.map((append, index) => (index === 2 ? { ...append, at: 6 } : append)),
  );
  const [problem] = await problemsOf(world, { log: other });
  assert.match(problem ?? '', /the log leads to revision 6 .* the view stands at 6/);
});

it('chain: the log ends before the view', async () => {
  await using world = await worldOf(appends);
  await using other = await logOf(appends.slice(0, 4));
  assert.match((await problemsOf(world, { log: other })).join('\n'), /leads to revision 4 .* stands at 6/);
});

it('chain: the copy of the log in the view misses an entry', async () => {
  await using world = await worldOf(appends);
  await world.kv.write(new Map([[rowKey('log', 3), null]]));
  const problems = await problemsOf({ ...world, log: undefined });
  assert.match(problems.join('\n'), /the log after revision \d: .*log entry 3 is missing/);
});

it('checksum: a row on the disk has other bytes', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-verify-'));
  t.after(() => rm(directory, { recursive: true }));
  await using log = await logOf(appends);
  {
    await using view = await BeaconView.open(await LevelKv.open(directory));
    await view.apply(await Array.fromAsync(log.read(1)));
  }
  await spoilRow(join(directory, 'db'), rowKey('head', `addr/${third}`));
  await using view = await BeaconView.open(await LevelKv.open(directory));
  const { ok, problems } = await verifyBeacon({ log, view, scratch: new MemoryKv() });
  assert.equal(ok, false);
  assert.match(problems[0] ?? '', /the view after \d+ rows: .*does not match its checksum/);
});

it('missing row', async () => {
  await using world = await worldOf(appends);
  await world.kv.write(new Map([[rowKey('cid', contentOf(third, 1).toString(), 'content', third, 1), null]]));
  assert.match((await problemsOf(world))[0] ?? '', /^row "cid .*v\/3.*" is missing$/);
});

it('extra row', async () => {
  await using world = await worldOf(appends);
  await world.kv.write(new Map([[rowKey('tag', 'forged', third), new Uint8Array()]]));
  assert.match((await problemsOf(world))[0] ?? '', /^row "tag forged .*" should not be there$/);
});

it('view against the fold: a row with whole bytes that say something else', async () => {
  await using world = await worldOf(appends);
  const other = await world.kv.get(rowKey('head', `addr/${addresses[1] ?? ''}`));
  assert(other !== undefined);
  await world.kv.write(new Map([[rowKey('head', `addr/${third}`), other]]));
  assert.match((await problemsOf(world))[0] ?? '', /^row "head addr.*v\/3" differs$/);
});

it('missing block: of a record, and of content', async () => {
  await using world = await worldOf(appends);
  for (const lost of [someManifest(third).cid, contentOf(third, 1)]) {
    const hasBlock = async (cid: CID): Promise<boolean> => !cid.equals(lost);
    assert.deepEqual(await problemsOf(world, { hasBlock }), [
      `${third} version 1: no node holds ${lost.toString()}`,
    ]);
  }
});

it('missing block: of a branch key, for every object under it', async () => {
  await using world = await worldOf(appends);
  const lost = someBranchKey(bk).cid;
  const problems = await problemsOf(world, { hasBlock: async (cid) => !cid.equals(lost) });
  assert.equal(problems.length, appends.length);
});

it('record signature: a false one that was folded in on trust', async () => {
  const forged = appends.map((append, index) => (index === 3 ? withFalseSignature(append) : append));
  await using log = await logOf(forged);
  const kv = new MemoryKv();
  await using view = await BeaconView.open(kv, { signatures: 'after' });
  await view.follow(log, AbortSignal.timeout(10_000)); // ends by itself
  const problems = await problemsOf({ log, view, kv });
  assert.match(problems.join('\n'), /row "rejt .*" is missing/);
  assert.match(problems.join('\n'), /row "head addr.*v\/3" should not be there/);
});

it('key record missing: an envelope that nobody registered', async () => {
  const bare = appends.map((append, index) =>
    index === 3 ? { ...append, records: append.records.slice(0, 1) } : append,
  );
  await using world = await worldOf(bare);
  assert.deepEqual(await problemsOf(world), [`${third} version 1: its envelope is not registered`]);
});

it('key record missing: a branch key that nobody registered', async () => {
  const bare = appends.map((append) => ({ ...append, records: append.records.slice(0, 2) }));
  await using world = await worldOf(bare);
  const problems = await problemsOf(world);
  assert.equal(problems.length, appends.length);
  assert.match(problems[0] ?? '', /v\/0 version 1: branch key [0-9a-f]{32} version 1 is not registered$/);
});

interface World<Log = MemoryLog | undefined> {
  readonly log: Log;
  readonly view: BeaconView;
  readonly kv: MemoryKv;
}

async function worldOf(entries: readonly Append[]): Promise<World<MemoryLog> & AsyncDisposable> {
  const log = await logOf(entries);
  const kv = new MemoryKv();
  const view = await BeaconView.open(kv);
  await view.apply(await Array.fromAsync(log.read(1)));
  return { log, view, kv, [Symbol.asyncDispose]: () => view[Symbol.asyncDispose]() };
}

async function logOf(entries: readonly Append[]): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (const append of entries) await log.append(append);
  return log;
}

async function problemsOf({ log, view }: World, more: Partial<VerifyPorts> = {}): Promise<readonly string[]> {
  const trusted = log === undefined ? {} : { log };
  const { ok, problems } = await verifyBeacon({ ...trusted, view, scratch: new MemoryKv(), ...more });
  assert.equal(ok, problems.length === 0);
  return problems;
}

/** As a flip would, had LevelDB written it: its own checksums hold. */
async function spoilRow(path: string, key: string): Promise<void> {
  const db = new ClassicLevel<string, Uint8Array>(path, { valueEncoding: 'view', createIfMissing: false });
  const value = (await db.get(key))?.slice();
  assert(value !== undefined);
  value[40] = (value[40] ?? 0) ^ 4;
  await db.put(key, value);
  await db.close();
}
