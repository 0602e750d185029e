// Small things about bytes that Node does not have.

/** `length` bytes of any content, in memory of their own. For what is written in full before anybody reads it. */
export function unfilled(length: number): Uint8Array {
  // Not from Buffer's pool: it is kept and handed to other threads.
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}

/**
 * A copy in memory of its own that stays where it is, for secrets. An array of up to 64 bytes that is made by its length,
 * or by `slice`, lies in V8's heap: the collector moves it, and what it leaves behind nobody can zero.
 */
export function copied(bytes: Uint8Array): Uint8Array {
  const copy = unfilled(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Joins `parts` into one new array. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** A Buffer over the same memory as `bytes`: no copy. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** `bytes` with its length in front, 4 bytes big-endian: unambiguous in a hash or signature preimage. */
export function lengthPrefixed(bytes: Uint8Array): Uint8Array {
  return concat(uint32(bytes.length), bytes);
}

/** `value` (0…2³²−1) as 4 bytes big-endian. */
export function uint32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** Writes `value` (0…2³²−1) at `at`, big-endian. */
export function writeUint32(out: Uint8Array, at: number, value: number): void {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
}

/** What `writeUint32` wrote. Bytes that are not there count as 0. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) * 0x100_0000 +
    (((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
  );
}

/** `value` (0…2⁵³−1) as 8 bytes big-endian. */
export function uint64(value: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value));
  return out;
}

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

const encoder = new TextEncoder();

export function fromUtf8(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

export function toHex(bytes: Uint8Array): string {
  return asBuffer(bytes).toString('hex');
}

/** The 32 bytes of a key that is written as 64 hex digits; undefined for anything else. */
export function keyOfHex(text: unknown): Uint8Array | undefined {
  if (typeof text !== 'string' || !/^[0-9a-f]{64}$/.test(text)) return undefined;
  return new Uint8Array(Buffer.from(text, 'hex'));
}

/** True when both hold the same bytes. Not constant-time: for public values only. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return asBuffer(a).equals(b);
}
