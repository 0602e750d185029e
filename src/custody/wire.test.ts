import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHello, parseStatus } from './wire.ts';

const key = new Uint8Array(32).fill(1);
const hello = {
  v: 1,
  name: 'custodian-1',
  log: 'local/custodian-1',
  sigPk: key,
  dkgPk: key,
  prekey: key,
  prekeyEpoch: 0,
} as const;

test('who a custodian is, is read field by field', () => {
  assert.deepEqual(parseHello(hello), hello);
  for (const wrong of [
    { ...hello, v: 2 },
    { ...hello, prekey: key.subarray(1) },
    { ...hello, more: 1 },
    null,
  ])
    assert.throws(() => parseHello(wrong), { code: 'RECORD_INVALID' });
});

test('a status of another form is refused', () => {
  const status = { v: 1, name: 'custodian-1', beat: 4, shares: [], sealed: [], warnings: [], audit: {} };
  assert.equal(parseStatus(status).name, 'custodian-1');
  for (const wrong of [{ ...status, v: 2 }, { ...status, shares: 1 }, [], undefined])
    assert.throws(() => parseStatus(wrong), { code: 'RECORD_INVALID' });
});
