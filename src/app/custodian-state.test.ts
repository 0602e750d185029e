import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { someUnsignedKek } from '../../test/support/custody-records.ts';
import type { KekInfo } from '../api/types.ts';
import type { CustodianStatus, HeldShare } from '../custody/wire.ts';
import type { TdecKek, UnsignedKek } from '../envelope/kek.ts';
import { marginOf, stateOf, weakestOf } from './custodian-state.ts';

const cg = 'prod';

function kek(ver: number, state: TdecKek['state'], shareGen: number): TdecKek {
  const fields: UnsignedKek = someUnsignedKek({ cg, ver, state, shareGen });
  return { ...fields, frostSig: new Uint8Array(64) };
}

const versions = [
  kek(1, 'destroyed', 9),
  kek(2, 'retired', 1),
  kek(3, 'decrypt-only', 4),
  kek(4, 'active', 2),
];
const active = versions[3];
const peer = active?.custodians[0]?.peer ?? '';

function both(kekVer: number, gen: number, status: HeldShare['status'] = 'active'): HeldShare[] {
  return (['kek', 'frost'] as const).map((key) => ({ cg, kekVer, gen, key, status, index: 1, t: 2, n: 3 }));
}

function said(shares: readonly HeldShare[], changes: Partial<CustodianStatus> = {}): CustodianStatus {
  const audit = { entries: 0, cosigned: 0, witnesses: [] };
  const about = { v: 1, name: 'custodian-1', beat: 9, timeLost: null, sealingSource: 'key-file' } as const;
  return { ...about, shares, sealed: [], audit, waiting: 0, givenInBar: 0, warnings: [], ...changes };
}

function look(shares: readonly HeldShare[], changes: Partial<CustodianStatus> = {}) {
  return stateOf(said(shares, changes), peer, cg, { active, versions });
}

const all = [...both(2, 1), ...both(3, 4), ...both(4, 2)];

describe('a custodian', () => {
  test('is ready with its shares of every version that is not destroyed', () => {
    assert.deepEqual(look(all), { state: 'ready', text: '', shareGen: 2, holds: [2, 3, 4] });
  });

  test('is stale while it lacks one, whichever that is, and the text says which', () => {
    const lacking = look([...both(2, 1), ...both(3, 3), ...both(4, 2)]);
    assert.deepEqual([lacking.state, lacking.holds], ['stale', [2, 4]]);
    assert.equal(lacking.text, 'lacks its shares of version 3, which is decrypt-only: repair it');
    const half = look(all.filter(({ kekVer, key }) => kekVer !== 2 || key !== 'kek'));
    assert.match(half.text, /version 2, which is retired/);
    const behind = look([...both(2, 1), ...both(3, 4), ...both(4, 1)]);
    assert.deepEqual(behind.holds, [2, 3]);
    assert.match(behind.text, /^has shares of generation 1, the group is at 2: repair it$/);
    const staged = look([...both(2, 1), ...both(3, 4, 'staged'), ...both(4, 2)]);
    assert.deepEqual(staged.holds, [2, 4]);
  });

  test('holds nothing of use while it is sealed, or has none of the version in use', () => {
    assert.deepEqual(look(all, { sealed: [cg] }).holds, []);
    const old = look([...both(3, 4)]);
    assert.deepEqual([old.state, old.text, old.holds], ['idle', 'holds no share of version 4', [3]]);
    assert.equal(look([]).text, 'holds no share');
  });
});

test('the margin is that of each version that opens, and the smallest counts', () => {
  const custodians = [{ holds: [2, 3, 4] }, { holds: [2, 4] }, { holds: [2, 4] }, { holds: [] }];
  const info = versions.map((each): KekInfo => {
    const about = { version: each.ver, state: each.state, shareGen: 1, createdAt: '', activateBeat: 0 };
    return { ...about, switched: 0, left: null, ...marginOf(each, custodians) };
  });
  assert.deepEqual(
    info.map(({ holders, margin }) => [holders, margin]),
    [
      [null, null],
      [null, null],
      [1, 1 - (active?.t ?? 0)],
      [3, 3 - (active?.t ?? 0)],
    ],
  );
  assert.equal(weakestOf(info)?.version, 3);
  assert.equal(weakestOf([]), undefined);
});
