// Files that are there completely or not at all: temporary name, sync, rename or link, sync of the directory.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type FileHandle, link, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type ErrorCode, HoldfastError } from '../core/errors.ts';

type Content = string | Uint8Array | AsyncIterable<Uint8Array>;

/**
 * Replaces `path` by `content` in one step; on disk when it returns.
 * Throws FILE_UNREADABLE, DISK_FULL, FILE_NOT_FOUND without its directory, and what `content` throws.
 */
export async function writeWhole(path: string, content: Content, mode: number): Promise<void> {
  await putInPlace(path, content, mode, rename);
}

/**
 * As `writeWhole`, but only where nothing is: a link, unlike a rename, never replaces what somebody made in the
 * meantime. Throws FILE_EXISTS as well.
 */
export async function createWhole(path: string, content: Content, mode: number): Promise<void> {
  await putInPlace(path, content, mode, link);
}

/** The text of `path`, `undefined` when there is no such file. Throws FILE_UNREADABLE. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw fileError(path, 'cannot be read', cause);
  }
}

/**
 * The same of a file of a few kilobytes that is read again and again: opened, read and closed on this thread, which takes
 * a tenth of the processor time that it takes to have that done by another.
 */
export function readSmallIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw fileError(path, 'cannot be read', cause);
  }
}

/** Whether anything has this name. Throws FILE_UNREADABLE when that cannot be told. */
export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return false;
    throw fileError(path, 'cannot be looked at', cause);
  }
}

/** Makes `path` and its parents, for its owner only. Throws FILE_UNREADABLE, DISK_FULL. */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await syncDirectory(dirname(path));
  } catch (cause) {
    throw fileError(path, 'cannot be created', cause);
  }
}

/** Makes names created, renamed or removed in `path` survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r');
  await directory.sync();
}

/** The `code` of an error of the operating system, for example ENOENT. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** FILE_NOT_FOUND, DISK_FULL or FILE_UNREADABLE, by what the operating system says. */
export function fileError(path: string, what: string, cause: unknown): HoldfastError {
  const errno = errnoOf(cause) ?? 'unknown error';
  const code = codeOf(errno);
  const message = code === 'FILE_NOT_FOUND' ? `${path} does not exist` : `${path} ${what} (${errno})`;
  return new HoldfastError(code, message, { details: { path }, cause });
}

function codeOf(errno: string): ErrorCode {
  if (errno === 'ENOENT') return 'FILE_NOT_FOUND';
  if (errno === 'EEXIST') return 'FILE_EXISTS';
  return errno === 'ENOSPC' || errno === 'EDQUOT' ? 'DISK_FULL' : 'FILE_UNREADABLE';
}

async function putInPlace(
  path: string,
  content: Content,
  mode: number,
  put: (temporary: string, path: string) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.new`;
  const file = await open(temporary, 'wx', mode).catch((cause: unknown) => {
    throw fileError(path, 'cannot be written', cause);
  });
  try {
    await writeSynced(file, content, path);
    await put(temporary, path).catch((cause: unknown) => {
      throw fileError(path, 'cannot be written', cause);
    });
    await syncDirectory(dirname(resolve(path))).catch((cause: unknown) => {
      throw fileError(path, 'cannot be synced', cause);
    });
  } finally {
    await rm(temporary, { force: true });
  }
}

async function writeSynced(file: FileHandle, content: Content, path: string): Promise<void> {
  try {
    for await (const bytes of chunksOf(content)) await written(file, bytes, path);
    await file.sync().catch((cause: unknown) => {
      throw fileError(path, 'cannot be synced', cause);
    });
  } finally {
    await file.close();
  }
}

function chunksOf(content: Content): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (typeof content === 'string') return [Buffer.from(content)];
  return content instanceof Uint8Array ? [content] : content;
}

/** `write` may take less than it was given. */
async function written(file: FileHandle, bytes: Uint8Array, path: string): Promise<void> {
  try {
    for (let offset = 0; offset < bytes.length; )
      offset += (await file.write(bytes, offset, bytes.length - offset)).bytesWritten;
  } catch (cause) {
    throw fileError(path, 'cannot be written', cause);
  }
}
