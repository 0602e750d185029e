import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
