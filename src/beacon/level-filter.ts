// The filter of a table of LevelDB: it lets a look for what is not there end before a block is read.
//
// For each 2 KiB of a table, the keys of the blocks that begin in it, as bits at places that their hashes name
// (util/bloom.cc and table/filter_block.cc of google/leveldb).

/** Bits of a filter per key, and how many of them a key sets: LevelDB's binding asks for these. */
const bitsPerKey = 10;
const probes = 6;
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

  /** Keys of the block that ends next, by their hashes (`hashOf`). */
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

function filterOf(hashes: Int32Array): Uint8Array {
  const bytesCount = Math.ceil(Math.max(64, hashes.length * bitsPerKey) / 8);
  const filter = new Uint8Array(bytesCount + 1);
  filter[bytesCount] = probes;
  const bits = 8 * bytesCount;
  for (const first of hashes) {
    const step = (first >>> 17) | (first << 15);
    for (let probe = 0, hash = first; probe < probes; probe++, hash = (hash + step) | 0) {
      const bit = (hash >>> 0) % bits;
      filter[bit >>> 3] = (filter[bit >>> 3] ?? 0) | (1 << (bit & 7));
    }
  }
  return filter;
}

/** LevelDB's hash of the key from `from` to `to` (util/hash.cc), with the seed of its filters. */
export function hashOf(bytes: DataView, from: number, to: number): number {
  const factor = 0xc6a4a793;
  let hash = 0xbc9f1d34 ^ Math.imul(to - from, factor);
  let at = from;
  for (; at + 4 <= to; at += 4) {
    hash = Math.imul(hash + bytes.getInt32(at, true), factor);
    hash ^= hash >>> 16;
  }
  if (at === to) return hash;
  for (let rest = to - 1; rest >= at; rest--) hash += bytes.getUint8(rest) << (8 * (rest - at));
  hash = Math.imul(hash, factor);
  return hash ^ (hash >>> 24);
}
