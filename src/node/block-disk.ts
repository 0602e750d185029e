// Files that are still there after a power cut, and what the errors of a disk mean.

import { access, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { describeError } from '../core/errors.ts';

/** Makes names created, renamed or removed in `path` survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r');
  await directory.sync();
}

/** Replaces the file at `path` completely or not at all; on disk when it resolves. One writer at a time per path. */
export async function writeFileDurably(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  try {
    await writeSynced(temporary, bytes);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Writes a new file (or over an old one) and flushes its data. Its name is not durable yet: syncDirectory. */
export async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, 'w', 0o600);
  let written = 0;
  while (written < bytes.length) written += (await file.write(bytes, written)).bytesWritten;
  await file.datasync();
}

/** Syncs directories, one sync for all who ask while another is under way. */
export class DirectorySyncs {
  readonly #underway = new Map<string, { readonly running: Promise<void>; next?: Promise<void> }>();

  /** Resolves after a sync of `path` that began after this call. */
  async sync(path: string): Promise<void> {
    const current = this.#underway.get(path);
    if (current === undefined) return this.#start(path);
    current.next ??= current.running.then(
      () => this.#start(path),
      () => this.#start(path),
    );
    return current.next;
  }

  async #start(path: string): Promise<void> {
    const running = syncDirectory(path);
    const entry = { running };
    this.#underway.set(path, entry);
    try {
      await running;
    } finally {
      if (this.#underway.get(path) === entry) this.#underway.delete(path);
    }
  }
}

export async function isPresent(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

/** True for "no such file or directory". */
export function isAbsent(error: unknown): boolean {
  return systemCode(error) === 'ENOENT';
}

const spaceCodes = new Set(['ENOSPC', 'EDQUOT']);
const spaceText = /No space left on device|Disk quota exceeded/i;

/** True when the file system is full, also when LevelDB says so. */
export function isDiskFull(error: unknown): boolean {
  return spaceCodes.has(systemCode(error) ?? '') || spaceText.test(describeError(error));
}

const machineCodes = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EPERM', 'EAGAIN', 'EBUSY']);

/** True when a read failed for a reason that says nothing about the bytes on the disk. */
export function isMachineFault(error: unknown): boolean {
  return machineCodes.has(systemCode(error) ?? '');
}

export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
