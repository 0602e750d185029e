import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  authority,
  bytes32,
  certificateRecord,
  cg,
  family,
  kekRecord,
  nextPolicy,
  opened,
  requester,
  rootPolicy,
  signedKek,
  someCapability,
  someLabel,
  someRequest,
  someRevocation,
  someRotation,
  someSigner,
  someUnsignedKek,
  someWrap,
  steward,
} from '../../test/support/custody-records.ts';
import { encodeLabel } from '../envelope/label.ts';
import { leafHash, rootOf } from '../threshold/merkle.ts';
import { authorise, type CustodyTerms } from './authorise.ts';
import { Budgets } from './budget.ts';
import { capabilityId, type CapabilityLink } from './capability.ts';
import { switchedLeaf } from './certificate.ts';
import { defaultPolicy, fullCapability } from './default-policy.ts';
import { beatAt } from './freshness.ts';
import type { ClassRule, PolicyBody } from './policy.ts';
import { ReplaySet } from './replay.ts';
import {
  approveRequest,
  type CustodyRequest,
  encodeRequest,
  openRequest,
  type OpenedRequest,
  signRequest,
} from './request.ts';
import { Revocations } from './revocation.ts';

const tempo = { beatMs: 1000, beatsPerBar: 10 };
const approver = someSigner('approver');
const agent = someSigner('agent');

function terms(changes: Partial<CustodyTerms> = {}): CustodyTerms {
  return {
    kek: signedKek(someUnsignedKek()),
    generations: [1],
    policyRoot: rootPolicy.cid,
    policy: rootPolicy.body,
    revocations: Revocations.none.asOf(100),
    now: beatAt({ beat: 100, atMs: 0 }, 0, tempo),
    windowBeats: 2,
    sealed: false,
    replay: new ReplaySet(),
    budgets: new Budgets(),
    certificate: () => undefined,
    ...changes,
  };
}

/** What becomes of each item: `granted` or the code of the refusal. */
function outcome(request: OpenedRequest, given: CustodyTerms = terms()): string[] {
  return authorise(request, given).items.map((item) => {
    if (item.granted) return 'granted';
    assert.ok(item.reason.length > 10, 'a sentence that somebody understands');
    return item.code;
  });
}

function withRule(rule: Partial<ClassRule>, policy: Partial<PolicyBody> = {}): CustodyTerms {
  const classes = { ...rootPolicy.body.classes, internal: { ...rootPolicy.body.classes.internal, ...rule } };
  return terms({ policy: nextPolicy(rootPolicy, { classes, ...policy }).body });
}

function approved(request: CustodyRequest, ...by: (typeof approver)[]): OpenedRequest {
  const encoded = encodeRequest(request);
  return openRequest(
    signRequest(
      encoded,
      requester,
      by.map((signer) => approveRequest(encoded, signer)),
    ),
  );
}

test('a request under the default policy with a capability is granted', () => {
  assert.deepEqual(outcome(opened(someRequest())), ['granted']);
});

describe('the whole request is refused', () => {
  const cases: readonly [string, string, Partial<CustodyRequest>, Partial<CustodyTerms>][] = [
    ['while sealed', 'sealed', {}, { sealed: true }],
    ['of a group that has ended', 'group', {}, { ended: 'another one is in its place' }],
    ['before any beat was heard', 'clock', {}, { now: beatAt(undefined, 0, tempo) }],
    ['after a long silence', 'clock', {}, { now: beatAt({ beat: 100, atMs: 0 }, 21_000, tempo) }],
    ['for a key that is not held', 'group', {}, { kek: undefined }],
    [
      'for a key not active yet',
      'group',
      {},
      { kek: signedKek(someUnsignedKek({ state: 'pre-active', activateBeat: 101 })) },
    ],
    ['for a retired key', 'group', {}, { kek: signedKek(someUnsignedKek({ state: 'retired' })) }],
    ['for another generation', 'generation', { shareGen: 2 }, {}],
    ['when its time is over', 'stale', { beat: 96, exp: 98 }, {}],
    ['when it is dated ahead', 'stale', { beat: 103, exp: 104 }, {}],
    ['when it wants to live long', 'stale', { beat: 100, exp: 103 }, {}],
    ['before any record was read', 'unread', {}, { kek: undefined, revocations: Revocations.none }],
    ['when revocations were never compared', 'unread', {}, { revocations: Revocations.none }],
    ['when revocations are three beats old', 'unread', {}, { revocations: Revocations.none.asOf(97) }],
    ['without a policy', 'policy', {}, { policy: undefined }],
    ['without a capability', 'capability', { chain: [] }, {}],
    ['when it could not be remembered', 'overloaded', {}, { replay: full() }],
  ];
  for (const [name, code, request, given] of cases)
    test(name, () => assert.deepEqual(outcome(opened(someRequest(request)), terms(given)), [code]));

  test('the second time', () => {
    const given = terms();
    const request = opened(someRequest());
    assert.deepEqual([...outcome(request, given), ...outcome(request, given)], ['granted', 'replayed']);
  });

  test('for another group', () => {
    const label = someLabel({ cg: 'other' });
    assert.deepEqual(outcome(opened(someRequest({ cg: 'other' }, [label]))), ['group']);
  });
});

