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
  #hashes: number[] = [];
  #filters: Uint8Array[] = [];
  #offsets: number[] = [];
  #sizeBytes = 0;

  add(key: Uint8Array): void {
    this.#hashes.push(hashOf(key));
  }

  blockBeginsAt(offset: number): void {
    const range = Math.floor(offset / filterRangeBytes);
    while (this.#offsets.length < range) this.#endFilter();
  }

  finish(): Uint8Array {
    if (this.#hashes.length > 0) this.#endFilter();
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
    if (this.#hashes.length === 0) return;
    const filter = filterOf(this.#hashes);
    this.#filters.push(filter);
    this.#sizeBytes += filter.length;
    this.#hashes = [];
  }
}

function filterOf(hashes: readonly number[]): Uint8Array {
  const bytesCount = Math.ceil(Math.max(64, hashes.length * bitsPerKey) / 8);
  const filter = new Uint8Array(bytesCount + 1);
  filter[bytesCount] = probes;
  for (const first of hashes) {
    const step = (first >>> 17) | (first << 15);
    for (let probe = 0, hash = first; probe < probes; probe++, hash += step) {
      const bit = (hash >>> 0) % (8 * bytesCount);
      filter[bit >>> 3] = (filter[bit >>> 3] ?? 0) | (1 << (bit & 7));
    }
  }
  return filter;
}

/** LevelDB's hash of a key (util/hash.cc), with the seed of its filters. */
function hashOf(key: Uint8Array): number {
  const factor = 0xc6a4a793;
  const { length } = key;
  let hash = 0xbc9f1d34 ^ Math.imul(length, factor);
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    const word =
      (key[at] ?? 0) | ((key[at + 1] ?? 0) << 8) | ((key[at + 2] ?? 0) << 16) | ((key[at + 3] ?? 0) << 24);
    hash = Math.imul(hash + word, factor);
    hash ^= hash >>> 16;
  }
  if (at === length) return hash;
  for (let rest = length - 1; rest >= at; rest--) hash += (key[rest] ?? 0) << (8 * (rest - at));
  hash = Math.imul(hash, factor);
  return hash ^ (hash >>> 24);
}
