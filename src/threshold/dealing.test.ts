import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  dealBy,
  dealerOf,
  finish,
  generate,
  newMembers,
  refreshed,
  reshared,
  sessionFor,
  type World,
} from '../../test/support/custody-world.ts';
import { blamed, flipped, random, the, valueOf } from '../../test/support/threshold.ts';
import { concat } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { deal, openDealt, readDealings } from './dealing.ts';
import { activate, certify, complete, settle } from './dealing-agreement.ts';
import { answer, complain } from './dealing-complaints.ts';
import { openDealing } from './dealing-session.ts';
import { ed25519Suite, ristrettoSuite } from './dkg-suite.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { loadRistretto } from './group-sodium.ts';
import { lagrange } from './polynomial.ts';
import { signStep } from './signed-step.ts';
import { combine, encrypt } from './tdh2.ts';

const group = await loadRistretto();
const suite = ristrettoSuite(group);

/** The public key that these members' shares make. */
function keyOf(world: World, quorum: readonly number[]): Uint8Array {
  const parts = quorum.map((i) =>
    world.group.mul(lagrange(world.group, quorum, i), world.group.base(the(world.shares[i - 1]))),
  );
  return world.group.sum(parts);
}

test('refresh and reshare keep the key, on both groups', async () => {
  for (const each of [suite, ed25519Suite(await loadEd25519())]) {
    const first = generate(each, 2, newMembers(3));
    const second = refreshed(first, [1, 3]);
    const third = reshared(second, [2, 3], 3, [...newMembers(3), the(second.members[0])]);
    const { Y } = first.keys;
    assert.deepEqual(second.keys.Y, Y);
    assert.deepEqual(third.keys.Y, Y);
    assert.deepEqual([third.keys.t, third.keys.n, third.gen], [3, 4, 3]);
    assert.deepEqual(keyOf(second, [1, 2]), Y);
    assert.deepEqual(keyOf(third, [1, 2, 4]), Y);
    assert.notDeepEqual(keyOf(third, [1, 2]), Y);
    assert.notDeepEqual(second.shares, first.shares);
  }
});

test('partials of two generations do not open together', () => {
  const old = generate(suite, 2, newMembers(3));
  const fresh = refreshed(old, [1, 2, 3]);
  const { wrap, element } = encrypt(group, old.keys.Y, Uint8Array.of(1), random);
  const partial = (world: World, index: number) => ({
    index,
    D: group.mul(the(world.shares[index - 1]), wrap.U),
  });
  assert.deepEqual(combine(group, wrap.V, [partial(fresh, 1), partial(fresh, 3)]), element);
  assert.notDeepEqual(combine(group, wrap.V, [partial(old, 1), partial(fresh, 3)]), element);
});

test('a share of an older generation completes nothing', () => {
  const old = generate(suite, 2, newMembers(3));
  const now = refreshed(old, [1, 2, 3]);
  const session = sessionFor(now);
  const messages = dealBy(now, session, [1, 2]).map(({ message }) => message);
  const { dealings } = readDealings(group, session, messages);
  const settled = valueOf(settle(group, session, dealings, [], []));
  const { shares } = openDealt(group, session, 1, the(now.members[0]).prekey.secretKey, dealings);
  const outcome = complete(group, session, settled, { index: 1, shares, present: the(old.shares[0]) });
  assert.deepEqual(blamed(outcome), [[1, 'share']]);
});

test('a refresh cannot carry a constant: a commitment more, fewer, or the identity is refused', () => {
  const world = generate(suite, 3, newMembers(4));
  const session = sessionFor(world);
  const honest = the(dealBy(world, session, [2])[0]).message;
  const body = honest.subarray(1, honest.length - 64);
  const { signer } = the(world.members[1]);
  const resigned = (changed: Uint8Array) => signStep(signer, session.id, 'deal', 2, changed);
  const shifted = concat(group.base(group.scalar.fromInt(3)), body);
  const cases = [
    [shifted, 'malformed'],
    [body.subarray(32), 'malformed'],
    [concat(group.identity, body.subarray(32)), 'commitments'],
    [concat(new Uint8Array(32).fill(255), body.subarray(32)), 'commitments'],
  ] as const;
  for (const [changed, reason] of cases) {
    const { dealings, faults } = readDealings(group, session, [resigned(changed)]);
    assert.equal(dealings.length, 0);
    assert.deepEqual(
      faults.map((fault) => [fault.culprit, fault.as, fault.reason]),
      [[2, 'dealer', reason]],
    );
  }
});

