// FROST(Ed25519, SHA-512) signatures (RFC 9591) with shares that dkg.ts and dealing.ts made: t members sign,
// anybody verifies with plain Ed25519.
//
//   commit      two nonces, used once; their multiples are public
//   sign        everybody's commitments and the message → a signature share
//   aggregate   all shares → the signature; a wrong share names its member
//
// Whoever passes the messages on is trusted with nothing: a signer must know by other means that it wants to sign this
// message. Nonces are never stored: after a crash a member commits again, because signing two messages with one pair of
// nonces shows the share.

import assert from 'node:assert/strict';
import { concat, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha512, verifySignature } from '../core/hash.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import {
  type Group,
  type Point,
  pointBytes,
  type RandomBytes,
  type Scalar,
  samePoint,
  scalarBytes,
} from './group.ts';
import { type KeySet, requireMember } from './key-set.ts';
import { lagrange } from './polynomial.ts';
import { sha512Scalar } from './transcript.ts';

/** Two points: hiding, binding. */
const commitmentBytes = 2 * pointBytes;

/** Secret and for one signature only: `signShare` zeroes it. */
export interface FrostNonces {
  readonly hiding: Scalar;
  readonly binding: Scalar;
}

/** What a member sends: its commitment (64 B) or its signature share (32 B). */
export interface FrostMessage {
  readonly index: number;
  readonly bytes: Uint8Array;
}

/** Fresh nonces of the member with this share, and the commitment to send. @param group ed25519 */
export function commit(
  group: Group,
  share: Scalar,
  random: RandomBytes,
): { readonly nonces: FrostNonces; readonly commitment: Uint8Array } {
  const [hiding, binding] = [nonceOf(group, share, random), nonceOf(group, share, random)];
  return { nonces: { hiding, binding }, commitment: concat(group.base(hiding), group.base(binding)) };
}

/**
 * Our share of the signature.
 * @param group ed25519
 * @param keys the key set on ed25519; `share` is that of member `index` in the same generation
 * @param commitments of all signers, the own included: between t and n, in any order
 * @returns faults naming whose commitment cannot be used (0: the own one came back changed)
 * @throws HoldfastError ARGUMENT_INVALID for a share of another generation or nonces used before
 */
export function signShare(
  group: Group,
  keys: KeySet,
  index: number,
  share: Scalar,
  nonces: FrostNonces,
  commitments: readonly FrostMessage[],
  message: Uint8Array,
): Outcome<Uint8Array> {
  requireMember(index, keys.n);
  const expected = keys.Yi[index - 1];
  if (expected === undefined || !samePoint(group.base(share), expected)) {
    throw new HoldfastError('ARGUMENT_INVALID', `the share is not member ${index}'s in this generation`);
  }
  if (group.scalar.isZero(nonces.hiding) || group.scalar.isZero(nonces.binding)) {
    throw new HoldfastError('ARGUMENT_INVALID', 'these nonces were used before');
  }
  const faults = commitmentFaults(group, keys, commitments);
  const own = commitments.find((row) => row.index === index)?.bytes;
  const sent = concat(group.base(nonces.hiding), group.base(nonces.binding));
  if (own === undefined || !samePoint(own, sent)) faults.push({ culprit: 0, reason: 'altered' });
  if (faults.length > 0) return failure(faults);
  return success(responseOf(group, contextOf(group, keys, commitments, message), index, share, nonces));
}

/**
 * The signature: 64 bytes that plain Ed25519 verifies under `keys.Y`.
 * @param shares of exactly the signers in `commitments`
 * @returns faults naming every member whose share is wrong or missing
 */
export function aggregate(
  group: Group,
  keys: KeySet,
  commitments: readonly FrostMessage[],
  message: Uint8Array,
  shares: readonly FrostMessage[],
): Outcome<Uint8Array> {
  const faults = commitmentFaults(group, keys, commitments);
  if (faults.length > 0) return failure(faults);
  const context = contextOf(group, keys, commitments, message);
  const signature = tryToAggregate(group, keys, context, message, shares);
  if (signature !== undefined) return success(signature);
  // Only now each share by itself, most of the work: under a signature that verifies nobody did wrong.
  const wrong = commitments.flatMap(({ index }): Fault[] => {
    const given = shares.filter((row) => row.index === index);
    const [only] = given;
    if (only === undefined) return [{ culprit: index, reason: 'missing' }];
    if (given.length > 1) return [{ culprit: index, reason: 'equivocation' }];
    return isShare(group, keys, context, only)
      ? []
      : [{ culprit: index, reason: 'share', evidence: only.bytes }];
  });
  if (wrong.length > 0) return failure(wrong);
  throw new HoldfastError('INTERNAL', 'signature shares that all verify gave a signature that does not');
}

/** What all signers of one message compute alike. All public. */
interface SigningContext {
  readonly signers: readonly Signer[];
  /** R of the signature. */
  readonly commitment: Point;
  readonly challenge: Scalar;
}

