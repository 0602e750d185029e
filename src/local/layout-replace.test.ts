import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { custodianKeysOf, openIdentity, openOrCreateIdentity } from '../node/identity.ts';
import { openMembership } from '../node/membership.ts';
import { layoutPaths, processEntry, readLayout } from './layout.ts';
import { createOrOpenLayout } from './layout-create.ts';
import { readStateFile, remember, writeStateFile } from './state-file.ts';

const small = { nodes: 1, custodians: 3, port: 0 } as const;
const lost = ['custodian-1', 'custodian-3'];

async function begun(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-replace-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await createOrOpenLayout(dir, small);
  return dir;
}

async function peersOf(dir: string): Promise<string[]> {
  const layout = await readLayout(dir);
  return ['custodian-1', 'custodian-2', 'custodian-3'].map((name) => processEntry(layout, name).peer);
}

async function membersOf(dir: string): Promise<{ version: number; custodians: string[] }> {
  const { file } = await readLayout(dir);
  const bytes = await readFile(layoutPaths(dir).membership);
  const membership = openMembership(bytes, Buffer.from(file.operator, 'hex'));
  return { version: membership.version, custodians: [...custodianKeysOf(membership).keys()] };
}

test('others get the names and places of custodians whose directories are gone, and the operator signs for them', async (t) => {
  const dir = await begun(t);
  const before = await peersOf(dir);
  const { state } = layoutPaths(dir);
  const down = { down: { by: 'kill', since: 1 }, bornAt: 1 } as const;
  await writeStateFile(state, remember(await readStateFile(state), 'custodian-1', down));
  for (const name of lost) await rm(layoutPaths(dir).process(name), { recursive: true });
  await assert.rejects(createOrOpenLayout(dir, small), { code: 'DATA_DIR_DAMAGED' });
  const { joined } = await createOrOpenLayout(dir, { ...small, replace: lost });
  assert.deepEqual(joined, lost);
  const after = await peersOf(dir);
  assert.deepEqual(
    after.map((peer, at) => peer === before[at]),
    [false, true, false],
  );
  const { version, custodians } = await membersOf(dir);
  assert.deepEqual([version, custodians.toSorted()], [2, after.toSorted()]);
  for (const [at, name] of ['custodian-1', 'custodian-2', 'custodian-3'].entries())
    assert.equal((await openIdentity(layoutPaths(dir).identity(name))).name, after[at]);
  // Born anew, and not down any more.
  assert.deepEqual((await readStateFile(state)).processes['custodian-1'], {});
  assert.equal((await createOrOpenLayout(dir, small)).joined.length, 0);
  assert.deepEqual(await peersOf(dir), after);
});

test('nobody is replaced who is there, or is no custodian, or twice', async (t) => {
  const dir = await begun(t);
  const before = await peersOf(dir);
  const replace = (...names: string[]) => createOrOpenLayout(dir, { ...small, replace: names });
  await assert.rejects(replace('custodian-2'), {
    code: 'ARGUMENT_INVALID',
    message: /custodian-2 is not lost, .*custodian-2 is there; move it away/,
  });
  for (const name of ['custodian-9', 'node-1', 'steward', '../custodian-1', ''])
    await assert.rejects(replace(name), { code: 'ARGUMENT_INVALID', message: /there is no custodian/ });
  // One of two that may not be replaced leaves both as they were.
  await rename(layoutPaths(dir).process('custodian-1'), join(dir, 'away'));
  await assert.rejects(replace('custodian-1', 'custodian-2'), /custodian-2 is not lost/);
  await rename(join(dir, 'away'), layoutPaths(dir).process('custodian-1'));
  assert.deepEqual(await peersOf(dir), before);
  await rm(layoutPaths(dir).process('custodian-1'), { recursive: true });
  await replace('custodian-1');
  await assert.rejects(replace('custodian-1'), /custodian-1 is not lost/);
});

test('a replacement that was cut goes on with the identity that was made', async (t) => {
  const dir = await begun(t);
  const path = layoutPaths(dir).process('custodian-1');
  await rm(path, { recursive: true });
  // Cut before cluster.json was written.
  await mkdir(path);
  await writeFile(join(path, 'shares'), 'of somebody');
  await assert.rejects(createOrOpenLayout(dir, { ...small, replace: ['custodian-1'] }), /is not lost/);
  await rm(join(path, 'shares'));
  const made = await openOrCreateIdentity(layoutPaths(dir).identity('custodian-1'));
  await createOrOpenLayout(dir, { ...small, replace: ['custodian-1'] });
  assert.equal((await peersOf(dir))[0], made.name);
  // Cut before the membership was: the next opening signs it.
  const membership = await readFile(layoutPaths(dir).membership);
  await rm(layoutPaths(dir).process('custodian-2'), { recursive: true });
  await createOrOpenLayout(dir, { ...small, replace: ['custodian-2'] });
  await writeFile(layoutPaths(dir).membership, membership);
  await createOrOpenLayout(dir, small);
  const { version, custodians } = await membersOf(dir);
  assert.deepEqual([version, custodians.toSorted()], [3, (await peersOf(dir)).toSorted()]);
});
