// The high-water mark: the last revision that a log acknowledged, in a small file beside its LevelDB.
//
// A flipped bit in LevelDB's own write-ahead log makes it drop the rest of that log at the next open, silently.
// The mark remembers how far the log had come. It is written after the records are synced and is not synced
// itself: after a power cut it may be behind, which is harmless, and it is never ahead. Two slots are written in
// turn, so that a torn write leaves the other.

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { asBuffer, concat, sameBytes, uint64 } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';
import type { LogPosition } from './log.ts';

const slotBytes = 56; // revision 8, chain 32, checksum 16
const slots = 2;

export class HighWaterMark implements Disposable {
  readonly #file: number;

  /** Opens or creates the file. */
  constructor(path: string) {
    closeSync(openSync(path, 'a', 0o600));
    this.#file = openSync(path, 'r+');
  }

  /** The newest intact slot; undefined when there is none. */
  read(): LogPosition | undefined {
    let newest: LogPosition | undefined;
    for (let slot = 0; slot < slots; slot++) {
      const found = this.#readSlot(slot);
      if (found !== undefined && found.revision > (newest?.revision ?? 0)) newest = found;
    }
    return newest;
  }

  /** Takes a few microseconds: the page cache gets it, the disk later. */
  write({ revision, chain }: LogPosition): void {
    const body = concat(uint64(revision), chain);
    const bytes = concat(body, sha256(body).subarray(0, 16));
    writeSync(this.#file, bytes, 0, slotBytes, (revision % slots) * slotBytes);
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }

  #readSlot(slot: number): LogPosition | undefined {
    const bytes = new Uint8Array(slotBytes);
    if (readSync(this.#file, bytes, 0, slotBytes, slot * slotBytes) !== slotBytes) return undefined;
    const body = bytes.subarray(0, 40);
    if (!sameBytes(bytes.subarray(40), sha256(body).subarray(0, 16))) return undefined;
    return { revision: Number(asBuffer(body).readBigUInt64BE(0)), chain: body.slice(8) };
  }
}