test('a dealer in a reshare cannot bring in another share than its own', () => {
  const world = generate(suite, 2, newMembers(3));
  const members = newMembers(4);
  const session = sessionFor(world, { t: 3, members });
  const injected = { ...dealerOf(world, 2), share: group.scalar.fromInt(42) };
  const bad = deal(group, session, injected, random).message;
  const others = dealBy(world, session, [1, 3]).map(({ message }) => message);
  const { dealings, faults } = readDealings(group, session, [bad, ...others]);
  assert.deepEqual(
    dealings.map(({ dealer }) => dealer),
    [1, 3],
  );
  assert.deepEqual(
    faults.map((fault) => [fault.culprit, fault.reason]),
    [[2, 'constant']],
  );
  assert.deepEqual(finish(world, session, members, [bad, ...others]).world.keys.Y, world.keys.Y);
});

test('dealings of another session, and of strangers, are noise', () => {
  const world = generate(suite, 2, newMembers(3));
  const yesterday = sessionFor(world);
  const session = sessionFor(world);
  const replayed = the(dealBy(world, yesterday, [1])[0]).message;
  const stranger = deal(
    group,
    session,
    { ...dealerOf(world, 3), signer: the(newMembers(1)[0]).signer },
    random,
  );
  const { dealings, faults } = readDealings(group, session, [replayed, stranger.message, random(500)]);
  assert.deepEqual(dealings, []);
  assert.ok(
    faults.length === 3 && faults.every(({ culprit, reason }) => culprit === 0 && reason === 'unsigned'),
  );
});

test('two dealings of one dealer prove it a liar, and neither counts', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = sessionFor(world);
  const [one, two, three] = [...dealBy(world, session, [1, 1]), ...dealBy(world, session, [2])];
  const log = [the(one).message, the(two).message, the(three).message, the(three).message];
  const { dealings, faults } = readDealings(group, session, log);
  assert.deepEqual(
    dealings.map(({ dealer }) => dealer),
    [2],
  );
  assert.deepEqual(
    faults.map(({ culprit, reason, evidence }) => [culprit, reason, evidence?.length]),
    [[1, 'equivocation', the(one).message.length * 2]],
  );
});

/** A dealing whose sealed share for recipient `to` is spoilt by its own dealer, who signs it so. */
function spoilt(world: World, session: ReturnType<typeof sessionFor>, index: number, to: number) {
  const honest = deal(group, session, dealerOf(world, index), random);
  const body = Uint8Array.from(honest.message.subarray(1, honest.message.length - 64));
  const at = 32 * (session.to.t - (session.kind === 'refresh' ? 1 : 0)) + 80 * (to - 1) + 40;
  const message = signStep(
    the(world.members[index - 1]).signer,
    session.id,
    'deal',
    index,
    flipped(body, at),
  );
  return { message, seed: honest.seed };
}

test('a dealer who cannot show a right share is out, and the rest go on', () => {
  const world = generate(suite, 2, newMembers(4));
  const session = sessionFor(world);
  const bad = spoilt(world, session, 3, 1);
  const messages = [bad.message, ...dealBy(world, session, [1, 2, 4]).map(({ message }) => message)];
  // Answering does not help: what it shows does not reproduce the sealed bytes.
  for (const seeds of [new Map<number, Uint8Array>(), new Map([[3, bad.seed]])]) {
    const { settled, world: next } = finish(world, session, world.members, messages, seeds);
    assert.deepEqual(settled.qual, [1, 2, 4]);
    assert.deepEqual(
      settled.faults.map(({ culprit, as, reason }) => [culprit, as, reason]),
      [[3, 'dealer', 'share']],
    );
    assert.deepEqual(keyOf(next, [1, 4]), world.keys.Y);
  }
});

test('a false complaint is refuted and names the accuser', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = sessionFor(world);
  const dealt = dealBy(world, session, [1, 2]);
  const { dealings } = readDealings(
    group,
    session,
    dealt.map(({ message }) => message),
  );
  const complaint = complain(session, 3, the(world.members[2]).signer, [1]);
  const reply = the(answer(group, session, dealerOf(world, 1), the(dealt[0]).seed, [complaint]));
  const settled = valueOf(settle(group, session, dealings, [complaint], [reply]));
  assert.deepEqual(settled.qual, [1, 2]);
  assert.deepEqual(
    settled.faults.map(({ culprit, as, reason }) => [culprit, as, reason]),
    [[3, 'member', 'complaint']],
  );
  assert.equal(answer(group, session, dealerOf(world, 2), the(dealt[1]).seed, [complaint]), undefined);
  for (let at = 0; at < complaint.length; at++) {
    const noise = valueOf(settle(group, session, dealings, [flipped(complaint, at)], []));
    assert.deepEqual([noise.qual, noise.faults.map(({ culprit }) => culprit)], [[1, 2], [0]]);
  }
  // An answer that is not the accused's, or changed, refutes nothing: too few dealers are left.
  for (let at = 0; at < reply.length; at += 3) {
    const outcome = settle(group, session, dealings, [complaint], [flipped(reply, at)]);
    assert.ok(
      !outcome.ok && outcome.faults.some(({ culprit, reason }) => culprit === 1 && reason === 'share'),
    );
  }
});

