// One log file per process, bounded: the present file and one before it.
//
// The processes write to the file themselves, opened to append, so that their last words are kept even when
// the supervisor is gone. Rotating therefore copies and cuts; lines written between the two are lost.

import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { copyFile, stat, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import { second } from '../core/clock.ts';
import { errnoOf } from '../files/whole.ts';

/** One file. A log takes at most twice this and what is written in one check interval. */
const logBytesMax = 8 * 1024 * 1024;
export const logCheckMs = 10 * second;

/** Calls `use` with a descriptor that appends to `path`, and closes it after. */
export function withLogFile<T>(path: string, use: (descriptor: number) => T): T {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const descriptor = openSync(path, 'a', 0o600);
  try {
    return use(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Moves the content of `path` to `path.1` when it is larger than `bytesMax`. True if it was. */
export async function rotateLog(path: string, bytesMax: number = logBytesMax): Promise<boolean> {
  try {
    if ((await stat(path)).size <= bytesMax) return false;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  await copyFile(path, `${path}.1`);
  await truncate(path);
  return true;
}

/** The last lines of `path`, for an error message: at most 5 lines and 2 KiB; '' when they cannot be read. */
export function lastLines(path: string): string {
  try {
    return withReader(path, (descriptor) => {
      const { size } = fstatSync(descriptor);
      const tail = Buffer.alloc(Math.min(size, 2048));
      const read = readSync(descriptor, tail, 0, tail.length, size - tail.length);
      return tail.toString('utf8', 0, read).trim().split('\n').slice(-5).join('\n');
    });
  } catch {
    return ''; // It only decorates the message of a failure that is told anyway.
  }
}

function withReader<T>(path: string, use: (descriptor: number) => T): T {
  const descriptor = openSync(path, 'r');
  try {
    return use(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
