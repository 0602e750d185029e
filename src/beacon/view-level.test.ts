import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ClassicLevel } from 'classic-level';
import { beaconViewSuite } from '../../test/suites/beacon-view.suite.ts';
import { LevelKv } from './view-level.ts';

beaconViewSuite('LevelDB', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-view-'));
  let kv = await LevelKv.open(directory);
  return {
    kv,
    reopen: async () => {
      await kv[Symbol.asyncDispose]();
      kv = await LevelKv.open(directory);
      return kv;
    },
    [Symbol.asyncDispose]: async () => {
      await kv[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
});

test('a look that waits for the disk leaves the next ones to other threads, twenty times as long', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-looks-'));
  t.after(() => rm(directory, { recursive: true }));
  await using kv = await LevelKv.open(directory);
  await kv.write(new Map([['a', Uint8Array.of(1)]]));
  let nowMs = 1000;
  let slowMs = 1;
  // oxlint-disable-next-line typescript/unbound-method -- it is given its own `this` below
  const look = ClassicLevel.prototype.getSync;
  t.mock.method(performance, 'now', () => nowMs);
  const looks = t.mock.method(ClassicLevel.prototype, 'getSync', function (this: ClassicLevel, key: string) {
    nowMs += slowMs;
    return Reflect.apply(look, this, [key]);
  });
  const value = async (): Promise<number | undefined> => (await kv.get('a'))?.[0];
  assert.deepEqual([await value(), await value()], [1, 1]);
  assert.equal(looks.mock.callCount(), 2);
  slowMs = 50;
  assert.equal(await value(), 1);
  nowMs += 20 * slowMs - 1;
  assert.deepEqual([await value(), await value()], [1, 1]);
  assert.equal(looks.mock.callCount(), 3);
  nowMs += 1;
  assert.equal(await value(), 1);
  assert.equal(looks.mock.callCount(), 4);
});
