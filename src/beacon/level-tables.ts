// Tables of LevelDB, made of blocks of rows that are in order already.
//
// Blocks that lie one behind the other need none of what makes LevelDB's writes dear: no log of its own, no sorting in
// memory, no rewriting of what was written before. Here they get what LevelDB finds them by: an index, a filter and a
// footer. level-load.ts puts the tables in force. Formats: level-format.ts, which reads them.

import { asBuffer, unfilled } from '../core/bytes.ts';
import { crc32c } from '../core/crc32c.ts';
import { Filter } from './level-filter.ts';
import { footerBytes, magic, masked, trailerBytes } from './level-format.ts';
import type { WalkedBlock } from './level-rows.ts';
import { tailBytes } from './level-walk-place.ts';

/** LevelDB's own size of a block. */
const blockBytes = 4096;
const rowsPerRestart = 16;

/** What a MANIFEST says of a table. */
export interface BuiltTable {
  readonly sizeBytes: number;
  /** First and last key, as tables have them: with LevelDB's tail. */
  readonly smallest: Uint8Array;
  readonly largest: Uint8Array;
}

export class TableBuilder {
  readonly #out: Out;
  readonly #index = new Block(blockBytes);
  readonly #filter = new Filter();
  /** Bytes that were taken already. */
  #taken = 0;
  #rows = 0;
  #smallest: Uint8Array | undefined;
  #largest: Uint8Array = new Uint8Array(1024);
  #largestBytes = 0;

  /** `chunkBytes`: about how much will be taken at a time; memory for it is kept. */
  constructor(chunkBytes: number) {
    this.#out = new Out(chunkBytes);
  }

  /** About what is or will be in the table, or in memory for it. */
  get sizeBytes(): number {
    return this.#offset + this.#index.end + 4 * this.#rows;
  }

  get isEmpty(): boolean {
    return this.#smallest === undefined;
  }

  /** Bytes that are there to take. */
  get takeableBytes(): number {
    return this.#out.end;
  }

