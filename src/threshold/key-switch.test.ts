import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generate, newMembers, type World } from '../../test/support/custody-world.ts';
import { flipped, random, the } from '../../test/support/threshold.ts';
import { concat, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { ristrettoSuite } from './dkg-suite.ts';
import type { Point } from './group.ts';
import { nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';
import {
  applySwitch,
  contribute,
  openPage,
  provenItem,
  readContribution,
  type SwitchItem,
  type SwitchPage,
} from './key-switch.ts';
import { combine, encrypt } from './tdh2.ts';

const group = await loadRistretto();
const suite = ristrettoSuite(group);

interface Wrapped {
  readonly items: readonly SwitchItem[];
  readonly elements: readonly Point[];
}

function wrapped(world: World, count: number): Wrapped {
  const made = Array.from({ length: count }, (_, at) => {
    const { wrap, element } = encrypt(group, world.keys.Y, utf8(`old ${at}`), random);
    const item = provenItem(group, world.keys.Y, utf8(`old ${at}`), wrap, random(16), utf8(`new ${at}`));
    return { item: the(item), element };
  });
  return { items: made.map(({ item }) => item), elements: made.map(({ element }) => element) };
}

function pageOf(
  old: World,
  next: World,
  quorum: readonly number[],
  items: readonly SwitchItem[],
): SwitchPage {
  return openPage(group, {
    cg: 'ops',
    fromVer: old.ver,
    fromGen: old.gen,
    toVer: next.ver,
    page: 0,
    keys: old.keys,
    quorum,
    Ynew: next.keys.Y,
    items,
  });
}

/** Contributions of the quorum, as bytes. */
function contributionsOf(old: World, page: SwitchPage) {
  return page.quorum.map((index) => ({
    index,
    bytes: contribute(group, page, index, the(old.shares[index - 1]), random),
  }));
}

function opened(world: World, quorum: readonly number[], { U, V }: SwitchItem): Point {
  const partials = quorum.map((index) => ({ index, D: group.mul(the(world.shares[index - 1]), U) }));
  return combine(group, V, partials);
}

const old = generate(suite, 3, newMembers(5));
const next = generate(suite, 4, newMembers(7), 2);
const { items, elements } = wrapped(old, 4);
const page = pageOf(old, next, [1, 3, 5], items);
const contributions = contributionsOf(old, page);

function switched(): readonly SwitchItem[] {
  return applySwitch(
    group,
    page,
    contributions.map(({ index, bytes }) => the(readContribution(group, page, index, bytes))),
  );
}

test('3 of 5 move wraps to 4 of 7: the new members open the same elements, the old ones do not', () => {
  for (const [at, item] of switched().entries()) {
    assert.deepEqual(opened(next, [1, 2, 4, 7], item), elements[at]);
    assert.deepEqual(opened(next, [3, 5, 6, 7], item), elements[at]);
    assert.notDeepEqual(opened(next, [1, 2, 4], item), elements[at]);
    assert.notDeepEqual(opened(old, [1, 2, 3], item), elements[at]);
  }
});

test('the independent group reads the same proofs', () => {
  const noble = nobleRistretto();
  for (const { index, bytes } of contributions) {
    assert.deepEqual(
      readContribution(noble, page, index, bytes),
      readContribution(group, page, index, bytes),
    );
    assert.ok(readContribution(noble, page, index, bytes) !== undefined);
  }
});

test('a contribution by a wrong share, for another member, page or key is refused', () => {
  const wrong = contribute(group, page, 1, the(old.shares[1]), random);
  assert.equal(readContribution(group, page, 1, wrong), undefined);
  const [first, second] = contributions;
  assert.equal(readContribution(group, page, 3, the(first).bytes), undefined);
  assert.equal(readContribution(group, page, 2, the(second).bytes), undefined);
  const others = [
    pageOf(old, { ...next, ver: 3 }, page.quorum, items),
    pageOf({ ...old, gen: 2 }, next, page.quorum, items),
    pageOf(old, { ...next, keys: old.keys }, page.quorum, items),
    pageOf(old, next, [1, 2, 3], items),
    pageOf(old, next, page.quorum, items.toReversed()),
  ];
  for (const other of others) {
    assert.equal(readContribution(group, other, 1, the(first).bytes), undefined);
  }
});

test('shifting two items so that they cancel does not pass', () => {
  const { index, bytes } = the(contributions[0]);
  const delta = group.base(group.scalar.fromInt(11));
  const W = (at: number) => bytes.subarray(64 * at + 32, 64 * at + 64);
  const mauled = concat(
    bytes.subarray(0, 32),
    group.add(W(0), delta),
    bytes.subarray(64, 96),
    group.sub(W(1), delta),
    bytes.subarray(128),
  );
  assert.equal(readContribution(group, page, index, mauled), undefined);
});

test('a contribution without randomness of its own is refused, though its proof holds', () => {
  const zero = group.scalar.fromInt(0);
  const still = { ...group, scalar: { ...group.scalar, random: () => zero.slice() } };
  const { index } = the(contributions[1]);
  const bytes = contribute(still, page, index, the(old.shares[index - 1]), random);
  assert.deepEqual(bytes.subarray(0, 32), group.identity);
  assert.equal(readContribution(group, page, index, bytes), undefined);
});

test('a flipped byte anywhere in a contribution is refused', () => {
  const { index, bytes } = the(contributions[1]);
  for (let at = 0; at < bytes.length; at++) {
    assert.equal(readContribution(group, page, index, flipped(bytes, at)), undefined, `byte ${at}`);
  }
  assert.equal(readContribution(group, page, index, bytes.subarray(1)), undefined);
  assert.equal(readContribution(group, page, index, concat(bytes, bytes)), undefined);
  assert.equal(readContribution(group, page, index, new Uint8Array(0)), undefined);
});

test('a mauled wrap never becomes an item', () => {
  const label = utf8('a label');
  const { wrap } = encrypt(group, old.keys.Y, label, random);
  const shift = group.base(group.scalar.fromInt(4));
  const attempt = (changed: typeof wrap, said = label) =>
    provenItem(group, old.keys.Y, said, changed, random(16), label);
  assert.ok(attempt(wrap) !== undefined);
  assert.equal(attempt({ ...wrap, V: group.add(wrap.V, shift) }), undefined);
  assert.equal(attempt({ ...wrap, U: group.add(wrap.U, shift) }), undefined);
  assert.equal(attempt(wrap, utf8('another label')), undefined);
});

test('parameters that do not fit are refused', () => {
  const refused = (error: unknown) => isHoldfastError(error, 'ARGUMENT_INVALID');
  const [item] = items;
  for (const [at, params] of [
    { ...page, quorum: [1, 3] },
    { ...page, quorum: [1, 3, 6] },
    { ...page, quorum: [3, 1, 5] },
    { ...page, quorum: [1, 1, 5] },
    { ...page, items: [] },
    { ...page, items: Array.from({ length: 257 }, () => the(item)) },
    { ...page, items: [{ ...the(item), U: group.identity }] },
    { ...page, Ynew: group.identity },
    { ...page, toVer: -1 },
    { ...page, keys: { ...old.keys, C: next.keys.C } },
  ].entries()) {
    assert.throws(() => openPage(group, params), refused, `case ${at}`);
  }
  const all = contributions.map(({ index, bytes }) => the(readContribution(group, page, index, bytes)));
  assert.throws(() => applySwitch(group, page, all.slice(1)), refused);
  assert.throws(() => applySwitch(group, page, [...all, the(all[0])]), refused);
  assert.throws(() => contribute(group, page, 2, the(old.shares[1]), random), refused);
});
