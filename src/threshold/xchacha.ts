// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) on top of the ChaCha20-Poly1305 of node:crypto: HChaCha20
// makes a subkey of the key and the first 16 bytes of the nonce; the other 8 are the nonce of RFC 8439.
//
// The DKG specification fixes this cipher. Not taken from libsodium: its wrapper would leave the shares on the
// WASM heap. The rounds are additions, xors and rotations of 32-bit words, without tables or branches on data.

import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { concat } from '../core/bytes.ts';

const keyBytes = 32;
const nonceBytes = 24;
const tagBytes = 16;
/** "expand 32-byte k" as four little-endian words. */
const constants = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574];
/** Words of the quarter rounds of one double round: columns, then diagonals. */
const quarters: readonly (readonly [number, number, number, number])[] = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
];

/** Seals `plaintext`: ciphertext ‖ 16-byte tag. The pair of key (32 B) and nonce (24 B) must never come again. */
export function sealXChaCha(
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  aad: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const subkey = hchacha20(key, nonce.subarray(0, 16));
  const cipher = createCipheriv('chacha20-poly1305', subkey, ietfNonce(nonce), { authTagLength: tagBytes });
  subkey.fill(0);
  cipher.setAAD(aad, { plaintextLength: plaintext.length });
  return concat(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
}

/** The plaintext, which the caller zeroes; undefined when key, nonce, aad and ciphertext do not belong together. */
export function openXChaCha(
  key: Uint8Array,
  nonce: Uint8Array,
  ciphertext: Uint8Array,
  aad: Uint8Array = new Uint8Array(0),
): Uint8Array | undefined {
  if (ciphertext.length < tagBytes) return undefined;
  const body = ciphertext.subarray(0, ciphertext.length - tagBytes);
  const subkey = hchacha20(key, nonce.subarray(0, 16));
  const decipher = createDecipheriv('chacha20-poly1305', subkey, ietfNonce(nonce), {
    authTagLength: tagBytes,
  });
  subkey.fill(0);
  decipher.setAAD(aad, { plaintextLength: body.length });
  decipher.setAuthTag(ciphertext.subarray(ciphertext.length - tagBytes));
  const opened = decipher.update(body);
  const plaintext = new Uint8Array(opened.buffer, opened.byteOffset, opened.byteLength);
  try {
    decipher.final();
  } catch {
    // The one way to learn that the tag is wrong; nothing of the plaintext may leave.
    plaintext.fill(0);
    return undefined;
  }
  return plaintext;
}

/** HChaCha20: 32 bytes from a 32-byte key and 16 bytes of nonce. */
export function hchacha20(key: Uint8Array, nonce: Uint8Array): Uint8Array {
  assert(key.length === keyBytes && nonce.length === 16, 'key: 32 bytes, nonce: 16 bytes');
  const words = new Uint32Array(16);
  words.set(constants);
  words.set(littleEndian(key), 4);
  words.set(littleEndian(nonce), 12);
  for (let round = 0; round < 10; round++) {
    for (const quarter of quarters) quarterRound(words, ...quarter);
  }
  const out = new Uint8Array(32);
  const view = new DataView(out.buffer);
  for (let i = 0; i < 4; i++) {
    view.setUint32(4 * i, words[i] ?? 0, true);
    view.setUint32(16 + 4 * i, words[12 + i] ?? 0, true);
  }
  words.fill(0);
  return out;
}

function quarterRound(words: Uint32Array, a: number, b: number, c: number, d: number): void {
  mix(words, a, b, d, 16);
  mix(words, c, d, b, 12);
  mix(words, a, b, d, 8);
  mix(words, c, d, b, 7);
}

/** x += y; z = (z ⊕ x) rotated left by `bits`. */
function mix(words: Uint32Array, x: number, y: number, z: number, bits: number): void {
  const sum = ((words[x] ?? 0) + (words[y] ?? 0)) >>> 0;
  const mixed = (words[z] ?? 0) ^ sum;
  words[x] = sum;
  words[z] = (mixed << bits) | (mixed >>> (32 - bits));
}

function littleEndian(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true));
}

function ietfNonce(nonce: Uint8Array): Uint8Array {
  assert(nonce.length === nonceBytes, 'nonce: 24 bytes');
  return concat(new Uint8Array(4), nonce.subarray(16));
}