function full(): ReplaySet {
  const replay = new ReplaySet(1);
  replay.remember(bytes32('x'), 1000);
  return replay;
}

test('two beats old is fresh enough, and two bars of silence are counted by the own clock', () => {
  assert.deepEqual(outcome(opened(someRequest()), terms({ revocations: Revocations.none.asOf(98) })), [
    'granted',
  ]);
  const now = beatAt({ beat: 80, atMs: 0 }, 20_000, tempo);
  assert.deepEqual([now.beat, now.lost], [100, undefined]);
  assert.deepEqual(outcome(opened(someRequest()), terms({ now })), ['granted']);
});

describe('capabilities', () => {
  const middle = someSigner('middle');
  const toMiddle = (changes: Partial<CapabilityLink> = {}): Uint8Array =>
    someCapability({ aud: middle.publicKey, ...changes });
  const fromMiddle = (changes: Partial<CapabilityLink> = {}): Uint8Array =>
    someCapability({ iss: middle.publicKey, ...changes }, middle);
  const chains: readonly [string, string, readonly Uint8Array[]][] = [
    ['handed on once', 'granted', [toMiddle(), fromMiddle()]],
    [
      'handed on twice',
      'granted',
      [toMiddle(), someCapability({ aud: middle.publicKey }, middle), fromMiddle()],
    ],
    ['begun by nobody in particular', 'capability', [someCapability({}, middle)]],
    ['for somebody else', 'capability', [toMiddle()]],
    ['broken in the middle', 'capability', [someCapability(), fromMiddle()]],
    ['for another group', 'capability', [someCapability({ cg: 'other' })]],
    ['not yet', 'capability', [someCapability({ nbf: 101 })]],
    ['no longer', 'capability', [someCapability({ exp: 99 })]],
    [
      'another project',
      'capability',
      [someCapability({ scope: { project: 'zzz', cls: 'restricted', prefix: '' } })],
    ],
    [
      'projects by their start',
      'granted',
      [someCapability({ scope: { project: 'bz*', cls: 'internal', prefix: '' } })],
    ],
    ['a class below', 'capability', [someCapability({ scope: { project: '*', cls: 'public', prefix: '' } })]],
    ['another operation', 'capability', [someCapability({ ops: ['write'] })]],
    [
      'a path, which only a key agent can keep',
      'capability',
      [someCapability({ scope: { project: '*', cls: 'restricted', prefix: 'a/' } })],
    ],
    [
      'wider scope',
      'capability',
      [toMiddle({ scope: { project: 'bzzz', cls: 'internal', prefix: '' } }), fromMiddle()],
    ],
    [
      'wider class',
      'capability',
      [toMiddle({ scope: { project: '*', cls: 'public', prefix: '' } }), fromMiddle()],
    ],
    ['more operations', 'capability', [toMiddle({ ops: ['read'] }), fromMiddle()]],
    ['longer', 'capability', [toMiddle({ exp: 500 }), fromMiddle()]],
    ['earlier', 'capability', [toMiddle({ nbf: 50 }), fromMiddle()]],
    ['more keys', 'capability', [toMiddle({ max: 5 }), fromMiddle()]],
    [
      'path dropped',
      'capability',
      [toMiddle({ scope: { project: '*', cls: 'restricted', prefix: 'a/' } }), fromMiddle()],
    ],
  ];
  for (const [name, code, chain] of chains)
    test(name, () => assert.deepEqual(outcome(opened(someRequest({ chain }))), [code]));

  test('a link signed by another key than its issuer is refused on reading', () => {
    assert.throws(() => someCapability({ iss: authority.publicKey }, middle), { code: 'RECORD_INVALID' });
  });

  test('revoked: the link, any key in the chain, who asks', () => {
    const chain = [toMiddle(), fromMiddle()];
    for (const revoked of [
      { what: 'capability', id: capabilityId(chain[0] ?? bytes32('')) },
      { what: 'key', id: middle.publicKey },
      { what: 'key', id: authority.publicKey },
      { what: 'key', id: requester.publicKey },
    ] as const) {
      const revocations = Revocations.none.withRecord(someRevocation(1, [revoked]).body).asOf(100);
      assert.deepEqual(outcome(opened(someRequest({ chain })), terms({ revocations })), ['revoked']);
    }
  });

  test('a chain of four does not even encode', () => {
    const link = someCapability();
    assert.throws(() => encodeRequest(someRequest({ chain: [link, link, link, link] })), {
      code: 'RECORD_INVALID',
    });
  });
});

