// The rows of one run of tables that another machine made, walked before LevelDB sees a byte of them.
//
// A block is taken only when every number in it is what LevelDB would have written: its checksum, how it decompresses,
// how much of a key each row shares with the one before, that keys rise, where a search may begin. What is behind the
// bounds here is refused. Formats: level-format.ts.

import { hashOf } from './level-filter.ts';
import { checkBlock, trailerBytes } from './level-format.ts';
import { unsnap } from './snappy.ts';
import { blockBytesMax } from './snapshot.ts';

/** LevelDB's bytes behind a key: 1 what is meant, 7 the sequence number. */
export const tailBytes = 8;
/** Longer than the key of any row: an address and a little more, twice. */
export const keyBytesMax = 16 * 1024;
/** Keys of one block, written out. They share their beginnings, so they may be longer than the block. */
const keysBytesMax = 8 * 1024 * 1024;

/** What is to be known of a block to put it into a table. */
export interface WalkedBlock {
  /** Keys of its first and last row, with LevelDB's tail. */
  readonly first: Uint8Array;
  readonly last: Uint8Array;
  /** For the filter: of each row. Valid until the next block. */
  readonly hashes: Int32Array;
}

/** The contents of a block and the key of its first row, without LevelDB's tail. */
export interface OpenedBlock {
  readonly plain: Uint8Array;
  readonly firstKey: Uint8Array;
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

/** The key of a block's first row, without LevelDB's tail. Throws RangeError. */
export function firstKeyOf(plain: Uint8Array): Uint8Array {
  const row = new RowReader();
  row.begin(plain, plain.length);
  row.next(); // its value may be elsewhere
  const isKey = row.shared === 0 && row.own > tailBytes && row.valueAt <= plain.length;
  if (!isKey) throw new RangeError('has a block without a first row');
  return plain.subarray(row.keyAt, row.valueAt - tailBytes);
}

/** A key with its tail: where it is in memory. */
interface Place {
  readonly from: number;
  readonly to: number;
}

/**
 * A run: takes its blocks one after the other, and has the rows of the last one, each key once, to be met in key order.
 * With them goes what the newest and the oldest row of that key have for sequence numbers.
 */
export class RunRows {
  #keys = Buffer.allocUnsafeSlow(64 * 1024);
  #view = new DataView(this.#keys.buffer);
  #count = 0;
  /** Where each key, with its tail, ends in `#keys`. */
  #ends = new Int32Array(512);
  #newest = new Float64Array(512);
  #oldest = new Float64Array(512);
  /** The first key that was not met yet. */
  #at = 0;
  #sequenceMax = 0;
  readonly #row = new RowReader();
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

  /** The key to meet next, without its tail. */
  get key(): Uint8Array {
    return this.#keys.subarray(this.#from(this.#at), this.#keyEnd(this.#at));
  }

  /** Below 0 when the key to meet next comes before `key`. */
  compare(key: Uint8Array): number {
    return this.#compareAt(this.#at, key, 0, key.length);
  }

  /** Below 0 when the key to meet next comes before that of `other`. */
  compareWith(other: RunRows): number {
    return this.#compareAt(this.#at, other.#keys, other.#from(other.#at), other.#keyEnd(other.#at));
  }

  /** Meets the next key. */
  meet(): void {
    this.#at++;
  }

