// What the WebAssembly module that walks blocks (level-walk-code.ts) and whoever calls it (level-walk.ts) agree on: where
// things are in its memory, and what its answers mean.

import { crcTablesBytes } from '../core/crc32c.ts';
import { blockBytesMax } from './snapshot.ts';

/** LevelDB's bytes behind a key: 1 what is meant, 7 the sequence number. */
export const tailBytes = 8;
/** Longer than the key of any row: an address and a little more, twice. */
export const keyBytesMax = 16 * 1024;
/** Keys of one block, written out. They share their beginnings, so they may be longer than the block. */
export const keysBytesMax = 8 * 1024 * 1024;

/** Bits of a filter per key, and how many of them a key sets: LevelDB's binding asks for these. */
export const filterBitsPerKey = 10;
export const filterProbes = 6;

/** Moved at a time, so up to fifteen bytes too many: whatever is moved has so much room behind it. */
const slackBytes = 16;
/** Of a row: how much it shares, how much of its key is its own, how long its value is. */
const rowBytesMin = 3;
const rowsMax = Math.ceil(blockBytesMax / rowBytesMin) + 1;

let reserved = crcTablesBytes;

/** Where everything is in the module's memory. The system gives it no memory before it is used. */
export const place = {
  /** What `walk` says beyond its answer (`said`). */
  said: reserve(64),
  /** The first key of the block. */
  first: reserve(keyBytesMax + tailBytes),
  block: reserve(blockBytesMax),
  plain: reserve(blockBytesMax),
  /** Of each key, behind `keys`: where it ends, with its tail. */
  ends: reserve(4 * rowsMax),
  /** Of each row. */
  hashes: reserve(4 * rowsMax),
  /** Of each key, as doubles: the sequence numbers of its newest and its oldest row. */
  newest: reserve(8 * rowsMax),
  oldest: reserve(8 * rowsMax),
  /** One behind the other. */
  keys: reserve(keysBytesMax + 2 * keyBytesMax),
  /** A filter and the hashes it is made of: of the blocks that begin in 2 KiB of a table, of which the last may be long. */
  filter: reserve((2 * rowsMax * filterBitsPerKey) / 8),
  filterHashes: reserve(4 * 2 * rowsMax),
} as const;
export const memoryBytes = reserved;

function reserve(sizeBytes: number): number {
  const at = reserved;
  reserved += 16 * Math.ceil((sizeBytes + slackBytes) / 16);
  return at;
}

/** Where in `said`: 32 bits each; `sequence` a double. */
export const said = { count: 0, rows: 4, firstBytes: 8, lastFrom: 12, lastTo: 16, sequence: 24 } as const;

/** Answers of `open` below 0. */
export const unopened = { checksum: -1, compression: -2, snappy: -3 } as const;

/** Answers of `walk` that are not 0, and what is said of the block then. */
export const refusals = {
  rows: [1, 'has a block without rows'],
  end: [2, 'has a block with a row that does not end'],
  restart: [3, 'has a block in which a search may begin at no key'],
  shared: [4, 'has a row that shares what is not there'],
  key: [5, 'has a row without a key'],
  long: [6, 'has a key that is too long'],
  keys: [7, 'has a block with too many keys'],
  meaning: [8, 'has a row that means nothing'],
  order: [9, 'has rows that are not in order'],
  restarts: [10, 'has a block in which a search may begin at no row'],
} as const;

export interface WalkModule {
  /**
   * Checks and decompresses the block of `sizeBytes`, without its trailer, at `place.block`, to `place.plain`. Answers how
   * long it is then.
   */
  readonly open: (sizeBytes: number) => number;
  /**
   * Takes the rows of the `sizeBytes` at `place.plain`, behind `count` (0 or 1) keys that are there. Answers 0, or a number
   * of `refusals`.
   */
  readonly walk: (sizeBytes: number, count: number) => number;
  /** Sets the bits of the first `count` of `place.filterHashes` among the first `bits` of `place.filter`. */
  readonly filter: (count: number, bits: number) => void;
}
