// A directory of small files that are replaced whole, with every step of a durable write visible.
//
// A rename alone is not enough: data must be on the disk before its name is, and the name is only there after the
// directory was flushed. Stores are written against this port so that a test can cut the power between any two steps,
// losing whatever was not flushed.

import { readFileSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';

/** One directory; names are file names in it. */
export interface Disk {
  /** For messages. */
  readonly path: string;
  list(): Promise<string[]>;
  /** Undefined when there is no such file. */
  read(name: string): Promise<Uint8Array | undefined>;
  /** Makes or empties the file and writes it; nothing is durable yet. */
  create(name: string, bytes: Uint8Array): Promise<void>;
  /** Flushes the data of a file that `create` wrote. */
  flush(name: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Nothing when it is gone already. */
  unlink(name: string): Promise<void>;
  /** Makes created, renamed and removed names durable. */
  flushNames(): Promise<void>;
}

/** Replaces `name` completely or not at all; on disk when it resolves. */
export async function replaceFile(disk: Disk, name: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${name}.new`;
  await disk.create(temporary, bytes);
  await disk.flush(temporary);
  await disk.rename(temporary, name);
  await disk.flushNames();
}

/** Removes `names`; they stay removed after a power cut when it resolves. */
export async function removeFiles(disk: Disk, names: readonly string[]): Promise<void> {
  for (const name of names) await disk.unlink(name);
  await disk.flushNames();
}

/**
 * The directory at `path`, made with mode 700 when absent; its files have mode 600.
 *
 * @throws FILE_UNREADABLE when it cannot be made
 */
export async function openFolder(path: string): Promise<Disk> {
  try {
    if ((await mkdir(path, { recursive: true, mode: 0o700 })) !== undefined)
      await flushDirectory(dirname(path));
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `${path} cannot be made`, { cause });
  }
  return new Folder(path);
}

class Folder implements Disk {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  list(): Promise<string[]> {
    return readdir(this.path);
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    try {
      // On this thread: a share is read for each request, and its files have a few hundred bytes.
      return new Uint8Array(readFileSync(join(this.path, name)));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async create(name: string, bytes: Uint8Array): Promise<void> {
    await using file = await open(join(this.path, name), 'w', 0o600);
    await file.chmod(0o600); // a file of an interrupted write may have another mode
    await file.writeFile(bytes);
  }

  async flush(name: string): Promise<void> {
    await using file = await open(join(this.path, name), 'r+');
    await file.datasync();
  }

  rename(from: string, to: string): Promise<void> {
    return rename(join(this.path, from), join(this.path, to));
  }

  unlink(name: string): Promise<void> {
    return rm(join(this.path, name), { force: true });
  }

  flushNames(): Promise<void> {
    return flushDirectory(this.path);
  }
}

async function flushDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r');
  await directory.sync();
}

/** The system's name of an error, like ENOENT. */
export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
