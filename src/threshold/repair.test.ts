import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dealerOf, generate, newMembers, repaired, type World } from '../../test/support/custody-world.ts';
import { blamed, flipped, fromHex, random, readVectors, the, valueOf } from '../../test/support/threshold.ts';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { ed25519Suite, ristrettoSuite } from './dkg-suite.ts';
import { nobleEd25519 } from '../../test/support/group-noble.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { loadRistretto } from './group-sodium.ts';
import { sealTo } from './hpke.ts';
import { cut, pass, restore, split } from './repair.ts';
import { openRepair } from './repair-session.ts';
import { signStep } from './signed-step.ts';
import { DST, lp } from './transcript.ts';

const group = await loadRistretto();
const suite = ristrettoSuite(group);

interface Published {
  readonly scalar_generation: Readonly<Record<string, string>>;
  readonly sigma_generation: Readonly<Record<string, string>>;
}

for (const [backend, each] of [
  ['noble', nobleEd25519()],
  ['libsodium', await loadEd25519()],
  ['libsodium', group],
] as const) {
  const published = readVectors(`frost/${each.name}-repair-share.json`);
  const title = `the published sums on ${each.name} by ${backend}: pieces add up to what a helper passes on, and those to the share`;
  test(title, { skip: published.skip }, () => {
    const { scalar_generation, sigma_generation } = published.value as Published;
    for (const [rows, name] of [
      [scalar_generation, 'random_scalar'],
      [sigma_generation, 'sigma'],
    ] as const) {
      const { [`${name}_sum`]: sum, ...pieces } = rows;
      const given = Object.values(pieces).map(fromHex);
      assert.equal(toHex(given.reduce((a, b) => each.scalar.add(a, b))), sum);
      // Cutting the sum with the first pieces as the chance leaves the last one.
      const chance = given.slice(0, -1).map((piece) => new Uint8Array([...piece, ...new Uint8Array(32)]));
      const made = cut(each, fromHex(the(sum)), given.length, () => the(chance.shift()));
      assert.deepEqual(made.map(toHex), given.map(toHex));
    }
  });
}

test('any t helpers repair any share, on both groups', async () => {
  const world = generate(suite, 3, newMembers(5));
  for (const [lost, helpers] of [
    [1, [2, 3, 4]],
    [5, [1, 2, 4]],
    [3, [1, 4, 5]],
  ] as const) {
    assert.deepEqual(repaired(world, lost, helpers), world.shares[lost - 1]);
  }
  const other = generate(ed25519Suite(await loadEd25519()), 2, newMembers(3));
  assert.deepEqual(repaired(other, 2, [1, 3]), other.shares[1]);
});

function sessionOf(world: World, lost: number, helpers: readonly number[]) {
  return openRepair(world.group, {
    cg: 'ops',
    ver: 1,
    gen: world.gen,
    nonce: random(32),
    keys: world.keys,
    helpers,
    lost,
    sigPks: world.members.map(({ signer }) => signer.publicKey),
    prekeys: world.members.map(({ prekey }) => prekey.publicKey),
  });
}

/** Both logs, made honestly. */
function logs(world: World, session: ReturnType<typeof sessionOf>) {
  const splits = session.helpers.map((index) => split(group, session, dealerOf(world, index), random));
  const passes = session.helpers.map((index) => passAs(world, session, index, splits));
  return { splits, passes: passes.map(valueOf) };
}

function passAs(
  world: World,
  session: ReturnType<typeof sessionOf>,
  index: number,
  splits: readonly Uint8Array[],
) {
  const { signer, prekey } = the(world.members[index - 1]);
  return pass(group, session, { index, signer, prekey: prekey.secretKey }, splits, random);
}

