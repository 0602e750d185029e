import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import type { Group, HashGroup } from './group.ts';
import { nobleEd25519, nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';

const sodium = await loadRistretto();
const noble = nobleRistretto();
const sodiumEd25519 = await loadEd25519();
const order = (1n << 252n) + 27742317777372353535851937790883648493n;

for (const group of [sodium, noble, sodiumEd25519, nobleEd25519()] satisfies Group[]) {
  const backend = group === sodium || group === sodiumEd25519 ? 'libsodium' : 'noble';
  describe(`${backend} ${group.name}`, () => {
    const { scalar } = group;
    const one = scalar.fromInt(1);
    const zero = scalar.fromInt(0);
    const generator = group.base(one);
    const k = scalar.random(randomBytes);
    const p = group.base(scalar.random(randomBytes));

    test('adds, subtracts, multiplies as a group of order L does', () => {
      const minusOne = scalar.neg(one);
      assert.equal(littleEndian(minusOne), order - 1n);
      assert.deepEqual(group.add(group.mul(minusOne, p), p), group.identity);
      assert.deepEqual(group.sub(p, p), group.identity);
      assert.deepEqual(group.add(p, group.identity), p);
      assert.deepEqual(group.mul(zero, p), group.identity);
      assert.deepEqual(group.base(zero), group.identity);
      assert.deepEqual(group.mul(k, group.identity), group.identity);
      assert.deepEqual(group.mul(k, generator), group.base(k));
      assert.deepEqual(group.mul(scalar.inv(k), group.mul(k, p)), p);
      assert.deepEqual(group.sum([]), group.identity);
      assert.deepEqual(group.sum([p, generator, p]), group.add(group.add(p, p), generator));
      assert.deepEqual(group.msm([k, one, zero], [p, generator, p]), group.add(group.mul(k, p), generator));
      assert.throws(() => group.msm([k], []));
      assert.deepEqual(
        group.msms(
          [k, one],
          [
            [p, p],
            [generator, p],
          ],
        ),
        [group.add(group.mul(k, p), p), group.add(group.base(k), p)],
      );
      assert.throws(() => group.msms([k], [[p], []]));
    });

    test('reduces 64 bytes, keeps to scalars below L', () => {
      const wide = randomBytes(64);
      assert.equal(littleEndian(scalar.reduce(wide)), littleEndian(wide) % order);
      assert.ok(scalar.isScalar(bytesOf(order - 1n)));
      assert.ok(scalar.isScalar(zero));
      for (const bad of [bytesOf(order), bytesOf(order + 5n), bytesOf((1n << 256n) - 1n), randomBytes(31)]) {
        assert.equal(scalar.isScalar(bad), false);
        for (const use of [
          () => group.mul(bad, p),
          () => group.base(bad),
          () => scalar.add(bad, one),
          () => scalar.sub(one, bad),
          () => scalar.mul(one, bad),
          () => scalar.neg(bad),
          () => scalar.inv(bad),
          () => group.msm([bad], [p]),
        ]) {
          assert.throws(use, /a scalar expected/);
        }
      }
      assert.throws(() => scalar.inv(zero));
      assert.throws(() => scalar.fromInt(-1));
      assert.throws(() => scalar.fromInt(0.5));
    });

    test('draws again on zero and zeroes what it drew', () => {
      const drawn: Uint8Array[] = [];
      const random = (size: number): Uint8Array => {
        drawn.push(drawn.length === 0 ? new Uint8Array(size) : new Uint8Array(randomBytes(size)));
        return drawn.at(-1) ?? new Uint8Array(size);
      };
      assert.equal(scalar.isZero(scalar.random(random)), false);
      assert.equal(drawn.length, 2);
      for (const bytes of drawn) assert.deepEqual(bytes, new Uint8Array(64));
    });

    test('leaves its operands as they were', () => {
      const [a, b] = [scalar.random(randomBytes), group.base(k)];
      const before = [a.slice(), b.slice(), p.slice()];
      group.mul(a, b);
      group.add(b, p);
      group.sum([b]);
      group.sum([b]).fill(0);
      scalar.neg(a);
      assert.deepEqual([a, b, p], before);
      group.mul(scalar.fromInt(0), b).fill(7);
      assert.ok(group.isIdentity(group.identity), 'nobody can spoil the identity by its copies');
    });

    test('refuses bytes that are no point of the group', () => {
      assert.ok(group.isPoint(p));
      assert.equal(group.isPoint(group.identity), false);
      assert.ok(group.isIdentity(group.identity));
      assert.equal(group.isIdentity(p), false);
      const field = (1n << 255n) - 19n;
      for (const bad of [bytesOf(field), bytesOf(field + 1n), bytesOf((1n << 256n) - 1n), p.subarray(1)]) {
        assert.equal(group.isPoint(bad), false);
        assert.equal(group.isIdentity(bad), false);
        for (const use of [
          () => group.mul(k, bad),
          () => group.mul(zero, bad),
          () => group.add(p, bad),
          () => group.add(bad, p),
          () => group.sub(bad, p),
          () => group.sum([p, bad]),
          () => group.msm([k, k], [p, bad]),
          () => group.msms([k], [[p], [bad]]),
        ]) {
          assert.throws(use, (error) => isHoldfastError(error, 'ARGUMENT_INVALID'));
        }
      }
    });
  });
}

for (const group of [sodiumEd25519, nobleEd25519()])
  test(`ed25519 by ${group === sodiumEd25519 ? 'libsodium' : 'noble'}: points with a small-order part are no points`, () => {
    const smallOrder = [
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      '0000000000000000000000000000000000000000000000000000000000000000',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    ].map(hex);
    const clean = group.base(group.scalar.fromInt(9));
    // Twice, because what was an element once is remembered.
    for (const torsion of [...smallOrder, ...smallOrder]) {
      assert.equal(group.isPoint(torsion), false);
      assert.equal(group.isPoint(clean), true);
      assert.equal(group.isPoint(group.add(torsion, clean)), false);
    }
    assert.equal(
      toHex(group.base(group.scalar.fromInt(1))),
      '5866666666666666666666666666666666666666666666666666666666666666',
    );
  });

// RFC 9496 appendix A.1 to A.3.
const multiples = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  'e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76',
  '6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919',
  '94741f5d5d52755ece4f23f044ee27d5d1ea1e2bd196b462166b16152a9d0259',
  'da80862773358b466ffadfe0b3293ab3d9fd53c5ea6c955358f568322daf6a57',
  'e882b131016b52c1d3337080187cf768423efccbb517bb495ab812c4160ff44e',
  'f64746d3c92b13050ed8d80236a7f0007c3b3f962f5ba793d19a601ebb1df403',
  '44f53520926ec81fbd5a387845beb7df85a96a24ece18738bdcfa6a7822a176d',
  '903293d8f2287ebe10e2374dc1a53e0bc887e592699f02d077d5263cdd55601c',
  '02622ace8f7303a31cafc63f8fc48fdc16e1c8c8d234b2f0d6685282a9076031',
  '20706fd788b2720a1ed2a5dad4952b01f413bcf0e7564de8cdc816689e2db95f',
  'bce83f8ba5dd2fa572864c24ba1810f9522bc6004afe95877ac73241cafdab42',
  'e4549ee16b9aa03099ca208c67adafcafa4c3f3e4e5303de6026e3ca8ff84460',
  'aa52e000df2e16f55fb1032fc33bc42742dad6bd5a8fc0be0167436c5948501f',
  '46376b80f409b29dc2b5f6f0c52591990896e5716f41477cd30085ab7f10301e',
  'e0c418f7c8d9c4cdd7395b93ea124f3ad99021bb681dfc3302a9d99a2e53e64e',
];
const badEncodings = [
  '00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20',
  'c34c4e1826e5d403b78e246e88aa051c36ccf0aafebffe137d148a2bf9104562',
  'c940e5a4404157cfb1628b108db051a8d439e1a421394ec4ebccb9ec92a8ac78',
  '47cfc5497c53dc8e61c91d17fd626ffb1c49e2bca94eed052281b510b1117a24',
  'f1c6165d33367351b0da8f6e4511010c68174a03b6581212c71c0e1d026c3c72',
  '87260f7a2f12495118360f02c26a470f450dadf34a413d21042b43b9d93e1309',
  '26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371',
  '4eac077a713c57b4f4397629a4145982c661f48044dd3f96427d40b147d9742f',
  'de6a7b00deadc788eb6b6c8d20c0ae96c2f2019078fa604fee5b87d6e989ad7b',
  'bcab477be20861e01e4a0e295284146a510150d9817763caf1a6f4b422d67042',
  '2a292df7e32cababbd9de088d1d1abec9fc0440f637ed2fba145094dc14bea08',
  'f4a9e534fc0d216c44b218fa0c42d99635a0127ee2e53c712f70609649fdff22',
  '8268436f8c4126196cf64b3c7ddbda90746a378625f9813dd9b8457077256731',
  '2810e5cbc2cc4d4eece54f61c6f69758e289aa7ab440b3cbeaa21995c2f4232b',
  '3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e',
  'a45fdc55c76448c049a1ab33f17023edfb2be3581e9c7aade8a6125215e04220',
  'd483fe813c6ba647ebbfd3ec41adca1c6130c2beeee9d9bf065c8d151c5f396e',
  '8a2e1d30050198c65a54483123960ccc38aef6848e1ec8f5f780e8523769ba32',
  '32888462f8b486c68ad7dd9610be5192bbeaf3b443951ac1a8118419d9fa097b',
  '227142501b9d4355ccba290404bde41575b037693cef1f438c47f8fbf35d1165',
  '5c37cc491da847cfeb9281d407efc41e15144c876e0170b499a96a22ed31e01e',
  '445425117cb8c90edcbc7c1cc0e74f747f2c1efa5630a967c64f287792a48a4b',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];
