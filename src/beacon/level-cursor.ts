// The rows of tables of LevelDB, one after the other, without LevelDB: its binding makes two objects for each row, which
// costs more than to read it.
//
// Tables that do not overlap are one run, in which keys rise; a key that stands in several is newest where its sequence
// number is highest. Formats: level-format.ts.

import { asBuffer } from '../core/bytes.ts';
import { footerBytes, type Handle, handlesIn, indexHandle, openBlock, trailerBytes } from './level-format.ts';

/** A table that can be read. */
export interface TableFile {
  readonly sizeBytes: number;
  /** These bytes of it, all of them. */
  read(offset: number, count: number): Promise<Uint8Array>;
  /** It is not read any more. */
  close(): Promise<void>;
}

/** Read at a time, of each run. */
const chunkBytesMax = 256 * 1024;
/** LevelDB's bytes behind a key: 1 what is meant, 7 the sequence number. */
const tailBytes = 8;

/** Stands at a row of a run once `load` has resolved to true, and until `advance` and then `load` say that there is none. */
export class RunCursor {
  readonly #tables: readonly TableFile[];
  #nextTable = 0;
  #table: TableFile | undefined;
  /** Blocks of the table that were not read yet. */
  #handles: readonly Handle[] = [];
  /** Blocks in `#chunk`, which begins at `#chunkAt` of the table. */
  #chunk: Uint8Array = new Uint8Array();
  #chunkAt = 0;
  #inChunk: readonly Handle[] = [];
  #nextInChunk = 0;
  #block: Uint8Array = new Uint8Array();
  #at = 0;
  #end = 0;
  #key = Buffer.allocUnsafeSlow(256);
  #keyBytes = 0;
  #valueAt = 0;

  /** `tables`: in key order, and none of them overlaps another. */
  constructor(tables: readonly TableFile[]) {
    this.#tables = tables;
  }

  /** Valid until the next step. */
  get key(): Uint8Array {
    return this.#key.subarray(0, this.#keyBytes - tailBytes);
  }

  /** Valid for good. */
  get value(): Uint8Array {
    return this.#block.subarray(this.#valueAt, this.#at);
  }

  get isRemoved(): boolean {
    return this.#key[this.#keyBytes - tailBytes] === 0;
  }

  /** Below 0 when this row comes before that of `other`: in key order, of one key the newest first. */
  compare(other: RunCursor): number {
    const [a, b] = [this.#key, other.#key];
    const [aEnd, bEnd] = [this.#keyBytes - tailBytes, other.#keyBytes - tailBytes];
    const end = Math.min(aEnd, bEnd);
    let at = 0;
    while (at < end && a[at] === b[at]) at++;
    if (at < end) return (a[at] ?? 0) - (b[at] ?? 0);
    return aEnd === bEnd ? other.#sequence - this.#sequence : aEnd - bEnd;
  }

  /** The next row, if it has been read; else false, and `load` goes on. Throws RangeError. */
  advance(): boolean {
    if (this.#at >= this.#end && !this.#openNext()) return false;
    const shared = this.#varint();
    const own = this.#varint();
    const valueBytes = this.#varint();
    const keyBytes = shared + own;
    const valueAt = this.#at + own;
    if (shared > this.#keyBytes || keyBytes < tailBytes || valueAt + valueBytes > this.#end)
      throw new RangeError('has a block with a row that does not end');
    if (keyBytes > this.#key.length) this.#growKey(keyBytes);
    const [block, key] = [this.#block, this.#key];
    for (let from = this.#at, to = shared; from < valueAt; from++, to++) key[to] = block[from] ?? 0;
    this.#keyBytes = keyBytes;
    this.#valueAt = valueAt;
    this.#at = valueAt + valueBytes;
    return true;
  }

  /** Reads on; false when there are no more rows. Throws RangeError for what is no table, and what reading throws. */
  async load(): Promise<boolean> {
    while (!this.advance()) {
      if (this.#handles.length === 0 && !(await this.#openTable())) return false;
      await this.#readChunk();
    }
    return true;
  }

  async close(): Promise<void> {
    await this.#table?.close();
    this.#table = undefined;
  }

  get #sequence(): number {
    return this.#key.readUIntLE(this.#keyBytes - tailBytes + 1, 6); // of 7 bytes the last one stays 0
  }

  async #openTable(): Promise<boolean> {
    await this.close();
    const table = this.#tables[this.#nextTable++];
    if (table === undefined) return false;
    this.#table = table;
    const index = indexHandle(await table.read(table.sizeBytes - footerBytes, footerBytes));
    const bytes = await table.read(index.offset, index.sizeBytes + trailerBytes);
    this.#handles = handlesIn(openBlock(bytes, { offset: 0, sizeBytes: index.sizeBytes }));
    return true;
  }

  /** Data blocks lie one behind the other. */
  async #readChunk(): Promise<void> {
    const [first] = this.#handles;
    if (first === undefined || this.#table === undefined) return;
    const endOf = ({ offset, sizeBytes }: Handle): number => offset + sizeBytes + trailerBytes;
    const beyond = this.#handles.findIndex((handle) => endOf(handle) - first.offset > chunkBytesMax);
    const count = beyond === -1 ? this.#handles.length : Math.max(1, beyond);
    this.#inChunk = this.#handles.slice(0, count);
    this.#handles = this.#handles.slice(count);
    this.#chunkAt = first.offset;
    this.#nextInChunk = 0;
    const end = endOf(this.#inChunk.at(-1) ?? first);
    this.#chunk = await this.#table.read(first.offset, end - first.offset);
  }

  #openNext(): boolean {
    const handle = this.#inChunk[this.#nextInChunk++];
    if (handle === undefined) return false;
    const { offset, sizeBytes } = handle;
    const block = openBlock(this.#chunk, { offset: offset - this.#chunkAt, sizeBytes });
    const restarts = asBuffer(block).readUInt32LE(block.length - 4);
    this.#block = block;
    this.#at = 0;
    this.#end = block.length - 4 * (restarts + 1);
    this.#keyBytes = 0;
    if (this.#end <= 0) throw new RangeError(`has a block without rows at ${offset}`);
    return true;
  }

  #varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 35; scale *= 128) {
      const byte = this.#block[this.#at++] ?? 0xff;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw new RangeError('has a block with a number that does not end');
  }

  #growKey(sizeBytes: number): void {
    const larger = Buffer.allocUnsafeSlow(2 * sizeBytes);
    larger.set(this.#key);
    this.#key = larger;
  }
}
