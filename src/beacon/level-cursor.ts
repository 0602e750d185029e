// The data blocks of a run of tables, one after the other, as they lie in the files.
//
// Tables that do not overlap are one run, in which keys rise. Formats: level-format.ts.

import {
  footerBytes,
  type IndexEntry,
  handlesIn,
  indexHandle,
  openBlock,
  trailerBytes,
} from './level-format.ts';
import { compareBytes, KeptKey, type KeyPlace, viewOf } from './level-keys.ts';
import { firstKeyOf } from './level-rows.ts';
import { tailBytes } from './level-walk-place.ts';
import { unsnap } from './snappy.ts';

/** A table that can be read. */
export interface TableFile {
  readonly sizeBytes: number;
  /** Fills `into` with the bytes of it from `offset` on, all of it. */
  read(into: Uint8Array, offset: number): Promise<void>;
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
  #index: DataView = viewOf(new Uint8Array());
  #handles: readonly IndexEntry[] = [];
  /** The first block that was not read yet, and the one that comes next of those that were. */
  #unread = 0;
  #next = 0;
  #at: IndexEntry | undefined;
  #memory: Uint8Array = new Uint8Array();
  /** Where of the table the memory begins. */
  #memoryAt = 0;
  #bytes: Uint8Array = new Uint8Array();
  readonly #firstKey = new KeptKey();
  #isKeyKnown = false;
  readonly #scratch = new Uint8Array(16 * 1024);

  /** `tables`: in key order, and none of them overlaps another. */
  constructor(tables: readonly TableFile[]) {
    this.#tables = tables;
  }

  /** The block with its trailer. Valid until the next one. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Of its first row. Valid until the next block. Throws RangeError for what is no block. */
  get firstKey(): KeyPlace {
    if (!this.#isKeyKnown) this.#firstKey.keep(firstKeyIn(this.#bytes, this.#scratch));
    this.#isKeyKnown = true;
    return this.#firstKey;
  }

  /** True when it is certain, without a look into the block, that its first key comes before `key`. */
  isBefore({ memory, from, to }: KeyPlace): boolean {
    const { keyAt = 0, keyEnd = 0 } = this.#at ?? {};
    // An index has for each block a key that none in it is behind.
    const end = keyEnd - tailBytes;
    return end > keyAt && compareBytes(this.#index, keyAt, end, memory, from, to) < 0;
  }

  /** The next block, if it has been read; else false, and `load` goes on. */
  advance(): boolean {
    if (this.#next >= this.#unread) return false;
    this.#at = this.#handles[this.#next++];
    const { offset, sizeBytes } = this.#at ?? { offset: 0, sizeBytes: 0 };
    const at = offset - this.#memoryAt;
    this.#bytes = this.#memory.subarray(at, at + sizeBytes + trailerBytes);
    this.#isKeyKnown = false;
    return true;
  }

  /** Reads on; false when there are no more blocks. Throws RangeError for what is no table, and what reading throws. */
  async load(): Promise<boolean> {
    while (!this.advance()) {
      if (this.#unread >= this.#handles.length && !(await this.#openTable())) return false;
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
    const footer = new Uint8Array(footerBytes);
    await table.read(footer, table.sizeBytes - footerBytes);
    const { offset, sizeBytes } = indexHandle(footer);
    if (offset + sizeBytes > table.sizeBytes) throw new RangeError('has an index beyond its end');
    const bytes = new Uint8Array(sizeBytes + trailerBytes);
    await table.read(bytes, offset);
    const index = openBlock(bytes, { offset: 0, sizeBytes });
    this.#index = viewOf(index);
    this.#handles = handlesIn(index);
    this.#next = 0;
    this.#unread = 0;
    return true;
  }

  /** Data blocks lie one behind the other. */
  async #readChunk(): Promise<void> {
    const first = this.#handles[this.#unread];
    if (first === undefined || this.#table === undefined) return;
    let end = first.offset;
    for (
      let entry: IndexEntry | undefined = first;
      entry !== undefined;
      entry = this.#handles[this.#unread]
    ) {
      const entryEnd = entry.offset + entry.sizeBytes + trailerBytes;
      if (end > first.offset && entryEnd - first.offset > chunkBytesMax) break;
      end = entryEnd;
      this.#unread++;
    }
    const count = end - first.offset;
    if (end > this.#table.sizeBytes) throw new RangeError('has a block beyond its end');
    if (count > this.#memory.length) this.#memory = new Uint8Array(Math.max(count, chunkBytesMax));
    this.#memoryAt = first.offset;
    await this.#table.read(this.#memory.subarray(0, count), first.offset);
  }
}

function firstKeyIn(bytes: Uint8Array, scratch: Uint8Array): KeyPlace {
  const body = bytes.subarray(0, bytes.length - trailerBytes);
  if (bytes[body.length] === 0) return firstKeyOf(body);
  const begin = unsnap(body, { upTo: beginBytes, into: scratch });
  try {
    return firstKeyOf(begin);
  } catch {
    return firstKeyOf(unsnap(body));
  }
}
