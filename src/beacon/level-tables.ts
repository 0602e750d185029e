// Tables of LevelDB, made of rows that are in order already.
//
// Rows that come in key order need none of what makes LevelDB's writes dear: no log of its own, no sorting in memory, no
// rewriting of what was written before. Here they become tables at once, as LevelDB would have left them in its last
// level in the end, but uncompressed. level-load.ts puts them in force.
//
// A row shares the beginning of its key with the one before it, except for every sixteenth; blocks end behind the row
// that fills them. Formats: level-format.ts, which reads them.

import { asBuffer, unfilled } from '../core/bytes.ts';
import { crc32c } from '../core/crc32c.ts';
import { Filter } from './level-filter.ts';
import { footerBytes, magic, masked, trailerBytes } from './level-format.ts';

/** LevelDB's own size of a block. */
const blockBytes = 4096;
const rowsPerRestart = 16;
/** What LevelDB puts behind a key: sequence number 1, a value. */
const keyTail = Uint8Array.of(1, 1, 0, 0, 0, 0, 0, 0);
/** The sequence number in it: what is written later counts from there. */
export const tableSequence = 1;

/** A whole table. Its bytes are valid until the next row is added. */
export interface BuiltTable {
  readonly bytes: Uint8Array;
  /** First and last key, as tables have them: with LevelDB's tail. */
  readonly smallest: Uint8Array;
  readonly largest: Uint8Array;
}

export class TableBuilder {
  readonly #table: Block;
  readonly #index = new Block(blockBytes);
  readonly #filter = new Filter();
  #smallest: Uint8Array | undefined;

  /** `sizeBytes`: about how large a table will be; memory for it is kept. */
  constructor(sizeBytes: number) {
    this.#table = new Block(sizeBytes + 4 * blockBytes);
  }

  /** Bytes so far. */
  get sizeBytes(): number {
    return this.#table.end;
  }

