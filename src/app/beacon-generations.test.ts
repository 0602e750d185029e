import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { BeaconSettings, JetStreamSettings } from '../local/beacon-settings.ts';
import {
  type Generation,
  keepGeneration,
  openLineage,
  prepareGeneration,
  readGeneration,
  switchGeneration,
} from './beacon-generations.ts';
import type { Member } from './member.ts';

test('a log keeps its id, and one in its place names it and those before', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  assert.deepEqual(await openLineage(member, 1), first);
  assert.deepEqual(first.replaces, []);
  await switchGeneration(member, 1, level(2));
  assert.equal((await readGeneration(member)).number, 2);
  const second = await openLineage(member, 2);
  assert.deepEqual(second.replaces, [first.id]);
  await switchGeneration(member, 2, level(3));
  assert.deepEqual((await openLineage(member, 3)).replaces, [second.id, first.id]);
});

test('a rebuild that is begun again makes another log, and the one in force stays what it is', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  await switchGeneration(member, 1, level(2));
  const tried = await openLineage(member, 2);
  await writeFile(join(member.config.dataDir, 'beacon-generation'), '1\n'); // as a crash right before it leaves it
  assert.deepEqual(await openLineage(member, (await readGeneration(member)).number), first);
  await switchGeneration(member, 1, level(2));
  const second = await openLineage(member, 2);
  assert.notEqual(second.id, tried.id);
  assert.deepEqual(second.replaces, [first.id]);
});

test('without its file a log is nobody’s successor', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  await switchGeneration(member, 1, level(2));
  t.mock.method(console, 'error', () => undefined);
  await writeFile(join(member.config.dataDir, 'beacon-lineage'), '{"2": {"id": "x"');
  const second = await openLineage(member, 2);
  assert.deepEqual(second.replaces, []);
  assert.notEqual(second.id, first.id);
  assert.deepEqual(await openLineage(member, 2), second);
});

test('without a file that says which is in force it is the newest that was ever opened, in LevelDB', async (t) => {
  const born = ['beacon-1', 'beacon-2', 'beacon-3', 'beacon-5'];
  assert.deepEqual(await readGeneration(await steward(t, born)), level(3));
  assert.deepEqual(await readGeneration(await steward(t)), level(1));
});

test('without that file a steward whose settings name a stream takes no log of its own for it', async (t) => {
  const member = await steward(t, ['beacon-1', 'beacon-2'], stream);
  await assert.rejects(readGeneration(member), {
    code: 'DATA_DIR_DAMAGED',
    message: /beacon-generation is gone, .* generation 2 of the Beacon: the settings name stream holdfast/,
  });
});

test('a log in LevelDB says so from the beginning, whatever the settings say later', async (t) => {
  const member = await steward(t, [], stream);
  await keepGeneration(member, level(1));
  await keepGeneration(member, { number: 2, kept: stream }); // says it where nothing does
  assert.deepEqual(await readGeneration(member), level(1));
});

test('where none was opened it is what the settings say, and what is in force stays what it is', async (t) => {
  const member = await steward(t, [], stream);
  assert.deepEqual(await readGeneration(member), { number: 1, kept: stream });
  await switchGeneration(member, 1, { number: 2, kept: { ...stream, stream: 'other' } });
  assert.deepEqual(await readGeneration(member), { number: 2, kept: { ...stream, stream: 'other' } });
  await switchGeneration(member, 2, level(3));
  assert.deepEqual(await readGeneration(member), level(3));
  for (const text of ['', 'NaN\n', '2\n{"engine":"jet', '2\n{"engine":"tape"}\n']) {
    await writeFile(join(member.config.dataDir, 'beacon-generation'), text);
    await assert.rejects(readGeneration(member), { code: 'DATA_DIR_DAMAGED' }, text);
  }
});

test('what is in force is never thrown away to make another log', async (t) => {
  const member = await steward(t);
  const next: Generation = { number: 2, kept: stream };
  await prepareGeneration(member, next);
  const kept = join(member.config.dataDir, 'beacon-2', 'log', 'kept');
  await writeFile(kept, '');
  await prepareGeneration(member, next); // goes on with what an interrupted attempt for the same place left
  await stat(kept);
  await switchGeneration(member, 1, next);
  assert(member.dir.isBorn('beacon-2'));
  await assert.rejects(prepareGeneration(member, level(2)), { code: 'BEACON_UNAVAILABLE' });
  await assert.rejects(prepareGeneration(member, next, true), { code: 'BEACON_UNAVAILABLE' });
  await stat(kept);
  await prepareGeneration(member, level(3));
});

const stream: JetStreamSettings = {
  engine: 'jetstream',
  stream: 'holdfast',
  servers: ['nats://127.0.0.1:4222'],
};

function level(number: number): Generation {
  return { number, kept: { engine: 'leveldb' } };
}

/** As much of a member as its generations need. */
async function steward(
  t: TestContext,
  born: readonly string[] = [],
  beacon?: BeaconSettings,
): Promise<Member> {
  const dataDir = await mkdtemp(join(tmpdir(), 'holdfast-generations-'));
  t.after(() => rm(dataDir, { recursive: true }));
  const marked = [...born];
  const member = {
    config: { dataDir, settings: { beacon } },
    dir: {
      isBorn: (name: string) => marked.includes(name),
      markBorn: async (name: string) => void marked.push(name),
    },
  };
  // oxlint-disable-next-line no-unsafe-type-assertion -- these are all that is looked at
  return member as unknown as Member;
}
