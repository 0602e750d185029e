// Proof that D₁ = k·C₁, …, D_m = k·C_m with the k of B = k·G, without telling k: GenerateProof and VerifyProof
// of RFC 9497 2.2 for ristretto255 and SHA-512, a batch as one proof of 64 bytes.
//
// A custodian proves with it that its partial decryptions were made with its share (B is its verification
// share). The caller's context string goes into every hash: a proof made for one request is none for another.

import assert from 'node:assert/strict';
import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { sha512 } from '../core/hash.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { generatorOf, type HashGroup, type Point, type RandomBytes, type Scalar } from './group.ts';

/** Challenge c ‖ response s. */
export const dleqProofBytes = 64;

/** What is proved: that `D` is `C` times the logarithm of `B`, item by item. */
export interface DleqStatement {
  /** Bytes that say what the proof is for; 1 to 242. */
  readonly context: Uint8Array;
  readonly B: Point;
  /** 1 to `unwrapItemsMax` points, and as many of `D`. */
  readonly C: readonly Point[];
  readonly D: readonly Point[];
}

/**
 * Proves `statement` with `k`, the logarithm of `B`, which the caller keeps and zeroes. A statement that is
 * not true, or empty, is a fault of the caller and gives a proof that does not verify.
 */
export function proveDleq(
  group: HashGroup,
  k: Scalar,
  statement: DleqStatement,
  random: RandomBytes,
): Uint8Array {
  assert(isShaped(statement), 'statement: as many D as C, within the bounds');
  const { scalar } = group;
  const hash = hashOf(group, statement.context);
  const weights = weightsOf(hash, statement);
  // Z is k·M too, by a multiplication more: the weights are public, so both sums are made in one pass.
  const [M, Z] = group.msms(weights, [statement.C, statement.D]);
  assert(M !== undefined && Z !== undefined, 'two sums');
  const r = scalar.random(random);
  const c = challenge(hash, statement.B, M, Z, group.base(r), group.mul(r, M));
  const ck = scalar.mul(c, k);
  const s = scalar.sub(r, ck);
  r.fill(0);
  ck.fill(0);
  return concat(c, s);
}

/** True when `proof` shows `statement`. False for anything malformed: a bad point, the identity, a scalar not below L. */
export function verifyDleq(group: HashGroup, statement: DleqStatement, proof: Uint8Array): boolean {
  const c = proof.subarray(0, 32);
  const s = proof.subarray(32);
  const { B, C, D } = statement;
  if (proof.length !== dleqProofBytes || !group.scalar.isScalar(c) || !group.scalar.isScalar(s)) return false;
  if (!isShaped(statement) || !group.arePoints([B, ...C, ...D])) return false;
  const hash = hashOf(group, statement.context);
  const weights = weightsOf(hash, statement);
  const [M, Z] = group.msms(weights, [C, D]);
  assert(M !== undefined && Z !== undefined, 'two sums');
  const [t2, t3] = group.msms(
    [s, c],
    [
      [generatorOf(group), B],
      [M, Z],
    ],
  );
  assert(t2 !== undefined && t3 !== undefined, 'two sums');
  return sameBytes(challenge(hash, B, M, Z, t2, t3), c);
}

function isShaped({ context, C, D }: DleqStatement): boolean {
  const fits = context.length > 0 && hashToScalarPrefix.length + context.length <= dstBytesMax;
  return fits && C.length === D.length && C.length > 0 && C.length <= unwrapItemsMax;
}

/** The hashes of one context. */
interface ContextHash {
  readonly seedDst: Uint8Array;
  toScalar(...parts: readonly Uint8Array[]): Scalar;
}

const hashToScalarPrefix = utf8('HashToScalar-');
/** expand_message_xmd takes a longer one only hashed, which no context of ours needs. */
const dstBytesMax = 255;

/** RFC 9497 4.1: expand_message_xmd (RFC 9380 5.3.1) to 64 bytes, little-endian, mod L. */
function hashOf(group: HashGroup, context: Uint8Array): ContextHash {
  const dst = concat(hashToScalarPrefix, context);
  const dstPrime = concat(dst, Uint8Array.of(dst.length));
  return {
    seedDst: concat(utf8('Seed-'), context),
    toScalar: (...parts) => {
      const b0 = sha512(concat(zeroBlock, ...parts, Uint8Array.of(0, 64, 0), dstPrime));
      return group.scalar.reduce(sha512(concat(b0, Uint8Array.of(1), dstPrime)));
    },
  };
}

/** One block of SHA-512, the Z_pad of RFC 9380. */
const zeroBlock = new Uint8Array(128);

/** The weights of the linear combination that stands for the batch (ComputeComposites). */
function weightsOf(hash: ContextHash, { B, C, D }: DleqStatement): Scalar[] {
  const seed = sha512(concat(short(B), short(hash.seedDst)));
  return C.map((point, i) => {
    const index = Uint8Array.of(i >> 8, i & 0xff);
    return hash.toScalar(short(seed), index, short(point), short(D[i] ?? empty), composite);
  });
}

function challenge(hash: ContextHash, ...points: readonly Point[]): Scalar {
  return hash.toScalar(...points.map(short), challengeLabel);
}

const empty = new Uint8Array(0);
const composite = utf8('Composite');
const challengeLabel = utf8('Challenge');

/** `bytes` with their length in front, 2 bytes big-endian: the framing of RFC 9497. */
function short(bytes: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes);
}
