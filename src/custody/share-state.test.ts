import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  activated,
  decodeState,
  emptyState,
  encodeState,
  raised,
  repaired,
  retired,
  rotationMark,
  type ShareEntry,
  shareKeys,
  staged,
  versionsIn,
} from './share-state.ts';

const cg = 'main';
const bytes = new Uint8Array(32);

function share(kekVer: number, gen = 1, key: ShareEntry['key'] = 'kek'): ShareEntry {
  const place = { kind: 'share', id: `${kekVer} ${gen} ${key}`, cg, kekVer, gen, key } as const;
  const facts = { index: 1, t: 2, n: 3, publicKey: bytes, commitments: [bytes], verificationShares: [bytes] };
  return { ...place, ...facts, status: 'staged', since: 1, certificate: null };
}

test('a thousand versions that are over leave one number, by which none of them comes back', () => {
  let state = emptyState;
  let sizeBytes = 0;
  for (let kekVer = 1; kekVer <= 1100; kekVer++) {
    for (const key of shareKeys) state = staged(state, share(kekVer, 1, key));
    state = activated(state, share(kekVer), { beat: 1, certificate: bytes });
    for (const note of ['used', 'retired', 'ordered'] as const)
      state = raised(state, rotationMark(cg, kekVer, note), 1);
    if (kekVer > 1) state = retired(state, { cg, kekVer: kekVer - 1 });
    if (kekVer === 10) sizeBytes = encodeState(state).length;
  }
  const after = encodeState(state);
  assert.deepEqual(versionsIn(state, cg), [1100]);
  assert.ok(after.length <= sizeBytes + 32, `${after.length} bytes, ${sizeBytes} after ten versions`);
  const again = decodeState(after);
  const conflict = { code: 'VERSION_CONFLICT' };
  for (const kekVer of [1, 2, 550, 1099]) {
    assert.throws(() => staged(again, share(kekVer, 9)), conflict);
    assert.throws(() => repaired(again, { ...share(kekVer, 9), status: 'active' }), conflict);
  }
  assert.throws(() => staged(again, share(1100)), conflict);
  staged(again, share(1100, 2));
  staged(again, share(1101));
});

test('the marks of one group say nothing of another', () => {
  const state = retired(emptyState, { cg: 'main', kekVer: 7 });
  assert.throws(() => staged(state, share(3)), { code: 'VERSION_CONFLICT' });
  for (const other of ['other', 'mai', 'main2'])
    assert.equal(staged(state, { ...share(3), cg: other }).entries.length, 1, other);
});
