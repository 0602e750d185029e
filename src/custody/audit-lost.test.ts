import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toHex } from '../core/bytes.ts';
import { type AuditLeaf, entryOf } from './audit-leaf.ts';
import { withoutLost } from './audit-lost.ts';
import type { Finding, VerifiedLog } from './audit-verify.ts';

const bkId = 'aa'.repeat(16);
const hash = new Uint8Array(64).fill(3);
const reqHash = toHex(hash);

function leaf(custodian: string, op: AuditLeaf['op'], at: number, cg = '-'): AuditLeaf {
  return { ...entryOf({ op, beat: 1, at, cg }), v: 1, seq: 0, custodian };
}

function log(...leaves: AuditLeaf[]): VerifiedLog {
  return { checkpoint: { origin: '', size: leaves.length, root: new Uint8Array(32) }, witnesses: [], leaves };
}

/** `b` was there all the time, `a` has been begun anew at 500; both have made the group at 600. */
const logs = [
  log(leaf('a', 'start', 500), leaf('a', 'init', 600, 'cg.2')),
  log(leaf('b', 'start', 100), leaf('b', 'init', 610, 'cg.2')),
];
const missing = (custodian: string): Finding => ({ kind: 'leaf-missing', custodian, reqHash, bkId });
const few: Finding = { kind: 'too-few-leaves', reqHash, bkId, leaves: 1 };

function receipt(at: number, ...custodians: string[]) {
  return { at, reqHash: hash, bkIds: [], custodians, threshold: 2 };
}

test('what a log that is gone would say is not missed of the one that has its name now', () => {
  const judged = withoutLost([missing('a'), few], logs, [receipt(400, 'a', 'b')], 'cg.2');
  assert.deepEqual(judged, { findings: [], lost: 1 });
});

test('who was there and has left it out is named all the same', () => {
  const judged = withoutLost([missing('a'), missing('b'), few], logs, [receipt(400, 'a', 'b')], 'cg.2');
  assert.deepEqual(judged.findings, [missing('b')]);
});

test('nothing is excused after the new group was made, nor where no group has ended, nor without its word', () => {
  const findings = [missing('a'), few];
  assert.deepEqual(withoutLost(findings, logs, [receipt(605, 'a', 'b')], 'cg.2').findings, findings);
  assert.deepEqual(withoutLost(findings, logs, [receipt(550, 'a', 'b')], 'cg.2').findings, findings);
  assert.deepEqual(withoutLost(findings, logs, [receipt(400, 'a', 'b')], 'cg').findings, findings);
  assert.deepEqual(withoutLost(findings, logs, [receipt(400, 'b')], 'cg.2').findings, findings);
  assert.deepEqual(withoutLost(findings, logs, [], 'cg.2').findings, findings);
});
