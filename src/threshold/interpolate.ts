// Σ λ_i·P_i over points: from t partials the element that the secret itself would give.
//
// The weights λ_i of small indices are small fractions, such as 8/3, −2, 1/3 for members 1, 2, 4. Over their
// common denominator they are small integers: 8, −6, 1. What is added and what is taken away are then two sums of small
// multiples, made in one pass, and the denominator is one multiplication at the end. Where the integers are not small,
// the sum is made with the weights themselves. The indices are public, so which way is taken and what it costs tells
// nothing; the points may be secret, and what is made of them on the way is zeroed.

import assert from 'node:assert/strict';
import type { Group, Point, Scalar } from './group.ts';
import { lagrange } from './polynomial.ts';

/** Interpolates points of the members it was made for, in their order. The caller zeroes the result if it is secret. */
export type Interpolation = (points: readonly Point[]) => Point;

/** Prepared ones that are kept for each group: the quorums of a custody group that answer are few. */
const keptMax = 64;
const kept = new WeakMap<Group, Map<string, Interpolation>>();

/**
 * Prepares Σ λ_i·P_i for members `indices` (distinct, positive) towards `at`; once for any number of items.
 * The points given to it throw ARGUMENT_INVALID when they are none.
 */
export function interpolation(group: Group, indices: readonly number[], at = 0): Interpolation {
  const ofGroup = kept.get(group) ?? new Map<string, Interpolation>();
  kept.set(group, ofGroup);
  const name = `${at}: ${indices.join()}`;
  const known = ofGroup.get(name);
  if (known !== undefined) return known;
  const made = prepared(group, indices, at);
  if (ofGroup.size >= keptMax) ofGroup.clear();
  ofGroup.set(name, made);
  return made;
}

function prepared(group: Group, indices: readonly number[], at: number): Interpolation {
  const { factors, denominator } = fractions(indices, at);
  if ([denominator, ...factors].some((each) => magnitude(each) > smallMax)) {
    const weights = indices.map((i) => lagrange(group, indices, i, at));
    return (points) => {
      assert(points.length === weights.length, 'points: one per index');
      return group.msm(weights, points);
    };
  }
  const ks = factors.map((factor) => scalarOf(group, magnitude(factor)));
  const inverse = denominator === 1n ? undefined : group.scalar.inv(scalarOf(group, denominator));
  return (points) => multiplesSum(group, { factors, ks, inverse }, points);
}

/** A sum of multiples of 64 bits and one multiplication take less than a sum of multiples of 252. */
const smallMax = 2n ** 64n - 1n;

/** λ_i = factors[i] / denominator, in integers without a common divisor left in the denominator. */
function fractions(indices: readonly number[], at: number): { factors: bigint[]; denominator: bigint } {
  assert(indices.length > 0 && new Set(indices).size === indices.length, 'indices: all different');
  assert(
    indices.every((i) => Number.isSafeInteger(i) && i > 0),
    'indices: positive integers',
  );
  const reduced = indices.map((i) => {
    const others = indices.filter((j) => j !== i);
    const above = product(others.map((j) => at - j));
    const below = product(others.map((j) => i - j));
    const common = magnitude(divisor(above, below));
    return { above: above / common, below: below / common };
  });
  const denominator = reduced.reduce((so, { below }) => magnitude((so * below) / divisor(so, below)), 1n);
  return { factors: reduced.map(({ above, below }) => (above * denominator) / below), denominator };
}

function scalarOf(group: Group, n: bigint): Scalar {
  const wide = new Uint8Array(64);
  new DataView(wide.buffer).setBigUint64(0, n, true);
  return group.scalar.reduce(wide);
}

/** (Σ factors[i]·P_i) · inverse. `ks` are the magnitudes of the factors. */
function multiplesSum(
  group: Group,
  {
    factors,
    ks,
    inverse,
  }: {
    readonly factors: readonly bigint[];
    readonly ks: readonly Scalar[];
    readonly inverse: Scalar | undefined;
  },
  points: readonly Point[],
): Point {
  assert(points.length === factors.length, 'points: one per index');
  const [plus, minus] = group.msms(ks, [
    points.map((point, i) => ((factors[i] ?? 0n) > 0n ? point : group.identity)),
    points.map((point, i) => ((factors[i] ?? 0n) < 0n ? point : group.identity)),
  ]);
  assert(plus !== undefined && minus !== undefined, 'two sums');
  const sum = group.sub(plus, minus);
  for (const part of [plus, minus]) part.fill(0);
  if (inverse === undefined) return sum;
  const total = group.mul(inverse, sum);
  sum.fill(0);
  return total;
}

function product(factors: readonly number[]): bigint {
  return factors.reduce((so, factor) => so * BigInt(factor), 1n);
}

function magnitude(n: bigint): bigint {
  return n < 0n ? -n : n;
}

/** Greatest common divisor, of a sign of no meaning. */
function divisor(a: bigint, b: bigint): bigint {
  return b === 0n ? a : divisor(b, a % b);
}
