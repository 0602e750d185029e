import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import type { Group, Scalar } from './group.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { loadRistretto } from './group-sodium.ts';
import { commitments, evaluate, evaluateCommitment, lagrange } from './polynomial.ts';

for (const group of [await loadRistretto(), await loadEd25519()]) {
  describe(group.name, () => {
    const { scalar } = group;

    test('evaluates as the textbook does', () => {
      const coeffs = [7, 5, 3].map((n) => scalar.fromInt(n));
      assert.deepEqual(evaluate(group, coeffs, 0), scalar.fromInt(7));
      assert.deepEqual(evaluate(group, coeffs, 2), scalar.fromInt(7 + 10 + 12));
      assert.deepEqual(evaluate(group, coeffs, 10), scalar.fromInt(7 + 50 + 300));
    });

    test('any t shares give the secret and every other share; t−1 do not', () => {
      const shape = fc.integer({ min: 1, max: 6 }).chain((t) =>
        fc.record({
          t: fc.constant(t),
          indices: fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: t, maxLength: t }),
          at: fc.integer({ min: 0, max: 40 }),
        }),
      );
      fc.assert(
        fc.property(shape, ({ t, indices, at }) => {
          const coeffs = Array.from({ length: t }, () => scalar.random(randomBytes));
          assert.deepEqual(interpolate(group, coeffs, indices, at), evaluate(group, coeffs, at));
          const fewer = indices.slice(1);
          if (fewer.length === 0 || fewer.includes(at)) return;
          assert.notDeepEqual(interpolate(group, coeffs, fewer, at), evaluate(group, coeffs, at));
        }),
        { numRuns: 40 },
      );
    });

    test('commitments tell f(i)·G for every index, small or large', () => {
      const coeffs = Array.from({ length: 3 }, () => scalar.random(randomBytes));
      const C = commitments(group, coeffs);
      for (const i of [1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 31, 200, 65_535]) {
        assert.deepEqual(evaluateCommitment(group, C, i), group.base(evaluate(group, coeffs, i)), `i = ${i}`);
      }
    });

    test('a zero constant is committed to by the identity and keeps its place', () => {
      const coeffs = [scalar.fromInt(0), scalar.random(randomBytes)];
      const C = commitments(group, coeffs);
      assert.deepEqual(C[0], group.identity);
      assert.deepEqual(evaluateCommitment(group, C, 3), group.base(evaluate(group, coeffs, 3)));
    });

    test('refuses indices that make no sense', () => {
      assert.throws(() => lagrange(group, [1, 2, 2], 1), /different/);
      assert.throws(() => lagrange(group, [1, 2], 3), /one of/);
      assert.throws(() => lagrange(group, [0, 2], 2), /positive/);
      assert.throws(() => evaluateCommitment(group, commitments(group, [scalar.fromInt(1)]).slice(1), 1));
      assert.throws(() =>
        evaluateCommitment(
          group,
          commitments(
            group,
            [1, 2].map((n) => scalar.fromInt(n)),
          ),
          0,
        ),
      );
    });
  });
}

function interpolate(
  group: Group,
  coeffs: readonly Scalar[],
  indices: readonly number[],
  at: number,
): Scalar {
  const { scalar } = group;
  return indices
    .map((i) => scalar.mul(lagrange(group, indices, i, at), evaluate(group, coeffs, i)))
    .reduce((total, part) => scalar.add(total, part));
}
