// A branch key under the threshold key Y of a custody group: TDH2 (Shoup and Gennaro, "Securing Threshold
// Cryptosystems against Chosen Ciphertext Attack") with the secret as a group element in place of a masked
// string, so that a quorum can move it to another key without anybody seeing it.
//
//   M random, r, s random
//   U = rG    Ū = rḠ    V = M + rY                       ElGamal, twice over one r
//   W = sG    W̄ = sḠ    e = H(Y, V, label, U, Ū, W, W̄)    f = s + re
//
// (e, f) proves knowledge of r, and binds the label: nobody can make a related wrap, or move this one under
// another label. Each custodian verifies it before its share touches U. Ḡ is a point whose logarithm nobody
// knows. t partials x_i·U give x·U = rY by interpolation, hence M, hence the branch key.
//
// A batch of wraps cannot be verified by one random combination: W and W̄ do not travel, so each must be
// computed to be hashed. Sending them would cost 64 bytes a wrap.

import assert from 'node:assert/strict';
import { createSecretKey, hkdfSync } from 'node:crypto';
import { sameBytes, uint64, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { generatorOf, type HashGroup, type Point, type RandomBytes, type Scalar } from './group.ts';
import { interpolation } from './interpolate.ts';
import { DST, hashToScalar } from './transcript.ts';

/** A wrap without its label; the label stands beside it, as bytes, and is bound by `e`. */
export interface TdhWrap {
  readonly U: Point;
  readonly Ubar: Point;
  readonly V: Point;
  readonly e: Scalar;
  readonly f: Scalar;
}

/** D = x_i·U of the member with this index. */
export interface Partial {
  readonly index: number;
  readonly D: Point;
}

/**
 * Makes a wrap for the group key `Y`, and the secret element in it, which the caller turns into a key
 * (`branchKeyOf`) and zeroes. Throws ARGUMENT_INVALID when `Y` is no point.
 */
export function encrypt(
  group: HashGroup,
  Y: Point,
  label: Uint8Array,
  random: RandomBytes,
): { wrap: TdhWrap; element: Point } {
  const { scalar } = group;
  const gbar = secondGenerator(group);
  const [m, r, s] = [scalar.random(random), scalar.random(random), scalar.random(random)];
  const element = group.base(m);
  const mask = group.mul(r, Y);
  const U = group.base(r);
  const Ubar = group.mul(r, gbar);
  const V = group.add(element, mask);
  const e = challenge(group, Y, label, { U, Ubar, V }, group.base(s), group.mul(s, gbar));
  const re = scalar.mul(r, e);
  const f = scalar.add(s, re);
  for (const secret of [m, r, s, re, mask]) secret.fill(0);
  return { wrap: { U, Ubar, V, e, f }, element };
}

/**
 * True when who made `wrap` knew its r and made it for this `Y` and `label`. False for anything malformed:
 * a bad point, the identity, a scalar not below L.
 */
export function verifyWrap(group: HashGroup, Y: Point, label: Uint8Array, wrap: TdhWrap): boolean {
  const { U, Ubar, V, e, f } = wrap;
  if (![e, f].every((k) => group.scalar.isScalar(k))) return false;
  if (!group.arePoints([Y, V])) return false;
  if ([U, Ubar].some((point) => group.isIdentity(point))) return false;
  const minus = group.scalar.neg(e);
  const [G, gbar] = generatorsOf(group);
  let sums: readonly Point[];
  try {
    sums = group.msms(
      [f, minus],
      [
        [G, U],
        [gbar, Ubar],
      ],
    );
  } catch (error) {
    if (isHoldfastError(error, 'ARGUMENT_INVALID')) return false; // one of them is no point
    throw error;
  }
  const [W, Wbar] = sums;
  assert(W !== undefined && Wbar !== undefined, 'two sums');
  return sameBytes(challenge(group, Y, label, wrap, W, Wbar), e);
}

/** x·U. Only for a wrap that `verifyWrap` accepted: anything else turns the share's holder into an oracle. */
export function partial(group: HashGroup, x: Scalar, U: Point): Point {
  return group.mul(x, U);
}

/**
 * M of the wrap with this `V` from exactly t partials of one share generation, of different members. Wrong
 * partials give a wrong M: the caller compares its key with the commitment in the record, and zeroes M.
 * Throws ARGUMENT_INVALID when a partial is no point.
 */
export function combine(group: HashGroup, V: Point, partials: readonly Partial[]): Point {
  const combineOf = combiner(
    group,
    partials.map(({ index }) => index),
  );
  return combineOf(
    V,
    partials.map(({ D }) => D),
  );
}

/** `combine` for many wraps that the same members answered for: partials in the order of `indices`. */
export function combiner(
  group: HashGroup,
  indices: readonly number[],
): (V: Point, D: readonly Point[]) => Point {
  const interpolate = interpolation(group, indices);
  return (V, D) => {
    const mask = interpolate(D);
    const M = group.sub(V, mask);
    mask.fill(0);
    return M;
  };
}

/** The 32-byte branch key of a secret element; the caller zeroes both. */
export function branchKeyOf(M: Point, bkId: Uint8Array, bkVer: number): Uint8Array {
  const info = preimage(DST.bk, bkId, uint64(bkVer));
  return new Uint8Array(hkdfSync('sha512', createSecretKey(M), utf8(DST.bkExtract), info, 32));
}

/** G and Ḡ. */
function generatorsOf(group: HashGroup): readonly [Point, Point] {
  const known = bothGenerators.get(group);
  if (known !== undefined) return known;
  const made = [generatorOf(group), secondGenerator(group)] as const;
  bothGenerators.set(group, made);
  group.keep?.(...made);
  return made;
}

/** Ḡ: the map of a hash, so that nobody knows its logarithm. Computed once per backend. */
export function secondGenerator(group: HashGroup): Point {
  const known = generators.get(group);
  if (known !== undefined) return known;
  const made = group.hashToPoint(sha512(utf8(DST.gbar)));
  generators.set(group, made);
  return made;
}

const generators = new WeakMap<HashGroup, Point>();
const bothGenerators = new WeakMap<HashGroup, readonly [Point, Point]>();

function challenge(
  group: HashGroup,
  Y: Point,
  label: Uint8Array,
  { U, Ubar, V }: Pick<TdhWrap, 'U' | 'Ubar' | 'V'>,
  W: Point,
  Wbar: Point,
): Scalar {
  return hashToScalar(group, DST.ct, Y, V, label, U, Ubar, W, Wbar);
}
