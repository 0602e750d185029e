// The rows of one run of tables that another machine made, walked before LevelDB sees a byte of them.
//
// A block is taken only when every number in it is what LevelDB would have written: its checksum, how it decompresses,
// how much of a key each row shares with the one before, that keys rise, where a search may begin. What is behind the
// bounds here is refused. Formats: level-format.ts.

import { hashOf } from './level-filter.ts';
import { checkBlock, trailerBytes } from './level-format.ts';
import { compareBytes, type KeyPlace, moveBytes, moveSlackBytes, viewOf } from './level-keys.ts';
import { unsnap } from './snappy.ts';
import { blockBytesMax } from './snapshot.ts';

/** LevelDB's bytes behind a key: 1 what is meant, 7 the sequence number. */
export const tailBytes = 8;
/** Longer than the key of any row: an address and a little more, twice. */
export const keyBytesMax = 16 * 1024;
/** Keys of one block, written out. They share their beginnings, so they may be longer than the block. */
const keysBytesMax = 8 * 1024 * 1024;

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

/** Opens blocks, each of which is valid until the next one. */
export class BlockOpener {
  #memory: Uint8Array = new Uint8Array(64 * 1024);

  /** `bytes`: with the trailer. Throws RangeError when the checksum does not hold, or for what is no block. */
  open(bytes: Uint8Array): OpenedBlock {
    const sizeBytes = bytes.length - trailerBytes;
    if (sizeBytes < 0) throw new RangeError('has a block without a checksum');
    checkBlock(bytes, { offset: 0, sizeBytes });
    const plain = this.#plain(bytes.subarray(0, sizeBytes), bytes[sizeBytes]);
    return { plain, firstKey: firstKeyOf(plain) };
  }

