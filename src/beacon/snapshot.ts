// All rows of a view, for one elsewhere that begins with nothing: copying rows takes a fraction of folding entries.
//
// They travel as they lie on the disk of whoever gives them: the data blocks of LevelDB's tables, compressed and with
// their checksums, out of one moment. Tables that do not overlap are one run; LevelDB keeps several, and what a newer one
// says of a key holds. Blocks come in the order of their first keys, whatever run they are of, so that whoever takes them
// sees all rows of all runs in key order with one block of each in hand (level-sweep.ts).
//
//   form 1 B = 2 │ runs 1 B, the newest first │ level of each 1 B │ blocks …
//   block:  run 1 B │ bytes u32 │ the block │ compression 1 B │ CRC-32C 4 B
//
// This is cut into pages anywhere. Whoever takes it believes none of it: every byte of a block is walked before it is
// written down (level-rows.ts), where the rows end must be in the log, every entry in them is opened before anybody is
// told of it (late.ts), and in the end all entries are folded again beside them and compared (copied.ts).

import { concat, readUint32, unfilled, writeUint32 } from '../core/bytes.ts';
import { appendBytesMax, segmentBytes } from '../core/limits.ts';
import { Slabs } from '../core/slabs.ts';
import type { KvChanges } from './kv.ts';
import { corrupt } from './seal.ts';

/** What one asks for who wants to take rows in this form. */
export const snapshotForm = 2;
/** LevelDB has 7 levels, stops writing at 12 tables in the first one, and each of those is a run. */
export const runsMax = 64;
/** A block of LevelDB's ends behind the row that makes it 4 KiB long; a row holds an append at most. */
export const blockBytesMax = appendBytesMax + 128 * 1024;
const levelsCount = 7;

/** Besides Kv: what can give its rows away and take those of another as they are. */
export interface CopyableKv {
  /** All rows of one moment, in pages. Throws RECORD_CORRUPT; NOT_FOUND where they cannot be given. */
  pages(): AsyncIterable<Uint8Array>;
  /**
   * Puts the rows in `pages` of another, which are given away, in the place of all that are there, and `own` over them:
   * all of it when it resolves, on the disk, and nothing when it throws or the process ends before. Throws RECORD_CORRUPT
   * for what is not in the form above, DISK_FULL or BEACON_UNAVAILABLE with `readOnly: true` when it cannot be written,
   * and what `pages` throws.
   */
  replaceAll(pages: AsyncIterable<Uint8Array>, own: KvChanges): Promise<void>;
  /** Removes every row. */
  clear(): Promise<void>;
}

/** A block with its trailer, and which run it is of. */
export interface GivenBlock {
  readonly run: number;
  readonly bytes: Uint8Array;
}

/** Large enough that a frame costs nothing beside it. */
const pageBytes = segmentBytes;
const headBytes = 5;

/** On their way from a connection to the thread that walks them: an RPC window, and what waits for that thread. */
const pagesKept = 12;
/** Memory for pages that come. Whoever has walked one gives it back. */
export const pageSlabs = new Slabs(pagesKept, (sizeBytes) => new SharedArrayBuffer(sizeBytes));

/** Puts blocks into pages. */
export class PageWriter {
  readonly #head = new Uint8Array(headBytes);
  #page = unfilled(pageBytes);
  #end = 0;

  /** `levels`: of each run, the newest first. */
  constructor(levels: readonly number[]) {
    const head = Uint8Array.of(snapshotForm, levels.length, ...levels);
    this.#page.set(head);
    this.#end = head.length;
  }

  /** Pages that are full now. The block is copied. */
  add({ run, bytes }: GivenBlock): readonly Uint8Array[] {
    const head = this.#head;
    head[0] = run;
    writeUint32(head, 1, bytes.length);
    const full: Uint8Array[] = [];
    this.#put(head, full);
    this.#put(bytes, full);
    return full;
  }

  /** What is left. */
  take(): Uint8Array {
    return this.#page.subarray(0, this.#end);
  }

