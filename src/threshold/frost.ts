// FROST(Ed25519, SHA-512) signatures (RFC 9591) with shares that dkg.ts and dealing.ts made: t members sign,
// anybody verifies with plain Ed25519.
//
//   commit      two nonces, used once; their multiples are public
//   sign        everybody's commitments and the message → a signature share
//   aggregate   all shares → the signature; a wrong share names its member
//
// The signing itself is that of @noble/curves, as a suite of our own: its ready-made one multiplies twice by the
// group's order to see that a point is in the subgroup, where once tells the same. Whoever passes the messages on is trusted with nothing: a signer
// must know by other means that it wants to sign this message. Nonces are never stored: after a crash a member
// commits again, because signing two messages with one pair of nonces shows the share.

import { createFROST } from '@noble/curves/abstract/frost.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha512, verifySignature } from '../core/hash.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import { type Group, pointBytes, type RandomBytes, type Scalar, samePoint, scalarBytes } from './group.ts';
import { type KeySet, requireMember } from './key-set.ts';

/** FROST(Ed25519, SHA-512); its H2 has no prefix, so that plain Ed25519 verifies (RFC 9591 6.1). */
const frost = createFROST({
  name: 'FROST-ED25519-SHA512-v1',
  Point: ed25519.Point,
  hash: (bytes) => new Uint8Array(sha512(bytes)),
  H2: '',
});

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

/** Fresh nonces of a member and the commitment to send. */
export function commit(
  index: number,
  share: Scalar,
  random: RandomBytes,
): { readonly nonces: FrostNonces; readonly commitment: Uint8Array } {
  const secret = { identifier: frost.Identifier.fromNumber(index), signingShare: share };
  const { nonces, commitments } = frost.commit(secret, (size = scalarBytes) => random(size));
  return { nonces, commitment: concat(commitments.hiding, commitments.binding) };
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
  const secret = { identifier: frost.Identifier.fromNumber(index), signingShare: share };
  return success(frost.signShare(secret, publicOf(keys), nonces, listOf(commitments), message));
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
  const list = listOf(commitments);
  const attempt = tryToAggregate(group, keys, list, message, commitments, shares);
  if (attempt instanceof Uint8Array) return success(attempt);
  // Only now each share by itself, most of the work: under a signature that verifies nobody did wrong.
  const wrong = commitments.flatMap(({ index }): Fault[] => {
    const given = shares.filter((row) => row.index === index);
    const [only] = given;
    if (only === undefined) return [{ culprit: index, reason: 'missing' }];
    if (given.length > 1) return [{ culprit: index, reason: 'equivocation' }];
    return isShare(group, keys, list, message, only)
      ? []
      : [{ culprit: index, reason: 'share', evidence: only.bytes }];
  });
  if (wrong.length > 0) return failure(wrong);
  throw new HoldfastError(
    'INTERNAL',
    'signature shares that all verify gave a signature that does not',
    attempt,
  );
}

/** The signature, when there is one share of each signer and the sum of them verifies; else why not. */
function tryToAggregate(
  group: Group,
  keys: KeySet,
  list: ReturnType<typeof listOf>,
  message: Uint8Array,
  commitments: readonly FrostMessage[],
  shares: readonly FrostMessage[],
): Uint8Array | { readonly cause?: unknown } {
  const own = shares.filter(({ index }) => commitments.some((row) => row.index === index));
  const signers = new Set(own.map(({ index }) => index));
  const isWhole = own.length === commitments.length && signers.size === own.length;
  if (!isWhole || !own.every(({ bytes }) => group.scalar.isScalar(bytes))) return {};
  const named = Object.fromEntries(
    own.map(({ index, bytes }) => [frost.Identifier.fromNumber(index), bytes]),
  );
  try {
    const signature = frost.aggregate(publicOf(keys), list, message, named);
    return verifySignature(keys.Y, message, signature) ? new Uint8Array(signature) : {};
  } catch (cause) {
    return { cause };
  }
}

function isShare(
  group: Group,
  keys: KeySet,
  list: ReturnType<typeof listOf>,
  message: Uint8Array,
  { index, bytes }: FrostMessage,
): boolean {
  if (!group.scalar.isScalar(bytes)) return false;
  return frost.verifyShare(publicOf(keys), list, message, frost.Identifier.fromNumber(index), bytes);
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

function listOf(commitments: readonly FrostMessage[]) {
  return commitments
    .toSorted((a, b) => a.index - b.index)
    .map(({ index, bytes }) => ({
      identifier: frost.Identifier.fromNumber(index),
      hiding: bytes.subarray(0, pointBytes),
      binding: bytes.subarray(pointBytes),
    }));
}

function publicOf(keys: KeySet) {
  return {
    signers: { min: keys.t, max: keys.n },
    commitments: [...keys.C],
    verifyingShares: Object.fromEntries(
      keys.Yi.map((point, at) => [frost.Identifier.fromNumber(at + 1), point]),
    ),
  };
}
