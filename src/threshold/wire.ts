// Reading protocol messages that strangers wrote: fixed layouts, every length checked before it is believed.

import { asBuffer, concat, uint32 } from '../core/bytes.ts';

/** The message ended early, has bytes left over, or holds a length or value out of its bounds. */
class Malformed extends Error {}

/** Reads fields in order; every method throws `Malformed`, which `parse` turns into undefined. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    // Not a Buffer: its `slice` would share the memory.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The next `count` bytes, as a copy: what is kept of a message must not change with its buffer. */
  take(count: number): Uint8Array {
    if (count > this.#bytes.length - this.#at) throw new Malformed();
    const taken = this.#bytes.slice(this.#at, this.#at + count);
    this.#at += count;
    return taken;
  }

  /** `count` fields of `size` bytes. */
  list(count: number, size: number): Uint8Array[] {
    if (count * size > this.#bytes.length - this.#at) throw new Malformed();
    return Array.from({ length: count }, () => this.take(size));
  }

  /** One byte, between `min` and `max`. */
  uint8(min: number, max: number): number {
    return within(this.take(1)[0] ?? 0, min, max);
  }

  /** Four bytes big-endian, between `min` and `max`. */
  uint32(min: number, max: number): number {
    return within(asBuffer(this.take(4)).readUInt32BE(), min, max);
  }

  /** Eight bytes big-endian, between `min` and `max` (safe integers). */
  uint64(min: number, max: number): number {
    return within(Number(asBuffer(this.take(8)).readBigUInt64BE()), min, max);
  }

  /** Eight bytes little-endian, between `min` and `max` (safe integers). */
  uint64le(min: number, max: number): number {
    return within(Number(asBuffer(this.take(8)).readBigUInt64LE()), min, max);
  }

  /** Bytes behind their length (4 bytes big-endian) of at most `max`. */
  framed(max: number): Uint8Array {
    return this.take(this.uint32(0, max));
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  /** Refuses what does not hold. */
  require(holds: boolean): void {
    if (!holds) throw new Malformed();
  }
}

/** What `read` makes of exactly all of `bytes`; undefined when they are anything else than it expects. */
export function parse<T>(bytes: Uint8Array, read: (reader: ByteReader) => T): T | undefined {
  const reader = new ByteReader(bytes);
  try {
    const value = read(reader);
    return reader.rest === 0 ? value : undefined;
  } catch (error) {
    if (error instanceof Malformed) return undefined;
    throw error;
  }
}

/** `value` (0…255) as one byte. */
export function uint8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

/** `value` (0…2³²−1) as 4 bytes little-endian. */
export function uint32le(value: number): Uint8Array {
  return uint32(value).toReversed();
}

/** `value` (0…2⁵³−1) as 8 bytes little-endian. */
export function uint64le(value: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value), true);
  return out;
}

/** `items` behind their number (4 bytes big-endian), without lengths: for items of one known size. */
export function counted(items: readonly Uint8Array[]): Uint8Array {
  return concat(uint32(items.length), ...items);
}

function within(value: number, min: number, max: number): number {
  if (value < min || value > max) throw new Malformed();
  return value;
}