  #put(bytes: Uint8Array, full: Uint8Array[]): void {
    if (bytes.length <= pageBytes - this.#end) {
      this.#page.set(bytes, this.#end);
      this.#end += bytes.length;
      return;
    }
    for (let from = 0; from < bytes.length; ) {
      if (this.#end === pageBytes) {
        full.push(this.#page);
        this.#page = unfilled(pageBytes); // whoever takes a page may keep it
        this.#end = 0;
      }
      const part = bytes.subarray(from, from + pageBytes - this.#end);
      this.#page.set(part, this.#end);
      this.#end += part.length;
      from += part.length;
    }
  }
}

/** Takes blocks out of pages. What it says is `RECORD_CORRUPT` for what cannot be pages. */
export class PageReader {
  #left: Uint8Array = new Uint8Array();
  #levels: readonly number[] | undefined;

  /** Of each run, the newest first. Undefined before the first page. */
  get levels(): readonly number[] | undefined {
    return this.#levels;
  }

  /** The blocks that are whole with this page. They are valid as long as it is. */
  add(page: Uint8Array): GivenBlock[] {
    const blocks: GivenBlock[] = [];
    let rest = page;
    while (rest.length > 0) {
      // What a page before left: so many bytes as are needed to see how long it is, and then to have all of it.
      const isLeft = this.#left.length > 0;
      const part = isLeft ? rest.subarray(0, this.#sizeAt(this.#left, 0) - this.#left.length) : rest;
      const bytes = isLeft ? concat(this.#left, part) : rest;
      rest = isLeft ? rest.subarray(part.length) : rest.subarray(rest.length);
      // Copied: the page may be used again. Of a Buffer `slice` would be the same memory.
      this.#left = new Uint8Array(bytes.subarray(this.#takeFrom(bytes, blocks)));
    }
    return blocks;
  }

  /** There are no more pages. */
  finish(): void {
    if (this.#levels === undefined || this.#left.length > 0) throw corrupt(what, 'ends too early');
  }

  /** Takes what is whole at the beginning of `bytes`. Returns how long that is. */
  #takeFrom(bytes: Uint8Array, blocks: GivenBlock[]): number {
    for (let at = 0; ; ) {
      const end = at + this.#sizeAt(bytes, at);
      if (end > bytes.length) return at;
      if (this.#levels === undefined) this.#levels = readLevels(bytes.subarray(at, end));
      else blocks.push({ run: bytes[at] ?? 0, bytes: bytes.subarray(at + headBytes, end) });
      at = end;
    }
  }

  /** Bytes of what begins at `at`; when that is not to be seen yet, of what says so. */
  #sizeAt(bytes: Uint8Array, at: number): number {
    const left = bytes.length - at;
    if (this.#levels === undefined) return left < 2 ? 2 : 2 + runsIn(bytes);
    if (left < headBytes) return headBytes;
    const run = bytes[at] ?? 0;
    const sizeBytes = readUint32(bytes, at + 1);
    if (run >= this.#levels.length) throw corrupt(what, `has a block of run ${run}`);
    if (sizeBytes > blockBytesMax) throw corrupt(what, `has a block of ${sizeBytes} bytes`);
    return headBytes + sizeBytes;
  }
}

const what = 'a copy of rows';

function runsIn([form, count = 0]: Uint8Array): number {
  if (form !== snapshotForm) throw corrupt(what, `has the unknown form ${form}`);
  if (count > runsMax) throw corrupt(what, `has ${count} runs`);
  return count;
}

function readLevels(head: Uint8Array): readonly number[] {
  const levels = [...head.subarray(2)];
  // Of the first level each table is a run, of the others all of them are one.
  const isNext = (level: number, before = 0): boolean => level > before || (level === 0 && before === 0);
  if (!levels.every((level, index) => level < levelsCount && isNext(level, levels[index - 1])))
    throw corrupt(what, 'has levels in no order');
  return levels;
}
