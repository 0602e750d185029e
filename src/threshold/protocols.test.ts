// Random lives of a key: refreshed, reshared, repaired and rotated in any order, with any thresholds. After
// each step any t of the present members open, fewer do not, and nothing of another generation helps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  dealBy,
  generate,
  newMembers,
  refreshed,
  repaired,
  reshared,
  sessionFor,
  type World,
} from '../../test/support/custody-world.ts';
import { random, the, valueOf } from '../../test/support/threshold.ts';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { openDealt, readDealings } from './dealing.ts';
import { complete, settle } from './dealing-agreement.ts';
import { begin, conclude, dkgContext, receive } from './dkg.ts';
import { ristrettoSuite } from './dkg-suite.ts';
import type { Point } from './group.ts';
import { loadRistretto } from './group-sodium.ts';
import { applySwitch, contribute, openPage, readContribution } from './key-switch.ts';
import { collectSteps, signStep } from './signed-step.ts';
import { combine, encrypt, type Partial } from './tdh2.ts';

const group = await loadRistretto();
const suite = ristrettoSuite(group);

interface Wrap {
  readonly U: Point;
  readonly V: Point;
}

/** Distinct indices 1…n in ascending order, chosen by `seed`. */
function chosen(n: number, count: number, seed: number): number[] {
  const left = Array.from({ length: n }, (_, at) => at + 1);
  const picked: number[] = [];
  for (let at = seed; picked.length < count; at = (at * 31 + 7) % 65_537) {
    picked.push(...left.splice(at % left.length, 1));
  }
  return picked.toSorted((a, b) => a - b);
}

function partials(world: World, indices: readonly number[], wrap: Wrap): Partial[] {
  return indices.map((index) => ({ index, D: group.mul(the(world.shares[index - 1]), wrap.U) }));
}

/** Moves the wrap to a new key of `t` new members. */
function rotated(world: World, wrap: Wrap, t: number, n: number, seed: number): { world: World; wrap: Wrap } {
  const next = generate(suite, t, newMembers(n), world.ver + 1);
  const page = openPage(group, {
    cg: 'ops',
    fromVer: world.ver,
    fromGen: world.gen,
    toVer: next.ver,
    page: 0,
    keys: world.keys,
    quorum: chosen(world.keys.n, world.keys.t, seed),
    Ynew: next.keys.Y,
    items: [{ bkId: utf8('bk'), label: utf8('label'), ...wrap }],
  });
  const contributions = page.quorum.map((index) => {
    const bytes = contribute(group, page, index, the(world.shares[index - 1]), random);
    return the(readContribution(group, page, index, bytes));
  });
  return { world: next, wrap: the(applySwitch(group, page, contributions)[0]) };
}

const size = fc
  .integer({ min: 2, max: 6 })
  .chain((n) => fc.tuple(fc.integer({ min: 2, max: n }), fc.constant(n)));
const operation = fc.record({
  kind: fc.constantFrom('refresh', 'reshare', 'repair', 'rotate'),
  to: size,
  seed: fc.nat(65_536),
  more: fc.nat(2),
});

test('any life of a key keeps what it promises', () => {
  fc.assert(
    fc.property(size, fc.array(operation, { minLength: 1, maxLength: 5 }), ([t, n], operations) => {
      let world = generate(suite, t, newMembers(n));
      const { wrap: made, element } = encrypt(group, world.keys.Y, utf8('label'), random);
      let wrap: Wrap = made;
      for (const { kind, to, seed, more } of operations) {
        const before = world;
        const [tNext, nNext] = to;
        const dealers = chosen(world.keys.n, Math.min(world.keys.n, world.keys.t + more), seed);
        if (kind === 'refresh') world = refreshed(world, dealers);
        else if (kind === 'reshare') {
          const kept = world.members.slice(0, Math.min(more, nNext));
          const members = [...newMembers(nNext - kept.length), ...kept];
          world = reshared(world, dealers, tNext, members);
        } else if (kind === 'repair') {
          const [lost = 1, ...rest] = chosen(world.keys.n, world.keys.n, seed).toReversed();
          if (rest.length < world.keys.t) continue;
          const helpers = rest.slice(0, world.keys.t).toSorted((a, b) => a - b);
          assert.deepEqual(repaired(world, lost, helpers), world.shares[lost - 1]);
          continue;
        } else ({ world, wrap } = rotated(world, wrap, tNext, nNext, seed));
        if (kind !== 'rotate') assert.deepEqual(world.keys.Y, before.keys.Y);
        checkOpening(world, wrap, element, seed);
        if (kind !== 'rotate') checkMixing(before, world, wrap, element, seed);
        else {
          const old = chosen(before.keys.n, before.keys.t, seed);
          assert.notDeepEqual(combine(group, wrap.V, partials(before, old, wrap)), element);
        }
      }
    }),
    { numRuns: 12 },
  );
});

