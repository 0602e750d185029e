// The only place where content keys meet node:crypto: AES-256-GCM and HKDF-Expand over KeyObjects.
//
// A key becomes a KeyObject once and is used many times: Node then skips the import per call (4 instead of
// 18 µs for a small seal), and OpenSSL cleanses its copy when the object is freed. Raw key bytes live only
// between two lines of code and are zeroed by whoever made them.

import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto';
import assert from 'node:assert/strict';
import { unfilled } from '../core/bytes.ts';

/** Cryptographically random bytes, handed in from outside so that tests can choose them. */
export type RandomBytes = (sizeBytes: number) => Uint8Array;

export const keyBytes = 32;
export const nonceBytes = 12;
export const tagBytes = 16;

/**
 * What is encrypted at once. The cipher gives each piece in memory of its own, which is copied while it is still in
 * the processor's cache (`node bench/envelope.bench.ts`).
 */
const pieceBytes = 24 * 1024;

/** A KeyObject with a copy of `bytes`, which stay the caller's. */
export function importKey(bytes: Uint8Array): KeyObject {
  assert(bytes.length === keyBytes, 'key: 32 bytes');
  return createSecretKey(bytes);
}

/** Encrypts `plaintext` into `target` as ciphertext ‖ 16-byte tag. `target` is exactly 16 bytes longer. */
export function gcmSealInto(
  target: Uint8Array,
  key: KeyObject,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  aad: Uint8Array,
): void {
  assert(target.length === plaintext.length + tagBytes, 'target: plaintext and tag');
  assert(nonce.length === nonceBytes, 'nonce: 12 bytes');
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(aad);
  for (let at = 0; at < plaintext.length; at += pieceBytes)
    target.set(cipher.update(plaintext.subarray(at, at + pieceBytes)), at);
  cipher.final();
  target.set(cipher.getAuthTag(), plaintext.length);
}

/**
 * Decrypts ciphertext ‖ tag. Undefined when it does not authenticate: nothing of the plaintext survives.
 * A sealed text shorter than a tag does not authenticate either.
 */
export function gcmOpen(
  key: KeyObject,
  nonce: Uint8Array,
  sealed: Uint8Array,
  aad: Uint8Array,
): Uint8Array | undefined {
  assert(nonce.length === nonceBytes, 'nonce: 12 bytes');
  if (sealed.length < tagBytes) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plaintext = decipher.update(sealed.subarray(0, sealed.length - tagBytes));
  try {
    decipher.final();
  } catch {
    plaintext.fill(0); // final() has one way to fail here: the tag is wrong
    return undefined;
  }
  return new Uint8Array(plaintext.buffer, plaintext.byteOffset, plaintext.length);
}

/**
 * Decrypts ciphertext ‖ tag into `target`, which is exactly 16 bytes shorter: memory of its own, or that of the
 * ciphertext itself. False when it does not authenticate: then `target` is zeroed.
 */
export function gcmOpenInto(
  target: Uint8Array,
  key: KeyObject,
  nonce: Uint8Array,
  sealed: Uint8Array,
  aad: Uint8Array,
): boolean {
  const length = sealed.length - tagBytes;
  assert(length >= 0 && target.length === length, 'target: the plaintext');
  assert(nonce.length === nonceBytes, 'nonce: 12 bytes');
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(length));
  for (let at = 0; at < length; at += pieceBytes)
    target.set(decipher.update(sealed.subarray(at, Math.min(at + pieceBytes, length))), at);
  try {
    decipher.final();
    return true;
  } catch {
    target.fill(0); // final() has one way to fail here: the tag is wrong
    return false;
  }
}

const hashBytes = { sha384: 48, sha512: 64 } as const;

/** HKDF-Expand (RFC 5869 2.3) with `key` as the pseudorandom key. Up to 255 digests long. */
export function hkdfExpand(
  hash: keyof typeof hashBytes,
  key: KeyObject,
  info: Uint8Array,
  sizeBytes: number,
): Uint8Array {
  assert(sizeBytes <= 255 * hashBytes[hash], 'sizeBytes: at most 255 digests');
  const out = unfilled(sizeBytes);
  let previous: Uint8Array = new Uint8Array(0);
  for (let offset = 0, counter = 1; offset < sizeBytes; counter++) {
    const mac = createHmac(hash, key).update(previous).update(info).update(Uint8Array.of(counter)).digest();
    previous.fill(0);
    out.set(mac.subarray(0, sizeBytes - offset), offset);
    offset += mac.length;
    previous = mac;
  }
  previous.fill(0);
  return out;
}

/** HMAC-SHA-512 of `message`, cut to its first `sizeBytes`. */
export function hmacSha512(key: KeyObject, message: Uint8Array, sizeBytes: number): Uint8Array {
  return new Uint8Array(createHmac('sha512', key).update(message).digest().subarray(0, sizeBytes));
}
