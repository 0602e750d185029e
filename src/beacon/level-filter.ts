// The filter of a table of LevelDB: it lets a look for what is not there end before a block is read.
//
// For each 2 KiB of a table, the keys of the blocks that begin in it, as bits at places that their hashes name
// (util/bloom.cc and table/filter_block.cc of google/leveldb).

import { filterOf } from './level-walk.ts';

/** Each filter is for the blocks that begin in so many bytes of the table. */
const filterRangeBytes = 2048;
const filterRangeLog = 11;

/** Makes the filter block: filters, where each begins, where those numbers begin, and the range. */
export class Filter {
  #hashes = new Int32Array(256);
  #count = 0;
  #filters: Uint8Array[] = [];
  #offsets: number[] = [];
  #sizeBytes = 0;

  /** Keys of the block that ends next, by their hashes. */
  add(hashes: Int32Array): void {
    const count = this.#count + hashes.length;
    if (count > this.#hashes.length) {
      const larger = new Int32Array(2 * count);
      larger.set(this.#hashes);
      this.#hashes = larger;
    }
    this.#hashes.set(hashes, this.#count);
    this.#count = count;
  }

  blockBeginsAt(offset: number): void {
    const range = Math.floor(offset / filterRangeBytes);
    while (this.#offsets.length < range) this.#endFilter();
  }

  finish(): Uint8Array {
    if (this.#count > 0) this.#endFilter();
    const tail = Buffer.alloc(4 * this.#offsets.length + 5);
    for (const [index, offset] of [...this.#offsets, this.#sizeBytes].entries())
      tail.writeUInt32LE(offset, 4 * index);
    tail.writeUInt8(filterRangeLog, tail.length - 1);
    const block = Buffer.concat([...this.#filters, tail]);
    this.#filters = [];
    this.#offsets = [];
    this.#sizeBytes = 0;
    return block;
  }

  #endFilter(): void {
    this.#offsets.push(this.#sizeBytes);
    if (this.#count === 0) return;
    const filter = filterOf(this.#hashes.subarray(0, this.#count));
    this.#filters.push(filter);
    this.#sizeBytes += filter.length;
    this.#count = 0;
  }
}