describe('each item by its label and the newest policy', () => {
  test('items are judged one by one', () => {
    const labels = [someLabel(), someLabel({ policy: null }), someLabel({ project: 'other' })];
    const chain = [someCapability({ scope: { project: 'bzzz', cls: 'restricted', prefix: '' } })];
    assert.deepEqual(outcome(opened(someRequest({ chain }, labels))), ['granted', 'policy', 'capability']);
  });

  test('bound to the policy of a group before, which this one has taken over, is judged by its own', () => {
    const before = nextPolicy(rootPolicy).cid; // any record's
    const request = opened(someRequest({}, [someLabel({ policy: before })]));
    assert.deepEqual(outcome(request), ['policy']);
    assert.deepEqual(outcome(request, terms({ takenOver: [before] })), ['granted']);
    const closed = { ...withRule({ ops: ['write'] }), takenOver: [before] };
    assert.deepEqual(outcome(request, closed), ['policy']);
  });

  test('policy swap: a label bound to another family is refused, even where that one is laxer', () => {
    const lax = defaultPolicy({
      cg,
      family: bytes32('lax').subarray(0, 16),
      writer: steward.publicKey,
      authorities: [requester.publicKey],
    });
    assert.notDeepEqual(lax.family, family);
    const label = someLabel({ policy: nextPolicy(rootPolicy).cid }); // not the first version
    assert.deepEqual(outcome(opened(someRequest({}, [label]))), ['policy']);
    const chain = [someCapability({}, requester)]; // an authority of the lax one
    assert.deepEqual(outcome(opened(someRequest({ chain }))), ['capability']);
  });

  test('label swap: a wrap under another id, version or group is refused', () => {
    const label = someLabel();
    const item = { bkId: bytes32('another').subarray(0, 16), wrap: someWrap(label) };
    assert.deepEqual(outcome(opened(someRequest({ items: [item] }))), ['wrap']);
    const older = { bkId: label.bkId, wrap: someWrap(someLabel({ kekVer: 2 })) };
    assert.deepEqual(outcome(opened(someRequest({ items: [older] }))), ['wrap']);
    const relabelled = {
      bkId: label.bkId,
      wrap: { ...someWrap(label), label: encodeLabel(someLabel({ cg: 'x' })) },
    };
    assert.throws(() => encodeRequest(someRequest({ items: [relabelled] })), { code: 'RECORD_INVALID' });
  });

  const rules: readonly [string, string, Partial<ClassRule>, Partial<PolicyBody>][] = [
    ['operation not allowed', 'policy', { ops: ['write'] }, {}],
    ['before its time', 'policy', { notBefore: 101 }, {}],
    ['after its time', 'policy', { notAfter: 99 }, {}],
    ['in its time', 'granted', { notBefore: 100, notAfter: 100 }, {}],
    ['key agents only', 'policy', { keyAgentOnly: true }, { keyAgents: [agent.publicKey] }],
    ['a key agent', 'granted', { keyAgentOnly: true }, { keyAgents: [requester.publicKey] }],
    ['another project', 'policy', {}, { projects: 'else*' }],
    ['approvals missing', 'approval', { approvals: { k: 1, of: [approver.publicKey] } }, {}],
    ['budget of nothing', 'budget', { maxItemsPerBar: 0, approvals: { k: 0, of: [] } }, {}],
    ['breaker', 'breaker', {}, { maxItemsPerBar: 0 }],
  ];
  for (const [name, code, rule, policy] of rules)
    test(name, () => assert.deepEqual(outcome(opened(someRequest()), withRule(rule, policy)), [code]));

  test('purposes need leave of their own', () => {
    const reading = withRule({ ops: ['read'] });
    const asked = (purpose: CustodyRequest['purpose']): string[] =>
      outcome(opened(someRequest({ purpose })), reading);
    assert.deepEqual((['read', 'rewrap', 'canary', 'recovery'] as const).map(asked), [
      ['granted'],
      ['policy'],
      ['policy'],
      ['policy'],
    ]);
  });

  test('leave to audit opens canaries and nothing else', () => {
    const asked = (project: string): string[] => {
      const labels = [someLabel({ project })];
      const chain = [someCapability({ ops: ['audit'] })];
      return outcome(opened(someRequest({ purpose: 'canary', chain }, labels)));
    };
    assert.deepEqual([asked('holdfast-canary'), asked(someLabel().project)], [['granted'], ['capability']]);
    const all = someRequest({ purpose: 'canary', chain: [someCapability()] });
    assert.deepEqual(outcome(opened(all)), ['capability'], 'whatever else the capability allows');
  });

  test('wrapping anew needs leave to read and to write', () => {
    const asked = (ops: CapabilityLink['ops']): string[] =>
      outcome(opened(someRequest({ purpose: 'rewrap', chain: [someCapability({ ops })] })));
    assert.deepEqual(
      [asked(['write']), asked(['read']), asked(['read', 'write'])],
      [['capability'], ['capability'], ['granted']],
    );
  });

  test('a recovery needs a policy that knows it, and two signatures', () => {
    const two = { k: 0, of: [approver.publicKey, agent.publicKey] };
    const given = (): CustodyTerms => withRule({ approvals: two }, { recovery: 'any' });
    const request = someRequest({ purpose: 'recovery' });
    assert.deepEqual(outcome(approved(request, approver), given()), ['approval']);
    assert.deepEqual(outcome(approved(request, approver, agent), given()), ['granted']);
  });
});

