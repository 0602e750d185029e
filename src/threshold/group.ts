// The group that threshold custody computes in, as a port: points and scalars travel as their canonical
// encodings, so that two independent libraries can stand behind it and be compared byte by byte.
//
//   libsodium (WASM)  what the program computes with: constant-time in the source, about eight times faster
//   public-sums.ts    sums of public points on ristretto255: libsodium has only single multiplications
//   @noble/curves     the independent second opinion, in tests and benchmarks
//
// ristretto255 (RFC 9496) and the prime-order subgroup of ed25519 have the same order
//   L = 2^252 + 27742317777372353535851937790883648493.

import assert from 'node:assert/strict';
import { timingSafeEqual } from 'node:crypto';
import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';

/** Canonical 32-byte encoding of a group element. */
export type Point = Uint8Array;
/** 32 bytes, little-endian, below L. */
export type Scalar = Uint8Array;
/** So many bytes nobody can guess; comes in from outside because this room uses no chance. */
export type RandomBytes = (sizeBytes: number) => Uint8Array;

export const pointBytes = 32;
export const scalarBytes = 32;
/** What `reduce` and `hashToPoint` take: twice the size of L, so that the result is uniform to 2⁻²⁵⁶. */
export const uniformBytes = 64;

/**
 * A group of prime order L. Every method that takes points throws ARGUMENT_INVALID for bytes that are no
 * canonical encoding; scalars must pass `scalar.isScalar` first (a longer or larger one is a fault of ours).
 * The identity is a legal operand and result: whether it may occur is for the protocol to say, and what comes
 * from outside goes through `isPoint` first, which refuses it.
 */
export interface Group {
  readonly name: 'ristretto255' | 'ed25519';
  readonly identity: Point;
  isIdentity(p: Point): boolean;
  /** True for a canonical encoding of an element of the prime-order group other than the identity. */
  isPoint(bytes: Uint8Array): boolean;
  /** The same of each. */
  arePoints(all: readonly Uint8Array[]): boolean;
  /** k·G. */
  base(k: Scalar): Point;
  /** k·P. */
  mul(k: Scalar, p: Point): Point;
  add(p: Point, q: Point): Point;
  sub(p: Point, q: Point): Point;
  /** Σ P; the identity for none. Public values only, as with `msm`. */
  sum(points: readonly Point[]): Point;
  /** The same for several lists, which a backend can do together. */
  sums(lists: readonly (readonly Point[])[]): Point[];
  /** Σ k·P of equally many scalars and points. Public scalars only: a backend may take a time that depends on them. */
  msm(ks: readonly Scalar[], points: readonly Point[]): Point;
  /** The same for several lists of points and one of scalars, which a backend can do together. */
  msms(ks: readonly Scalar[], lists: readonly (readonly Point[])[]): Point[];
  /** Says that two points will stand at the same place in many pairs of sums, for a backend that can prepare for that. */
  readonly keep?: (first: Point, second: Point) => void;
  /** Runs what works on many points that come up again and again; a backend may remember them. Public ones only. */
  remembering<T>(run: () => T): T;
  readonly scalar: ScalarField;
}

/** G, made once. */
export function generatorOf(group: Group): Point {
  const known = generators.get(group);
  if (known !== undefined) return known;
  const made = group.base(group.scalar.fromInt(1));
  generators.set(group, made);
  return made;
}

const generators = new WeakMap<Group, Point>();

/** A group that random bytes can be mapped into, with nobody knowing the logarithm of the result. */
export interface HashGroup extends Group {
  /** The one-way map of RFC 9496 4.3.4 over 64 uniform bytes. */
  hashToPoint(uniform: Uint8Array): Point;
}

/** Integers modulo L. Every result is a new array: whoever asked for a secret one zeroes it. */
export interface ScalarField {
  /** 64 bytes little-endian mod L. */
  reduce(wide: Uint8Array): Scalar;
  add(a: Scalar, b: Scalar): Scalar;
  sub(a: Scalar, b: Scalar): Scalar;
  mul(a: Scalar, b: Scalar): Scalar;
  neg(a: Scalar): Scalar;
  /** 1/a; zero has none and is a fault of the caller. */
  inv(a: Scalar): Scalar;
  /** True for exactly 32 bytes below L. Zero is a scalar. */
  isScalar(bytes: Uint8Array): boolean;
  /** Without telling by time; true for the zero scalar. */
  isZero(a: Scalar): boolean;
  /** A non-negative safe integer as a scalar. */
  fromInt(n: number): Scalar;
  /** Uniform and not zero: 64 random bytes mod L, drawn again on zero. */
  random(random: RandomBytes): Scalar;
}

/** L, little-endian: what a canonical scalar stays below. */
const orderBytes = Buffer.from('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010', 'hex');
const zero = new Uint8Array(scalarBytes);

/** True for exactly 32 bytes below L. A subtraction with borrow over all bytes: no early end tells where they differ. */
export function isCanonicalScalar(bytes: Uint8Array): boolean {
  if (bytes.length !== scalarBytes) return false;
  let borrow = 0;
  for (let i = 0; i < scalarBytes; i++) {
    borrow = (((bytes[i] ?? 0) - (orderBytes[i] ?? 0) - borrow) >> 8) & 1;
  }
  return borrow === 1;
}

/** True when all 32 bytes are zero, without telling by time where they are not. */
export function isZeroScalar(bytes: Scalar): boolean {
  return timingSafeEqual(bytes, zero);
}

/** A non-negative safe integer as 32 bytes little-endian. */
export function scalarFromInt(n: number): Scalar {
  assert(Number.isSafeInteger(n) && n >= 0, 'n: a non-negative safe integer');
  const out = new Uint8Array(scalarBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(n), true);
  return out;
}

/** Draws a uniform scalar other than zero; the random bytes are zeroed. */
export function randomScalar(reduce: (wide: Uint8Array) => Scalar, random: RandomBytes): Scalar {
  for (;;) {
    const wide = random(uniformBytes);
    assert(wide.length === uniformBytes, 'random: 64 bytes expected');
    const k = reduce(wide);
    wide.fill(0);
    if (!isZeroScalar(k)) return k;
  }
}

/** The fault of a caller that hands in bytes which are no element; its message holds none of them. */
export function notAPoint(group: Group['name']): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', `a point expected: 32 bytes, canonical encoding of ${group}`);
}

/** Public points: equal bytes are equal elements, as only one encoding is canonical. */
export function samePoint(p: Point, q: Point): boolean {
  return sameBytes(p, q);
}