interface Signer {
  readonly index: number;
  readonly binding: Scalar;
  /** Its part of R. */
  readonly commitment: Point;
  readonly weight: Scalar;
}

/** RFC 9591 4.3 to 4.6. The commitments have been checked. */
function contextOf(
  group: Group,
  keys: KeySet,
  commitments: readonly FrostMessage[],
  message: Uint8Array,
): SigningContext {
  const { scalar } = group;
  const rows = commitments.toSorted((a, b) => a.index - b.index);
  const indices = rows.map(({ index }) => index);
  const list = concat(...rows.flatMap(({ index, bytes }) => [scalar.fromInt(index), bytes]));
  const prefix = concat(keys.Y, sha512(concat(named('msg'), message)), sha512(concat(named('com'), list)));
  const signers = rows.map(({ index, bytes }): Signer => {
    const binding = sha512Scalar(group, named('rho'), prefix, scalar.fromInt(index));
    const [hidden, bound] = [bytes.subarray(0, pointBytes), bytes.subarray(pointBytes)];
    const commitment = group.add(hidden, group.mul(binding, bound));
    return { index, binding, commitment, weight: lagrange(group, indices, index) };
  });
  const commitment = group.sum(signers.map((signer) => signer.commitment));
  // H2 has no prefix, so that plain Ed25519 verifies (6.1).
  return { signers, commitment, challenge: sha512Scalar(group, commitment, keys.Y, message) };
}

/** 5.2: our share. Zeroes the nonces, and whatever else of ours it made. */
function responseOf(
  { scalar }: Group,
  { signers, challenge }: SigningContext,
  index: number,
  share: Scalar,
  nonces: FrostNonces,
): Scalar {
  const own = signers.find((signer) => signer.index === index);
  assert(own !== undefined, 'commitments: the own one is among them');
  const bound = scalar.mul(nonces.binding, own.binding);
  const nonce = scalar.add(nonces.hiding, bound);
  const weighted = scalar.mul(share, scalar.mul(own.weight, challenge));
  const response = scalar.add(nonce, weighted);
  for (const secret of [bound, nonce, weighted, nonces.hiding, nonces.binding]) secret.fill(0);
  return response;
}

/** 4.1: from chance and the share, so that a weak source of chance alone does not show the share. */
function nonceOf(group: Group, share: Scalar, random: RandomBytes): Scalar {
  const chance = random(scalarBytes);
  const nonce = sha512Scalar(group, named('nonce'), chance, share);
  chance.fill(0);
  return nonce;
}

/** The signature, when there is one share of each signer and the sum of them verifies. */
function tryToAggregate(
  { scalar }: Group,
  keys: KeySet,
  { signers, commitment }: SigningContext,
  message: Uint8Array,
  shares: readonly FrostMessage[],
): Uint8Array | undefined {
  const own = shares.filter(({ index }) => signers.some((signer) => signer.index === index));
  const isWhole = own.length === signers.length && new Set(own.map(({ index }) => index)).size === own.length;
  if (!isWhole || !own.every(({ bytes }) => scalar.isScalar(bytes))) return undefined;
  const response = own.reduce((sum, { bytes }) => scalar.add(sum, bytes), scalar.fromInt(0));
  const signature = concat(commitment, response);
  return verifySignature(keys.Y, message, signature) ? signature : undefined;
}

/** 5.4: z·G is what the member committed to and its verification share make. */
function isShare(
  group: Group,
  keys: KeySet,
  { signers, challenge }: SigningContext,
  { index, bytes }: FrostMessage,
): boolean {
  const [signer, publicShare] = [signers.find((each) => each.index === index), keys.Yi[index - 1]];
  if (signer === undefined || publicShare === undefined || !group.scalar.isScalar(bytes)) return false;
  const expected = group.mul(group.scalar.mul(challenge, signer.weight), publicShare);
  return samePoint(group.base(bytes), group.add(signer.commitment, expected));
}

/** Between t and n different members, each with two points. */
function commitmentFaults(group: Group, keys: KeySet, commitments: readonly FrostMessage[]): Fault[] {
  const indices = commitments.map(({ index }) => index);
  const members = indices.every((index) => Number.isInteger(index) && index >= 1 && index <= keys.n);
  if (!members || new Set(indices).size !== indices.length || indices.length < keys.t) {
    return [{ culprit: 0, reason: 'malformed' }];
  }
  return commitments
    .filter(({ bytes }) => !isCommitment(group, bytes))
    .map(({ index, bytes }): Fault => ({ culprit: index, reason: 'commitments', evidence: bytes }));
}

function isCommitment(group: Group, bytes: Uint8Array): boolean {
  return (
    bytes.length === commitmentBytes &&
    group.isPoint(bytes.subarray(0, pointBytes)) &&
    group.isPoint(bytes.subarray(pointBytes))
  );
}

/** Prefix of the hashes H1, H3, H4 and H5 (6.1). */
function named(hash: 'rho' | 'nonce' | 'msg' | 'com'): Uint8Array {
  return utf8(`FROST-ED25519-SHA512-v1${hash}`);
}
