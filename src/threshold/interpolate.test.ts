import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { isHoldfastError } from '../core/errors.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import type { Group } from './group.ts';
import { nobleEd25519, nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';
import { interpolation } from './interpolate.ts';
import { evaluate } from './polynomial.ts';

const sodium = await loadRistretto();

for (const [name, group, runs] of [
  ['libsodium', sodium, 150],
  ['noble', nobleRistretto(), 10],
  ['libsodium ed25519', await loadEd25519(), 50],
  ['noble ed25519', nobleEd25519(), 10],
] satisfies [string, Group, number][]) {
  describe(name, () => {
    test('gives what the polynomial says, for near and far indices and any place', () => {
      // Both ways of computing are met: quorums of small groups, and members that lie far apart.
      const index = fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 65_535 }));
      const quorum = fc.uniqueArray(index, { minLength: 1, maxLength: 6 });
      fc.assert(
        fc.property(quorum, fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 12 })), (indices, at) => {
          const coeffs = indices.map(() => group.scalar.random(randomBytes));
          const points = indices.map((i) => group.base(evaluate(group, coeffs, i)));
          assert.deepEqual(
            interpolation(group, indices, at)(points),
            group.base(evaluate(group, coeffs, at)),
          );
        }),
        { numRuns: runs },
      );
    });

    test('every quorum of 3 of 5, in every order of its members, gives the same', () => {
      const coeffs = [1, 2, 3].map(() => group.scalar.random(randomBytes));
      const points = [1, 2, 3, 4, 5].map((i) => group.base(evaluate(group, coeffs, i)));
      for (const a of [1, 2, 3, 4, 5]) {
        for (const b of [1, 2, 3, 4, 5]) {
          for (const c of [1, 2, 3, 4, 5]) {
            if (a === b || b === c || a === c || (group !== sodium && a > b)) continue;
            const chosen = [a, b, c].map((i) => points[i - 1] ?? group.identity);
            assert.deepEqual(
              interpolation(group, [a, b, c])(chosen),
              group.base(coeffs[0] ?? group.identity),
            );
          }
        }
      }
    });

    test('the same quorum towards another place is another sum', () => {
      const coeffs = [1, 2].map(() => group.scalar.random(randomBytes));
      const points = [1, 2].map((i) => group.base(evaluate(group, coeffs, i)));
      for (const at of [0, 5, 0])
        assert.deepEqual(interpolation(group, [1, 2], at)(points), group.base(evaluate(group, coeffs, at)));
    });

    test('leaves its points as they were, also a single one', () => {
      const points = [group.base(group.scalar.random(randomBytes)), group.base(group.scalar.fromInt(2))];
      const before = points.map((point) => point.slice());
      interpolation(group, [1, 2])(points).fill(0);
      interpolation(group, [4])(points.slice(0, 1)).fill(0);
      interpolation(group, [1, 60_000])(points).fill(0);
      assert.deepEqual(points, before);
      assert.ok(group.isIdentity(group.identity));
    });

    test('refuses bytes that are no points, and indices that make no sense', () => {
      const bad = new Uint8Array(32).fill(0xff);
      const good = group.base(group.scalar.fromInt(5));
      const invalid = (error: unknown): boolean => isHoldfastError(error, 'ARGUMENT_INVALID');
      assert.throws(() => interpolation(group, [1])([bad]), invalid);
      assert.throws(() => interpolation(group, [1, 2])([good, bad]), invalid);
      assert.throws(() => interpolation(group, [1, 60_000])([good, bad]), invalid);
      assert.throws(() => interpolation(group, [1, 2])([good]), /one per index/);
      assert.throws(() => interpolation(group, []), /different/);
      assert.throws(() => interpolation(group, [2, 2]), /different/);
      assert.throws(() => interpolation(group, [0, 2]), /positive/);
      assert.throws(() => interpolation(group, [1.5, 2]), /positive/);
    });
  });
}

test('a quorum is prepared once, and so many are kept and no more', () => {
  const first = interpolation(sodium, [1, 2]);
  assert.equal(interpolation(sodium, [1, 2]), first);
  for (let other = 3; other < 70; other++) interpolation(sodium, [1, other]);
  assert.notEqual(interpolation(sodium, [1, 2]), first);
});
