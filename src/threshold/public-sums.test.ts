import assert from 'node:assert/strict';
import { test } from 'node:test';
import { random } from '../../test/support/threshold.ts';
import { toHex } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { HashGroup, Point, Scalar } from './group.ts';
import { nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';
import { makePublicSums, type PublicSums } from './public-sums.ts';

const sodium = await loadRistretto();
const noble = nobleRistretto();
const sums = makePublicSums();
const { scalar } = sodium;
const order = scalar.sub(scalar.fromInt(0), scalar.fromInt(1)); // L − 1
const anyPoint = (): Point => sodium.hashToPoint(random(64));

/** One multiplication and one addition at a time, by single operations of a library. */
function slowly(group: HashGroup, ks: readonly Scalar[], points: readonly Point[]): Point {
  return ks.reduce((total, k, i) => group.add(total, group.mul(k, points[i] ?? total)), group.identity);
}

function single(by: PublicSums, ks: readonly Scalar[], points: readonly Point[]): Point | undefined {
  return by.msm(ks, [points])?.[0];
}

function shorter(k: Scalar, keptBytes: number): Scalar {
  return k.map((byte, at) => (at < keptBytes ? byte : 0));
}

function same(found: Point | undefined, expected: Point, what: string): void {
  assert.equal(found && toHex(found), toHex(expected), what);
}

test('sums of every size and of scalars of every length agree with single operations', () => {
  for (const count of [0, 1, 2, 3, 7, 16, 33, 64, 100, 256])
    for (const keptBytes of [1, 2, 16, 31, 32]) {
      const ks = Array.from({ length: count }, () => shorter(scalar.random(random), keptBytes));
      const points = ks.map(anyPoint);
      same(single(sums, ks, points), slowly(sodium, ks, points), `${count} × ${8 * keptBytes} bits`);
      same(
        sums.sum(points),
        points.reduce((a, b) => sodium.add(a, b), sodium.identity),
        `${count} summed`,
      );
    }
});

test('one, two, three and four sums with the same scalars are each what it is alone', () => {
  for (const count of [0, 1, 2, 3, 20, 256])
    for (const listsCount of [0, 1, 2, 3, 4])
      for (const keptBytes of [16, 32]) {
        const ks = Array.from({ length: count }, () => shorter(scalar.random(random), keptBytes));
        const lists = Array.from({ length: listsCount }, () => ks.map(anyPoint));
        const found = sums.msm(ks, lists);
        assert.equal(found?.length, listsCount);
        for (const [at, points] of lists.entries())
          same(found?.[at], slowly(sodium, ks, points), `${count} points, list ${at} of ${listsCount}`);
      }
});

test('several lists of any length add up together, two at a time, to what each is alone', () => {
  const added = (points: readonly Point[]): Point =>
    points.reduce((a, b) => sodium.add(a, b), sodium.identity);
  for (const lengths of [[], [0], [3], [2, 2], [0, 5], [4, 1], [1, 2, 3], [4, 4, 0, 7]]) {
    const lists = lengths.map((length) => Array.from({ length }, anyPoint));
    const found = sums.sums(lists);
    assert.equal(found?.length, lists.length);
    for (const [at, points] of lists.entries())
      same(found?.[at], added(points), `${lengths.join()} at ${at}`);
  }
  const point = anyPoint();
  const turned = sodium.sub(sodium.identity, point);
  assert.deepEqual(sums.sums([[point, turned], [sodium.identity]]), [sodium.identity, sodium.identity]);
  for (const lists of [
    [[point], [random(31)]],
    [[Uint8Array.of(1, ...new Uint8Array(31))], [point]],
  ])
    assert.equal(sums.sums(lists), undefined, 'no points');
});

test('points that are remembered sum up as if they were not, in either lane and beside others', () => {
  const remembering = makePublicSums();
  // More than are remembered, so that some are forgotten on the way.
  const pool = Array.from({ length: 7000 }, (_, i) => (i % 50 === 0 ? sodium.identity : anyPoint()));
  const any = (): Point => (pool[Math.floor(Math.random() * pool.length)] ?? sodium.identity).slice();
  for (let round = 0; round < 120; round++) {
    const count = 1 + (round % 40);
    const ks = Array.from({ length: count }, () => shorter(scalar.random(random), 16));
    const first = ks.map(any);
    const lists = [first, round % 3 === 0 ? first : ks.map(() => (round % 2 === 0 ? any() : anyPoint()))];
    const [found, added] = remembering.remembering(() => [
      remembering.msm(ks, lists),
      remembering.sums(lists),
    ]);
    assert.deepEqual(found, sums.msm(ks, lists));
    assert.deepEqual(added, sums.sums(lists));
    for (const point of first) point.fill(0xff); // what it was made of may be used for something else
  }
  remembering.remembering(() => assert.equal(remembering.areEncodings(pool), true));
  const [known = sodium.identity] = pool.slice(-1);
  const spelledWrongly = known.map((byte, at) => (at === 31 ? byte | 0x80 : byte));
  remembering.remembering(() => assert.equal(remembering.sum([known, spelledWrongly]), undefined));
});

test('lanes know nothing of each other: the identity, a point and its inverse, what turns at encoding', () => {
  const P = anyPoint();
  const minus = sodium.sub(sodium.identity, P);
  const ks = [scalar.random(random), order, scalar.random(random)];
  const lists = [
    [P, minus, P],
    [sodium.identity, sodium.identity, sodium.identity],
    [P, P, minus],
    [sodium.identity, P, sodium.base(scalar.fromInt(1))],
  ];
  for (const first of lists)
    for (const second of lists) {
      const found = sums.msm(ks, [first, second]);
      same(found?.[0], slowly(sodium, ks, first), 'first');
      same(found?.[1], slowly(sodium, ks, second), 'second');
    }
  const wrong = random(32).fill(1);
  for (const at of [0, 1, 2])
    for (const lane of [0, 1]) {
      const spoilt = [P, P, P].map((point, i) => (i === at ? wrong : point));
      assert.equal(sums.msm(ks, lane === 0 ? [spoilt, [P, P, P]] : [[P, P, P], spoilt]), undefined);
    }
});

test('a pair that is kept sums up like any other, at its place and at others', () => {
  const kept = makePublicSums();
  const [A, B, C] = [anyPoint(), anyPoint(), anyPoint()];
  kept.keep(random(32).fill(0xff), A); // no point: not kept
  kept.keep(A, B);
  kept.keep(B, C); // one pair: not kept
  for (let round = 0; round < 60; round++)
    for (const count of [1, 2, 3, 5]) {
      const place = round % count;
      const list = (kept_: Point, other: Point): Point[] =>
        Array.from({ length: count }, (_, i) => (i === place ? kept_ : round % 7 === i ? other : anyPoint()));
      const ks = Array.from({ length: count }, (_, i) =>
        round % 5 === i ? order : shorter(scalar.random(random), round % 3 === 0 ? 16 : 32),
      );
      for (const [first, second] of [
        [list(A, B), list(B, A)],
        [list(B, A), list(A, B)],
        [list(A, A), list(A, B)],
        [list(A, C), list(C, A)],
      ] as const) {
        const found = kept.msm(ks, [first, second]);
        same(found?.[0], slowly(sodium, ks, first), `round ${round}, ${count} points`);
        same(found?.[1], slowly(sodium, ks, second), `round ${round}, ${count} points`);
      }
    }
  for (const k of [0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 65_535].map((each) => scalar.fromInt(each)))
    same(
      kept.msm(
        [k, k],
        [
          [A, C],
          [B, A],
        ],
      )?.[1],
      slowly(sodium, [k, k], [B, A]),
      toHex(k),
    );
});

/** A hundred thousand multiples with HOLDFAST_FULL=1. */
const rounds = process.env['HOLDFAST_FULL'] === '1' ? 400 : 40;
test(`${rounds} sums of 250 multiples and more agree with libsodium, a few of them with noble`, {
  timeout: 600_000,
}, () => {
  for (let at = 0; at < rounds; at++) {
    const count = at % 2 === 0 ? 256 : 250;
    // One sum stands for all its multiples: libsodium's single ones are added up to the same.
    const points = Array.from({ length: 8 }, anyPoint);
    const ks = Array.from({ length: count }, () => scalar.random(random));
    const each = ks.map((_, i) => points[i % 8] ?? sodium.identity);
    const perPoint = points.map((_, i) =>
      ks.filter((_, j) => j % 8 === i).reduce((a, b) => scalar.add(a, b), scalar.fromInt(0)),
    );
    same(single(sums, ks, each), slowly(sodium, perPoint, points), `round ${at}`);
    if (at < 3)
      same(single(sums, perPoint, points), slowly(noble, perPoint, points), `round ${at}, by noble`);
  }
});

test('edges: no multiple, the largest scalar, the identity, a point twice, a point and its inverse', () => {
  const P = anyPoint();
  const minus = sodium.sub(sodium.identity, P);
  const zero = scalar.fromInt(0);
  const one = scalar.fromInt(1);
  for (const [what, ks, points] of [
    ['nothing at all', [], []],
    ['0·P', [zero], [P]],
    ['0·P + 0·P', [zero, zero], [P, P]],
    ['(L − 1)·P', [order], [P]],
    ['P + (L − 1)·P', [one, order], [P, P]],
    ['P + P', [one, one], [P, P]],
    ['P − P', [one, one], [P, minus]],
    [
      'k·P + k·(−P), many',
      Array.from({ length: 128 }, () => order),
      [...Array(64).fill(P), ...Array(64).fill(minus)],
    ],
    ['the same bucket 200 times', Array.from({ length: 200 }, () => scalar.fromInt(3)), Array(200).fill(P)],
    ['of the identity', [order, one], [sodium.identity, sodium.identity]],
    ['with the identity', [order, one], [sodium.identity, P]],
  ] as const)
    same(single(sums, ks, points), slowly(sodium, ks, points), what);
  same(sums.sum([]), sodium.identity, 'none');
  same(sums.sum([P, minus]), sodium.identity, 'P − P');
  same(sums.sum([P, P]), sodium.add(P, P), 'P + P');
});

test('takes exactly what libsodium and noble take for a point', () => {
  const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
  const cases = [
    ...Array.from({ length: 3000 }, () => random(32)),
    // Even and below 2^255: the half of all strings that are not refused at the first look.
    ...Array.from({ length: 3000 }, () => {
      const bytes = random(32);
      bytes[0] = (bytes[0] ?? 0) & 0xfe;
      bytes[31] = (bytes[31] ?? 0) & 0x7f;
      return bytes;
    }),
    ...Array.from({ length: 256 }, (_, low) =>
      Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? low : i === 31 ? 0x7f : 0xff)),
    ),
    ...Array.from({ length: 256 }, (_, low) =>
      Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? low : 0)),
    ),
    // RFC 9496 A.3: non-canonical, negative, non-square, negative xy, y = 0.
    bytesOf('00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff'),
    bytesOf('f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
    bytesOf('edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
    bytesOf('0100000000000000000000000000000000000000000000000000000000000000'),
    bytesOf('26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371'),
    bytesOf('3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e'),
    bytesOf('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
    random(31),
    random(33),
    random(0),
  ];
  let taken = 0;
  for (const bytes of cases) {
    const isElement = noble.isPoint(bytes) || noble.isIdentity(bytes);
    assert.equal(sodium.isPoint(bytes) || sodium.isIdentity(bytes), isElement);
    assert.equal(sums.areEncodings([sodium.identity, noble.identity, bytes]), isElement, toHex(bytes));
    assert.equal(sums.areEncodings([bytes, sodium.identity]), isElement, toHex(bytes));
    const found = sums.sum([bytes]);
    assert.equal(found !== undefined, isElement, toHex(bytes));
    assert.equal(sums.msm([scalar.fromInt(1)], [[bytes]]) !== undefined, isElement, toHex(bytes));
    if (found === undefined) continue;
    taken++;
    assert.equal(toHex(found), toHex(bytes), 'what is decoded is encoded as it was');
  }
  assert.ok(taken > 500, `${taken} elements`);
});

test('all of them must be points', () => {
  const points = Array.from({ length: 5 }, anyPoint);
  for (const group of [sodium, noble]) {
    assert.ok(group.arePoints([]) && group.arePoints(points));
    for (const at of points.keys())
      for (const wrong of [group.identity, random(31), new Uint8Array(32).fill(1)])
        assert.equal(group.arePoints(points.with(at, wrong)), false);
  }
});

test('the group refuses what is no point or scalar, and works on after that', () => {
  const P = anyPoint();
  const notAPoint = (error: unknown): boolean => isHoldfastError(error, 'ARGUMENT_INVALID');
  assert.throws(() => sodium.msm([scalar.fromInt(1)], [random(31)]), notAPoint);
  assert.throws(() => sodium.sum([P, new Uint8Array(32).fill(1)]), notAPoint);
  assert.throws(() => sodium.msm([new Uint8Array(32).fill(0xff)], [P]), /scalar/);
  assert.throws(() => sodium.msm([scalar.fromInt(1)], [P, P]), /as many/);
  same(sodium.msm([scalar.fromInt(2)], [P]), sodium.add(P, P), 'afterwards');
});
