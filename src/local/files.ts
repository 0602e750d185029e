// Files that are there completely or not at all: temporary name, sync, rename, sync of the directory.

import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HoldfastError } from '../core/errors.ts';

/** Replaces `path` by `content` in one step; on disk when it returns. Throws FILE_UNREADABLE or DISK_FULL. */
export async function writeWhole(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.new`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true });
    throw fileError(path, 'cannot be written', cause);
  }
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

/** Makes `path` and its parents, for its owner only. Throws FILE_UNREADABLE. */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await syncDirectory(dirname(path));
  } catch (cause) {
    throw fileError(path, 'cannot be created', cause);
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** The `code` of an error of the operating system, for example ENOENT. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

export function fileError(path: string, what: string, cause: unknown): HoldfastError {
  const full = errnoOf(cause) === 'ENOSPC';
  return new HoldfastError(full ? 'DISK_FULL' : 'FILE_UNREADABLE', `${path} ${what}`, {
    details: { path },
    cause,
  });
}
