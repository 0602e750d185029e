// Digests and signatures by node:crypto: pure in effect, so pure folders may use them.

import {
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hash,
  type KeyObject,
  sign as signEd25519,
  timingSafeEqual,
  verify as verifyEd25519,
} from 'node:crypto';
import { asBuffer, concat, lengthPrefixed, utf8 } from './bytes.ts';
import { Memo } from './memo.ts';

export function sha256(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer');
}

export function sha512(bytes: Uint8Array): Uint8Array {
  return hash('sha512', bytes, 'buffer');
}

/** Compares secrets without telling by time where they differ; lengths are not secret. */
export function sameSecret(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Imports `bytes` as a key for ciphers and MACs, and zeroes them: the caller gives the key away. */
export function takeKey(bytes: Uint8Array): KeyObject {
  const key = createSecretKey(bytes);
  bytes.fill(0);
  return key;
}

/** What signs: the 32-byte Ed25519 public key and a function over bytes. */
export interface Signer {
  readonly publicKey: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
}

const ed25519SpkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');
const ed25519Pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');

/** A signer from a 32-byte Ed25519 seed (RFC 8032). The seed is copied into a KeyObject; zero yours after. */
export function signerFromSeed(seed: Uint8Array): Signer {
  const der = concat(ed25519Pkcs8Prefix, seed);
  const key = createPrivateKey({ key: asBuffer(der), format: 'der', type: 'pkcs8' });
  der.fill(0);
  return signerFromKey(key);
}

/** A signer from an Ed25519 private KeyObject. */
export function signerFromKey(key: KeyObject): Signer {
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(ed25519SpkiPrefix.length)),
    sign: (message) => new Uint8Array(signEd25519(null, message, key)),
  };
}

const verifyKeys = new Memo<KeyObject>(1024);

/** Ed25519 (RFC 8032) over the exact bytes. False for a wrong signature or a key that is no point; never throws. */
export function verifySignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  try {
    return verifyEd25519(null, message, verifyKey(publicKey), signature);
  } catch {
    return false;
  }
}

function verifyKey(publicKey: Uint8Array): KeyObject {
  return verifyKeys.of(publicKey, () =>
    createPublicKey({
      key: asBuffer(concat(ed25519SpkiPrefix, publicKey)),
      format: 'der',
      type: 'spki',
    }),
  );
}

/** The same few dozen stand in front of everything. */
const domains = new Memo<Uint8Array>(256);

/** Preimage with a domain in front and every part length-prefixed, so that no two meanings share bytes. */
export function preimage(domain: string, ...parts: readonly Uint8Array[]): Uint8Array {
  return concat(
    domains.of(domain, () => lengthPrefixed(utf8(domain))),
    ...parts.map(lengthPrefixed),
  );
}
