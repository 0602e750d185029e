// The thread that signs the entries of a benchmark: to sign takes as long as to append, and there are two cores.
// For each message it has another list of appends; an empty one says that there are no more.

import { parentPort, workerData } from 'node:worker_threads';
import type { Append } from '../src/beacon/log.ts';
import { toHex } from '../src/core/bytes.ts';
import {
  logRecord,
  putAppend,
  someAddress,
  someEnvelope,
  someId,
  someManifest,
} from '../test/suites/beacon-records.ts';

/** Entries `from` … `to` − 1 are wanted. */
export interface EntriesWanted {
  readonly from: number;
  readonly to: number;
}

const entriesPerMessage = 256;
const bk = someId('bk');

const { from, to }: EntriesWanted = workerData;
let next = from;
parentPort?.on('message', () => {
  const count = Math.min(entriesPerMessage, to - next);
  const appends = Array.from({ length: count }, (_, at) => benchAppend(next + at));
  next += count;
  parentPort?.postMessage(appends, []);
});

/** The branch key comes with every object until it is registered: with the first one here. */
function benchAppend(index: number): Append {
  const manifest = someManifest(someAddress(`bench/${index}`));
  if (index === 0) return putAppend(manifest, bk);
  const { ucxl_address: address, encryption } = manifest.body;
  if (encryption === null) throw new Error('an entry of the benchmark has content');
  const envelope = someEnvelope(encryption.objId, bk);
  const records = [
    logRecord(`addr/${address}`, manifest),
    logRecord(`env/${toHex(encryption.objId)}`, envelope),
  ];
  return { subject: `addr/${address}`, expected: -1, records, at: 5 };
}