  /** Meets all keys in front of `key`. */
  meetUpTo(key: Uint8Array): void {
    let [from, to] = [this.#at, this.#count];
    if (to > from && this.#compareAt(to - 1, key, 0, key.length) < 0) from = to;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (this.#compareAt(middle, key, 0, key.length) < 0) from = middle + 1;
      else to = middle;
    }
    this.#at = from;
  }

  meetAll(): void {
    this.#at = this.#count;
  }

  /** Adds the rows of a block, whose keys must be behind all before. Throws RangeError for what is no block. */
  add(plain: Uint8Array): WalkedBlock {
    this.#keepLast();
    const { entriesEnd, restarts } = restartsOf(plain);
    const row = this.#row;
    row.begin(plain, entriesEnd);
    let first: Uint8Array | undefined;
    let last: Place | undefined;
    let restart = 0;
    let rows = 0;
    let keysBytes = 0;
    for (let at = 0; at < entriesEnd; at = row.at) {
      if (!row.next()) throw new RangeError('has a block with a row that does not end');
      if (restarts[restart] === at) {
        if (row.shared !== 0) throw new RangeError('has a block in which a search may begin at no key');
        restart++;
      }
      last = this.#addKey(plain, row, last);
      keysBytes += last.to - last.from;
      if (keysBytes > keysBytesMax) throw new RangeError('has a block with too many keys');
      first ??= this.#copyOf(last);
      if (rows === this.#hashes.length) this.#hashes = larger(this.#hashes, new Int32Array(2 * rows));
      this.#hashes[rows++] = hashOf(this.#view, last.from, last.to - tailBytes);
    }
    if (first === undefined || last === undefined || restart !== restarts.length)
      throw new RangeError('has a block in which a search may begin at no row');
    return { first, last: this.#copyOf(last), hashes: this.#hashes.subarray(0, rows) };
  }

  /** Writes the key of a row out, behind that of the row `before` it in its block. Says where. */
  #addKey(plain: Uint8Array, row: RowReader, before: Place | undefined): Place {
    const { shared, keyAt, valueAt } = row;
    const sharable = before === undefined ? 0 : before.to - before.from;
    const keyBytes = shared + row.own;
    if (shared > sharable) throw new RangeError('has a row that shares what is not there');
    if (keyBytes <= tailBytes) throw new RangeError('has a row without a key');
    if (keyBytes > keyBytesMax + tailBytes) throw new RangeError('has a key that is too long');
    const from = this.#from(this.#count);
    const to = from + keyBytes;
    if (to > this.#keys.length) this.#growKeys(to);
    const keys = this.#keys;
    if (before !== undefined) keys.copyWithin(from, before.from, before.from + shared);
    for (let index = keyAt, at = from + shared; index < valueAt; index++, at++) keys[at] = plain[index] ?? 0;
    const meaning = keys[to - tailBytes] ?? 2;
    if (meaning > 1 || keys[to - 1] !== 0) throw new RangeError('has a row that means nothing');
    const sequence = this.#view.getUint32(to - 7, true) + 2 ** 32 * this.#view.getUint16(to - 3, true);
    if (sequence > this.#sequenceMax) this.#sequenceMax = sequence;
    return this.#remember(from, to, sequence, Math.min(shared, sharable - tailBytes));
  }

  /** `common`: so many bytes are those of the key before. */
  #remember(from: number, to: number, sequence: number, common: number): Place {
    const index = this.#count - 1;
    const order = index < 0 ? 1 : this.#orderBehind(index, from, to - tailBytes, common);
    const isOlder = order === 0 && sequence < (this.#oldest[index] ?? 0);
    if (order < 0 || (order === 0 && !isOlder)) throw new RangeError('has rows that are not in order');
    if (isOlder) {
      // Another row of the same key: only its number counts.
      this.#oldest[index] = sequence;
      this.#keys.copyWithin(from - tailBytes, to - tailBytes, to);
      return { from: this.#from(index), to: from };
    }
    if (this.#count === this.#ends.length) this.#growRows();
    this.#ends[this.#count] = to;
    this.#newest[this.#count] = sequence;
    this.#oldest[this.#count] = sequence;
    this.#count++;
    return { from, to };
  }

  /** Above 0 when the key from `from` to `to` is behind that at `index`; 0 when it is the same. */
  #orderBehind(index: number, from: number, to: number, common: number): number {
    const keys = this.#keys;
    const beforeFrom = this.#from(index);
    const beforeBytes = this.#keyEnd(index) - beforeFrom;
    const end = Math.min(to - from, beforeBytes);
    for (let at = Math.max(0, Math.min(common, end)); at < end; at++) {
      const difference = (keys[from + at] ?? 0) - (keys[beforeFrom + at] ?? 0);
      if (difference !== 0) return difference;
    }
    return to - from - beforeBytes;
  }

  /** Of all keys so far only the last one is needed: what follows must be behind it. */
  #keepLast(): void {
    const index = this.#count - 1;
    if (index < 0) return;
    const [from, to] = [this.#from(index), this.#from(this.#count)];
    this.#keys.copyWithin(0, from, to);
    this.#at = this.#at > index ? 1 : 0;
    this.#count = 1;
    this.#ends[0] = to - from;
    this.#newest[0] = this.#newest[index] ?? 0;
    this.#oldest[0] = this.#oldest[index] ?? 0;
  }

  #from(index: number): number {
    return index === 0 ? 0 : (this.#ends[index - 1] ?? 0);
  }

  #keyEnd(index: number): number {
    return (this.#ends[index] ?? tailBytes) - tailBytes;
  }

  /** Below 0 when the key at `index` comes before that from `from` to `to` in `others`. */
  #compareAt(index: number, others: Uint8Array, from: number, to: number): number {
    // Keys are short, and Buffer's own comparison looks at its arguments longer than at them.
    const keys = this.#keys;
    const begin = this.#from(index);
    const length = this.#keyEnd(index) - begin;
    const end = Math.min(length, to - from);
    for (let at = 0; at < end; at++) {
      const difference = (keys[begin + at] ?? 0) - (others[from + at] ?? 0);
      if (difference !== 0) return difference;
    }
    return length - (to - from);
  }

  #copyOf({ from, to }: Place): Uint8Array {
    return new Uint8Array(this.#keys.subarray(from, to));
  }

  #growKeys(sizeBytes: number): void {
    const keys = Buffer.allocUnsafeSlow(2 * sizeBytes);
    keys.set(this.#keys);
    this.#keys = keys;
    this.#view = new DataView(keys.buffer);
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

/** Where the rows of a block end, and where a search may begin. Throws RangeError. */
function restartsOf(plain: Uint8Array): { readonly entriesEnd: number; readonly restarts: number[] } {
  const count = plain.length < 4 ? 0 : uint32At(plain, plain.length - 4);
  const entriesEnd = plain.length - 4 * (count + 1);
  if (count === 0 || entriesEnd <= 0) throw new RangeError('has a block without rows');
  const restarts: number[] = [];
  for (let at = entriesEnd; at < plain.length - 4; at += 4) restarts.push(uint32At(plain, at));
  return { entriesEnd, restarts };
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

function uint32At(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24)) >>>
    0
  );
}