const labels = [
  'Ristretto is traditionally a short shot of espresso coffee',
  'made with the normal amount of ground coffee but extracted with',
  'about half the amount of water in the same amount of time',
  'by using a finer grind.',
  'This produces a concentrated shot of coffee per volume.',
  'Just pulling a normal shot short will produce a weaker shot',
  'and is not a Ristretto as some believe.',
];
const mapped = [
  '3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46',
  'f26e5b6f7d362d2d2a94c5d0e7602cb4773c95a2e5c31a64f133189fa76ed61b',
  '006ccd2a9e6867e6a2c5cea83d3302cc9de128dd2a9a57dd8ee7b9d7ffe02826',
  'f8f0c87cf237953c5890aec3998169005dae3eca1fbb04548c635953c817f92a',
  'ae81e7dedf20a497e10c304a765c1767a42d6e06029758d2d7e8ef7cc4c41179',
  'e2705652ff9f5e44d3e841bf1c251cf7dddb77d140870d1ab2ed64f1a9ce8628',
  '80bd07262511cdde4863f8a7434cef696750681cb9510eea557088f76d9e5065',
];

for (const [name, group] of [
  ['libsodium', sodium],
  ['noble', noble],
] satisfies [string, HashGroup][]) {
  test(`${name}: RFC 9496 encodings, bad encodings and hash to group`, () => {
    for (const [i, encoding] of multiples.entries()) {
      assert.equal(toHex(group.base(group.scalar.fromInt(i))), encoding);
      assert.equal(group.isPoint(hex(encoding)), i > 0);
    }
    for (const bad of badEncodings) assert.equal(group.isPoint(hex(bad)), false, bad);
    for (const [i, label] of labels.entries()) {
      const uniform = createHash('sha512').update(label).digest();
      assert.equal(toHex(group.hashToPoint(uniform)), mapped[i]);
    }
    assert.throws(() => group.hashToPoint(utf8('short')));
  });
}