function checkOpening(world: World, wrap: Wrap, element: Point, seed: number): void {
  const { t, n } = world.keys;
  for (const each of [seed, seed + 1, seed + 2]) {
    const quorum = chosen(n, t, each);
    assert.deepEqual(combine(group, wrap.V, partials(world, quorum, wrap)), element);
    assert.notDeepEqual(combine(group, wrap.V, partials(world, quorum.slice(1), wrap)), element);
  }
}

/** One partial of the generation before among t: no more than t − 1 of the present one. */
function checkMixing(before: World, now: World, wrap: Wrap, element: Point, seed: number): void {
  const quorum = chosen(Math.min(before.keys.n, now.keys.n), Math.min(now.keys.t, before.keys.n), seed);
  if (quorum.length < now.keys.t) return;
  const [first, ...others] = quorum;
  const mixed = [...partials(before, [the(first)], wrap), ...partials(now, others, wrap)];
  assert.notDeepEqual(combine(group, wrap.V, mixed), element);
}

/** What is left of a value after it was written down and read again. */
function stored<T>(value: T): T {
  return decodeCbor(encodeCbor(value), 'state') as T;
}

test('a key generation goes on from stored states, over a relay that adds noise', () => {
  const members = newMembers(3);
  const sigPks = members.map(({ signer }) => signer.publicKey);
  const secrets = members.map(() => group.scalar.random(random));
  const statics = secrets.map((secret) => group.base(secret));
  const context = dkgContext(suite, random(32), statics);
  const session = stored({ t: 2, n: 3, statics, context, ext: utf8('policy') });
  const dealt = secrets.map((secret, at) => begin(suite, session, at + 1, secret, random));
  const log = dealt.map(({ message }, at) =>
    signStep(the(members[at]).signer, context, 'dkg-1', at + 1, message),
  );
  const relayed = [random(700), the(log[2]), the(log[0]), the(log[1]), the(log[0])];
  const { steps, faults } = collectSteps(sigPks, context, 'dkg-1', relayed);
  assert.deepEqual(
    faults.map(({ culprit, reason }) => [culprit, reason]),
    [[0, 'unsigned']],
  );
  const messages = steps.map(({ body }) => body);
  const received = dealt.map(({ state }, at) =>
    valueOf(receive(suite, session, stored(state), the(secrets[at]), messages)),
  );
  const signatures = received.map(({ state }) => state.signature);
  for (const { state } of received) {
    const { keys } = valueOf(conclude(suite, session, stored(state), signatures));
    assert.deepEqual(keys, the(received[0]).state.keys);
  }
});

test('a refresh goes on from stored states', () => {
  const world = generate(suite, 2, newMembers(3));
  const session = stored(sessionFor(world));
  const log = dealBy(world, session, [1, 2, 3]).map(({ message }) => message);
  const dealings = stored(readDealings(group, session, log).dealings);
  const settled = stored(valueOf(settle(group, session, dealings, [], [])));
  for (const [at, { prekey }] of world.members.entries()) {
    const { shares } = openDealt(group, session, at + 1, prekey.secretKey, dealings);
    const present = the(world.shares[at]);
    const share = valueOf(
      complete(group, session, settled, { index: at + 1, shares: stored(shares), present }),
    );
    assert.deepEqual(group.base(share), settled.keys.Yi[at]);
  }
});