  #plain(bytes: Uint8Array, compression: number | undefined): Uint8Array {
    if (compression === 0) return bytes;
    if (compression !== 1) throw new RangeError(`has a block of unknown compression ${compression}`);
    const plain = unsnap(bytes, { bytesMax: blockBytesMax, into: this.#memory });
    if (plain.buffer !== this.#memory.buffer) this.#memory = new Uint8Array(plain.buffer);
    return plain;
  }
}

/** The key of a block's first row. Throws RangeError. */
export function firstKeyOf(plain: Uint8Array): KeyPlace {
  const row = new RowReader();
  row.begin(plain, plain.length);
  row.next(); // its value may be elsewhere
  const isKey = row.shared === 0 && row.own > tailBytes && row.valueAt <= plain.length;
  if (!isKey) throw new RangeError('has a block without a first row');
  return { memory: viewOf(plain), from: row.keyAt, to: row.valueAt - tailBytes };
}

/**
 * A run: takes its blocks one after the other, and has the rows of the last one, each key once, to be met in key order.
 * With them goes what the newest and the oldest row of that key have for sequence numbers.
 */
export class RunRows {
  /** Keys with their tails, one behind the other, and a few bytes that are free (`moveBytes`). */
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
  readonly #row = new RowReader();
  /** Where the key of the last row is. */
  #from = 0;
  #to = 0;
  #first: Uint8Array = new Uint8Array(1024);
  #hashes = new Int32Array(512);

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
    this.#keepLast();
    const end = rowsEnd(plain);
    const source = viewOf(plain);
    const row = this.#row;
    row.begin(plain, end);
    let restartAt = end;
    let rows = 0;
    let keysBytes = 0;
    let firstBytes = 0;
    for (let at = 0; at < end; at = row.at) {
      if (!row.next()) throw new RangeError('has a block with a row that does not end');
      if (restartAt < plain.length - 4 && source.getUint32(restartAt, true) === at) {
        if (row.shared !== 0) throw new RangeError('has a block in which a search may begin at no key');
        restartAt += 4;
      }
      this.#addKey(source, rows === 0);
      keysBytes += row.shared + row.own;
      if (keysBytes > keysBytesMax) throw new RangeError('has a block with too many keys');
      if (rows === 0) firstBytes = this.#keepFirst();
      if (rows === this.#hashes.length) this.#hashes = larger(this.#hashes, new Int32Array(2 * rows));
      this.#hashes[rows++] = hashOf(this.#memory, this.#from, this.#to - tailBytes);
    }
    if (rows === 0 || restartAt !== plain.length - 4)
      throw new RangeError('has a block in which a search may begin at no row');
    return {
      first: this.#first.subarray(0, firstBytes),
      last: this.#keys.subarray(this.#from, this.#to),
      hashes: this.#hashes.subarray(0, rows),
    };
  }

  /** Writes the key of the row out, behind all before. `isFirst`: of its block. */
  #addKey(source: DataView, isFirst: boolean): void {
    const { shared, own, keyAt } = this.#row;
    const before = this.#from;
    const sharable = isFirst ? 0 : this.#to - before;
    const keyBytes = shared + own;
    if (shared > sharable) throw new RangeError('has a row that shares what is not there');
    if (keyBytes <= tailBytes) throw new RangeError('has a row without a key');
    if (keyBytes > keyBytesMax + tailBytes) throw new RangeError('has a key that is too long');
    const from = this.#begin(this.#count);
    const to = from + keyBytes;
    if (to + moveSlackBytes > this.#keys.length) this.#growKeys(to + moveSlackBytes);
    const memory = this.#memory;
    moveBytes(memory, before, memory, from, shared);
    moveBytes(source, keyAt, memory, from + shared, own); // behind a row are at least 8 bytes that say where rows begin
    if (memory.getUint8(to - tailBytes) > 1 || memory.getUint8(to - 1) !== 0)
      throw new RangeError('has a row that means nothing');
    const sequence = memory.getUint32(to - 7, true) + 2 ** 32 * memory.getUint16(to - 3, true);
    if (sequence > this.#sequenceMax) this.#sequenceMax = sequence;
    this.#remember(from, to, sequence, Math.min(shared, sharable - tailBytes));
  }

  /** `common`: so many bytes are those of the key before. */
  #remember(from: number, to: number, sequence: number, common: number): void {
    const index = this.#count - 1;
    const order =
      index < 0 ? -1 : this.#compareAt(index, this.#memory, from, to - tailBytes, Math.max(0, common));
    const isOlder = order === 0 && sequence < (this.#oldest[index] ?? 0);
    if (order > 0 || (order === 0 && !isOlder)) throw new RangeError('has rows that are not in order');
    if (isOlder) {
      // Another row of the same key: only its number counts.
      this.#oldest[index] = sequence;
      this.#keys.copyWithin(from - tailBytes, to - tailBytes, to);
      this.#from = this.#begin(index);
      this.#to = from;
      return;
    }
    if (this.#count === this.#ends.length) this.#growRows();
    this.#ends[this.#count] = to;
    this.#newest[this.#count] = sequence;
    this.#oldest[this.#count] = sequence;
    this.#count++;
    this.#from = from;
    this.#to = to;
  }

  /** The numbers of later rows may take the place of the first one's. */
  #keepFirst(): number {
    const key = this.#keys.subarray(this.#from, this.#to);
    if (key.length > this.#first.length) this.#first = new Uint8Array(2 * key.length);
    this.#first.set(key);
    return key.length;
  }

  /** Of all keys so far only the last one is needed: what follows must be behind it. */
  #keepLast(): void {
    const index = this.#count - 1;
    if (index < 0) return;
    const [from, to] = [this.#begin(index), this.#begin(this.#count)];
    this.#keys.copyWithin(0, from, to);
    this.#at = this.#at > index ? 1 : 0;
    this.#count = 1;
    this.#ends[0] = to - from;
    this.#newest[0] = this.#newest[index] ?? 0;
    this.#oldest[0] = this.#oldest[index] ?? 0;
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

  /** Below 0 when the key at `index` comes before the one in `memory`. So many bytes of both are `common`. */
  #compareAt(index: number, memory: DataView, from: number, to: number, common = 0): number {
    return compareBytes(this.#memory, this.#begin(index), this.#keyEnd(index), memory, from, to, common);
  }

  #growKeys(sizeBytes: number): void {
    const keys = new Uint8Array(2 * sizeBytes);
    keys.set(this.#keys);
    this.#keys = keys;
    this.#memory = viewOf(keys);
  }

  #growRows(): void {
    this.#ends = larger(this.#ends, new Int32Array(2 * this.#count));
    this.#newest = larger(this.#newest, new Float64Array(2 * this.#count));
    this.#oldest = larger(this.#oldest, new Float64Array(2 * this.#count));
  }
}

/** What is in `few`, in `many`. */
function larger<Numbers extends Int32Array | Float64Array>(few: Numbers, many: Numbers): Numbers {
  many.set(few);
  return many;
}

/** Where the rows of a block end. Behind them: where a search may begin, each 4 bytes, and how many those are. */
function rowsEnd(plain: Uint8Array): number {
  const count = plain.length < 4 ? 0 : viewOf(plain).getUint32(plain.length - 4, true);
  const end = plain.length - 4 * (count + 1);
  if (count === 0 || end <= 0) throw new RangeError('has a block without rows');
  return end;
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