test('a helper who splits something else than its part is named by everybody', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = sessionOf(world, 3, [1, 2]);
  const bad = split(group, session, { ...dealerOf(world, 1), share: group.scalar.fromInt(6) }, random);
  const good = split(group, session, dealerOf(world, 2), random);
  assert.deepEqual(blamed(passAs(world, session, 2, [bad, good])), [[1, 'constant']]);
  assert.deepEqual(blamed(passAs(world, session, 2, [good])), [[1, 'missing']]);
  const strange = signStep(the(world.members[0]).signer, session.id, 'split', 1, Uint8Array.of(1));
  assert.deepEqual(blamed(passAs(world, session, 2, [good, strange])), [[1, 'malformed']]);
});

test('a helper who passes on something else is named by the member', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = sessionOf(world, 3, [1, 2]);
  const { splits, passes } = logs(world, session);
  const prekey = the(world.members[2]).prekey.secretKey;
  // Sums from another session's pieces: rightly signed and sealed, but with another view.
  const again = session.helpers.map((index) => split(group, session, dealerOf(world, index), random));
  const other = valueOf(passAs(world, session, 1, again));
  assert.deepEqual(blamed(restore(group, session, prekey, splits, [other, the(passes[1])])), [
    [0, 'altered'],
  ]);
  assert.deepEqual(blamed(restore(group, session, prekey, splits, passes.slice(0, 1))), [[2, 'missing']]);
  assert.deepEqual(blamed(restore(group, session, prekey, splits, [...passes, other])), [
    [1, 'equivocation'],
  ]);
  // A wrong sum under the right view, sealed and signed as it should be.
  const view = the(passes[0]).subarray(1, 65);
  const info = concat(lp(utf8(DST.repair)), lp(utf8('pass')), session.id, Uint8Array.of(1, 3));
  const to = the(world.members[2]).prekey.publicKey;
  const { enc, ct } = sealTo(to, info, view, group.scalar.fromInt(8), random);
  const wrong = signStep(the(world.members[0]).signer, session.id, 'pass', 1, concat(view, enc, ct));
  assert.deepEqual(blamed(restore(group, session, prekey, splits, [wrong, the(passes[1])])), [[1, 'share']]);
});

test('a flipped byte anywhere repairs nothing', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = sessionOf(world, 3, [1, 2]);
  const { splits, passes } = logs(world, session);
  const prekey = the(world.members[2]).prekey.secretKey;
  const resigned = (bytes: Uint8Array, step: string, at: number) => {
    const body = flipped(bytes.subarray(1, bytes.length - 64), at);
    return signStep(the(world.members[0]).signer, session.id, step, 1, body);
  };
  for (let at = 0; at < the(passes[0]).length - 65; at++) {
    const changed = resigned(the(passes[0]), 'pass', at);
    assert.ok(!restore(group, session, prekey, splits, [changed, the(passes[1])]).ok, `pass ${at}`);
    assert.ok(!restore(group, session, prekey, splits, [flipped(the(passes[0]), at), the(passes[1])]).ok);
  }
  for (let at = 0; at < the(splits[0]).length - 65; at++) {
    const changed = resigned(the(splits[0]), 'split', at);
    assert.ok(!restore(group, session, prekey, [changed, the(splits[1])], passes).ok, `split ${at}`);
    const seen = [1, 2].map((index) => passAs(world, session, index, [changed, the(splits[1])]));
    assert.ok(
      seen.some(({ ok }) => !ok),
      `split ${at} noticed by a helper`,
    );
  }
  assert.deepEqual(valueOf(restore(group, session, prekey, splits, passes)), world.shares[2]);
});

test('parameters that do not fit are refused', () => {
  const world = generate(suite, 2, newMembers(3));
  const good = sessionOf(world, 3, [1, 2]);
  const refused = (error: unknown) => isHoldfastError(error, 'ARGUMENT_INVALID');
  for (const [at, params] of [
    { ...good, helpers: [1, 3] },
    { ...good, helpers: [2, 1] },
    { ...good, helpers: [1] },
    { ...good, helpers: [1, 4] },
    { ...good, lost: 0 },
    { ...good, nonce: random(4) },
    { ...good, prekeys: [] },
  ].entries()) {
    assert.throws(() => openRepair(group, params), refused, `case ${at}`);
  }
});
