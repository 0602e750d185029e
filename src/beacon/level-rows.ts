// The rows of one run of tables that another machine made, walked before LevelDB sees a byte of them.
//
// A block is taken only when every number in it is what LevelDB would have written: its checksum, how it decompresses,
// how much of a key each row shares with the one before, that keys rise, where a search may begin. What is behind the
// bounds here is refused. Formats: level-format.ts.

import { compareBytes, type KeyPlace, viewOf } from './level-keys.ts';
import { type KeptRow, memoryThere, openBlockThere, type WalkedRows, walkRows } from './level-walk.ts';
import { tailBytes } from './level-walk-place.ts';

/** What is to be known of a block to put it into a table. Valid until the next block. */
export interface WalkedBlock {
  /** Keys of its first and last row, with LevelDB's tail. */
  readonly first: Uint8Array;
  readonly last: Uint8Array;
  /** For the filter: of each row. */
  readonly hashes: Int32Array;
}

/** The contents of a block and the key of its first row. */
export interface OpenedBlock {
  readonly plain: Uint8Array;
  readonly firstKey: KeyPlace;
}

/**
 * Opens a block, which is valid until the next one. `bytes`: with the trailer. Throws RangeError when the checksum does not
 * hold, or for what is no block.
 */
export function openBlockOf(bytes: Uint8Array): OpenedBlock {
  const plain = openBlockThere(bytes);
  return { plain, firstKey: keyPlaceIn(plain, memoryThere(), plain.byteOffset) };
}

/** The key of a block's first row. Throws RangeError. */
export function firstKeyOf(plain: Uint8Array): KeyPlace {
  return keyPlaceIn(plain, viewOf(plain), 0);
}

/** `plain` is in `memory` from `at` on. */
function keyPlaceIn(plain: Uint8Array, memory: DataView, at: number): KeyPlace {
  const row = firstRow;
  row.begin(plain, plain.length);
  row.next(); // its value may be elsewhere
  const isKey = row.shared === 0 && row.own > tailBytes && row.valueAt <= plain.length;
  if (!isKey) throw new RangeError('has a block without a first row');
  return { memory, from: at + row.keyAt, to: at + row.valueAt - tailBytes };
}

/**
 * A run: takes its blocks one after the other, and has the rows of the last one, each key once, to be met in key order.
 * With them goes what the newest and the oldest row of that key have for sequence numbers.
 */
export class RunRows {
  /** Keys with their tails, one behind the other. */
  #keys: Uint8Array = new Uint8Array(64 * 1024);
  #memory = viewOf(this.#keys);
  #count = 0;
  /** Where each key ends. */
  #ends = new Int32Array(512);
  #newest = new Float64Array(512);
  #oldest = new Float64Array(512);
  /** The first key that was not met yet. */
  #at = 0;
  #sequenceMax = 0;

  /** Highest sequence number so far. */
  get sequenceMax(): number {
    return this.#sequenceMax;
  }

  get isMet(): boolean {
    return this.#at >= this.#count;
  }

  /** Of the key to meet next. */
  get newest(): number {
    return this.#newest[this.#at] ?? 0;
  }

  get oldest(): number {
    return this.#oldest[this.#at] ?? 0;
  }

  /** Below 0 when the key to meet next comes before `key`. */
  compare(key: KeyPlace): number {
    return this.#compareAt(this.#at, key.memory, key.from, key.to);
  }

  /** Below 0 when the key to meet next comes before that of `other`. */
  compareWith(other: RunRows): number {
    return this.#compareAt(this.#at, other.#memory, other.#begin(other.#at), other.#keyEnd(other.#at));
  }

  /** Meets the next key. */
  meet(): void {
    this.#at++;
  }

  /** Meets all keys in front of `key`. */
  meetUpTo({ memory, from, to }: KeyPlace): void {
    this.#meetUpTo(memory, from, to);
  }

  /** Meets all keys in front of the one that `other` is to meet next. */
  meetUpToThatOf(other: RunRows): void {
    this.#meetUpTo(other.#memory, other.#begin(other.#at), other.#keyEnd(other.#at));
  }