/** How many results of random operations the two libraries are compared by; 100000 before a release. */
const comparisons = Number(process.env['HOLDFAST_DIFFERENTIAL'] ?? 2000);

test(`libsodium and noble agree in ${comparisons} results of random operations`, () => {
  let [p, k] = [sodium.base(sodium.scalar.fromInt(1)), sodium.scalar.random(randomBytes)];
  let compared = 0;
  const both = (operate: (group: HashGroup) => Uint8Array, what: string): Uint8Array => {
    const result = operate(sodium);
    assert.ok(sameBytes(result, operate(noble)), `${what}: k ${toHex(k)}, p ${toHex(p)}`);
    compared++;
    return result;
  };
  for (let round = 0; ; round++) {
    if (compared >= comparisons) break;
    const wide = wideOf(round);
    const [q, factor] = [p, k];
    const s = both(({ scalar }) => scalar.reduce(wide), 'reduce');
    k = both(({ scalar }) => scalar.sub(scalar.mul(factor, s), scalar.add(scalar.neg(s), factor)), 'scalar');
    if (!sodium.scalar.isZero(s)) both(({ scalar }) => scalar.inv(s), 'inv');
    // Random bytes are a canonical encoding about once in sixteen times.
    const bytes = wide.subarray(0, 32);
    assert.equal(sodium.isPoint(bytes), noble.isPoint(bytes), toHex(bytes));
    const operations: ((group: HashGroup) => Uint8Array)[] = [
      (group) => group.mul(k, q),
      (group) => group.base(s),
      (group) => group.add(q, group.hashToPoint(wide)),
      (group) => group.sub(q, group.mul(s, q)),
      (group) => group.sum([q, q, group.base(k)]),
      (group) => group.msm([k, s], [q, group.hashToPoint(wide)]),
    ];
    const chosen = round % operations.length;
    p = both(operations[chosen] ?? (() => q), `point operation ${chosen}`);
    if (sodium.isIdentity(p)) p = sodium.base(sodium.scalar.fromInt(2));
  }
});

