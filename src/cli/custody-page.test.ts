import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CustodianInfo, CustodyStatus } from '../api/types.ts';
import { custodyExit, custodyLine, custodyPage } from './custody-page.ts';

const plain = (_style: string, text: string): string => text;

function custodian(i: number, changes: Partial<CustodianInfo> = {}): CustodianInfo {
  return {
    name: `custodian-${i}`,
    peer: `peer-${i}`,
    org: `unit ${i}`,
    index: i,
    state: 'ready',
    text: '',
    shareGen: 4,
    holds: [1, 2],
    latencyMs: 2.25,
    auditEntries: 100 + i,
    auditCosigned: 100,
    warnings: [`keys of custodian-${i} lie on the same machine`],
    ...changes,
  };
}

function status(changes: Partial<CustodyStatus> = {}): CustodyStatus {
  return {
    group: 'cg-0001',
    serves: 'tdec',
    servesText: 'Threshold custody.',
    problem: null,
    key: {
      version: 2,
      t: 3,
      n: 5,
      shareGen: 4,
      createdAt: '2026-11-22T19:00:00Z',
      ageHours: 12.5,
      ageBeats: 45_000,
      refreshEveryBars: 8,
      policyVersion: 1,
    },
    versions: [
      {
        version: 1,
        state: 'decrypt-only',
        shareGen: 3,
        createdAt: '',
        activateBeat: 0,
        switched: 0,
        left: 40,
        holders: 5,
        margin: 2,
      },
      {
        version: 2,
        state: 'active',
        shareGen: 4,
        createdAt: '',
        activateBeat: 9,
        switched: 640,
        left: null,
        holders: 5,
        margin: 2,
      },
    ],
    custodians: [1, 2, 3, 4, 5].map((i) => custodian(i)),
    alive: 5,
    margin: 2,
    next: 'no key is under version 1; it is retired at beat 45060',
    trouble: null,
    canary: { ok: true, text: 'a canary key was given back in 6 ms', beat: 44_990 },
    inPlaceOf: null,
    unerased: [],
    misconduct: [],
    warnings: [],
    beat: 45_000,
    ...changes,
  };
}

describe('the page of custody', () => {
  test('says threshold, age, generation, margin, rotation and canary, and each warning once', () => {
    const page = custodyPage(status(), plain).join('\n');
    for (const part of [
      /version 2, 3 of 5 custodians/,
      /12 h 30 min \(12\.5 h\), 45000 beats; shares of generation 4, renewed every 8 bars/,
      /Margin {3}5 ready, margin 2/,
      /1 is decrypt-only; 640 branch keys moved on by rotation, 40 still to be moved; 5 hold its shares, margin 2/,
      /Next {5}no key is under version 1; it is retired at beat 45060/,
      /Canary {3}a canary key was given back in 6 ms \(beat 44990\)/,
      /custodian-5 +unit 5 +ready +4 +2\.3 ms +105 +100/,
      /custodian-1, custodian-2, .*custodian-5: keys of … lie on the same machine/,
    ])
      assert.match(page, part);
    assert.equal(custodyExit(status()), 0);
    assert.match(custodyLine(status(), plain), /3 of 5 · 5 ready, margin 2 · generation 4 · key 12 h 30 min/);
  });

  test('names who has not confirmed that it has erased what it had, once for all of one kind', () => {
    const text = 'does not answer';
    const gone = ['custodian-6', 'custodian-7'].map((name) => ({ custodian: name, version: 1, text }));
    const page = custodyPage(status({ unerased: gone }), plain).join('\n');
    assert.match(
      page,
      /Shares to be erased\n {2}custodian-6, custodian-7: version 1 of the key: does not answer/,
    );
    assert.equal(custodyExit(status({ unerased: gone })), 0);
    assert.doesNotMatch(custodyPage(status(), plain).join('\n'), /to be erased/);
  });

  test('says which group has ended, when and why', () => {
    const inPlaceOf = { group: 'cg-0001', reason: 'three machines burnt', beat: 812 };
    const page = custodyPage(status({ inPlaceOf }), plain).join('\n');
    assert.match(page, /In the place of cg-0001, which ended at beat 812: three machines burnt/);
  });

  test('is loud about what is wrong', () => {
    const one = status({
      custodians: [
        custodian(1, { state: 'sealed', text: 'sealed by order' }),
        ...[2, 3, 4, 5].map((i) => custodian(i)),
      ],
      alive: 4,
      margin: 1,
    });
    assert.equal(custodyExit(one), 1);
    const short = status({ alive: 2, margin: -1, canary: { ok: false, text: '2 of 3', beat: 1 } });
    assert.equal(custodyExit(short), 5);
    assert.match(custodyPage(short, plain).join('\n'), /nothing can be opened until 1 more are back/);
    assert.match(custodyLine(short, plain), /canary silent/);
    const [old, now] = status().versions;
    assert.ok(old !== undefined && now !== undefined);
    const lacking = status({ margin: -1, versions: [{ ...old, holders: 2, margin: -1 }, now] });
    assert.equal(custodyExit(lacking), 5);
    const page = custodyPage(lacking, plain).join('\n');
    assert.match(
      page,
      /Margin {3}5 ready, margin -1: nothing under version 1 can be opened until 1 more are back/,
    );
    assert.match(page, /2 hold its shares, margin -1/);
    const stuck = status({ trouble: 'refresh: 3 custodians hold the present shares' });
    assert.equal(custodyExit(stuck), 1);
    assert.match(custodyPage(stuck, plain).join('\n'), /Trouble {2}refresh: 3 custodians hold/);
    const liar = status({ misconduct: ['custodian 1 signed a false partial decryption'] });
    assert.equal(custodyExit(liar), 1);
    assert.match(custodyLine(liar, plain), /caught lying/);
    const refused = status({ problem: 'custody group cg-0001 is not believed: set back' });
    assert.equal(custodyExit(refused), 5);
    assert.match(custodyLine(refused, plain), /not believed: set back/);
  });

  test('says that there is no key yet, and that a key file serves', () => {
    const born = status({ key: null, versions: [], margin: null, canary: null });
    assert.equal(custodyExit(born), 5);
    assert.match(custodyLine(born, plain), /has not made its key yet: nothing can be sealed/);
    const file = { ...born, serves: 'dev-file' };
    assert.equal(custodyExit(file), 0);
    assert.match(custodyLine(file, plain), /development key file/);
  });
});
