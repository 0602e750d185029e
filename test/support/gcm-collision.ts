// AES-GCM does not commit to its key: one ciphertext with one tag can be made that opens under two keys. This makes
// such a ciphertext, to show what the commitments around our wraps are for. GHASH is linear in each block of
// ciphertext, so one block is chosen such that both tags are equal (NIST SP 800-38D, 6.3 and 6.4).

import { createCipheriv } from 'node:crypto';
import { concat, uint32, uint64 } from '../../src/core/bytes.ts';

/** Nonce, 32 bytes of ciphertext and a tag that open under both keys, to two different plaintexts. */
export function openUnderBoth(
  keys: readonly [Uint8Array, Uint8Array],
  nonce: Uint8Array,
  aad: Uint8Array,
  first: Uint8Array,
): Uint8Array {
  const [one, two] = keys.map((key) => {
    const H = number(block(key, new Uint8Array(16)));
    const mask = number(block(key, concat(nonce, uint32(1))));
    return { H, tag: (second: bigint) => mask ^ ghash(H, aad, [number(first), second]) };
  });
  if (one === undefined || two === undefined) throw new TypeError('two keys expected');
  // tag₁(C₂) = tag₂(C₂) with tag(C₂) = tag(0) ⊕ C₂·H²
  const factor = multiply(one.H, one.H) ^ multiply(two.H, two.H);
  const second = multiply(one.tag(0n) ^ two.tag(0n), inverse(factor));
  return concat(nonce, first, bytes(second), bytes(one.tag(second)));
}

function ghash(H: bigint, aad: Uint8Array, ciphertext: readonly bigint[]): bigint {
  const padded = concat(aad, new Uint8Array((16 - (aad.length % 16)) % 16));
  const associated = Array.from({ length: padded.length / 16 }, (_, at) =>
    number(padded.subarray(16 * at, 16 * at + 16)),
  );
  const lengths = number(concat(uint64(8 * aad.length), uint64(128 * ciphertext.length)));
  return [...associated, ...ciphertext, lengths].reduce((so, each) => multiply(so ^ each, H), 0n);
}

/** In GF(2¹²⁸) with the bits in the order of GCM. */
function multiply(x: bigint, y: bigint): bigint {
  let product = 0n;
  let v = y;
  for (let bit = 127n; bit >= 0n; bit--) {
    if (((x >> bit) & 1n) === 1n) product ^= v;
    v = (v & 1n) === 1n ? (v >> 1n) ^ (0xe1n << 120n) : v >> 1n;
  }
  return product;
}

/** x^(2¹²⁸ − 2). */
function inverse(x: bigint): bigint {
  let power = x;
  let result = 1n << 127n;
  for (let i = 1; i < 128; i++) {
    power = multiply(power, power);
    result = multiply(result, power);
  }
  return result;
}

function block(key: Uint8Array, plaintext: Uint8Array): Uint8Array {
  return createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(plaintext);
}

function number(block16: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(block16).toString('hex')}`);
}

function bytes(value: bigint): Uint8Array {
  return new Uint8Array(Buffer.from(value.toString(16).padStart(32, '0'), 'hex'));
}
