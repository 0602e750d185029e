// Σ λ_i·P_i over points: from t partials the element that the secret itself would give.
//
// The weights λ_i of small indices are small fractions, such as 8/3, −2, 1/3 for members 1, 2, 4. Over their
// common denominator they are small integers: 8, −6, 1. A sum of small multiples needs a few shared doublings
// and additions, and the denominator one multiplication at the end, which is cheaper than a full-size
// multiplication for each point. Where it is not, the multiplications are done. The indices are public, so
// which way is taken and what it costs tells nothing; the points may be secret, and what is made of them on the
// way is zeroed.

import assert from 'node:assert/strict';
import type { Group, Point, Scalar } from './group.ts';
import { lagrange } from './polynomial.ts';

/** Interpolates points of the members it was made for, in their order. The caller zeroes the result if it is secret. */
export type Interpolation = (points: readonly Point[]) => Point;

/**
 * Prepares Σ λ_i·P_i for members `indices` (distinct, positive) towards `at`; once for any number of items.
 * The points given to it throw ARGUMENT_INVALID when they are none.
 */
export function interpolation(group: Group, indices: readonly number[], at = 0): Interpolation {
  const { factors, denominator } = fractions(indices, at);
  // Large indices have large denominators; one that fits 64 bits is always the case where small is cheaper.
  if (
    denominator >> 64n === 0n &&
    additionsOf(factors, denominator) < indices.length * (additionsPerMul + 1)
  ) {
    const inverse = denominator === 1n ? undefined : inverseOf(group, denominator);
    return (points) => multiplesSum(group, factors, points, inverse);
  }
  const weights = indices.map((i) => lagrange(group, indices, i, at));
  return (points) => weightedSum(group, weights, points);
}

/** A full multiplication takes as long as about so many additions of encoded points. */
const additionsPerMul = 5;

function additionsOf(factors: readonly bigint[], denominator: bigint): number {
  const digits = factors.map((factor) => magnitude(factor).toString(2));
  const doublings = Math.max(...digits.map(({ length }) => length)) - 1;
  const ones = digits.join('').replaceAll('0', '').length;
  return doublings + ones + (denominator === 1n ? 0 : additionsPerMul);
}

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

function inverseOf(group: Group, n: bigint): Scalar {
  const wide = new Uint8Array(64);
  new DataView(wide.buffer).setBigUint64(0, n & 0xffff_ffff_ffff_ffffn, true);
  return group.scalar.inv(group.scalar.reduce(wide));
}

/** (Σ factors[i]·P_i) · inverse, all points through one chain of doublings. */
function multiplesSum(
  group: Group,
  factors: readonly bigint[],
  points: readonly Point[],
  inverse: Scalar | undefined,
): Point {
  assert(points.length === factors.length, 'points: one per index');
  const bits = Math.max(...factors.map((factor) => magnitude(factor).toString(2).length));
  let total: Point = new Uint8Array(group.identity);
  const step = (next: Point): void => {
    total.fill(0);
    total = next;
  };
  for (let bit = bits - 1; bit >= 0; bit--) {
    if (!group.isIdentity(total)) step(group.add(total, total));
    for (const [i, point] of points.entries()) {
      const factor = factors[i] ?? 0n;
      if (((magnitude(factor) >> BigInt(bit)) & 1n) === 0n) continue;
      step(factor < 0n ? group.sub(total, point) : group.add(total, point));
    }
  }
  if (inverse !== undefined) step(group.mul(inverse, total));
  return total;
}

function weightedSum(group: Group, weights: readonly Scalar[], points: readonly Point[]): Point {
  assert(points.length === weights.length, 'points: one per index');
  let total: Point = new Uint8Array(group.identity);
  for (const [i, point] of points.entries()) {
    const part = group.mul(weights[i] ?? group.scalar.fromInt(0), point);
    const next = group.add(total, part);
    total.fill(0);
    part.fill(0);
    total = next;
  }
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
