// A log in one file, and back: backup, move, and re-seeding a lost log from a view.
//
//   "holdfast beacon log 1\n"
//   per entry:  length of the payload (4 bytes) ‖ chain (32) ‖ payload
//   at the end: ff ff ff ff ‖ revision (8) ‖ chain (32)
//
// The chain is the checksum: each entry is checked against all before it, so a truncated or altered file is known
// at the first byte that is wrong. Both directions can be interrupted and run again: an export goes on behind the
// last whole entry in the file, an import behind the head of its target.

import { open, type FileHandle } from 'node:fs/promises';
import { asBuffer, concat, sameBytes, uint32, uint64, utf8 } from '../core/bytes.ts';
import { mapInOrder } from '../core/concurrency.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { appendBytesMax } from '../core/limits.ts';
import { isErrnoException } from './errno.ts';
import {
  type BeaconLog,
  decodeEntry,
  emptyPosition,
  type LogEntry,
  type LogPosition,
  nextChain,
} from './log.ts';
import { corrupt } from './seal.ts';

export interface TransferOptions {
  /** Called now and then with the revision reached. */
  readonly onProgress?: (revision: number) => void;
  readonly signal?: AbortSignal;
}

export interface TransferReport {
  /** Entries written now. */
  readonly entries: number;
  /** Where file and log stand now. */
  readonly position: LogPosition;
}

/**
 * Writes all entries that `read` gives to `path`; a log's or a view's `read` will do. A file that holds the
 * beginning of the same history is continued, another one refused.
 * Throws VERSION_CONFLICT for a file of another history, FILE_UNREADABLE, and what `read` throws.
 */
export async function exportLog(
  read: (from: number) => AsyncIterable<LogEntry>,
  path: string,
  options: TransferOptions = {},
): Promise<TransferReport> {
  await using file = await openFile(path, true);
  const end = await wholeEntries(file, path);
  await checkSameHistory(read, end.position, path);
  await file.truncate(end.offset);
  const writer = new FileWriter(file, end.offset);
  if (end.offset === 0) await writer.write(magic);
  let position = end.position;
  let entries = 0;
  for await (const entry of read(position.revision + 1)) {
    options.signal?.throwIfAborted();
    await writer.write(concat(uint32(entry.payload.length), entry.chain, entry.payload));
    position = { revision: entry.revision, chain: entry.chain };
    if (++entries % 1000 === 0) options.onProgress?.(position.revision);
  }
  await writer.write(concat(endMark, uint64(position.revision), position.chain));
  await writer.flush();
  await file.sync();
  return { entries, position };
}

/**
 * Appends the entries of the file at `path` to `log`, which must be empty or hold the beginning of the same
 * history. The whole file is checked while it is read; nothing after a damaged byte is taken.
 * Throws VERSION_CONFLICT for a log of another history, RECORD_CORRUPT, UPLOAD_TRUNCATED, FILE_NOT_FOUND.
 */
export async function importLog(
  path: string,
  log: BeaconLog,
  options: TransferOptions = {},
): Promise<TransferReport> {
  await using file = await openFile(path, false);
  const head = await log.head();
  return await appendEntries(missingFrom(readEntries(file, path), head), log, options);
}

/**
 * Appends `entries`, which begin right behind the head of `log`, as they are.
 * Throws VERSION_CONFLICT when the log makes others of them: somebody else appends to it.
 */
export async function appendEntries(
  entries: AsyncIterable<LogEntry>,
  log: BeaconLog,
  options: TransferOptions = {},
): Promise<TransferReport> {
  let position: LogPosition = await log.head();
  const appended = mapInOrder(entries, appendsUnderWay, async (entry) => {
    options.signal?.throwIfAborted();
    const made = await log.append(entry);
    if (made.revision !== entry.revision || !sameBytes(made.chain, entry.chain)) {
      throw foreign(`the log took entry ${entry.revision} as ${made.revision}: somebody else appends to it`);
    }
    return { revision: made.revision, chain: made.chain };
  });
  let count = 0;
  for await (const reached of appended) {
    position = reached;
    if (++count % 1000 === 0) options.onProgress?.(position.revision);
  }
  return { entries: count, position };
}

/** The entries of the file at `path`, each checked. Throws RECORD_CORRUPT, UPLOAD_TRUNCATED, FILE_NOT_FOUND. */
export async function* readLogFile(path: string, signal?: AbortSignal): AsyncGenerator<LogEntry> {
  await using file = await openFile(path, false);
  for await (const entry of readEntries(file, path)) {
    signal?.throwIfAborted();
    yield entry;
  }
}

const magic = utf8('holdfast beacon log 1\n');
const endMark = uint32(0xffffffff);
const frameHeadBytes = 36;
const endBytes = 44;
const appendsUnderWay = 64;

