// Where each leaf of an audit log lies, and its hash: 40 bytes a leaf on disk, and in memory only the roots of full
// pages of 256 leaves, so that a log of a million leaves costs half a megabyte. Proofs read a page or two.
//
// It is derived from the log and never flushed: at the opening it is compared with the last checkpoint, and made
// anew when they differ.

import { writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { concat, uint64 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import {
  appendLeaf,
  emptyFrontier,
  type Frontier,
  nodeHash,
  rootOf,
  rootOfFrontier,
} from '../threshold/merkle.ts';

export interface IndexRecord {
  /** Of its frame in the log. */
  readonly offset: number;
  readonly hash: Uint8Array;
}

const recordBytes = 40;
const pageLeaves = 256;

export class AuditIndex {
  readonly #file: FileHandle;
  #frontier: Frontier = emptyFrontier;
  /** Roots of the full pages. */
  #pages: Uint8Array[] = [];
  /** Leaf hashes of the page that is not full. */
  #open: Uint8Array[] = [];
  #written: Promise<void> = Promise.resolve();

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Reads what is there. The handle stays the caller's to close. */
  static async load(file: FileHandle): Promise<AuditIndex> {
    const index = new AuditIndex(file);
    const { size } = await file.stat();
    const count = Math.floor(size / recordBytes);
    for (let from = 0; from < count; from += pageLeaves)
      for (const { hash } of await index.#read(from, Math.min(count, from + pageLeaves))) index.#note(hash);
    return index;
  }

  get size(): number {
    return this.#frontier.size;
  }

  get frontier(): Frontier {
    return this.#frontier;
  }

  /** Known at once; resolves when they are written, which reading them waits for. One call at a time. */
  append(records: readonly IndexRecord[]): Promise<void> {
    const bytes = concat(...records.map(({ offset, hash }) => concat(uint64(offset), hash)));
    const written = writeAll(this.#file, bytes, this.size * recordBytes);
    for (const { hash } of records) this.#note(hash);
    this.#written = written.catch(() => undefined); // who appends has the error
    return written;
  }

  async clear(): Promise<void> {
    await this.#file.truncate(0);
    this.#frontier = emptyFrontier;
    this.#pages = [];
    this.#open = [];
  }

  async record(index: number): Promise<IndexRecord | undefined> {
    if (index < 0 || index >= this.size) return undefined;
    return (await this.#read(index, index + 1))[0];
  }

  /** Root when the log had `size` leaves. Throws ARGUMENT_INVALID when it never had. */
  async root(size: number): Promise<Uint8Array> {
    this.#require(size);
    if (size === this.size) return rootOfFrontier(this.#frontier);
    return size === 0 ? rootOf([]) : this.#range(0, size);
  }

  /** As `MerkleTree.inclusionProof` (RFC 9162 2.1.3). Throws ARGUMENT_INVALID. */
  async inclusionProof(leaf: number, size: number): Promise<Uint8Array[]> {
    this.#require(size);
    if (!Number.isSafeInteger(leaf) || leaf < 0 || leaf >= size)
      throw new HoldfastError('ARGUMENT_INVALID', `leaf ${leaf} is not in a tree of ${size}`);
    const path: Uint8Array[] = [];
    let [from, to] = [0, size];
    while (to - from > 1) {
      const middle = from + splitOf(to - from);
      if (leaf < middle) {
        path.push(await this.#range(middle, to));
        to = middle;
      } else {
        path.push(await this.#range(from, middle));
        from = middle;
      }
    }
    return path.toReversed();
  }

  /** As `MerkleTree.consistencyProof` (RFC 9162 2.1.4). Throws ARGUMENT_INVALID. */
  async consistencyProof(older: number, size: number): Promise<Uint8Array[]> {
    this.#require(size);
    if (!Number.isSafeInteger(older) || older < 0 || older > size)
      throw new HoldfastError('ARGUMENT_INVALID', `size ${older} is not in a tree of ${size}`);
    if (older === 0 || older === size) return [];
    const path: Uint8Array[] = [];
    let [from, to] = [0, size];
    while (older !== to) {
      const middle = from + splitOf(to - from);
      if (older <= middle) {
        path.push(await this.#range(middle, to));
        to = middle;
      } else {
        path.push(await this.#range(from, middle));
        from = middle;
      }
    }
    if (from !== 0) path.push(await this.#range(from, to));
    return path.toReversed();
  }

  #note(hash: Uint8Array): void {
    this.#frontier = appendLeaf(this.#frontier, hash);
    this.#open.push(hash);
    if (this.#open.length < pageLeaves) return;
    this.#pages.push(rootOf(this.#open));
    this.#open = [];
  }

  /** Root over the leaves from…to−1, where `from` is a multiple of the smallest power of two ≥ their number. */
  async #range(from: number, to: number): Promise<Uint8Array> {
    const count = to - from;
    if (count === pageLeaves) {
      const page = this.#pages[from / pageLeaves];
      if (page !== undefined) return page;
    }
    if (count <= pageLeaves) return rootOf(await this.#hashes(from, to));
    const middle = from + splitOf(count);
    return nodeHash(await this.#range(from, middle), await this.#range(middle, to));
  }

  /** Of leaves of one page. Those of the open one are in memory. */
  async #hashes(from: number, to: number): Promise<readonly Uint8Array[]> {
    const open = this.#pages.length * pageLeaves;
    if (from >= open) return this.#open.slice(from - open, to - open);
    return (await this.#read(from, to)).map(({ hash }) => hash);
  }

  async #read(from: number, to: number): Promise<IndexRecord[]> {
    await this.#written;
    const bytes = Buffer.alloc((to - from) * recordBytes);
    const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, from * recordBytes);
    if (bytesRead < bytes.length)
      throw new HoldfastError(
        'DATA_DIR_DAMAGED',
        'the index of the audit log lost records; start again to rebuild it',
      );
    return Array.from({ length: to - from }, (_, at) => ({
      offset: Number(bytes.readBigUInt64BE(at * recordBytes)),
      hash: new Uint8Array(bytes.subarray(at * recordBytes + 8, (at + 1) * recordBytes)),
    }));
  }

  #require(size: number): void {
    if (Number.isSafeInteger(size) && size >= 0 && size <= this.size) return;
    throw new HoldfastError('ARGUMENT_INVALID', `the log has ${this.size} leaves, not ${size}`);
  }
}

/** Writes all of `bytes` at `position`: into the memory of the system, on this thread; a flush is another matter. */
export async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0;
  while (written < bytes.length)
    written += writeSync(file.fd, bytes, written, bytes.length - written, position + written);
}

/** The largest power of two smaller than `size` (≥ 2). */
function splitOf(size: number): number {
  let split = 1;
  while (split * 2 < size) split *= 2;
  return split;
}
