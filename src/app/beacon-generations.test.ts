import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openLineage, readGeneration, switchGeneration } from './beacon-generations.ts';
import type { Member } from './member.ts';

test('a log keeps its id, and one in its place names it and those before', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  assert.deepEqual(await openLineage(member, 1), first);
  assert.deepEqual(first.replaces, []);
  await switchGeneration(member, 1, 2);
  assert.equal(await readGeneration(member), 2);
  const second = await openLineage(member, 2);
  assert.deepEqual(second.replaces, [first.id]);
  await switchGeneration(member, 2, 3);
  assert.deepEqual((await openLineage(member, 3)).replaces, [second.id, first.id]);
});

test('a rebuild that is begun again makes another log, and the one in force stays what it is', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  await switchGeneration(member, 1, 2);
  const tried = await openLineage(member, 2);
  await writeFile(join(member.config.dataDir, 'beacon-generation'), '1\n'); // as a crash right before it leaves it
  assert.deepEqual(await openLineage(member, await readGeneration(member)), first);
  await switchGeneration(member, 1, 2);
  const second = await openLineage(member, 2);
  assert.notEqual(second.id, tried.id);
  assert.deepEqual(second.replaces, [first.id]);
});

test('without its file a log is nobody’s successor', async (t) => {
  const member = await steward(t);
  const first = await openLineage(member, 1);
  await switchGeneration(member, 1, 2);
  t.mock.method(console, 'error', () => undefined);
  await writeFile(join(member.config.dataDir, 'beacon-lineage'), '{"2": {"id": "x"');
  const second = await openLineage(member, 2);
  assert.deepEqual(second.replaces, []);
  assert.notEqual(second.id, first.id);
  assert.deepEqual(await openLineage(member, 2), second);
});

test('without a file that says which is in force it is the newest that was ever opened', async (t) => {
  assert.equal(await readGeneration(await steward(t)), 1);
  assert.equal(await readGeneration(await steward(t, ['beacon-1', 'beacon-2', 'beacon-3', 'beacon-5'])), 3);
});

/** As much of a member as its generations need. */
async function steward(t: TestContext, born: readonly string[] = []): Promise<Member> {
  const dataDir = await mkdtemp(join(tmpdir(), 'holdfast-generations-'));
  t.after(() => rm(dataDir, { recursive: true }));
  // oxlint-disable-next-line no-unsafe-type-assertion -- these two are all that is looked at
  return { config: { dataDir }, dir: { isBorn: (name: string) => born.includes(name) } } as unknown as Member;
}
