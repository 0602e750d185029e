// All rows of a view, for one elsewhere that begins with nothing: copying rows takes a fraction of folding entries.
//
// A page is rows in a row, as they are stored: length of the key u32, length of the value u32, key, value with its
// checksum in front. They come in key order, out of one moment, so LevelDB has nothing to sort at the other end.
//
// Whoever takes them believes none of it: where they end must be in the log, every entry in them is opened before
// anybody is told of it (late.ts), and in the end all entries are folded again beside them and compared (copied.ts).

import { asBuffer, unfilled } from '../core/bytes.ts';
import { rpcBodyBytesMax } from '../core/limits.ts';
import type { KvRow } from './kv.ts';
import { corrupt } from './seal.ts';

/** A stored row: its key and its value with its checksum. */
export type SealedRow = readonly [key: Uint8Array, sealed: Uint8Array];

/** Besides Kv: what can give its rows away and take those of another as they are. */
export interface CopyableKv {
  /** All rows of one moment in key order, in pages. `isSent`: which of them. Throws RECORD_CORRUPT. */
  packedRows(isSent: (key: Uint8Array) => boolean): AsyncIterable<Uint8Array>;
  /**
   * Puts rows of another, which come in key order, and `own` in the place of all that are there: all of them when it
   * resolves, on the disk, and none when it throws or the process ends before. Throws RECORD_CORRUPT when they are not in
   * order, DISK_FULL or BEACON_UNAVAILABLE with `readOnly: true` when they cannot be written, and what `pages` throws.
   */
  replaceAll(pages: AsyncIterable<readonly SealedRow[]>, own: readonly KvRow[]): Promise<void>;
  /** Removes every row. */
  clear(): Promise<void>;
}

/** Large enough that a frame costs nothing beside it. One row more may follow: it is never larger than an append. */
const pageBytesMax = rpcBodyBytesMax / 4;
const headBytes = 8;

/** Puts rows into pages. */
export class PageWriter {
  #page: Uint8Array = new Uint8Array();
  #view = new DataView(this.#page.buffer);
  #end = 0;

  get isEmpty(): boolean {
    return this.#end === 0;
  }

  fits(key: Uint8Array, sealed: Uint8Array): boolean {
    return this.isEmpty || this.#end + rowBytes(key, sealed) <= pageBytesMax;
  }

  add(key: Uint8Array, sealed: Uint8Array): void {
    if (this.isEmpty) this.#begin(Math.max(pageBytesMax, rowBytes(key, sealed)));
    this.#view.setUint32(this.#end, key.length);
    this.#view.setUint32(this.#end + 4, sealed.length);
    const keyAt = this.#end + headBytes;
    this.#page.set(key, keyAt);
    this.#page.set(sealed, keyAt + key.length);
    this.#end = keyAt + key.length + sealed.length;
  }

  take(): Uint8Array {
    const page = this.#page.subarray(0, this.#end);
    this.#end = 0;
    return page;
  }

  /** A page of its own, for whoever takes it may keep it. */
  #begin(sizeBytes: number): void {
    this.#page = unfilled(sizeBytes);
    this.#view = new DataView(this.#page.buffer);
  }
}

function rowBytes(key: Uint8Array, sealed: Uint8Array): number {
  return headBytes + key.length + sealed.length;
}

/** The rows of a page. Throws RECORD_CORRUPT. */
export function unpackRows(page: Uint8Array): SealedRow[] {
  const buffer = asBuffer(page);
  const rows: SealedRow[] = [];
  for (let at = 0; at < page.length; ) {
    const bodyAt = at + headBytes;
    if (bodyAt > page.length) throw corrupt('a page of rows', 'ends in the middle of a row');
    const keyEnd = bodyAt + buffer.readUInt32BE(at);
    const end = keyEnd + buffer.readUInt32BE(at + 4);
    if (end > page.length) throw corrupt('a page of rows', 'ends in the middle of a row');
    rows.push([page.subarray(bodyAt, keyEnd), page.subarray(keyEnd, end)]);
    at = end;
  }
  return rows;
}
