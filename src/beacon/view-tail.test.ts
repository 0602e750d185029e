// A view looks at the end of its own copy of the log before it answers anything.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { catchUp } from '../../test/suites/beacon-view.suite.ts';
import { MemoryLog } from './memory.ts';
import { rowKey } from './rows.ts';
import { BeaconView } from './view.ts';
import { MemoryKv } from './view-memory.ts';

/** More than are read at a time. */
const count = 150;

for (const [what, revision, change, problem] of [
  ['a changed entry', 100, (row: Uint8Array) => changed(row, 40), /does not continue the chain/],
  ['a changed chain', 149, (row: Uint8Array) => changed(row, 0), /does not continue the chain/],
  ['a missing entry', 3, () => null, /log entry 3 is missing/],
] as const)
  it(`finds ${what}`, async () => {
    const kv = new MemoryKv();
    const log = new MemoryLog();
    const append = putAppend(someManifest(someAddress('a')), someId('bk'));
    for (let index = 0; index < count; index++) await log.append({ ...append, subject: `s/${index}` });
    await catchUp(await BeaconView.open(kv), log);
    assert.equal((await BeaconView.open(kv)).position().revision, count);
    const key = rowKey('log', revision);
    const row = await kv.get(key);
    assert(row !== undefined);
    await kv.write(new Map([[key, change(row)]]));
    await assert.rejects(BeaconView.open(kv), { code: 'RECORD_CORRUPT', message: problem });
  });

function changed(row: Uint8Array, at: number): Uint8Array {
  const copy = row.slice();
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}
