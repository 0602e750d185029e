// Polynomials over the scalars: what Shamir sharing, Feldman commitments and Lagrange interpolation are made of.
//
//   f(x) = a₀ + a₁x + … + a₍t₋₁₎x^(t−1)     secret a₀, share f(i) of member i = 1…n
//   C    = (a₀G, …, a₍t₋₁₎G)                public; Y = C₀, and f(i)·G follows from C alone

import assert from 'node:assert/strict';
import type { Group, Point, Scalar } from './group.ts';

/** f(x) of the polynomial with these coefficients, constant first; `x` a member's index, or 0. The result is a secret. */
export function evaluate(group: Group, coeffs: readonly Scalar[], x: number): Scalar {
  const { scalar } = group;
  const at = scalar.fromInt(x);
  let value = scalar.fromInt(0);
  for (const coeff of coeffs.toReversed()) {
    const product = scalar.mul(value, at);
    value.fill(0);
    value = scalar.add(product, coeff);
    product.fill(0);
  }
  return value;
}

/** Feldman commitments to the coefficients, constant first; the identity for a zero coefficient. */
export function commitments(group: Group, coeffs: readonly Scalar[]): Point[] {
  return coeffs.map((coeff) => group.base(coeff));
}

/** f(i)·G from the commitments `C`: what a share or a partial of member `i` is checked against. Public values only. */
export function evaluateCommitment(group: Group, C: readonly Point[], i: number): Point {
  const [highest, ...lower] = C.toReversed();
  assert(highest !== undefined, 'C: at least one commitment');
  return lower.reduce((value, commitment) => group.add(timesIndex(group, value, i), commitment), highest);
}

/**
 * The weight of member `i` among `indices`: f(at) = Σ lagrange(i)·f(i). Indices are distinct and positive,
 * `i` is one of them; anything else is a fault of the caller.
 * @param at where the polynomial is wanted: 0 for the secret, an index for a lost share
 */
export function lagrange(group: Group, indices: readonly number[], i: number, at = 0): Scalar {
  assert(indices.includes(i), 'i: one of the indices');
  assert(new Set(indices).size === indices.length, 'indices: all different');
  const { scalar } = group;
  let above = scalar.fromInt(1);
  let below = scalar.fromInt(1);
  for (const j of indices) {
    assert(Number.isSafeInteger(j) && j > 0, 'indices: positive integers');
    if (j === i) continue;
    above = scalar.mul(above, signed(group, at - j));
    below = scalar.mul(below, signed(group, i - j));
  }
  return scalar.mul(above, scalar.inv(below));
}

function signed(group: Group, n: number): Scalar {
  const size = group.scalar.fromInt(Math.abs(n));
  return n < 0 ? group.scalar.neg(size) : size;
}

/** Above so many additions one multiplication is cheaper: an encoded addition costs about a fifth of it. */
const additionsMax = 4;

/** i·P. Members' indices are small: doubling and adding is cheaper than a full multiplication up to 8 and beyond. */
function timesIndex(group: Group, p: Point, i: number): Point {
  assert(Number.isSafeInteger(i) && i > 0, 'i: a positive integer');
  const bits = i.toString(2);
  const additions = bits.length - 1 + bits.replaceAll('0', '').length - 1;
  if (additions > additionsMax) return group.mul(group.scalar.fromInt(i), p);
  let value = p;
  for (const bit of bits.slice(1)) {
    value = group.add(value, value);
    if (bit === '1') value = group.add(value, p);
  }
  return value;
}
