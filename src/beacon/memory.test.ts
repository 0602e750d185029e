import { beaconLogSuite } from '../../test/suites/beacon-log.suite.ts';
import { MemoryLog } from './memory.ts';

beaconLogSuite('memory', async () => {
  const log = new MemoryLog();
  return { log, [Symbol.asyncDispose]: () => log[Symbol.asyncDispose]() };
});
