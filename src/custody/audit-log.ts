// The audit log of one custodian: append-only, a Merkle tree over it (RFC 6962), every batch sealed by a signed
// checkpoint in the file itself. An entry is promised when it and a checkpoint over it are on the disk: one write and
// one flush for all who ask in the same moment. Nothing is answered with a share before that.
//
// What a power cut tears is what stands after the last checkpoint, and nobody was promised that; it is cut off. A file
// that ends before a checkpoint which is known otherwise, or is damaged further back, is refused: a log that lost
// entries must not go on as if it were whole.

import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { concat, fromUtf8, sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { isMap } from '../core/shape.ts';
import { appendLeaf, leafHash, rootOfFrontier } from '../threshold/merkle.ts';
import { encodeFrame, readFrame, readFrames } from './audit-frames.ts';
import { AuditIndex, type IndexRecord, writeAll } from './audit-index.ts';
import { type AuditEntry, type AuditLeaf, encodeLeaf, leafBytesMax, parseLeaf } from './audit-leaf.ts';
import { type Checkpoint, openCheckpoint, signCheckpoint } from './checkpoint.ts';
import { codeOf, type Disk, openFolder, replaceFile } from './disk.ts';

export interface AuditLogOptions {
  /** Directory of the log. */
  readonly path: string;
  /** Name of the log and of the key that signs it: no spaces, no `+`. */
  readonly origin: string;
  readonly signer: Signer;
  /** True only before the log was ever made: an absent one is damage otherwise. */
  readonly create: boolean;
}

/** What whoever appended may rely on. */
export interface Logged {
  readonly seq: number;
  /** Signed note over the log with this entry in it. */
  readonly checkpoint: string;
}

const format = 'holdfast-audit-log';
const version = 1;
/** One write: so many entries and bytes. What is torn by a power cut is never longer. */
const batchEntriesMax = 256;
const batchBytesMax = 1024 * 1024;
const tornBytesMax = batchBytesMax + leafBytesMax + 8192;
/** Entries that wait for the disk; each holds a request open. */
const waitingMax = 1024;

interface Waiting {
  readonly entry: AuditEntry;
  readonly resolve: (logged: Logged) => void;
  readonly reject: (error: unknown) => void;
}

export class AuditLog implements AsyncDisposable {
  readonly #options: AuditLogOptions;
  readonly #folder: Disk;
  readonly #file: FileHandle;
  readonly #indexFile: FileHandle;
  readonly #index: AuditIndex;
  #end: number;
  #checkpoint: string;
  #waiting: Waiting[] = [];
  #flushing: Promise<void> | undefined;
  #failure: unknown;
  /** The index is derived from the log: nobody waits for it but the next batch. */
  #indexing: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: AuditLogOptions, parts: Opened) {
    this.#options = options;
    this.#folder = parts.folder;
    this.#file = parts.file;
    this.#indexFile = parts.indexFile;
    this.#index = parts.index;
    this.#end = parts.end;
    this.#checkpoint = parts.checkpoint;
  }

  /**
   * Opens the log, makes it when `create` says that there never was one. Reads its index, and the whole log when
   * the index does not agree with the last checkpoint.
   *
   * @throws DATA_DIR_FOREIGN (of another custodian), DATA_DIR_NEWER, DATA_DIR_DAMAGED (gone, shorter than a
   * checkpoint that was kept, or damaged before its end), FILE_UNREADABLE
   */
  static async open(options: AuditLogOptions): Promise<AuditLog> {
    await using stack = new AsyncDisposableStack();
    const folder = await openFolder(options.path);
    const file = await openFile(options, folder);
    stack.defer(() => file.close());
    const indexFile = await openIndexFile(options.path);
    stack.defer(() => indexFile.close());
    const found = await recover(options, file, indexFile, await readKept(options, folder));
    stack.move();
    return new AuditLog(options, { folder, file, indexFile, ...found });
  }

  /** Entries that are on the disk. */
  get size(): number {
    return this.#index.size;
  }

  /** Signed note over all of them. */
  get checkpoint(): string {
    return this.#checkpoint;
  }

  get origin(): string {
    return this.#options.origin;
  }

  /** Why nothing can be appended any more, when that is so. */
  get failure(): unknown {
    return this.#failure;
  }

  /**
   * Appends an entry; resolves when it and a checkpoint over it are on the disk.
   *
   * @throws RECORD_INVALID (an entry that no leaf can hold), RATE_LIMITED (too many wait), DISK_FULL (try again
   * when there is space), FILE_UNREADABLE (a flush failed: nothing is appended before the log is opened again)
   */
  append(entry: AuditEntry): Promise<Logged> {
    if (this.#failure !== undefined || this.#closed) return Promise.reject(this.#unusable());
    if (this.#waiting.length >= waitingMax)
      return Promise.reject(
        new HoldfastError('RATE_LIMITED', `${waitingMax} audit entries wait for the disk`),
      );
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entry, resolve, reject });
      this.#flushing ??= this.#flush();
    });
  }

  /** Leaves `from` … at most `count` of them, as their bytes. Throws DATA_DIR_DAMAGED when one does not read back. */
  async leaves(from: number, count: number): Promise<Uint8Array[]> {
    const first = await this.#index.record(from);
    if (first === undefined || count <= 0) return [];
    const leaves: Uint8Array[] = [];
    const wanted = Math.min(count, this.size - from);
    for await (const { type, payload } of readFrames(this.#file, first.offset)) {
      if (type === 'leaf') leaves.push(payload);
      if (leaves.length === wanted) return leaves;
    }
    throw damaged(this.#options, `leaf ${from + leaves.length} does not read back`);
  }

  /** One leaf, parsed. Undefined when there is none. */
  async leaf(seq: number): Promise<AuditLeaf | undefined> {
    const record = await this.#index.record(seq);
    if (record === undefined) return undefined;
    const frame = await readFrame(this.#file, record.offset);
    if (frame?.type === 'leaf' && sameBytes(leafHash(frame.payload), record.hash))
      return parseLeaf(frame.payload);
    throw damaged(this.#options, `leaf ${seq} does not read back`);
  }

  /** Hash path of leaf `seq` in the log of `size` leaves. Throws ARGUMENT_INVALID. */
  inclusionProof(seq: number, size: number): Promise<Uint8Array[]> {
    return this.#index.inclusionProof(seq, size);
  }

  /** Hash path that the log of `older` leaves begins that of `size`. Throws ARGUMENT_INVALID. */
  consistencyProof(older: number, size: number): Promise<Uint8Array[]> {
    return this.#index.consistencyProof(older, size);
  }

  root(size: number): Promise<Uint8Array> {
    return this.#index.root(size);
  }

  /** Keeps `note`, cosigned or not, as what the log has reached: a file shorter than that is refused at the next opening. */
  async keepCheckpoint(note: string = this.#checkpoint): Promise<void> {
    openCheckpoint(note, this.#key());
    await replaceFile(this.#folder, keptName, utf8(note));
  }

  /** Waits for what is being written, and closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#flushing;
    await this.#indexing;
    await this.#file.close();
    await this.#indexFile.close();
  }

  async #flush(): Promise<void> {
    // Those who ask in the same moment share a flush.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      const batch = new Batch(this.#options, this.#index, this.#end);
      while (batch.hasRoom() && this.#waiting.length > 0) {
        const next = this.#waiting.shift();
        if (next !== undefined) batch.add(next);
      }
      await this.#write(batch);
    }
    this.#flushing = undefined;
  }

  /** Never rejects: each entry has its outcome. */
  async #write(batch: Batch): Promise<void> {
    await this.#indexing;
    if (this.#failure !== undefined) return batch.fail(this.#unusable());
    if (batch.records.length === 0) return;
    const { bytes, checkpoint } = batch.sealed();
    try {
      await writeAll(this.#file, bytes, this.#end);
    } catch (cause) {
      return batch.fail(await this.#takeBack(cause));
    }
    try {
      await this.#file.datasync();
    } catch (cause) {
      this.#failure = cause; // what the disk holds now is not known before it is read again
      return batch.fail(this.#unusable());
    }
    this.#end += bytes.length;
    this.#indexing = this.#index.append(batch.records).catch((cause: unknown) => {
      this.#failure = cause;
    });
    this.#checkpoint = checkpoint;
    batch.done(checkpoint);
  }

  /** A full disk took a part of the batch: nothing was flushed, so it can be cut off again. */
  async #takeBack(cause: unknown): Promise<HoldfastError> {
    try {
      await this.#file.truncate(this.#end);
    } catch (error) {
      this.#failure = error;
      return this.#unusable();
    }
    const full = codeOf(cause) === 'ENOSPC' || codeOf(cause) === 'EDQUOT';
    return new HoldfastError(
      full ? 'DISK_FULL' : 'FILE_UNREADABLE',
      `${this.#options.path}: the audit log cannot be written`,
      { cause },
    );
  }

  #unusable(): HoldfastError {
    return new HoldfastError(
      'FILE_UNREADABLE',
      `${this.#options.path}: the audit log takes no more entries`,
      {
        cause: this.#failure,
      },
    );
  }

  #key() {
    return keyOf(this.#options);
  }
}

/** Entries on their way to the disk together. */
class Batch {
  readonly records: IndexRecord[] = [];
  readonly #options: AuditLogOptions;
  readonly #waiting: Waiting[] = [];
  readonly #frames: Uint8Array[] = [];
  readonly #first: number;
  #frontier;
  #offset: number;
  #bytes = 0;

  constructor(options: AuditLogOptions, { frontier }: AuditIndex, offset: number) {
    this.#options = options;
    this.#frontier = frontier;
    this.#first = frontier.size;
    this.#offset = offset;
  }

  hasRoom(): boolean {
    return this.records.length < batchEntriesMax && this.#bytes < batchBytesMax - leafBytesMax;
  }

  /** Takes it in, or tells it why not. */
  add(waiting: Waiting): void {
    let leaf: Uint8Array;
    try {
      const { origin: custodian } = this.#options;
      leaf = encodeLeaf({ v: 1, seq: this.#frontier.size, custodian, ...waiting.entry });
      if (leaf.length > leafBytesMax)
        throw new HoldfastError('RECORD_INVALID', `an audit entry of ${leaf.length} bytes`);
    } catch (error) {
      waiting.reject(error);
      return;
    }
    const frame = encodeFrame('leaf', leaf);
    const hash = leafHash(leaf);
    this.records.push({ offset: this.#offset, hash });
    this.#frontier = appendLeaf(this.#frontier, hash);
    this.#frames.push(frame);
    this.#waiting.push(waiting);
    this.#offset += frame.length;
    this.#bytes += frame.length;
  }

  sealed(): { readonly bytes: Uint8Array; readonly checkpoint: string } {
    const { origin, signer } = this.#options;
    const { size } = this.#frontier;
    const checkpoint = signCheckpoint({ origin, size, root: rootOfFrontier(this.#frontier) }, signer);
    return { bytes: concat(...this.#frames, encodeFrame('commit', utf8(checkpoint))), checkpoint };
  }

  done(checkpoint: string): void {
    for (const [at, { resolve }] of this.#waiting.entries()) resolve({ seq: this.#first + at, checkpoint });
  }

  fail(error: unknown): void {
    for (const { reject } of this.#waiting) reject(error);
  }
}

// Opening

const logName = 'log';
const keptName = 'checkpoint';

interface Found {
  readonly index: AuditIndex;
  /** Where the next frame goes. */
  readonly end: number;
  readonly checkpoint: string;
}

interface Opened extends Found {
  readonly folder: Disk;
  readonly file: FileHandle;
  readonly indexFile: FileHandle;
}

async function openFile(options: AuditLogOptions, folder: Disk): Promise<FileHandle> {
  const path = join(options.path, logName);
  const there = (await folder.list()).includes(logName);
  if (!there && !options.create) throw damaged(options, 'it is gone');
  if (!there) {
    const { origin, signer } = options;
    const header = encodeCbor({ format, version, origin, key: signer.publicKey });
    const empty = signCheckpoint({ origin, size: 0, root: leafless }, signer);
    await replaceFile(
      folder,
      logName,
      concat(encodeFrame('header', header), encodeFrame('commit', utf8(empty))),
    );
  }
  return open(path, 'r+').catch((cause: unknown) => {
    throw new HoldfastError('FILE_UNREADABLE', `${path} cannot be opened`, { cause });
  });
}

const leafless = rootOfFrontier({ size: 0, peaks: [] });

async function openIndexFile(path: string): Promise<FileHandle> {
  const name = join(path, 'index');
  try {
    return await open(name, 'r+');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return open(name, 'w+', 0o600);
    throw new HoldfastError('FILE_UNREADABLE', `${name} cannot be opened`, { cause: error });
  }
}

/** Reads on from where the index ends, or all of it when the two do not agree; cuts off what was torn. */
async function recover(
  options: AuditLogOptions,
  file: FileHandle,
  indexFile: FileHandle,
  kept: Checkpoint | undefined,
): Promise<Found> {
  const start = await checkHeader(options, file);
  const index = await AuditIndex.load(indexFile);
  const last = await index.record(index.size - 1);
  const quick = await scan(options, file, index, last?.offset ?? start, last !== undefined);
  const found = quick ?? (await rescan(options, file, index, start, kept));
  await refuseRollback(options, index, kept);
  const { size } = await file.stat();
  if (size - found.end > tornBytesMax)
    throw damaged(options, `${size - found.end} bytes after leaf ${index.size} do not read`);
  if (size > found.end) {
    await file.truncate(found.end);
    await file.datasync();
  }
  return found;
}

/** An index is written after its leaves were flushed: one that knows more of them than the file holds is a witness. */
async function rescan(
  options: AuditLogOptions,
  file: FileHandle,
  index: AuditIndex,
  start: number,
  kept: Checkpoint | undefined,
): Promise<Found> {
  const known = Math.max(index.size, kept?.size ?? 0);
  let holds = 0;
  for await (const { type, payload } of readFrames(file, start))
    if (type === 'commit') holds = openCheckpoint(fromUtf8(payload), keyOf(options)).size;
  if (holds < known) throw damaged(options, `it ends after ${holds} entries, and had ${known} already`);
  await index.clear();
  const found = await scan(options, file, index, start, false);
  if (found === undefined) throw damaged(options, 'its entries and its checkpoints do not agree');
  return found;
}

/**
 * Follows the frames from `offset`, taking leaves into the index whenever a checkpoint confirms them. `again`: the
 * first leaf is the last one of the index. Undefined when the file and the index do not belong together.
 */
async function scan(
  options: AuditLogOptions,
  file: FileHandle,
  index: AuditIndex,
  offset: number,
  again: boolean,
): Promise<Found | undefined> {
  let found: Found | undefined;
  let pending: IndexRecord[] = [];
  let frontier = index.frontier;
  let skip = again ? (await index.record(index.size - 1))?.hash : undefined;
  for await (const { type, payload, ...place } of readFrames(file, offset)) {
    if (type === 'leaf') {
      const hash = leafHash(payload);
      if (skip !== undefined) {
        if (!sameBytes(skip, hash)) return undefined;
        skip = undefined;
        continue;
      }
      pending.push({ offset: place.offset, hash });
      frontier = appendLeaf(frontier, hash);
    }
    if (type !== 'commit') continue;
    const checkpoint = fromUtf8(payload);
    const { size, root } = openCheckpoint(checkpoint, keyOf(options));
    if (size !== frontier.size || !sameBytes(root, rootOfFrontier(frontier))) return undefined;
    for (let at = 0; at < pending.length; at += batchEntriesMax)
      await index.append(pending.slice(at, at + batchEntriesMax));
    pending = [];
    found = { index, end: place.end, checkpoint };
  }
  return found;
}

async function checkHeader(options: AuditLogOptions, file: FileHandle): Promise<number> {
  const frame = await readFrame(file, 0);
  if (frame?.type !== 'header') throw damaged(options, 'its header does not read');
  const header = decodeCbor(frame.payload, 'audit log');
  if (!isMap(header) || header['format'] !== format)
    throw new HoldfastError('DATA_DIR_FOREIGN', `${options.path} holds no audit log`);
  const { version: found, origin, key } = header;
  if (typeof found === 'number' && found > version) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${options.path} has format ${found}; this program reads up to ${version}`,
      { details: { found, known: version } },
    );
  }
  if (
    origin !== options.origin ||
    !(key instanceof Uint8Array) ||
    !sameBytes(key, options.signer.publicKey)
  ) {
    const whose = key instanceof Uint8Array ? toHex(key).slice(0, 16) : '?';
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${options.path} is the log ${String(origin)} (key ${whose}…), not ${options.origin}`,
    );
  }
  return frame.end;
}

async function readKept(options: AuditLogOptions, folder: Disk): Promise<Checkpoint | undefined> {
  const bytes = await folder.read(keptName);
  return bytes === undefined ? undefined : openCheckpoint(fromUtf8(bytes), keyOf(options));
}

/** A log that is shorter than a checkpoint of its own that was kept, or says something else there, lost entries. */
async function refuseRollback(
  options: AuditLogOptions,
  index: AuditIndex,
  kept: Checkpoint | undefined,
): Promise<void> {
  if (kept === undefined) return;
  if (kept.size > index.size)
    throw damaged(options, `it ends after ${index.size} entries, and had ${kept.size} already`);
  if (!sameBytes(kept.root, await index.root(kept.size)))
    throw damaged(options, `its first ${kept.size} entries are not those it had`);
}

function keyOf({ origin, signer }: AuditLogOptions) {
  return { name: origin, publicKey: signer.publicKey };
}

function damaged({ path }: AuditLogOptions, why: string): HoldfastError {
  return new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${path}: the audit log is damaged (${why}); restore it from a backup: it is not continued with a gap`,
    { details: { path } },
  );
}
