// What was withdrawn in a group is withdrawn in the one in its place, and what was granted is granted anew as it was.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { someSigner } from '../../test/support/custody-records.ts';
import { random } from '../../test/support/threshold.ts';
import type { Signer } from '../core/hash.ts';
import { capabilityId, type CapabilityLink, parseCapability, signCapability } from './capability.ts';
import { type AnewTerms, grantedAnew, standingRules, uncarried } from './carried.ts';
import { defaultPolicy, fullCapability } from './default-policy.ts';
import { parseRevocation, type Revoked, Revocations } from './revocation.ts';

const operator = someSigner('operator');
const writer = someSigner('writer');
const reader = someSigner('reader');
const team = someSigner('team');
const [cg, young] = ['cg-test', 'cg-test.2'];
const ends = 5000;

function revoking(...revoked: Revoked[]): Revocations {
  const head = {
    kind: 'revocation',
    v: 1,
    writer: operator.publicKey,
    prev: null,
    cg,
    n: 1,
    beat: 1,
  } as const;
  return revoked.length === 0
    ? Revocations.none
    : Revocations.none.withRecord(parseRevocation({ ...head, revoked }));
}

const keyOf = ({ publicKey: id }: Signer): Revoked => ({ what: 'key', id });

function link(by: Signer, to: Signer, changes: Partial<CapabilityLink> = {}): Uint8Array {
  const full = fullCapability({ cg, iss: by.publicKey, aud: to.publicKey, nbf: 10, exp: ends });
  const scope = { project: 'plans', cls: 'confidential', prefix: 'shared/' } as const;
  return signCapability({ ...full, scope, ops: ['read'], max: 7, ...changes }, by);
}

function terms(changes: Partial<AnewTerms> = {}): AnewTerms {
  const authorities = [operator.publicKey, team.publicKey];
  const group = { authorities, revocations: Revocations.none };
  return {
    before: { cg, ...group },
    now: { cg: young, ...group },
    beat: 200,
    since: 150,
    signers: [operator, writer],
    ...changes,
  };
}

function reasonOf(chain: readonly Uint8Array[], changes: Partial<AnewTerms> = {}): string {
  const anew = grantedAnew(chain, terms(changes));
  return anew.ok ? '' : anew.reason;
}

test('a capability is signed anew for the same key, with the same words, to the same end', () => {
  const chain = [link(operator, writer), link(writer, reader, { max: 3, exp: 900 })];
  const anew = grantedAnew(chain, terms());
  assert.ok(anew.ok);
  const said = anew.chain.map(parseCapability);
  const wanted = chain.map((each) => ({ ...parseCapability(each), cg: young, nbf: 150 }));
  assert.deepEqual(said, wanted);
});

test('the same one gives the same bytes whenever it is asked for, so one that was revoked since does not come back', () => {
  const chain = [link(operator, reader)];
  const [first] = anewOf(chain, terms());
  const [later] = anewOf(chain, terms({ beat: 900 }));
  assert.ok(first !== undefined);
  assert.deepEqual(later, first);
  const revocations = revoking({ what: 'capability', id: capabilityId(first) });
  const { now } = terms();
  assert.match(reasonOf(chain, { beat: 900, now: { ...now, revocations } }), /in cg-test\.2: .*revoked/);
});

function anewOf(chain: readonly Uint8Array[], held: AnewTerms): readonly Uint8Array[] {
  const anew = grantedAnew(chain, held);
  assert.ok(anew.ok, JSON.stringify(anew));
  return anew.chain;
}

test('what the group before would not take now is not signed anew: ended, revoked, of another group or of nobody', () => {
  const good = [link(operator, reader)];
  const { before } = terms();
  assert.match(reasonOf(good, { beat: ends + 1 }), /it ended with beat 5000, now is 5001/);
  for (const revoked of [
    keyOf(reader),
    { what: 'capability', id: capabilityId(good[0] ?? random(1)) } as const,
  ])
    assert.match(reasonOf(good, { before: { ...before, revocations: revoking(revoked) } }), /revoked/);
  assert.match(reasonOf([link(operator, reader, { cg: 'cg-other' })]), /it is for custody group cg-other/);
  assert.match(reasonOf([link(writer, reader)]), /is no authority of the policy/);
  assert.match(reasonOf([link(operator, team), link(team, reader, { exp: ends + 1 })]), /gives more time/);
});

test('it is left to who signed it where that key is not here, and the group of now has its own word', () => {
  assert.match(reasonOf([link(team, reader)]), /the key [0-9a-f]{64} signed it: who has that key/);
  assert.match(reasonOf([link(operator, team), link(team, reader)]), /who has that key grants it again/);
  const { now } = terms();
  const revocations = revoking(keyOf(reader));
  assert.match(
    reasonOf([link(operator, reader)], { now: { ...now, revocations } }),
    /in cg-test\.2: .*was revoked/,
  );
  const authorities = [team.publicKey];
  assert.match(
    reasonOf([link(operator, reader)], { now: { ...now, authorities } }),
    /in cg-test\.2: .*no authority/,
  );
});

test('an authority that was revoked is none in the rules of the next group; all else is as it was', () => {
  const authorities = [operator.publicKey, team.publicKey];
  const policy = defaultPolicy({ cg, family: random(16), writer: operator.publicKey, authorities });
  const rules = standingRules(policy, revoking(keyOf(team), keyOf(reader)));
  assert.deepEqual(rules, { ...policy, authorities: [operator.publicKey] });
  assert.deepEqual(standingRules(policy, Revocations.none), policy);
  assert.throws(() => standingRules(policy, revoking(keyOf(team), keyOf(operator))), {
    code: 'VERSION_CONFLICT',
    message: /all 2 authorities of the policy of cg-test were revoked/,
  });
});

test('keys that were revoked are to be revoked again, and no capability is: its group is over', () => {
  const before = revoking(keyOf(team), { what: 'capability', id: random(32) }, keyOf(reader));
  assert.deepEqual(uncarried(before, Revocations.none), [team.publicKey, reader.publicKey]);
  assert.deepEqual(uncarried(before, revoking(keyOf(team))), [reader.publicKey]);
  assert.deepEqual(uncarried(before, before), []);
});