test('too few dealers leave the generation as it is', () => {
  const world = generate(suite, 3, newMembers(4));
  const session = sessionFor(world);
  const { dealings } = readDealings(
    group,
    session,
    dealBy(world, session, [1, 4]).map(({ message }) => message),
  );
  assert.deepEqual(blamed(settle(group, session, dealings, [], [])), [
    [2, 'missing'],
    [3, 'missing'],
  ]);
});

test('only certificates of one transcript activate; who signed another is shown', () => {
  const world = generate(suite, 2, newMembers(4));
  const session = sessionFor(world);
  const messages = dealBy(world, session, [1, 2, 3]).map(({ message }) => message);
  const { dealings } = readDealings(group, session, messages);
  const all = valueOf(settle(group, session, dealings, [], []));
  // A relay that hides one dealing makes another view.
  const fewer = valueOf(settle(group, session, dealings.slice(1), [], []));
  assert.notDeepEqual(all.transcript, fewer.transcript);
  const sign = (index: number, transcript: Uint8Array) =>
    certify(session, index, the(world.members[index - 1]).signer, transcript);
  const right = [1, 2, 3].map((index) => sign(index, all.transcript));
  assert.deepEqual(valueOf(activate(session, all.transcript, right, 3)), [1, 2, 3]);
  const split = [sign(1, all.transcript), sign(2, all.transcript), sign(3, fewer.transcript)];
  assert.deepEqual(blamed(activate(session, all.transcript, split, 3)), [
    [3, 'certificate'],
    [4, 'missing'],
  ]);
  const twice = [...right.slice(0, 2), the(right[1]), sign(1, fewer.transcript)];
  assert.deepEqual(blamed(activate(session, all.transcript, twice, 3)), [
    [1, 'equivocation'],
    [3, 'missing'],
    [4, 'missing'],
  ]);
  for (let at = 0; at < the(right[2]).length; at++) {
    const changed = [...right.slice(0, 2), flipped(the(right[2]), at)];
    assert.ok(!activate(session, all.transcript, changed, 3).ok, `byte ${at}`);
  }
  const later = { ...session, id: sessionFor(world).id };
  assert.ok(!activate(later, all.transcript, right, 3).ok);
});

test('a flipped byte anywhere in a dealing is refused or complained about, and never crashes', () => {
  const world = generate(suite, 2, newMembers(3));
  for (const to of [undefined, { t: 2, members: world.members }]) {
    const session = sessionFor(world, to);
    const honest = the(dealBy(world, session, [2])[0]).message;
    const body = honest.subarray(1, honest.length - 64);
    for (let at = 0; at < honest.length; at++) {
      assert.equal(readDealings(group, session, [flipped(honest, at)]).dealings.length, 0, `byte ${at}`);
    }
    // The same by the dealer itself, with a right signature.
    for (let at = 0; at < body.length; at++) {
      const message = signStep(the(world.members[1]).signer, session.id, 'deal', 2, flipped(body, at));
      const { dealings, faults } = readDealings(group, session, [message]);
      const complaining = world.members.filter(
        ({ prekey }, member) =>
          openDealt(group, session, member + 1, prekey.secretKey, dealings).complaints.length > 0,
      );
      assert.ok(faults.length > 0 || complaining.length > 0, `byte ${at}`);
    }
  }
});

test('parameters that do not fit are refused', () => {
  const world = generate(suite, 2, newMembers(3));
  const good = sessionFor(world, { t: 2, members: newMembers(3) });
  const [recipient] = good.to.recipients;
  const wrong = [
    { ...good, nonce: random(31) },
    { ...good, cg: '' },
    { ...good, ver: -1 },
    { ...good, to: { ...good.to, t: 4 } },
    { ...good, to: { ...good.to, t: 1 } },
    { ...good, to: { t: 2, recipients: Array.from({ length: 33 }, () => the(recipient)) } },
    { ...good, to: { t: 2, recipients: [the(recipient), the(recipient)] } },
    {
      ...good,
      to: {
        t: 2,
        recipients: [{ ...the(recipient), prekey: new Uint8Array(32) }, the(good.to.recipients[1])],
      },
    },
    { ...good, from: { ...good.from, keys: { ...good.from.keys, t: 3 } } },
    { ...good, from: { ...good.from, keys: { ...good.from.keys, Yi: good.from.keys.Yi.toReversed() } } },
    { ...good, from: { ...good.from, keys: { ...good.from.keys, Y: group.base(group.scalar.fromInt(2)) } } },
    { ...good, kind: 'refresh' as const },
  ];
  for (const [at, params] of wrong.entries()) {
    assert.throws(
      () => openDealing(group, params),
      (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
      `case ${at}`,
    );
  }
});