  /** Throws RangeError for a key that is not behind the one before it, also across tables. */
  add(key: Uint8Array, value: Uint8Array): void {
    this.#table.add(key, value, rowsPerRestart);
    this.#smallest ??= tableKey(key);
    this.#filter.add(key);
    if (this.#table.blockBytes >= blockBytes) this.#endBlock();
  }

  /** The rows so far as one table; undefined for none. */
  finish(): BuiltTable | undefined {
    if (this.#smallest === undefined) return undefined;
    if (!this.#table.isEmpty) this.#endBlock();
    const table = this.#table;
    const filter = table.append(this.#filter.finish());
    const metaindex = new Block(128);
    metaindex.addPlain(Buffer.from('filter.leveldb.BuiltinBloomFilter2'), handle(filter));
    metaindex.endEntries();
    const footer = new Uint8Array(footerBytes);
    footer.set([...handle(table.append(metaindex.bytes())), ...this.#indexHandle()]);
    asBuffer(footer).writeBigUInt64LE(magic, footerBytes - 8);
    table.raw(footer);
    const built = { bytes: table.bytes(), smallest: this.#smallest, largest: tableKey(table.lastKey) };
    table.clear();
    this.#index.clear();
    this.#smallest = undefined;
    return built;
  }

  #indexHandle(): Uint8Array {
    this.#index.endEntries();
    return handle(this.#table.append(this.#index.bytes()));
  }

  #endBlock(): void {
    const place = this.#table.endBlock();
    this.#index.addPlain(tableKey(this.#table.lastKey), handle(place));
    this.#filter.blockBeginsAt(this.#table.end);
  }
}

interface Place {
  readonly offset: number;
  /** Without its trailer. */
  readonly sizeBytes: number;
}

/** Entries of blocks, one behind the other, in memory that grows with them. */
class Block {
  #bytes: Uint8Array;
  #view: DataView;
  #begin = 0;
  #restarts: number[] = [];
  #rows = 0;
  #key: Uint8Array = new Uint8Array(256);
  #keyBytes = 0;
  end = 0;

  constructor(sizeBytes: number) {
    this.#bytes = unfilled(sizeBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes of the block under way, with what will end it. */
  get blockBytes(): number {
    return this.end - this.#begin + 4 * this.#restarts.length + 4;
  }

  get isEmpty(): boolean {
    return this.end === this.#begin;
  }

  get lastKey(): Uint8Array {
    return this.#key.subarray(0, this.#keyBytes);
  }

  add(key: Uint8Array, value: Uint8Array, every: number): void {
    const common = this.#commonWithLast(key);
    const isRestart = this.#rows++ % every === 0;
    if (isRestart) this.#restarts.push(this.end - this.#begin);
    const shared = isRestart ? 0 : common;
    this.#makeRoom(key.length + value.length + 32);
    this.#varint(shared);
    this.#varint(key.length - shared + keyTail.length);
    this.#varint(value.length);
    const bytes = this.#bytes;
    let at = this.end;
    for (let from = shared; from < key.length; from++) bytes[at++] = key[from] ?? 0;
    bytes.set(keyTail, at);
    bytes.set(value, at + keyTail.length);
    this.end = at + keyTail.length + value.length;
    this.#remember(key, common);
  }

  /** An entry with a key of its own that is in order, and shares nothing with others. */
  addPlain(key: Uint8Array, value: Uint8Array): void {
    this.#restarts.push(this.end - this.#begin);
    this.#makeRoom(key.length + value.length + 32);
    this.#varint(0);
    this.#varint(key.length);
    this.#varint(value.length);
    this.raw(key);
    this.raw(value);
  }

  /** Writes where a search may begin. */
  endEntries(): void {
    this.#makeRoom(4 * this.#restarts.length + 4);
    for (const restart of this.#restarts) this.#uint32(restart);
    this.#uint32(this.#restarts.length);
    this.#restarts = [];
    this.#rows = 0;
  }

  endBlock(): Place {
    this.endEntries();
    return this.#seal();
  }

  /** A block that was put together elsewhere. */
  append(bytes: Uint8Array): Place {
    this.#begin = this.end;
    this.raw(bytes);
    return this.#seal();
  }

  raw(bytes: Uint8Array): void {
    this.#makeRoom(bytes.length);
    this.#bytes.set(bytes, this.end);
    this.end += bytes.length;
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.end);
  }

  /** The last key stays: what follows must be behind it. */
  clear(): void {
    this.end = 0;
    this.#begin = 0;
  }

  /** Behind a block: that it is not compressed, and its checksum. */
  #seal(): Place {
    const place = { offset: this.#begin, sizeBytes: this.end - this.#begin };
    this.#makeRoom(trailerBytes);
    this.#bytes[this.end++] = 0;
    this.#uint32(masked(crc32c(this.#bytes.subarray(this.#begin, this.end))));
    this.#begin = this.end;
    return place;
  }

  /** How many bytes `key` has in common with the last one, which it must be behind. */
  #commonWithLast(key: Uint8Array): number {
    const last = this.#key;
    const lengthMin = Math.min(this.#keyBytes, key.length);
    let common = 0;
    while (common < lengthMin && last[common] === key[common]) common++;
    const isBehind =
      common < lengthMin ? (last[common] ?? 0) < (key[common] ?? 0) : key.length > this.#keyBytes;
    if (!isBehind) throw new RangeError('rows are not in order');
    return common;
  }

  #remember(key: Uint8Array, from: number): void {
    if (key.length > this.#key.length) {
      const larger = new Uint8Array(2 * key.length);
      larger.set(this.lastKey);
      this.#key = larger;
    }
    for (let at = from; at < key.length; at++) this.#key[at] = key[at] ?? 0;
    this.#keyBytes = key.length;
  }

  #makeRoom(count: number): void {
    if (this.end + count <= this.#bytes.length) return;
    const larger = unfilled(2 * (this.end + count));
    larger.set(this.bytes());
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }

  #varint(value: number): void {
    let rest = value;
    for (; rest >= 0x80; rest >>>= 7) this.#bytes[this.end++] = (rest & 0x7f) | 0x80;
    this.#bytes[this.end++] = rest;
  }

  #uint32(value: number): void {
    this.#view.setUint32(this.end, value, true);
    this.end += 4;
  }
}

function handle({ offset, sizeBytes }: Place): Uint8Array {
  return numbers(offset, sizeBytes);
}

function tableKey(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, keyTail]);
}

/** Each as LevelDB spells numbers: seven bits a byte, the lowest first. */
export function numbers(...values: readonly number[]): Uint8Array {
  return Buffer.concat(values.map((value) => varint(value)));
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Uint8Array.from([...bytes, rest]);
}
