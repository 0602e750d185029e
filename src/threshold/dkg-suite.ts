// The two ciphersuites of COCKTAIL-DKG that custody uses (c2sp.org/cocktail-dkg v0.2.1, Ciphersuites), and the
// Schnorr signature and key derivation that they define.
//
// The signature is not Ed25519: the prefix keeps a proof of possession from ever passing as a signature of the
// key it proves.

import { concat, utf8 } from '../core/bytes.ts';
import { sha512 } from '../core/hash.ts';
import { type Group, type Point, pointBytes, type Scalar, samePoint, scalarBytes } from './group.ts';
import { sha512Scalar } from './transcript.ts';
import { uint64le } from './wire.ts';

export const schnorrBytes = pointBytes + scalarBytes;

export interface DkgSuite {
  /** The canonical identifier: it is hashed, so it is exactly this. */
  readonly id: string;
  /** Beginning of the prefixes of all hashes. */
  readonly prefix: string;
  readonly group: Group;
}

/** COCKTAIL(Ristretto255, SHA-512): for the KEK. `group` must be ristretto255. */
export function ristrettoSuite(group: Group): DkgSuite {
  return { id: 'COCKTAIL(Ristretto255, SHA-512)', prefix: 'COCKTAIL-DKG-Ristretto255-SHA512', group };
}

/**
 * COCKTAIL(Ed25519, SHA-512): for a FROST(Ed25519, SHA-512) key. `group` must be ed25519. Shared points are
 * hashed in their Ed25519 encoding: so do the published vectors (C2SP/CCTV), although the text of v0.2.1 says
 * ristretto255; the text names the vectors as the authority.
 */
export function ed25519Suite(group: Group): DkgSuite {
  return { id: 'COCKTAIL(Ed25519, SHA-512)', prefix: 'COCKTAIL-DKG-Ed25519-SHA512', group };
}

/**
 * Signs with a scalar: R ‖ z. The nonce is a hash of key and message, so signing twice gives the same bytes.
 * The key is not changed; nothing secret is left in what is returned.
 */
export function schnorrSign(suite: DkgSuite, secret: Scalar, message: Uint8Array): Uint8Array {
  const { group } = suite;
  const nonce = prefixedScalar(suite, 'NONCE', secret, message);
  const commitment = group.base(nonce);
  const challenge = prefixedScalar(suite, 'H7', commitment, group.base(secret), message);
  const product = group.scalar.mul(challenge, secret);
  const response = group.scalar.add(nonce, product);
  nonce.fill(0);
  product.fill(0);
  return concat(commitment, response);
}

/** Never throws: false for bytes that are no signature. `publicKey` must have passed `group.isPoint`. */
export function schnorrVerify(
  suite: DkgSuite,
  publicKey: Point,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  const { group } = suite;
  if (signature.length !== schnorrBytes) return false;
  const commitment = signature.subarray(0, pointBytes);
  const response = signature.subarray(pointBytes);
  if (!group.isPoint(commitment) || !group.scalar.isScalar(response)) return false;
  const challenge = prefixedScalar(suite, 'H7', commitment, publicKey, message);
  return samePoint(group.base(response), group.add(commitment, group.mul(challenge, publicKey)));
}

/** Key (32 B) and nonce (24 B) between a sender and a recipient (H6). Secret: the caller zeroes both. */
export function sealingKey(
  suite: DkgSuite,
  shared: { readonly ephemeral: Point; readonly fixed: Point },
  ephemeral: Point,
  sender: Point,
  recipient: Point,
  context: Uint8Array,
): { readonly key: Uint8Array; readonly nonce: Uint8Array } {
  const input = concat(
    utf8(`${suite.prefix}-H6`),
    shared.ephemeral,
    shared.fixed,
    ephemeral,
    sender,
    recipient,
    uint64le(context.length),
    context,
  );
  const output = sha512(input);
  input.fill(0);
  return { key: output.subarray(0, 32), nonce: output.subarray(32, 56) };
}

function prefixedScalar({ prefix, group }: DkgSuite, name: string, ...parts: readonly Uint8Array[]): Scalar {
  return sha512Scalar(group, utf8(`${prefix}-${name}`), ...parts);
}
