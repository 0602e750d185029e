// A log that says which one it is, as those that a host keeps do.

import type { BeaconLog, LogLineage } from '../../src/beacon/log.ts';

export function namedLog(log: BeaconLog, lineage: LogLineage | undefined): BeaconLog {
  return {
    append: (append, options) => log.append(append, options),
    read: (from, options) => log.read(from, options),
    watch: (from, options) => log.watch(from, options),
    head: async () => ({ ...(await log.head()), ...(lineage === undefined ? {} : { lineage }) }),
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  };
}
