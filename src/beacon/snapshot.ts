// All rows of a view, for one elsewhere that begins with nothing: copying rows takes a fraction of folding entries.
//
// A page is rows in a row, as they are stored: length of the key u32, length of the value u32, key, value with its
// checksum in front. They come in key order, out of one moment, so LevelDB has nothing to sort at the other end.
//
// Whoever takes them believes none of it: where they end must be in the log, every entry in them is opened before
// anybody is told of it (late.ts), and in the end all entries are folded again beside them and compared (copied.ts).

import { asBuffer } from '../core/bytes.ts';
import { rpcBodyBytesMax } from '../core/limits.ts';
import type { KvRow } from './kv.ts';
import { corrupt } from './seal.ts';

/** A stored row: its key and its value with its checksum. */
export type SealedRow = readonly [key: Uint8Array, sealed: Uint8Array];

/** Besides Kv: what can give its rows away and take those of another as they are. */
export interface CopyableKv {
  /** All rows of this moment in key order, some at a time. */
  sealedRows(): AsyncIterable<readonly SealedRow[]>;
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

/** Rows as they travel. `isSent`: which of them. */
export async function* packRows(
  pages: AsyncIterable<readonly SealedRow[]>,
  isSent: (key: Uint8Array) => boolean,
): AsyncGenerator<Uint8Array> {
  let rows: SealedRow[] = [];
  let sizeBytes = 0;
  for await (const page of pages)
    for (const row of page) {
      if (!isSent(row[0])) continue;
      const rowBytes = headBytes + row[0].length + row[1].length;
      if (sizeBytes > 0 && sizeBytes + rowBytes > pageBytesMax) {
        yield packed(rows, sizeBytes);
        rows = [];
        sizeBytes = 0;
      }
      rows.push(row);
      sizeBytes += rowBytes;
    }
  if (rows.length > 0) yield packed(rows, sizeBytes);
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

function packed(rows: readonly SealedRow[], sizeBytes: number): Uint8Array {
  const page = new Uint8Array(sizeBytes);
  const view = new DataView(page.buffer);
  let at = 0;
  for (const [key, sealed] of rows) {
    view.setUint32(at, key.length);
    view.setUint32(at + 4, sealed.length);
    page.set(key, at + headBytes);
    page.set(sealed, at + headBytes + key.length);
    at += headBytes + key.length + sealed.length;
  }
  return page;
}
