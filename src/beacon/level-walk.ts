// Blocks of another machine's tables, opened and walked by a WebAssembly module (level-walk-code.ts): it reads and writes
// nothing but its own memory, and takes half the time of the same in TypeScript.

import { writeCrcTables } from '../core/crc32c.ts';
import { wasmExports, wasmMemory } from '../core/wasm.ts';
import { trailerBytes } from './level-format.ts';
import { walkFunctions } from './level-walk-code.ts';
import {
  filterBitsPerKey,
  filterProbes,
  memoryBytes,
  place,
  refusals,
  said,
  unopened,
  type WalkModule,
} from './level-walk-place.ts';
import { blockBytesMax } from './snapshot.ts';

/** A key that is there already, for the next rows to be behind it. */
export interface KeptRow {
  /** With LevelDB's tail. */
  readonly key: Uint8Array;
  /** Sequence numbers of its newest and its oldest row. */
  readonly newest: number;
  readonly oldest: number;
}

/** The rows of a block. Valid until the next one. */
export interface WalkedRows {
  /** Keys with their tails, one behind the other, the kept one first; each once. */
  readonly keys: Uint8Array;
  /** Where each key ends. */
  readonly ends: Int32Array;
  /** Sequence numbers of the newest and the oldest row of each. */
  readonly newest: Float64Array;
  readonly oldest: Float64Array;
  /** The highest one. */
  readonly sequenceMax: number;
  /** Keys of the first and the last row. */
  readonly first: Uint8Array;
  readonly last: Uint8Array;
  /** For the filter: of each row. */
  readonly hashes: Int32Array;
}

/** The module, and all of its memory. */
interface There {
  readonly module: WalkModule;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly doubles: Float64Array;
}

/** Made when it is needed first: most processes walk nothing. */
let made: There | undefined;

function there(): There {
  made ??= make();
  return made;
}

function make(): There {
  const memory = wasmMemory(memoryBytes);
  const { buffer } = memory;
  writeCrcTables(buffer);
  return {
    module: wasmExports(memory, walkFunctions()),
    view: new DataView(buffer),
    bytes: new Uint8Array(buffer),
    words: new Int32Array(buffer),
    doubles: new Float64Array(buffer),
  };
}

/** Where `openBlockThere` puts contents of blocks. */
export function memoryThere(): DataView {
  return there().view;
}

/**
 * The contents of the block in `bytes`, which ends with its trailer. Valid until the next one. Throws RangeError when the
 * checksum does not hold, or for what is no block.
 */
export function openBlockThere(bytes: Uint8Array): Uint8Array {
  const sizeBytes = bytes.length - trailerBytes;
  if (sizeBytes < 0) throw new RangeError('has a block without a checksum');
  if (sizeBytes > blockBytesMax) throw new RangeError(`has a block of ${sizeBytes} bytes`);
  const { module, bytes: memory } = there();
  memory.set(bytes, place.block);
  const plainBytes = module.open(sizeBytes);
  if (plainBytes === unopened.checksum) throw new RangeError('has a block that does not match its checksum');
  if (plainBytes === unopened.compression)
    throw new RangeError(`has a block of unknown compression ${bytes[sizeBytes]}`);
  if (plainBytes < 0) throw new RangeError('has a block that does not decompress');
  return memory.subarray(place.plain, place.plain + plainBytes);
}

/** The rows in `plain`, the contents of a block. Throws RangeError for what LevelDB would not have written. */
export function walkRows(plain: Uint8Array, kept: KeptRow | undefined): WalkedRows {
  if (plain.length > blockBytesMax) throw new RangeError(`has a block of ${plain.length} bytes`);
  const { module, bytes, words, doubles } = there();
  const isThere = plain.buffer === bytes.buffer && plain.byteOffset === place.plain;
  if (!isThere) bytes.set(plain, place.plain);
  if (kept !== undefined) put(there(), kept);
  const refusal = module.walk(plain.length, kept === undefined ? 0 : 1);
  if (refusal !== 0) throw new RangeError(reasonOf(refusal));
  const [words0, doubles0] = [place.ends / 4, place.newest / 8];
  const wordOf = (name: keyof typeof said): number => words[(place.said + said[name]) / 4] ?? 0;
  const count = wordOf('count');
  const keysEnd = words[words0 + count - 1] ?? 0;
  return {
    keys: bytes.subarray(place.keys, place.keys + keysEnd),
    ends: words.subarray(words0, words0 + count),
    newest: doubles.subarray(doubles0, doubles0 + count),
    oldest: doubles.subarray(place.oldest / 8, place.oldest / 8 + count),
    sequenceMax: doubles[(place.said + said.sequence) / 8] ?? 0,
    first: bytes.subarray(place.first, place.first + wordOf('firstBytes')),
    last: bytes.subarray(wordOf('lastFrom'), wordOf('lastTo')),
    hashes: words.subarray(place.hashes / 4, place.hashes / 4 + wordOf('rows')),
  };
}

/** LevelDB's filter of the keys that have these hashes (util/bloom.cc), in memory of its own. */
export function filterOf(hashes: Int32Array): Uint8Array {
  const bytesCount = Math.ceil(Math.max(64, hashes.length * filterBitsPerKey) / 8);
  const { module, bytes, words } = there();
  bytes.fill(0, place.filter, place.filter + bytesCount);
  words.set(hashes, place.filterHashes / 4);
  module.filter(hashes.length, 8 * bytesCount);
  const filter = bytes.slice(place.filter, place.filter + bytesCount + 1);
  filter[bytesCount] = filterProbes;
  return filter;
}

function put({ bytes, words, doubles }: There, { key, newest, oldest }: KeptRow): void {
  bytes.set(key, place.keys);
  words[place.ends / 4] = key.length;
  doubles[place.newest / 8] = newest;
  doubles[place.oldest / 8] = oldest;
}

function reasonOf(refusal: number): string {
  const found = Object.values(refusals).find(([number]) => number === refusal);
  return found?.[1] ?? 'is refused';
}
