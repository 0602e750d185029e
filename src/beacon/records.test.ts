import assert from 'node:assert/strict';
import { it } from 'node:test';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { encodeCbor } from '../core/block.ts';
import { openRegistryRecord } from './records.ts';

it('what is remembered of a record is its own, whatever becomes of the bytes that it was opened from', () => {
  const { records } = putAppend(someManifest(someAddress('a')), someId('bk'));
  for (const { bytes } of records) {
    const first = bytes.slice();
    const before = encodeCbor(openRegistryRecord(first).body);
    first.fill(0xff);
    const { bytes: kept, body } = openRegistryRecord(bytes);
    assert.equal(kept, bytes);
    assert.deepEqual(encodeCbor(body), before);
    assert.throws(() => openRegistryRecord(first), { code: 'RECORD_INVALID' });
    const forged = bytes.slice();
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
    assert.throws(() => openRegistryRecord(forged), { code: 'RECORD_INVALID' });
  }
});