/** Entries that `head` lacks, once the file has shown that it holds what `head` has. */
async function* missingFrom(entries: AsyncIterable<LogEntry>, head: LogPosition): AsyncGenerator<LogEntry> {
  let last: LogPosition = emptyPosition;
  for await (const entry of entries) {
    last = entry;
    if (entry.revision === head.revision && !sameBytes(entry.chain, head.chain)) {
      throw foreign(`the log holds another history at revision ${head.revision}`);
    }
    if (entry.revision > head.revision) yield entry;
  }
  if (last.revision < head.revision)
    throw foreign(`the log is ahead of the file: ${head.revision} > ${last.revision}`);
}

/** Every entry, its chain checked, and the end mark. */
async function* readEntries(file: FileHandle, path: string): AsyncGenerator<LogEntry> {
  const reader = new FileReader(file, path);
  if (!sameBytes(await reader.take(magic.length), magic)) throw corrupt(path, 'is no Beacon log');
  let before: LogPosition = emptyPosition;
  for (;;) {
    const length = asBuffer(await reader.take(4)).readUInt32BE(0);
    if (length === 0xffffffff) {
      const end = await reader.take(endBytes - 4);
      if (!sameBytes(end, concat(uint64(before.revision), before.chain)))
        throw corrupt(path, 'has a wrong end');
      return;
    }
    if (length > appendBytesMax) throw corrupt(path, `has no entry of ${length} B`);
    const chain = await reader.take(32);
    const payload = await reader.take(length);
    if (!sameBytes(chain, nextChain(before, payload)))
      throw corrupt(path, `is damaged at entry ${before.revision + 1}`);
    const entry = decodeEntry(before.revision + 1, chain, payload);
    before = entry;
    yield entry;
  }
}

/** How much of the file is whole entries, for an export to go on from. */
async function wholeEntries(
  file: FileHandle,
  path: string,
): Promise<{ readonly position: LogPosition; readonly offset: number }> {
  let offset = 0;
  let position = emptyPosition;
  try {
    for await (const entry of readEntries(file, path)) {
      offset = Math.max(offset, magic.length) + frameHeadBytes + entry.payload.length;
      position = { revision: entry.revision, chain: entry.chain };
    }
    return { position, offset: Math.max(offset, magic.length) };
  } catch (error) {
    if (isHoldfastError(error, 'UPLOAD_TRUNCATED')) return { position, offset };
    throw error;
  }
}

async function checkSameHistory(
  read: (from: number) => AsyncIterable<LogEntry>,
  { revision, chain }: LogPosition,
  path: string,
): Promise<void> {
  if (revision === 0) return;
  for await (const entry of read(revision)) {
    if (entry.revision === revision && sameBytes(entry.chain, chain)) return;
    break;
  }
  throw foreign(`${path} holds another history at revision ${revision}`);
}

async function openFile(path: string, write: boolean): Promise<FileHandle> {
  try {
    // Append mode would ignore positions; `r+` needs the file, so it is made first.
    if (write) await (await open(path, 'a', 0o600)).close();
    return await open(path, write ? 'r+' : 'r');
  } catch (cause) {
    const code = isErrnoException(cause, 'ENOENT') ? 'FILE_NOT_FOUND' : 'FILE_UNREADABLE';
    throw new HoldfastError(code, `cannot open ${path}`, { cause });
  }
}

/** Large reads behind small takes. */
class FileReader {
  readonly #file: FileHandle;
  readonly #path: string;
  #buffer: Uint8Array = new Uint8Array();
  #position = 0;

  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  async take(length: number): Promise<Uint8Array> {
    while (this.#buffer.length < length) await this.#fill();
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  async #fill(): Promise<void> {
    const chunk = new Uint8Array(ioBytes);
    const { bytesRead } = await this.#file.read(chunk, 0, ioBytes, this.#position);
    if (bytesRead === 0)
      throw new HoldfastError('UPLOAD_TRUNCATED', `${this.#path} ends before its end mark`);
    this.#position += bytesRead;
    this.#buffer = concat(this.#buffer, chunk.subarray(0, bytesRead));
  }
}

/** Small writes gathered into large ones. */
class FileWriter {
  readonly #file: FileHandle;
  #position: number;
  #parts: Uint8Array[] = [];
  #sizeBytes = 0;

  constructor(file: FileHandle, position: number) {
    this.#file = file;
    this.#position = position;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#parts.push(bytes);
    this.#sizeBytes += bytes.length;
    if (this.#sizeBytes >= ioBytes) await this.flush();
  }

  async flush(): Promise<void> {
    const bytes = concat(...this.#parts);
    for (let offset = 0; offset < bytes.length; ) {
      const { bytesWritten } = await this.#file.write(bytes, offset, bytes.length - offset, this.#position);
      offset += bytesWritten;
      this.#position += bytesWritten;
    }
    this.#parts = [];
    this.#sizeBytes = 0;
  }
}

const ioBytes = 1024 * 1024;

function foreign(message: string): HoldfastError {
  return new HoldfastError('VERSION_CONFLICT', message);
}
