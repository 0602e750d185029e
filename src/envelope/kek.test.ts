import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  bytes32,
  group,
  kekRecord,
  rootPolicy,
  signedKek,
  someLabel,
  someUnsignedKek,
  someWrap,
  steward,
} from '../../test/support/custody-records.ts';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { isHoldfastError } from '../core/errors.ts';
import { HighWaterMarks } from './high-water.ts';
import {
  kekFirstProblem,
  type KekState,
  kekStates,
  kekStepProblem,
  type UnsignedKek,
  verifyKek,
} from './kek.ts';
import { encodeLabel, switchedLabel } from './label.ts';
import {
  branchKeyStepProblem,
  type BranchKeyBody,
  type DirectEnvelope,
  envelopeStepProblem,
  keyOfEnvelope,
  objectKeyBody,
  parseBranchKey,
  parseEnvelope,
  parseKek,
} from './records.ts';
import { parseWrap, type SwitchedWrap } from './wraps.ts';

const kek = signedKek(someUnsignedKek());
const cid = rootPolicy.cid;

function refuses(parse: () => unknown, field: string): void {
  assert.throws(
    parse,
    (error: unknown) => isHoldfastError(error, 'RECORD_INVALID') && error.message.startsWith(field),
    field,
  );
}

/** The record after one in `before`, in state `after`. */
function step(before: Partial<UnsignedKek>, after: Partial<UnsignedKek>): string | undefined {
  const one = signedKek(someUnsignedKek(before));
  return kekStepProblem(one, signedKek(someUnsignedKek({ ...before, seq: 2, ...after })));
}

describe('the life of a key', () => {
  const forward = [
    'pre-active active',
    'active decrypt-only',
    'decrypt-only retired',
    'retired destroyed',
    'pre-active destroyed',
  ];
  for (const before of kekStates) {
    test(`from ${before}`, () => {
      for (const after of kekStates) {
        const allowed =
          forward.includes(`${before} ${after}`) || (before === after && before !== 'destroyed');
        assert.equal(
          step({ state: before }, { state: after }) === undefined,
          allowed,
          `${before} → ${after}`,
        );
      }
    });
  }

  test('begins with generation 1, and a later version waits before it is used', () => {
    const first = (changes: Partial<UnsignedKek>): boolean =>
      kekFirstProblem(signedKek(someUnsignedKek(changes))) === undefined;
    const states = (ver: number): KekState[] => kekStates.filter((state) => first({ ver, state }));
    assert.deepEqual(states(1), ['pre-active', 'active']);
    assert.deepEqual(states(2), ['pre-active']);
    assert.equal(first({ seq: 2 }), false);
    assert.equal(first({ shareGen: 2 }), false);
  });

  test('shares move on by one generation, to others while they serve, and never back', () => {
    assert.equal(step({}, { ...generation(2) }), undefined);
    assert.equal(step({}, { ...generation(2, 5, 3) }), undefined, 'reshared to others');
    assert.match(step({}, { ...generation(3) }) ?? '', /generation 3 cannot follow 1/);
    assert.match(step({ ...generation(2) }, { ...generation(1) }) ?? '', /generation 1 cannot follow 2/);
    const retired = (changes: Partial<UnsignedKek>): string | undefined =>
      step({ state: 'retired' }, { ...generation(2), state: 'retired', ...changes });
    assert.equal(retired({}), undefined, 'renewed among the same members');
    for (const changes of [generation(2, 5, 3), generation(2, 3, 3), generation(2, 3, 2, 'x')])
      assert.match(retired(changes) ?? '', /shares of a retired key go to nobody else/);
    const retiring = step({ state: 'decrypt-only' }, { ...generation(2), state: 'retired' });
    assert.match(retiring ?? '', /retired/);
    assert.match(retired({ state: 'destroyed' }) ?? '', /destroyed/);
    assert.match(step({}, { Yi: generation(2).Yi }) ?? '', /Yi changes only/);
    assert.match(
      step({}, { custodians: generation(1, 3, 2, 'x').custodians }) ?? '',
      /custodians change only/,
    );
    assert.equal(step({}, { seq: 3 }) === undefined, false);
  });

  test('what the key is never changes', () => {
    const changes: Partial<UnsignedKek>[] = [
      { cg: 'other' },
      { ver: 2 },
      { createdAt: '2026-11-22T19:00:01Z' },
      { dkgCert: new Uint8Array(64) },
      { frostPk: bytes32('other') },
      { policyRoot: null },
      { Y: bytes32('other'), C: [bytes32('other'), bytes32('C 1 0')] },
    ];
    for (const change of changes) assert.match(step({}, change) ?? '', /never changes/);
    assert.match(kekStepProblem(kek, dev()) ?? '', /once and for all/);
  });
});

