import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beaconLogSuite } from '../../test/suites/beacon-log.suite.ts';
import { LevelLog } from './level.ts';

beaconLogSuite('LevelDB', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-log-'));
  let log = await LevelLog.open(directory);
  return {
    log,
    reopen: async () => {
      await log[Symbol.asyncDispose]();
      log = await LevelLog.open(directory);
      assert.equal(log.health().state, 'ready');
      return log;
    },
    [Symbol.asyncDispose]: async () => {
      await log[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
});
