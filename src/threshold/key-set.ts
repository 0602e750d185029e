// What the public knows of a shared key: threshold, members' number, commitments and verification shares.

import { HoldfastError } from '../core/errors.ts';
import { custodiansMax } from '../core/limits.ts';
import { type Group, type Point, samePoint } from './group.ts';
import { evaluateCommitment } from './polynomial.ts';

/** A shared key of `n` members of whom `t` can use it. C[0] = Y; Yi[i − 1] is the share of member i times G. */
export interface KeySet {
  readonly t: number;
  readonly n: number;
  readonly Y: Point;
  readonly C: readonly Point[];
  readonly Yi: readonly Point[];
}

/**
 * The key set that these commitments (constant first) describe.
 * @throws HoldfastError ARGUMENT_INVALID when a commitment or a verification share is no point: sums of honest
 *   random terms are the identity with probability 2^-252, and never by accident
 */
export function keySetOf(group: Group, commitments: readonly Point[], n: number): KeySet {
  requireThreshold(commitments.length, n);
  const Yi = Array.from({ length: n }, (_, at) => evaluateCommitment(group, commitments, at + 1));
  const [Y] = commitments;
  if (Y === undefined || ![...commitments, ...Yi].every((point) => group.isPoint(point))) {
    throw new HoldfastError('ARGUMENT_INVALID', 'a commitment or verification share is no group element');
  }
  return { t: commitments.length, n, Y, C: commitments, Yi };
}

/** True when all numbers and points of a key set that came from outside fit together. Never throws. */
export function isKeySet(group: Group, set: KeySet): boolean {
  const { t, n, C, Yi } = set;
  if (!isThreshold(t, n) || C.length !== t || Yi.length !== n) return false;
  if (![...C, ...Yi].every((point) => group.isPoint(point))) return false;
  const [Y] = C;
  return (
    Y !== undefined &&
    samePoint(Y, set.Y) &&
    Yi.every((point, at) => samePoint(point, evaluateCommitment(group, C, at + 1)))
  );
}

/** 2 ≤ t ≤ n ≤ 32: with t = 1 one stolen share is the key. */
export function isThreshold(t: number, n: number): boolean {
  return Number.isInteger(t) && Number.isInteger(n) && t >= 2 && t <= n && n <= custodiansMax;
}

/** @throws HoldfastError ARGUMENT_INVALID unless 2 ≤ t ≤ n ≤ 32 */
export function requireThreshold(t: number, n: number): void {
  if (isThreshold(t, n)) return;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `threshold ${t} of ${n}: 2 ≤ t ≤ n ≤ ${custodiansMax} expected`,
  );
}

/** @throws HoldfastError ARGUMENT_INVALID unless `index` is a member's: 1…n */
export function requireMember(index: number, n: number): void {
  if (Number.isInteger(index) && index >= 1 && index <= n) return;
  throw new HoldfastError('ARGUMENT_INVALID', `member ${index} of ${n} expected`);
}