function generation(
  shareGen: number,
  n = 3,
  t = 2,
  salt = '',
): Pick<UnsignedKek, 'shareGen' | 'n' | 't' | 'C' | 'Yi' | 'frostYi' | 'custodians'> {
  const { C, Yi, frostYi, custodians } = someUnsignedKek({ shareGen, n, t });
  const named = custodians.map((each) => ({ ...each, org: each.org + salt }));
  return { shareGen, n, t, C, Yi, frostYi, custodians: named };
}

function dev() {
  return parseKek({
    kind: 'kek',
    v: 1,
    writer: steward.publicKey,
    prev: null,
    cg: 'prod',
    ver: 1,
    suite: 'dev-file-1',
    state: 'active',
    createdAt: '2026-11-22T19:00:00Z',
    provider: 'dev-file',
    kid: 'k',
  });
}

test('KEKs of all providers survive encoding; the group’s signature is over all it says', () => {
  const { body } = kekRecord(kek);
  const again = parseKek(decodeCbor(encodeCbor(body), 'test'));
  assert.deepEqual(encodeCbor(again), encodeCbor(body));
  assert.ok(again.provider === 'tdec' && verifyKek(again));
  assert.equal(verifyKek({ ...again, t: 3 }), false);
  assert.equal(verifyKek(signedKek(someUnsignedKek(), steward)), false);
  for (const other of [
    { provider: 'transit', suite: 'transit-1', mount: 'transit', key: 'holdfast' },
    { provider: 'pkcs11', suite: 'pkcs11-1', token: 'slot', key: 'k', mech: 'CKM_AES_GCM' },
  ]) {
    const { kind, v, writer, prev, cg, ver, state, createdAt } = body;
    const record = { kind, v, writer, prev, cg, ver, state, createdAt, ...other };
    assert.deepEqual(encodeCbor(parseKek(record)), encodeCbor(record));
    refuses(() => parseKek({ ...record, suite: 'dev-file-1' }), 'kek.suite');
  }
});

test('a KEK that cannot be is refused', () => {
  const { body } = kekRecord(kek);
  const [first, second, third] = kek.custodians;
  const cases: readonly [string, object][] = [
    ['kek.t', { t: 4 }],
    ['kek.t', { t: 1 }],
    ['kek.C', { C: [bytes32('other'), bytes32('C')] }],
    ['kek.C', { C: [kek.Y] }],
    ['kek.Yi', { Yi: kek.Yi.slice(1) }],
    ['kek.custodians', { custodians: [first, second] }],
    ['kek.custodians[0].i', { custodians: [second, first, third] }],
    ['kek.custodians', { custodians: [first, { ...second, peer: first?.peer }, third] }],
    ['kek.custodians', { custodians: [first, { ...second, sigPk: first?.sigPk }, third] }],
    ['kek.cg', { cg: 'a/b' }],
    ['kek.provider', { provider: 'kms' }],
    ['kek.frostSig', { frostSig: new Uint8Array(63) }],
    ['kek', { kid: 'x' }],
  ];
  for (const [field, changes] of cases) refuses(() => parseKek({ ...body, ...changes }), field);
  assert.ok(group.publicKey.length === 32);
});

