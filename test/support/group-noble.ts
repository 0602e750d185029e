// The same group by @noble/curves, an implementation that shares no code with libsodium: what the two agree on
// byte by byte over random operations is right, or wrong in the same way twice.
//
// JavaScript integers take a time that depends on their value, and cannot be zeroed. So this backend checks,
// verifies and sums public values; a custodian's share of the KEK is multiplied by libsodium only.

import assert from 'node:assert/strict';
import { type CurvePoint, type CurvePointCons, pippenger } from '@noble/curves/abstract/curve.js';
import { ed25519, ristretto255, ristretto255_hasher } from '@noble/curves/ed25519.js';
import {
  type Group,
  type HashGroup,
  isCanonicalScalar,
  isZeroScalar,
  notAPoint,
  type Point,
  pointBytes,
  randomScalar,
  type Scalar,
  type ScalarField,
  scalarFromInt,
  uniformBytes,
} from '../../src/threshold/group.ts';

/** ristretto255 (RFC 9496), the independent implementation. */
export function nobleRistretto(): HashGroup {
  return {
    ...groupOver('ristretto255', ristretto255.Point, () => true),
    hashToPoint: (uniform) => {
      assert(uniform.length === uniformBytes, 'uniform: 64 bytes');
      const point = ristretto255_hasher.deriveToCurve?.(uniform);
      assert(point !== undefined, 'noble: deriveToCurve expected');
      return point.toBytes();
    },
  };
}

/**
 * The prime-order subgroup of ed25519 (strict RFC 8032 encodings). Only `isPoint` tells an element of the
 * subgroup from one with a small-order part, at the price of a multiplication: every point that comes from
 * outside must pass it once.
 */
export function nobleEd25519(): Group {
  return ed25519Group;
}

function groupOver<P extends CurvePoint<bigint, P>>(
  name: Group['name'],
  curve: CurvePointCons<P>,
  inSubgroup: (p: P) => boolean,
): Group {
  const decode = (bytes: Point): P => {
    const p = tryDecode(curve, bytes);
    if (p === undefined) throw notAPoint(name);
    return p;
  };
  const times = (k: Scalar, p: P): Point => {
    const scalar = toInteger(k);
    return (scalar === 0n ? curve.ZERO : p.multiply(scalar)).toBytes();
  };
  const isPoint = (bytes: Uint8Array): boolean => {
    const p = tryDecode(curve, bytes);
    return p !== undefined && !p.is0() && inSubgroup(p);
  };
  const msm = (ks: readonly Scalar[], points: readonly Point[]): Point => {
    assert(ks.length === points.length, 'msm: as many scalars as points');
    return pippenger(curve, points.map(decode), ks.map(toInteger)).toBytes();
  };
  const sum = (points: readonly Point[]): Point =>
    points.reduce((total, p) => total.add(decode(p)), curve.ZERO).toBytes();
  const identity = curve.ZERO.toBytes();
  return {
    name,
    identity,
    isIdentity: (p) => tryDecode(curve, p)?.is0() === true,
    isPoint,
    arePoints: (all) => all.every(isPoint),
    base: (k) => times(k, curve.BASE),
    mul: (k, p) => times(k, decode(p)),
    add: (p, q) => decode(p).add(decode(q)).toBytes(),
    sub: (p, q) => decode(p).subtract(decode(q)).toBytes(),
    sum,
    sums: (lists) => lists.map(sum),
    remembering: (run) => run(),
    msm,
    msms: (ks, lists) => lists.map((list) => msm(ks, list)),
    scalar: scalarField,
  };
}

/** undefined for bytes that are no canonical encoding of a point. */
function tryDecode<P extends CurvePoint<bigint, P>>(
  curve: CurvePointCons<P>,
  bytes: Uint8Array,
): P | undefined {
  if (bytes.length !== pointBytes) return undefined;
  try {
    return curve.fromBytes(bytes);
  } catch {
    return undefined;
  }
}

const integers = ed25519.Point.Fn;

const scalarField: ScalarField = {
  reduce,
  add: (a, b) => toScalar(integers.add(toInteger(a), toInteger(b))),
  sub: (a, b) => toScalar(integers.sub(toInteger(a), toInteger(b))),
  mul: (a, b) => toScalar(integers.mul(toInteger(a), toInteger(b))),
  neg: (a) => toScalar(integers.neg(toInteger(a))),
  inv: (a) => {
    const value = toInteger(a);
    assert(value !== 0n, 'zero has no inverse');
    return toScalar(integers.inv(value));
  },
  isScalar: isCanonicalScalar,
  isZero: isZeroScalar,
  fromInt: scalarFromInt,
  random: (random) => randomScalar(reduce, random),
};

const ed25519Group = groupOver('ed25519', ed25519.Point, (p) => p.isTorsionFree());

function reduce(wide: Uint8Array): Scalar {
  assert(wide.length === uniformBytes, 'wide: 64 bytes');
  return toScalar(integers.create(littleEndian(wide)));
}

function toInteger(k: Scalar): bigint {
  assert(isCanonicalScalar(k), 'a scalar expected: 32 bytes below L');
  return littleEndian(k);
}

function toScalar(k: bigint): Scalar {
  return integers.toBytes(k);
}

function littleEndian(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let value = 0n;
  for (let at = bytes.length - 8; at >= 0; at -= 8) value = (value << 64n) | view.getBigUint64(at, true);
  return value;
}