describe('approvals', () => {
  const rule = { approvals: { k: 2, of: [approver.publicKey, agent.publicKey, authority.publicKey] } };
  test('k of those listed, each once, none revoked', () => {
    const request = someRequest();
    assert.deepEqual(outcome(approved(request, approver), withRule(rule)), ['approval']);
    assert.deepEqual(outcome(approved(request, approver, agent), withRule(rule)), ['granted']);
    assert.deepEqual(outcome(approved(request, approver, steward), withRule(rule)), ['approval']);
    assert.throws(() => approved(request, approver, approver), { code: 'RECORD_INVALID' });
    const revoked = someRevocation(1, [{ what: 'key', id: agent.publicKey }]).body;
    const revocations = Revocations.none.withRecord(revoked).asOf(100);
    assert.deepEqual(outcome(approved(request, approver, agent), { ...withRule(rule), revocations }), [
      'approval',
    ]);
  });

  test('an approval of one request is none of another', () => {
    const one = encodeRequest(someRequest());
    const two = encodeRequest(someRequest());
    const message = signRequest(two, requester, [approveRequest(one, approver)]);
    assert.throws(() => openRequest(message), { code: 'RECORD_INVALID' });
  });
});

describe('budgets', () => {
  const of = [approver.publicKey];
  test('the rest of a batch over the budget is refused, and begins anew with the bar', () => {
    const given = withRule({ maxItemsPerBar: 3, approvals: { k: 0, of } });
    const five = Array.from({ length: 5 }, () => someLabel());
    assert.deepEqual(outcome(opened(someRequest({}, five)), given), [
      ...Array(3).fill('granted'),
      ...Array(2).fill('budget'),
    ]);
    const other = { ...given, now: beatAt({ beat: 101, atMs: 0 }, 0, tempo) };
    assert.deepEqual(outcome(opened(someRequest()), other), ['budget'], 'the same bar');
    const next = {
      ...given,
      now: beatAt({ beat: 110, atMs: 0 }, 0, tempo),
      revocations: Revocations.none.asOf(110),
    };
    assert.deepEqual(outcome(opened(someRequest({ beat: 110, exp: 111 })), next), ['granted']);
  });

  test('an approver lets a burst through, the circuit breaker lets nobody', () => {
    const given = withRule({ maxItemsPerBar: 1, approvals: { k: 0, of } }, { maxItemsPerBar: 3 });
    const five = Array.from({ length: 5 }, () => someLabel());
    assert.deepEqual(outcome(approved(someRequest({}, five), approver), given), [
      ...Array(3).fill('granted'),
      ...Array(2).fill('breaker'),
    ]);
  });

  test('what the capability gives bounds a requester over all projects', () => {
    const given = terms();
    const chain = [someCapability({ max: 2 })];
    const labels = ['a', 'b', 'c'].map((project) => someLabel({ project }));
    assert.deepEqual(outcome(opened(someRequest({ chain }, labels)), given), [
      'granted',
      'granted',
      'budget',
    ]);
  });

  test('a bar that went back does not give a second budget, and counters are bounded', () => {
    const budgets = new Budgets(2);
    const limits = { requesterMax: 1, projectMax: 10, allMax: 10 };
    const spender = { requester: bytes32('r'), project: 'p', cls: 'internal' } as const;
    assert.equal(budgets.take(spender, limits, 5, false), undefined);
    assert.equal(budgets.take(spender, limits, 4, false)?.code, 'budget');
    assert.equal(
      budgets.take({ ...spender, project: 'q', requester: bytes32('s') }, limits, 5, false)?.code,
      'overloaded',
    );
    assert.equal(budgets.take(spender, limits, 6, false), undefined);
  });

  test('a refused request uses up neither id nor budget', () => {
    const given = terms();
    outcome(opened(someRequest({ chain: [] })), given);
    assert.equal(given.replay.size, 0);
    assert.equal(given.budgets.given.items, 0);
  });
});

