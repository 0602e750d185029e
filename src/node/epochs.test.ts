import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type Epoch, ownerOf } from '../core/epoch.ts';
import { isHoldfastError } from '../core/errors.ts';
import { StewardEpochs } from './epochs.ts';

const clock = { now: () => 0, monotonic: () => 1000 };
const refused = (error: unknown): boolean => isHoldfastError(error, 'FORBIDDEN');
const first: Epoch = { n: 1, by: 'a', members: ['a', 'b'] };
const second: Epoch = { n: 2, by: 'b', members: ['b'] };

/** A digest that `owner` looks after. */
function digestOf(owner: string, members: readonly string[]): Uint8Array {
  for (let slice = 0; slice < 256; slice++)
    if (ownerOf(slice, members) === owner) return Uint8Array.of(slice, 1, 2, 3);
  return assert.fail();
}

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-epochs-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

test('a node that was never given an epoch obeys without one: there is one steward', async (t) => {
  const epochs = await StewardEpochs.open(await directory(t), clock);
  await epochs.obey('a', undefined, [Uint8Array.of(7)]);
});

test('the highest epoch holds, also after a restart, and none before it is obeyed', async (t) => {
  const dir = await directory(t);
  const before = await StewardEpochs.open(dir, clock);
  assert.deepEqual(await before.call('a', first), first);
  assert.deepEqual(await before.call('b', second), second);
  assert.deepEqual(await before.call('a', first), second);
  const epochs = await StewardEpochs.open(dir, clock);
  assert.deepEqual(epochs.held, second);
  const digest = digestOf('a', first.members);
  await assert.rejects(epochs.obey('a', first, [digest]), refused);
  await assert.rejects(epochs.obey('a', undefined, [digest]), refused);
  await epochs.obey('b', second, [digest]);
});

test('only the owner of a slice gives orders about it, and an order brings its epoch along', async (t) => {
  const epochs = await StewardEpochs.open(await directory(t), clock);
  const [ofA, ofB] = [digestOf('a', first.members), digestOf('b', first.members)];
  await epochs.obey('a', first, [ofA]);
  await assert.rejects(epochs.obey('a', first, [ofA, ofB]), refused);
  await assert.rejects(epochs.obey('c', first, [ofA]), refused);
  await epochs.obey('b', first, [ofB]);
  await epochs.obey('b', second, [ofA]);
  await assert.rejects(epochs.obey('a', first, [ofA]), refused);
});

test('it says which stewards have called, and what a crossing proposal leaves is on disk', async (t) => {
  const dir = await directory(t);
  const epochs = await StewardEpochs.open(dir, clock);
  await Promise.all([epochs.call('a', first), epochs.call('b', second), epochs.call('a', undefined)]);
  assert.deepEqual(epochs.heard(), [
    { peer: 'a', agoMs: 0 },
    { peer: 'b', agoMs: 0 },
  ]);
  assert.deepEqual(JSON.parse(await readFile(join(dir, 'steward-epoch.json'), 'utf8')), second);
  await writeFile(join(dir, 'steward-epoch.json'), '{"n": 0}');
  await assert.rejects(StewardEpochs.open(dir, clock), (error) => isHoldfastError(error, 'DATA_DIR_DAMAGED'));
});
