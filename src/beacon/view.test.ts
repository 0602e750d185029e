import { beaconViewSuite } from '../../test/suites/beacon-view.suite.ts';
import { MemoryKv } from './view-memory.ts';

beaconViewSuite('memory', async () => {
  const kv = new MemoryKv();
  return { kv, reopen: async () => kv, [Symbol.asyncDispose]: async () => undefined };
});
