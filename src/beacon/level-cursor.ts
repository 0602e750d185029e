// The data blocks of a run of tables, one after the other, as they lie in the files.
//
// Tables that do not overlap are one run, in which keys rise. Formats: level-format.ts.

import { footerBytes, type Handle, handlesIn, indexHandle, openBlock, trailerBytes } from './level-format.ts';
import { firstKeyOf } from './level-rows.ts';
import { unsnap } from './snappy.ts';

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
/** So much of a block is decompressed for its first key; all of it, where that is longer. */
const beginBytes = 256;

/** Stands at a block once `load` has resolved to true, and until `advance` and then `load` say that there is none. */
export class BlockCursor {
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
  #bytes: Uint8Array = new Uint8Array();
  #firstKey: Buffer = Buffer.alloc(0);
  readonly #scratch = new Uint8Array(16 * 1024);

  /** `tables`: in key order, and none of them overlaps another. */
  constructor(tables: readonly TableFile[]) {
    this.#tables = tables;
  }

  /** The block with its trailer. Valid for good. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Of its first row, without LevelDB's tail. Valid for good. */
  get firstKey(): Buffer {
    return this.#firstKey;
  }

  /** The next block, if it has been read; else false, and `load` goes on. Throws RangeError. */
  advance(): boolean {
    const handle = this.#inChunk[this.#nextInChunk++];
    if (handle === undefined) return false;
    const { offset, sizeBytes } = handle;
    const at = offset - this.#chunkAt;
    this.#bytes = this.#chunk.subarray(at, at + sizeBytes + trailerBytes);
    this.#firstKey = firstKeyIn(this.#bytes, this.#scratch);
    return true;
  }

  /** Reads on; false when there are no more blocks. Throws RangeError for what is no table, and what reading throws. */
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
}

function firstKeyIn(bytes: Uint8Array, scratch: Uint8Array): Buffer {
  const body = bytes.subarray(0, bytes.length - trailerBytes);
  if (bytes[body.length] === 0) return Buffer.from(firstKeyOf(body));
  const begin = unsnap(body, { upTo: beginBytes, into: scratch });
  try {
    return Buffer.from(firstKeyOf(begin));
  } catch {
    return Buffer.from(firstKeyOf(unsnap(body)));
  }
}
