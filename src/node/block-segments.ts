// Small blocks: appended to segment files, many with one flush.
//
//   segments/00000007.seg   frame frame frame …
//   frame = "HFb1" | size u32 | key 33 B | 3 zero bytes | check 8 B | payload
//
// The check covers the head, the segment number and the offset, so a frame is valid only where it was
// written; the payload is covered by its own digest, which is the key. After a torn or flipped frame the
// scan looks for the next magic with a valid check: one damaged frame costs one block. A segment is
// appended to by one process only: the next one begins a new file, so a torn tail is never built upon.

import { type FileHandle, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { asBuffer, sameBytes } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';
import { blockBytesMax } from '../core/limits.ts';
import { syncDirectory, systemCode } from './block-disk.ts';
import { readFully } from './block-files.ts';
import { type BlockKey, blockKeyBytes } from './block-key.ts';

const magic = Buffer.from('HFb1');
const checkOffset = 44;
export const frameHeadBytes = 52;
/** Segments kept open for reading; each is one file handle. */
const handlesMax = 64;
/** One read of a scan. */
const scanBytes = 4 * blockBytesMax;

export interface FrameRecord {
  readonly key: BlockKey;
  readonly bytes: Uint8Array;
}

export interface FramePlace {
  readonly segment: number;
  readonly offset: number;
}

export interface ScannedFrame extends FrameRecord, FramePlace {
  /** Offset after the frame. */
  readonly end: number;
}

export class Segments {
  readonly #dir: string;
  readonly #segmentBytes: number;
  readonly #handles = new Map<number, FileHandle>();
  /** Length of every segment: durable bytes of ours, file size of earlier ones. */
  readonly sizes = new Map<number, number>();
  #active: { readonly id: number; readonly file: FileHandle; length: number } | undefined;
  #nextId = 1;

  constructor(dir: string, segmentBytes: number) {
    this.#dir = dir;
    this.#segmentBytes = segmentBytes;
  }

  /** Learns which segments there are. `afterId`: the highest number ever used, as far as the index knows. */
  async open(afterId: number): Promise<void> {
    this.sizes.clear();
    for (const name of (await readdir(this.#dir)).sort()) {
      const id = /^(\d{8})\.seg$/.exec(name)?.[1];
      if (id !== undefined) this.sizes.set(Number(id), (await stat(join(this.#dir, name))).size);
    }
    this.#nextId = Math.max(this.#nextId, afterId + 1, ...[...this.sizes.keys()].map((id) => id + 1));
  }

  /** The segment being written, undefined when the next append begins one. */
  get activeId(): number | undefined {
    return this.#active?.id;
  }

  /**
   * Writes `records` with one write and one flush; durable when it resolves. One call at a time. After a
   * failure the segment is given up: what a failed flush left in it nobody can know.
   */
  async append(records: readonly FrameRecord[]): Promise<FramePlace[]> {
    const active = await this.#writable();
    const places: FramePlace[] = [];
    const parts: Uint8Array[] = [];
    let offset = active.length;
    for (const { key, bytes } of records) {
      places.push({ segment: active.id, offset });
      parts.push(frameHead(key, bytes.length, active.id, offset), bytes);
      offset += frameHeadBytes + bytes.length;
    }
    try {
      await writeAll(active.file, Buffer.concat(parts), active.length);
      await active.file.datasync();
    } catch (error) {
      await this.giveUp();
      throw error;
    }
    active.length = offset;
    this.sizes.set(active.id, offset);
    return places;
  }

  /** Stops appending to the current segment and cuts off what was not acknowledged, if the disk lets us. */
  async giveUp(): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    this.#active = undefined;
    await active.file.truncate(active.length).catch(() => undefined); // unacknowledged bytes may stay: harmless
    await active.file.close().catch(() => undefined);
  }

  /** Head and payload as they are on the disk, fewer bytes at the end of the file. */
  async read(place: FramePlace, sizeBytes: number): Promise<{ head: Uint8Array; payload: Uint8Array }> {
    const bytes = await this.#readOpen(place, frameHeadBytes + sizeBytes);
    return { head: bytes.subarray(0, frameHeadBytes), payload: bytes.subarray(frameHeadBytes) };
  }

  /** A handle may be closed for want of room between getting and using it: then it is got again. */
  async #readOpen({ segment, offset }: FramePlace, sizeBytes: number, attemptsLeft = 3): Promise<Uint8Array> {
    const file = await this.#readable(segment);
    try {
      return await readFully(file, offset, sizeBytes);
    } catch (error) {
      if (systemCode(error) !== 'EBADF' || attemptsLeft === 0) throw error;
      if (this.#handles.get(segment) === file) this.#handles.delete(segment);
      return this.#readOpen({ segment, offset }, sizeBytes, attemptsLeft - 1);
    }
  }

  /** Every frame from `offset` on whose head is valid; the caller checks payloads against their keys. */
  async *scan(segment: number, offset: number): AsyncGenerator<ScannedFrame, void, undefined> {
    await using file = await open(this.#path(segment), 'r');
    const { size } = await file.stat();
    let base = offset;
    let window: Uint8Array = new Uint8Array(0);
    let at = 0; // inside the window
    while (base + at < size) {
      if (window.length - at < frameHeadBytes + blockBytesMax && base + window.length < size) {
        base += at;
        at = 0;
        window = await readFully(file, base, scanBytes);
      }
      const found = parseFrame(window, at, segment, base);
      if (found === undefined) {
        const next = asBuffer(window).indexOf(magic, at + 1);
        at = next === -1 ? Math.max(window.length - magic.length + 1, at + 1) : next;
        continue;
      }
      yield found;
      at = found.end - base;
    }
  }

  /** Removes a segment that nothing refers to. */
  async remove(segment: number): Promise<void> {
    const handle = this.#handles.get(segment);
    this.#handles.delete(segment);
    this.sizes.delete(segment);
    await handle?.close();
    await rm(this.#path(segment), { force: true });
    await syncDirectory(this.#dir);
  }

  async close(): Promise<void> {
    await this.giveUp();
    for (const handle of this.#handles.values()) await handle.close();
    this.#handles.clear();
  }

  async #writable(): Promise<{ readonly id: number; readonly file: FileHandle; length: number }> {
    if (this.#active !== undefined && this.#active.length < this.#segmentBytes) return this.#active;
    if (this.#active !== undefined) {
      await this.#active.file.close();
      this.#active = undefined;
    }
    const id = this.#nextId++;
    const file = await open(this.#path(id), 'wx', 0o600);
    try {
      await syncDirectory(this.#dir);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.sizes.set(id, 0);
    this.#active = { id, file, length: 0 };
    return this.#active;
  }

  async #readable(segment: number): Promise<FileHandle> {
    const known = this.#handles.get(segment);
    if (known !== undefined) return known;
    const opened = await open(this.#path(segment), 'r');
    const raced = this.#handles.get(segment);
    if (raced !== undefined) {
      await opened.close();
      return raced;
    }
    this.#handles.set(segment, opened);
    const [oldest] = this.#handles;
    if (this.#handles.size > handlesMax && oldest !== undefined) {
      this.#handles.delete(oldest[0]);
      await oldest[1].close(); // waits for its reads
    }
    return opened;
  }

  #path(segment: number): string {
    return join(this.#dir, `${String(segment).padStart(8, '0')}.seg`);
  }
}

/** True when `head` is what was written for `key` at this very place. */
export function isFrameHead(head: Uint8Array, key: BlockKey, sizeBytes: number, place: FramePlace): boolean {
  return sameBytes(head, frameHead(key, sizeBytes, place.segment, place.offset));
}

function frameHead(key: BlockKey, sizeBytes: number, segment: number, offset: number): Uint8Array {
  const head = new Uint8Array(frameHeadBytes);
  head.set(magic);
  new DataView(head.buffer).setUint32(4, sizeBytes);
  head.set(key, 8);
  head.set(headCheck(head, segment, offset), checkOffset);
  return head;
}

function headCheck(head: Uint8Array, segment: number, offset: number): Uint8Array {
  const input = new Uint8Array(checkOffset + 8);
  input.set(head.subarray(0, checkOffset));
  const view = new DataView(input.buffer);
  view.setUint32(checkOffset, segment);
  view.setUint32(checkOffset + 4, offset);
  return sha256(input).subarray(0, frameHeadBytes - checkOffset);
}

function parseFrame(window: Uint8Array, at: number, segment: number, base: number): ScannedFrame | undefined {
  const head = window.subarray(at, at + frameHeadBytes);
  if (head.length < frameHeadBytes || !sameBytes(head.subarray(0, magic.length), magic)) return undefined;
  if (!sameBytes(head.subarray(checkOffset), headCheck(head, segment, base + at))) return undefined;
  const sizeBytes = new DataView(head.buffer, head.byteOffset).getUint32(4);
  const bytes = window.subarray(at + frameHeadBytes, at + frameHeadBytes + sizeBytes);
  if (bytes.length < sizeBytes) return undefined; // torn
  const end = base + at + frameHeadBytes + sizeBytes;
  return { key: head.slice(8, 8 + blockKeyBytes), bytes, segment, offset: base + at, end };
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    written += (await file.write(bytes, written, bytes.length - written, position + written)).bytesWritten;
  }
}
