import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { concat, sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { proveDleq, verifyDleq } from './dleq.ts';
import type { HashGroup, Point, Scalar } from './group.ts';
import { nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';
import { evaluate } from './polynomial.ts';
import { branchKeyOf, combine, encrypt, partial, secondGenerator, type TdhWrap, verifyWrap } from './tdh2.ts';
import { DST, hashToScalar } from './transcript.ts';

const sodium = await loadRistretto();
const noble = nobleRistretto();
const label = utf8('what may be read, by whom');

for (const [name, group, runs] of [
  ['libsodium', sodium, 60],
  ['noble', noble, 5],
] satisfies [string, HashGroup, number][]) {
  describe(name, () => {
    test('any t of n open a wrap, t−1 do not, and neither do shares of another key', () => {
      const shape = fc.integer({ min: 2, max: 7 }).chain((n) =>
        fc.integer({ min: 2, max: n }).chain((t) =>
          fc.record({
            t: fc.constant(t),
            quorum: fc.shuffledSubarray(
              Array.from({ length: n }, (_, i) => i + 1),
              { minLength: t, maxLength: t },
            ),
          }),
        ),
      );
      fc.assert(
        fc.property(shape, ({ t, quorum }) => {
          const { Y, shareOf } = dealt(group, t);
          const { wrap, element } = encrypt(group, Y, label, randomBytes);
          assert.ok(verifyWrap(group, Y, label, wrap));
          const partials = quorum.map((index) => ({ index, D: partial(group, shareOf(index), wrap.U) }));
          assert.deepEqual(combine(group, wrap.V, partials), element);
          assert.notDeepEqual(combine(group, wrap.V, partials.slice(1)), element);
          const stranger = dealt(group, t);
          const mixed = partials.with(0, {
            index: quorum[0] ?? 0,
            D: partial(group, stranger.shareOf(quorum[0] ?? 0), wrap.U),
          });
          assert.notDeepEqual(combine(group, wrap.V, mixed), element);
        }),
        { numRuns: runs },
      );
    });

    test('what one library wraps the other accepts and opens', () => {
      const other = group === sodium ? noble : sodium;
      const { Y, shareOf } = dealt(group, 2);
      const { wrap, element } = encrypt(group, Y, label, randomBytes);
      assert.ok(verifyWrap(other, Y, label, wrap));
      const partials = [1, 3].map((index) => ({ index, D: partial(other, shareOf(index), wrap.U) }));
      assert.deepEqual(combine(other, wrap.V, partials), element);
    });

    test('two wraps of one key and label share no byte string', () => {
      const { Y } = dealt(group, 1);
      const [one, two] = [1, 2].map(() => encrypt(group, Y, label, randomBytes));
      assert.ok(one !== undefined && two !== undefined);
      for (const field of ['U', 'Ubar', 'V', 'e', 'f'] as const) {
        assert.notDeepEqual(one.wrap[field], two.wrap[field], field);
      }
      assert.notDeepEqual(one.element, two.element);
    });
  });
}

test('the second generator is the map of its name, the same in both libraries', () => {
  assert.deepEqual(secondGenerator(sodium), secondGenerator(noble));
  assert.equal(
    toHex(secondGenerator(sodium)),
    '12c49c5da246c6c5edd110ce93cfb9454627d4ce01ff6a6e3d28d0bb45b99100',
  );
  assert.notDeepEqual(secondGenerator(sodium), sodium.base(sodium.scalar.fromInt(1)));
});

test('every flipped bit of a wrap, its label or its key is noticed', () => {
  const { Y } = dealt(sodium, 1);
  const { wrap } = encrypt(sodium, Y, label, randomBytes);
  const fields = { ...wrap, label, Y };
  for (const field of ['U', 'Ubar', 'V', 'e', 'f', 'label', 'Y'] as const) {
    for (let bit = 0; bit < 8 * fields[field].length; bit++) {
      const flipped = fields[field].slice();
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const forged = { ...fields, [field]: flipped };
      assert.equal(verifyWrap(sodium, forged.Y, forged.label, forged), false, `${field}, bit ${bit}`);
    }
  }
});

test('a wrap cannot be made over into a related one', () => {
  const { Y } = dealt(sodium, 1);
  const { wrap } = encrypt(sodium, Y, label, randomBytes);
  const { scalar } = sodium;
  const G = sodium.base(scalar.fromInt(1));
  const two = scalar.fromInt(2);
  const forgeries: TdhWrap[] = [
    // ElGamal alone would accept these: another message, a rerandomisation, a doubling of everything.
    { ...wrap, V: sodium.add(wrap.V, G) },
    {
      ...wrap,
      U: sodium.add(wrap.U, G),
      Ubar: sodium.add(wrap.Ubar, secondGenerator(sodium)),
      V: sodium.add(wrap.V, Y),
      f: scalar.add(wrap.f, wrap.e),
    },
    {
      U: sodium.mul(two, wrap.U),
      Ubar: sodium.mul(two, wrap.Ubar),
      V: sodium.mul(two, wrap.V),
      e: wrap.e,
      f: wrap.f,
    },
    // U and Ū over different r.
    { ...wrap, Ubar: sodium.add(wrap.Ubar, G) },
  ];
  for (const forged of forgeries) assert.equal(verifyWrap(sodium, Y, label, forged), false);
  assert.equal(verifyWrap(sodium, Y, concat(label, Uint8Array.of(0)), wrap), false);
  assert.equal(verifyWrap(sodium, Y, new Uint8Array(0), wrap), false);
});

test('malformed points and scalars are refused, not thrown', () => {
  const { Y } = dealt(sodium, 1);
  const { wrap } = encrypt(sodium, Y, label, randomBytes);
  const order = Buffer.from('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010', 'hex');
  for (const group of [sodium, noble]) {
    for (const bad of [
      group.identity,
      new Uint8Array(32).fill(0xff),
      new Uint8Array(0),
      new Uint8Array(33),
    ]) {
      for (const field of ['U', 'Ubar', 'V'] as const) {
        assert.equal(verifyWrap(group, Y, label, { ...wrap, [field]: bad }), false);
      }
      assert.equal(verifyWrap(group, bad, label, wrap), false);
    }
    for (const bad of [order, new Uint8Array(32).fill(0xff), new Uint8Array(31)]) {
      for (const field of ['e', 'f'] as const) {
        assert.equal(verifyWrap(group, Y, label, { ...wrap, [field]: bad }), false);
      }
    }
  }
  const noPoint = new Uint8Array(32).fill(0xff);
  const invalid = (error: unknown): boolean => isHoldfastError(error, 'ARGUMENT_INVALID');
  assert.throws(() => encrypt(sodium, noPoint, label, randomBytes), invalid);
  assert.throws(() => partial(sodium, sodium.scalar.fromInt(3), noPoint), invalid);
  assert.throws(() => combine(sodium, wrap.V, [{ index: 1, D: noPoint }]), invalid);
});

test('a branch key follows from element, id and version, and differs with each', () => {
  const M = sodium.base(sodium.scalar.fromInt(7));
  const id = new Uint8Array(16).fill(1);
  const key = branchKeyOf(M, id, 1);
  assert.equal(toHex(key), '61f10106884d2cf0075a2fa9f76c478a130afbe10b7abf1438eda44b49a0ffe1');
  assert.deepEqual(branchKeyOf(M, id, 1), key);
  for (const other of [
    branchKeyOf(sodium.base(sodium.scalar.fromInt(8)), id, 1),
    branchKeyOf(M, new Uint8Array(16).fill(2), 1),
    branchKeyOf(M, id, 2),
  ]) {
    assert.equal(sameBytes(other, key), false);
  }
});

test('the challenge is SHA-512 over every public value, each with its length, under its name', () => {
  const { Y } = dealt(sodium, 1);
  const { U, Ubar, V, e, f } = encrypt(sodium, Y, label, randomBytes).wrap;
  const W = sodium.sub(sodium.base(f), sodium.mul(e, U));
  const Wbar = sodium.sub(sodium.mul(f, secondGenerator(sodium)), sodium.mul(e, Ubar));
  const hash = createHash('sha512');
  for (const part of [utf8('CHORUS-SLURP-TDH2GE-R255-v1/ct'), Y, V, label, U, Ubar, W, Wbar]) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(part.length);
    hash.update(length).update(part);
  }
  assert.deepEqual(sodium.scalar.reduce(hash.digest()), e);
});

test('a maker who takes another r for Ū than for U is found out, whatever it hashes', () => {
  const { Y } = dealt(sodium, 1);
  const { scalar } = sodium;
  const [r, other, s] = [1, 2, 3].map(() => scalar.random(randomBytes));
  assert.ok(r !== undefined && other !== undefined && s !== undefined);
  const gbar = secondGenerator(sodium);
  const [U, Ubar, V] = [sodium.base(r), sodium.mul(other, gbar), sodium.mul(r, Y)];
  const e = hashToScalar(sodium, DST.ct, Y, V, label, U, Ubar, sodium.base(s), sodium.mul(s, gbar));
  const f = scalar.add(s, scalar.mul(r, e));
  assert.equal(verifyWrap(sodium, Y, label, { U, Ubar, V, e, f }), false);
  const honest = sodium.mul(r, gbar);
  const again = hashToScalar(sodium, DST.ct, Y, V, label, U, honest, sodium.base(s), sodium.mul(s, gbar));
  const proof = { e: again, f: scalar.add(s, scalar.mul(r, again)) };
  assert.ok(verifyWrap(sodium, Y, label, { U, Ubar: honest, V, ...proof }));
});

test('a wrap that hides nothing is refused, though who made it knows its r', () => {
  const { Y } = dealt(sodium, 1);
  const { scalar, identity } = sodium;
  const [m, s] = [scalar.random(randomBytes), scalar.random(randomBytes)];
  const [V, gbar] = [sodium.base(m), secondGenerator(sodium)];
  const points = [Y, V, label, identity, identity, sodium.base(s), sodium.mul(s, gbar)];
  const e = hashToScalar(sodium, DST.ct, ...points);
  for (const group of [sodium, noble])
    assert.equal(verifyWrap(group, Y, label, { U: identity, Ubar: identity, V, e, f: s }), false);
});

test('every secret made on the way to a wrap, a proof or an element is zeroed', () => {
  const made: Uint8Array[] = [];
  const keep = (bytes: Uint8Array): Uint8Array => {
    made.push(bytes);
    return bytes;
  };
  const { scalar } = sodium;
  const watched: HashGroup = {
    ...sodium,
    scalar: {
      ...scalar,
      random: (random) => keep(scalar.random(random)),
      mul: (a, b) => keep(scalar.mul(a, b)),
    },
  };
  const { Y, shareOf } = dealt(sodium, 2);
  const drawn: Uint8Array[] = [];
  const random = (size: number): Uint8Array => {
    drawn.push(new Uint8Array(randomBytes(size)));
    return drawn.at(-1) ?? new Uint8Array(size);
  };
  const { wrap } = encrypt(watched, Y, label, random);
  assert.deepEqual([drawn.length, made.length], [3, 4]);
  const x = shareOf(1);
  const statement = { context: label, B: sodium.base(x), C: [wrap.U], D: [partial(sodium, x, wrap.U)] };
  const proof = proveDleq(watched, x, statement, random);
  assert.ok(verifyDleq(sodium, statement, proof));
  assert.deepEqual([drawn.length, made.length], [4, 6]);
  for (const bytes of [...drawn, ...made]) assert.deepEqual(bytes, new Uint8Array(bytes.length));
});

function dealt(group: HashGroup, t: number): { Y: Point; shareOf: (index: number) => Scalar } {
  const coeffs = Array.from({ length: t }, () => group.scalar.random(randomBytes));
  return { Y: group.base(coeffs[0] ?? group.identity), shareOf: (index) => evaluate(group, coeffs, index) };
}