  /** Whether a key is that of the last row: LevelDB has no key in two tables of one level. */
  endsWith(key: Uint8Array): boolean {
    return !this.isEmpty && asBuffer(withoutTail(this.#last)).equals(withoutTail(key));
  }

  /** `bytes`: a block with its trailer, behind all others. */
  add(bytes: Uint8Array, { first, last, hashes }: WalkedBlock): void {
    this.#smallest ??= new Uint8Array(first);
    if (last.length > this.#largest.length) this.#largest = new Uint8Array(2 * last.length);
    this.#largest.set(last);
    this.#largestBytes = last.length;
    this.#index.addHandle(last, this.#offset, bytes.length - trailerBytes);
    this.#out.raw(bytes);
    this.#filter.add(hashes);
    this.#rows += hashes.length;
    this.#filter.blockBeginsAt(this.#offset);
  }

  /** What follows on what was taken before. Valid until the next change. */
  take(): Uint8Array {
    const bytes = this.#out.bytes();
    this.#taken += bytes.length;
    this.#out.clear();
    return bytes;
  }

  /** The rest of the table can be taken then, and nothing else until the next block is added, which begins another one. */
  finish(): BuiltTable {
    const filter = this.#append(this.#filter.finish());
    const metaindex = new Block(128);
    metaindex.addPlain(Buffer.from('filter.leveldb.BuiltinBloomFilter2'), handle(filter));
    const footer = new Uint8Array(footerBytes);
    footer.set([...handle(this.#append(metaindex.take())), ...handle(this.#append(this.#index.take()))]);
    asBuffer(footer).writeBigUInt64LE(magic, footerBytes - 8);
    this.#out.raw(footer);
    const built = {
      sizeBytes: this.#offset,
      smallest: this.#smallest ?? new Uint8Array(),
      largest: new Uint8Array(this.#last),
    };
    this.#taken = -this.#out.end;
    this.#rows = 0;
    this.#smallest = undefined;
    return built;
  }

  get #last(): Uint8Array {
    return this.#largest.subarray(0, this.#largestBytes);
  }

  get #offset(): number {
    return this.#taken + this.#out.end;
  }

  #append(block: Uint8Array): Place {
    const place = { offset: this.#offset, sizeBytes: block.length };
    this.#out.raw(sealBlock(block));
    return place;
  }
}

/** `key` as a table has it: what it means behind it. */
export function tableKey(key: Uint8Array, sequence: number, isRemoved = false): Uint8Array {
  const bytes = Buffer.alloc(key.length + tailBytes);
  bytes.set(key);
  bytes.writeUInt8(isRemoved ? 0 : 1, key.length);
  bytes.writeUIntLE(sequence, key.length + 1, 6);
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Blocks, with their trailers, of rows whose keys (`tableKey`) are in order. */
export function blocksOf(rows: Iterable<readonly [key: Uint8Array, value: Uint8Array]>): Uint8Array[] {
  const blocks: Uint8Array[] = [];
  let block = new Block(2 * blockBytes);
  const end = (): void => {
    if (!block.isEmpty) blocks.push(sealBlock(block.take()));
    block = new Block(2 * blockBytes);
  };
  for (const [key, value] of rows) {
    block.add(key, value);
    if (block.sizeBytes >= blockBytes) end();
  }
  end();
  return blocks;
}

/** `block` with what is behind it in a file: that it is not compressed, and its checksum. */
export function sealBlock(block: Uint8Array): Uint8Array {
  const sealed = new Uint8Array(block.length + trailerBytes);
  sealed.set(block);
  const crc = masked(crc32c(sealed.subarray(0, block.length + 1)));
  asBuffer(sealed).writeUInt32LE(crc, block.length + 1);
  return sealed;
}

interface Place {
  readonly offset: number;
  /** Without its trailer. */
  readonly sizeBytes: number;
}

/** Bytes one behind the other, in memory that grows with them. */
class Out {
  #bytes: Uint8Array;
  end = 0;

  constructor(sizeBytes: number) {
    this.#bytes = unfilled(sizeBytes);
  }

  raw(bytes: Uint8Array): void {
    this.#makeRoom(bytes.length);
    this.#bytes.set(bytes, this.end);
    this.end += bytes.length;
  }

  /** See `numbers`. */
  numbers(...values: readonly number[]): void {
    this.#makeRoom(8 * values.length);
    for (const value of values) {
      let rest = value;
      for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#bytes[this.end++] = (rest % 0x80) | 0x80;
      this.#bytes[this.end++] = rest;
    }
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.end);
  }

  clear(): void {
    this.end = 0;
  }

  #makeRoom(count: number): void {
    if (this.end + count <= this.#bytes.length) return;
    const larger = unfilled(2 * (this.end + count));
    larger.set(this.bytes());
    this.#bytes = larger;
  }
}

/** Entries of a block. Each shares the beginning of its key with the one before it, except for every sixteenth. */
class Block {
  readonly #out: Out;
  #restarts: number[] = [];
  #rows = 0;
  #key: Uint8Array = new Uint8Array();

  constructor(sizeBytes: number) {
    this.#out = new Out(sizeBytes);
  }

  get end(): number {
    return this.#out.end;
  }

  get isEmpty(): boolean {
    return this.end === 0;
  }

  /** With what will end it. */
  get sizeBytes(): number {
    return this.end + 4 * this.#restarts.length + 4;
  }

  add(key: Uint8Array, value: Uint8Array): void {
    if (this.#rows++ % rowsPerRestart === 0) {
      this.addPlain(key, value);
    } else {
      const shared = commonBytes(this.#key, key);
      this.#out.numbers(shared, key.length - shared, value.length);
      this.#out.raw(key.subarray(shared));
      this.#out.raw(value);
    }
    this.#key = key;
  }

  /** As `addPlain`: of an index, where the block lies that ends with `key`. */
  addHandle(key: Uint8Array, offset: number, sizeBytes: number): void {
    this.#restarts.push(this.end);
    this.#out.numbers(0, key.length, numberBytes(offset) + numberBytes(sizeBytes));
    this.#out.raw(key);
    this.#out.numbers(offset, sizeBytes);
  }

  /** An entry that shares nothing with others. */
  addPlain(key: Uint8Array, value: Uint8Array): void {
    this.#restarts.push(this.end);
    this.#out.numbers(0, key.length, value.length);
    this.#out.raw(key);
    this.#out.raw(value);
  }

  /** The block, ended by where a search may begin. Valid until something is added to the next one. */
  take(): Uint8Array {
    const tail = Buffer.alloc(4 * this.#restarts.length + 4);
    for (const [index, at] of [...this.#restarts, this.#restarts.length].entries())
      tail.writeUInt32LE(at, 4 * index);
    this.#out.raw(tail);
    const bytes = this.#out.bytes();
    this.#out.clear();
    this.#restarts = [];
    this.#rows = 0;
    return bytes;
  }
}

/** Of `value` as `numbers` spells it. */
function numberBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) count++;
  return count;
}

function commonBytes(a: Uint8Array, b: Uint8Array): number {
  const end = Math.min(a.length, b.length);
  let common = 0;
  while (common < end && a[common] === b[common]) common++;
  return common;
}

function withoutTail(key: Uint8Array): Uint8Array {
  return key.subarray(0, key.length - tailBytes);
}

function handle({ offset, sizeBytes }: Place): Uint8Array {
  return numbers(offset, sizeBytes);
}

/** Each as LevelDB spells numbers: seven bits a byte, the lowest first. */
export function numbers(...values: readonly number[]): Uint8Array {
  const out = new Out(8 * values.length);
  out.numbers(...values);
  return out.bytes();
}
