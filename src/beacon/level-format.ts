// LevelDB's files, as far as one must read them to see that no byte of them changed.
//
// Every block of a table and every record of a log carries a CRC-32C. LevelDB looks at that of a block only when told
// to, and its binding does not tell it; at that of a log record it looks, and drops what follows without a word. Here
// both are looked at. Formats: doc/table_format.md, doc/log_format.md and db/version_edit.cc of google/leveldb.
//
//   table     data block … │ filter block │ metaindex block │ index block │ footer 48 B
//   block     bytes │ compression 1 B │ CRC 4 B
//   log       32 KiB blocks of records: CRC 4 B │ length 2 B │ type 1 B │ bytes

import { asBuffer } from '../core/bytes.ts';
import { crc32c } from '../core/crc32c.ts';
import { unsnap } from './snappy.ts';

/** A run of bytes in a table. */
export interface Handle {
  readonly offset: number;
  readonly sizeBytes: number;
}

export const footerBytes = 48;
export const trailerBytes = 5;
export const magic = 0xdb4775248b80fb57n;

/**
 * What is wrong with the bytes of a table file; undefined when every byte is as it was written: blocks lie one
 * behind the other from the first byte to the footer, and the checksum of each holds.
 */
export function tableProblem(table: Uint8Array): string | undefined {
  try {
    return findTableProblem(table);
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

function findTableProblem(table: Uint8Array): string | undefined {
  const end = table.length - footerBytes;
  if (end < 0) return 'is shorter than a footer';
  const footer = new Reader(table.subarray(end));
  if (asBuffer(table).readBigUInt64LE(table.length - 8) !== magic) return 'does not end as a table';
  const metaindex = footer.handle();
  const index = footer.handle();
  if (table.subarray(end + footer.at, table.length - 8).some((byte) => byte !== 0))
    return 'has a changed footer';
  const blocks = [metaindex, index];
  for (const handle of [metaindex, index]) blocks.push(...handlesIn(openBlock(table, handle)));
  blocks.sort((a, b) => a.offset - b.offset);
  let expected = 0;
  for (const block of blocks) {
    if (block.offset !== expected) return `has bytes that belong to no block at ${expected}`;
    checkBlock(table, block);
    expected = block.offset + block.sizeBytes + trailerBytes;
  }
  return expected === end ? undefined : `has bytes that belong to no block at ${expected}`;
}

/** Throws RangeError when the checksum of a block does not hold. */
function checkBlock(table: Uint8Array, { offset, sizeBytes }: Handle): void {
  const end = offset + sizeBytes + 1;
  if (end + 4 > table.length) throw new RangeError(`has a block beyond its end at ${offset}`);
  const stored = unmask(asBuffer(table).readUInt32LE(end));
  if (crc32c(table.subarray(offset, end)) !== stored) {
    throw new RangeError(`has a block that does not match its checksum at ${offset}`);
  }
}

/** Where the index block of a table lies, by its footer: its last bytes. Throws RangeError. */
export function indexHandle(footer: Uint8Array): Handle {
  if (asBuffer(footer).readBigUInt64LE(footerBytes - 8) !== magic)
    throw new RangeError('does not end as a table');
  const places = new Reader(footer);
  places.handle(); // the metaindex block
  return places.handle();
}

/** The contents of a block, whose checksum is checked. Throws RangeError. */
export function openBlock(table: Uint8Array, handle: Handle): Uint8Array {
  checkBlock(table, handle);
  const { offset, sizeBytes } = handle;
  const bytes = table.subarray(offset, offset + sizeBytes);
  const compression = table[offset + sizeBytes];
  if (compression === 0) return bytes;
  if (compression === 1) return unsnap(bytes);
  throw new RangeError(`has a block of unknown compression ${compression} at ${offset}`);
}

/** An entry of an index or metaindex block: its key is from `keyAt` to `keyEnd` of it, as far as that is written out there. */
export interface IndexEntry extends Handle {
  readonly keyAt: number;
  readonly keyEnd: number;
}

/** What an index or metaindex block names. Throws RangeError. */
export function handlesIn(block: Uint8Array): IndexEntry[] {
  const restarts = asBuffer(block).readUInt32LE(block.length - 4);
  const entries = new Reader(block.subarray(0, block.length - 4 * (restarts + 1)));
  const handles: IndexEntry[] = [];
  while (!entries.done) {
    const shared = entries.varint();
    const keyBytes = entries.varint();
    const valueBytes = entries.varint();
    const keyAt = entries.at;
    entries.skip(keyBytes);
    const keyEnd = shared === 0 ? entries.at : keyAt;
    handles.push({ ...new Reader(entries.take(valueBytes)).handle(), keyAt, keyEnd });
  }
  return handles;
}

/** What a log file holds. */
export interface LogContents {
  readonly records: readonly Uint8Array[];
  /** Damage with whole records behind it, which no crash leaves. A torn end is none. */
  readonly problem: string | undefined;
}

export const logBlockBytes = 32 * 1024;
export const logHeaderBytes = 7;

/** Reads a log (or MANIFEST) as LevelDB does, which gives up the rest of a 32 KiB block after a bad record. */
export function readLog(log: Uint8Array): LogContents {
  const records: Uint8Array[] = [];
  let parts: Uint8Array[] | undefined;
  let badAt: number | undefined;
  let problem: string | undefined;
  for (const { type, bytes, at } of fragments(log)) {
    if (type === 'bad') {
      badAt ??= at;
      parts = undefined;
      continue;
    }
    const begins = type === fullRecord || type === firstPart;
    if (begins && badAt !== undefined)
      problem ??= `has a damaged record at ${badAt} with whole ones behind it`;
    if (begins) parts = [];
    parts?.push(bytes);
    if (parts === undefined || (type !== fullRecord && type !== lastPart)) continue;
    records.push(Buffer.concat(parts));
    parts = undefined;
  }
  return { records, problem };
}

const fullRecord = 1;
const firstPart = 2;
const lastPart = 4;

interface Fragment {
  readonly type: number | 'bad';
  readonly bytes: Uint8Array;
  readonly at: number;
}

function* fragments(log: Uint8Array): Generator<Fragment> {
  const view = asBuffer(log);
  const none = log.subarray(0, 0);
  for (let block = 0; block < log.length; block += logBlockBytes) {
    const end = Math.min(block + logBlockBytes, log.length);
    for (let at = block; at + logHeaderBytes <= end; ) {
      const sizeBytes = view.readUInt16LE(at + 4);
      const type = view.readUInt8(at + 6);
      const next = at + logHeaderBytes + sizeBytes;
      if (type === 0 && sizeBytes === 0) break; // space that was reserved and never written
      const isWhole = next <= end && crc32c(log.subarray(at + 6, next)) === unmask(view.readUInt32LE(at));
      if (!isWhole) {
        yield { type: 'bad', bytes: none, at };
        break;
      }
      yield { type, bytes: log.subarray(at + logHeaderBytes, next), at };
      at = next;
    }
  }
}

/** A table as a MANIFEST names it. Its first and last key have LevelDB's 8 bytes behind them. */
export interface LiveTable {
  readonly level: number;
  readonly sizeBytes: number;
  readonly smallest: Uint8Array;
  readonly largest: Uint8Array;
}

/** The files that make up a store, as its MANIFEST tells. */
export interface LiveFiles {
  /** By file number. */
  readonly tables: ReadonlyMap<number, LiveTable>;
  /** Log files from this number on hold what is in no table yet. */
  readonly logNumber: number;
}

/** Replays the records of a MANIFEST. Throws RangeError for a record it cannot read. */
export function liveFiles(records: readonly Uint8Array[]): LiveFiles {
  const tables = new Map<number, LiveTable>();
  let logNumber = 0;
  for (const record of records) {
    const edit = new Reader(record);
    while (!edit.done) {
      const tag = edit.varint();
      if (tag === 1)
        edit.skip(edit.varint()); // name of the comparator
      else if (tag === 2) logNumber = edit.varint();
      else if (tag === 3 || tag === 4 || tag === 9)
        edit.varint(); // next file, last sequence, earlier log
      else if (tag === 5) {
        edit.varint(); // level
        edit.skip(edit.varint()); // where the next compaction begins
      } else if (tag === 6) {
        edit.varint(); // level
        tables.delete(edit.varint());
      } else if (tag === 7) {
        const level = edit.varint();
        const number = edit.varint();
        const sizeBytes = edit.varint();
        const smallest = edit.take(edit.varint());
        tables.set(number, { level, sizeBytes, smallest, largest: edit.take(edit.varint()) });
      } else throw new RangeError(`has an unknown field ${tag}`);
    }
  }
  return { tables, logNumber };
}

/** LevelDB stores checksums rotated and shifted, so that the checksum of a checksum is not trivial. */
function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated << 15) | (rotated >>> 17)) >>> 0;
}

/** The other way round. */
export function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

class Reader {
  readonly #bytes: Uint8Array;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.at >= this.#bytes.length;
  }

  byte(): number {
    const byte = this.#bytes[this.at++];
    if (byte === undefined) throw new RangeError('ends in the middle of a number');
    return byte;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 53; scale *= 128) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError('has a number that is too large');
  }

  take(count: number): Uint8Array {
    if (this.at + count > this.#bytes.length) throw new RangeError('ends too early');
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  skip(count: number): void {
    this.take(count);
  }

  handle(): Handle {
    return { offset: this.varint(), sizeBytes: this.varint() };
  }
}