test(`on ed25519 they agree in ${comparisons} more, over any bytes that may be an encoding`, () => {
  const [first, second] = [sodiumEd25519, nobleEd25519()];
  const { scalar } = first;
  const outcome = (use: () => unknown): unknown => {
    try {
      const result = use();
      return result instanceof Uint8Array ? toHex(result) : result;
    } catch (error) {
      assert.ok(isHoldfastError(error, 'ARGUMENT_INVALID'), String(error));
      return 'no point';
    }
  };
  let compared = 0;
  const both = (operate: (group: Group) => unknown, what: string): void => {
    assert.equal(
      outcome(() => operate(first)),
      outcome(() => operate(second)),
      what,
    );
    compared++;
  };
  const field = (1n << 255n) - 19n;
  const edges = [0n, 1n, 2n, 3n, field - 2n, field - 1n, field, field + 1n, field + 18n].flatMap((y) =>
    [y, y | (1n << 255n)].map(bytesOf),
  );
  let p = first.base(scalar.random(randomBytes));
  for (let round = 0; ; round++) {
    if (compared >= comparisons) break;
    const wide = wideOf(round);
    const k = scalar.reduce(wide);
    const some = edges[round] ?? wide.subarray(0, 32);
    both((group) => group.isPoint(some), `isPoint ${toHex(some)}`);
    both((group) => group.isIdentity(some), `isIdentity ${toHex(some)}`);
    both((group) => group.add(p, some), `add ${toHex(p)} ${toHex(some)}`);
    both((group) => group.sub(some, p), `sub ${toHex(some)} ${toHex(p)}`);
    both((group) => group.isPoint(group.add(p, some)), `isPoint of the sum with ${toHex(some)}`);
    if (round % 4 === 0) {
      both((group) => group.base(k), `base ${toHex(k)}`);
      both((group) => group.mul(k, p), `mul ${toHex(k)} ${toHex(p)}`);
      both((group) => group.msm([k, k], [p, p]), `msm ${toHex(k)} ${toHex(p)}`);
    }
    p = first.add(p, first.base(k));
  }
  // What has a small-order part is multiplied by none of those who let `isPoint` look first; libsodium refuses it.
  assert.throws(() => first.mul(scalar.fromInt(3), bytesOf(field - 1n)), /a point expected/);
});

/** 64 random bytes; now and then very small or very large ones, which chance alone never draws. */
function wideOf(round: number): Uint8Array {
  const wide = new Uint8Array(randomBytes(64));
  if (round % 13 === 0) wide.fill(0, 1);
  if (round % 17 === 0) wide.fill(0xff, 1);
  return wide;
}

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${toHex(bytes.toReversed())}`);
}

function bytesOf(n: bigint): Uint8Array {
  return hex(n.toString(16).padStart(64, '0')).toReversed();
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'));
}