describe('wraps', () => {
  const label = someLabel();
  const wrap = someWrap(label);
  const switched: SwitchedWrap = {
    t: 'tdec-ks',
    cg: 'prod',
    kekVer: 2,
    label: encodeLabel(switchedLabel(label, 2)),
    U: wrap.U,
    V: wrap.V,
    cert: cid,
    index: 0,
    proof: [bytes32('p')],
    prev: cid,
  };
  const encodedLabel = encodeLabel(label);
  const all = [
    wrap,
    switched,
    { t: 'transit', mount: 'transit', key: 'k', ver: 1, label: encodedLabel, ct: 'vault:v1:AAAA' },
    {
      t: 'pkcs11',
      token: 't',
      key: 'k',
      mech: 'CKM_AES_GCM',
      label: encodedLabel,
      iv: new Uint8Array(12),
      ct: new Uint8Array(48),
    },
    { t: 'recovery', kid: 'k', label: encodedLabel, enc: bytes32('enc'), ct: new Uint8Array(48) },
  ];

  test('each is read as it was written, and needs every field', () => {
    for (const each of all) {
      assert.deepEqual(encodeCbor(parseWrap(each)), encodeCbor(each));
      for (const field of Object.keys(each)) {
        const rest = Object.fromEntries(Object.entries(each).filter(([name]) => name !== field));
        refuses(() => parseWrap(rest), `wrap.${field}`);
        refuses(() => parseWrap({ ...each, [field]: 1.5 }), `wrap.${field}`);
      }
      refuses(() => parseWrap({ ...each, more: 1 }), 'wrap');
    }
  });

  test('a threshold wrap and its label name one group and version', () => {
    refuses(() => parseWrap({ ...wrap, kekVer: 2 }), 'wrap.label');
    refuses(() => parseWrap({ ...wrap, cg: 'other' }), 'wrap.label');
    refuses(() => parseWrap({ ...switched, kekVer: 1 }), 'wrap.label');
  });

  const { project, cls, writer, window } = label;
  const branchKey: BranchKeyBody = {
    kind: 'branch-key',
    v: 1,
    writer: steward.publicKey,
    prev: null,
    bkId: label.bkId,
    bkVer: 1,
    scope: { project, cls, writer, window },
    maxWraps: 4096,
    commit: bytes32('commit'),
    combiner: 'any',
    wraps: [wrap],
  };

  test('policy swap: all wraps of a key are bound to one family, and it never changes', () => {
    const lax = someWrap({ ...label, policy: null });
    refuses(() => parseBranchKey({ ...branchKey, wraps: [wrap, lax] }), 'branch-key.wraps[1].label');
    const after = parseBranchKey({ ...branchKey, bkVer: 2, prev: cid, wraps: [lax] });
    assert.match(branchKeyStepProblem(branchKey, after) ?? '', /policy/);
    const moved = parseBranchKey({ ...branchKey, bkVer: 2, prev: cid, wraps: [switched] });
    assert.equal(
      branchKeyStepProblem(branchKey, moved),
      undefined,
      'a switched wrap keeps the version it was made in',
    );
    const wider = { ...branchKey, scope: { ...branchKey.scope, project: 'other' } };
    assert.match(branchKeyStepProblem(branchKey, wider) ?? '', /scope/);
  });

  const objId = bytes32('object').subarray(0, 16);
  const own = { ...label, cls: 'restricted', bkId: objId } as const;
  const direct: DirectEnvelope = {
    kind: 'envelope',
    v: 1,
    writer: steward.publicKey,
    prev: null,
    objId,
    envVer: 1,
    mode: 'direct',
    key: {
      bkVer: 1,
      scope: { project, cls: 'restricted', writer, window },
      commit: bytes32('commit'),
      combiner: 'any',
      wraps: [someWrap(own)],
    },
    wrap: new Uint8Array(60),
    policy: label.policy,
    cls: 'restricted',
    beat: 1,
  };

  test('an envelope with a key of its own', () => {
    const parsed = parseEnvelope(decodeCbor(encodeCbor(direct), 'test'));
    assert.deepEqual(encodeCbor(parsed), encodeCbor(direct));
    assert.deepEqual(keyOfEnvelope(direct), { bkId: objId, bkVer: 1 });
    assert.equal(objectKeyBody(direct).maxWraps, 1);
    assert.deepEqual(parseBranchKey(objectKeyBody(direct)).bkId, objId);
    refuses(
      () => parseEnvelope({ ...direct, key: { ...direct.key, wraps: [wrap] } }),
      'envelope.key.wraps[0].label',
    );
    refuses(() => parseEnvelope({ ...direct, cls: 'internal' }), 'envelope.cls');
    refuses(() => parseEnvelope({ ...direct, policy: null }), 'envelope.key.wraps[0].label');
    refuses(() => parseEnvelope({ ...direct, key: { ...direct.key, bkVer: 2 } }), 'envelope.key.bkVer');
    refuses(() => parseEnvelope({ ...direct, bkId: label.bkId }), 'envelope');
  });

  test('envelope downgrade: class, policy and a key of its own never give way', () => {
    const { key: _, ...rest } = direct;
    const shared = parseEnvelope({ ...rest, mode: 'branch', bkId: label.bkId, bkVer: 1, envVer: 2 });
    assert.match(envelopeStepProblem(direct, shared) ?? '', /of its own/);
    assert.equal(envelopeStepProblem(shared, direct), undefined);
    assert.match(envelopeStepProblem(shared, { ...shared, cls: 'public' }) ?? '', /public/);
    assert.match(envelopeStepProblem(shared, { ...shared, policy: null }) ?? '', /policy/);
  });
});

test('an older version than was seen is refused; marks are bounded', () => {
  const seen = new HighWaterMarks(2);
  for (const version of [1, 2, 2, 5]) seen.observe('env/a', version);
  assert.throws(() => seen.observe('env/a', 4), { code: 'RECORD_INVALID' });
  seen.observe('env/b', 1);
  seen.observe('env/c', 1); // forgets a
  seen.observe('env/a', 1);
});