test('a switched wrap opens only where its certificate is known and lists it', () => {
  const label = someLabel({ kekVer: 2 });
  const { cg: group, kekVer, label: bytes, U, V } = someWrap(label);
  const leaves = ['x', 'y'].map((name) => leafHash(bytes32(name)));
  const own = leafHash(switchedLeaf(label.bkId, { label: bytes, U, V }));
  const root = rootOf([...leaves.slice(0, 1), own]);
  const record = certificateRecord(someRotation(root, 2));
  const body = record.body;
  assert.ok(body.what === 'rotation');
  const common = {
    t: 'tdec-ks',
    cg: group,
    kekVer,
    label: bytes,
    U,
    V,
    cert: record.cid,
    prev: record.cid,
  } as const;
  const wrap = { ...common, index: 1, proof: leaves.slice(0, 1) };
  const kek = signedKek(someUnsignedKek({ ver: 2, state: 'active' }));
  const asked = (changes: object, certificate: CustodyTerms['certificate']): string[] =>
    outcome(
      opened(someRequest({ kekVer: 2, items: [{ bkId: label.bkId, wrap: { ...wrap, ...changes } }] })),
      terms({ kek, certificate }),
    );
  assert.deepEqual(
    asked({}, () => body),
    ['granted'],
  );
  assert.deepEqual(
    asked({}, () => undefined),
    ['group'],
  );
  for (const changes of [{ index: 0 }, { proof: [] }, { U: bytes32('other') }, { V: bytes32('other') }])
    assert.deepEqual(
      asked(changes, () => body),
      ['wrap'],
    );
  const relabelled = encodeLabel(someLabel({ kekVer: 2, project: 'other' }));
  assert.deepEqual(
    asked({ label: relabelled }, () => body),
    ['wrap'],
  );
});

test('the default capability and policy are readable and the group’s record parses', () => {
  assert.equal(
    fullCapability({ cg, iss: bytes32('a'), aud: bytes32('b'), nbf: 0, exp: 1 }).scope.project,
    '*',
  );
  assert.equal(kekRecord(signedKek(someUnsignedKek())).body.cg, cg);
});