  meetAll(): void {
    this.#at = this.#count;
  }

  /** Adds the rows of a block, whose keys must be behind all before. Throws RangeError for what is no block. */
  add(plain: Uint8Array): WalkedBlock {
    // Of all keys so far only the last one is needed: what follows must be behind it.
    const last = this.#count - 1;
    const walked = walkRows(plain, last < 0 ? undefined : this.#keptRow(last));
    this.#at = last >= 0 && this.isMet ? 1 : 0;
    this.#take(walked);
    return walked;
  }

  #keptRow(index: number): KeptRow {
    return {
      key: this.#keys.subarray(this.#begin(index), this.#ends[index]),
      newest: this.#newest[index] ?? 0,
      oldest: this.#oldest[index] ?? 0,
    };
  }

  #take({ keys, ends, newest, oldest, sequenceMax }: WalkedRows): void {
    if (keys.length > this.#keys.length) {
      this.#keys = new Uint8Array(2 * keys.length);
      this.#memory = viewOf(this.#keys);
    }
    if (ends.length > this.#ends.length) this.#growRows(2 * ends.length);
    this.#keys.set(keys);
    this.#ends.set(ends);
    this.#newest.set(newest);
    this.#oldest.set(oldest);
    this.#count = ends.length;
    if (sequenceMax > this.#sequenceMax) this.#sequenceMax = sequenceMax;
  }

  /** Looks near the next key first: where runs alternate, it is seldom far. */
  #meetUpTo(memory: DataView, keyFrom: number, keyTo: number): void {
    let [from, to] = [this.#at, this.#count];
    for (let step = 1; from + step < to; step *= 2) {
      if (this.#compareAt(from + step, memory, keyFrom, keyTo) >= 0) to = from + step;
      else from += step + 1;
    }
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (this.#compareAt(middle, memory, keyFrom, keyTo) < 0) from = middle + 1;
      else to = middle;
    }
    this.#at = from;
  }

  #begin(index: number): number {
    return index === 0 ? 0 : (this.#ends[index - 1] ?? 0);
  }

  #keyEnd(index: number): number {
    return (this.#ends[index] ?? tailBytes) - tailBytes;
  }

  /** Below 0 when the key at `index` comes before the one in `memory`. */
  #compareAt(index: number, memory: DataView, from: number, to: number): number {
    return compareBytes(this.#memory, this.#begin(index), this.#keyEnd(index), memory, from, to);
  }

  #growRows(count: number): void {
    this.#ends = new Int32Array(count);
    this.#newest = new Float64Array(count);
    this.#oldest = new Float64Array(count);
  }
}

/** Steps through the rows of a block, each: key bytes shared, own, value bytes; the own ones; the value. */
class RowReader {
  #bytes: Uint8Array = new Uint8Array();
  #end = 0;
  shared = 0;
  own = 0;
  keyAt = 0;
  valueAt = 0;
  /** Where the next one begins. */
  at = 0;

  begin(bytes: Uint8Array, end: number): void {
    this.#bytes = bytes;
    this.#end = end;
    this.at = 0;
  }

  /** False when it does not end in front of the end. */
  next(): boolean {
    this.shared = this.#varint();
    this.own = this.#varint();
    const valueBytes = this.#varint();
    this.keyAt = this.at;
    this.valueAt = this.at + this.own;
    this.at = this.valueAt + valueBytes;
    return this.at <= this.#end;
  }

  /** Numbers have 32 bits at most. One that goes on beyond is larger than anything. */
  #varint(): number {
    const byte = this.#bytes[this.at++] ?? 0xff;
    return byte < 0x80 ? byte : this.#longVarint(byte);
  }

  #longVarint(first: number): number {
    let value = first & 0x7f;
    for (let scale = 128; scale < 2 ** 35; scale *= 128) {
      const byte = this.#bytes[this.at++] ?? 0xff;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    return beyondAll;
  }
}

const beyondAll = 2 ** 40;

const firstRow = new RowReader();
