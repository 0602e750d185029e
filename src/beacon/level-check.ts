// Whether the files of a LevelDB store are as they were written.
//
// A flipped bit in a table's index or filter hides rows, and nothing about the rows that are left tells. So the files
// themselves are checked (level-format.ts): before the store is opened, as much as can be read in the time a start may
// take, and then all of them over and over while it is open. A table never changes once it is written, so checking
// needs no lock and no help from LevelDB.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { asBuffer } from '../core/bytes.ts';
import { hour } from '../core/clock.ts';
import { isErrnoException } from './errno.ts';
import { type LiveFiles, liveFiles, readLog, tableProblem } from './level-format.ts';
import { corrupt } from './seal.ts';

/** Bytes of tables that are checked before a store opens: about half a second. The rest follows when it is open. */
const openBytesMax = 256 * 1024 * 1024;
/** The pause after a table is so many times what checking it took, but for the first round. */
const pauseFactor = 9;
/** From the end of one round to the beginning of the next, ms. */
const roundPauseMs = hour;

export interface CheckedAtOpen {
  /** Tables that were not looked at. */
  readonly unchecked: readonly number[];
}

/**
 * Checks the store in `path`, which nobody has open. A store that is new, or whose CURRENT is gone, passes: that is
 * for whoever opens it (birth.ts). Throws RECORD_CORRUPT naming the file.
 */
export async function checkLevel(path: string, bytesMax = openBytesMax): Promise<CheckedAtOpen> {
  try {
    return await checkOnce(path, bytesMax);
  } catch {
    // Another process may have it open after all, and have moved a file from under us; that one is refused elsewhere.
    return checkOnce(path, bytesMax);
  }
}

async function checkOnce(path: string, bytesMax: number): Promise<CheckedAtOpen> {
  const live = await readLive(path);
  if (live === undefined) return { unchecked: [] };
  for (const name of await readdir(path)) {
    const number = Number(/^(\d+)\.log$/.exec(name)?.[1] ?? -1);
    if (number >= live.logNumber) refuse(name, readLog(await readFile(join(path, name))).problem);
  }
  const unchecked: number[] = [];
  let left = bytesMax;
  for (const [number, { sizeBytes }] of live.tables) {
    left -= sizeBytes;
    if (left < 0) unchecked.push(number);
    else await checkTable(path, number, sizeBytes);
  }
  return { unchecked };
}

/**
 * Checks the tables of an open store until `signal` aborts: first those that were left out, for which others may wait,
 * and says so by `onAllChecked`; then all of them, once an hour. Throws RECORD_CORRUPT naming the first damaged file.
 */
export async function keepChecking(
  path: string,
  { unchecked }: CheckedAtOpen,
  signal: AbortSignal,
  onAllChecked: () => void = () => undefined,
): Promise<void> {
  let round = new Set(unchecked);
  let isFirst = true;
  try {
    for (;;) {
      for (const [number, { sizeBytes }] of (await readLive(path))?.tables ?? []) {
        if (!round.has(number)) continue;
        const began = performance.now();
        await checkWhileLive(path, number, sizeBytes);
        const tookMs = performance.now() - began;
        await delay(tookMs * (isFirst ? 1 : pauseFactor), undefined, { signal, ref: false });
      }
      isFirst = false;
      onAllChecked();
      await delay(roundPauseMs, undefined, { signal, ref: false });
      round = new Set((await readLive(path))?.tables.keys() ?? []);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** A compaction may have removed the table meanwhile. */
async function checkWhileLive(path: string, number: number, sizeBytes: number): Promise<void> {
  try {
    await checkTable(path, number, sizeBytes);
  } catch (error) {
    if ((await readLive(path))?.tables.has(number) === true) throw error;
  }
}

async function checkTable(path: string, number: number, sizeBytes: number): Promise<void> {
  const name = `${String(number).padStart(6, '0')}.ldb`;
  const bytes = await readIfThere(join(path, name));
  if (bytes === undefined) throw corrupt(name, 'is missing');
  refuse(
    name,
    bytes.length === sizeBytes ? tableProblem(bytes) : `has ${bytes.length} bytes, not ${sizeBytes}`,
  );
}

/** The files that `path` consists of now; undefined where there is no CURRENT. Throws RECORD_CORRUPT. */
export async function readLive(path: string): Promise<LiveFiles | undefined> {
  const current = await readIfThere(join(path, 'CURRENT'));
  if (current === undefined) return undefined;
  const name = /^(MANIFEST-\d+)\n$/.exec(asBuffer(current).toString('latin1'))?.[1];
  if (name === undefined) throw corrupt('CURRENT', 'names no MANIFEST');
  const manifest = await readIfThere(join(path, name));
  if (manifest === undefined) throw corrupt(name, 'is missing');
  const { records, problem } = readLog(manifest);
  refuse(name, problem);
  try {
    return liveFiles(records);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw corrupt(name, error.message, error);
  }
}

function refuse(name: string, problem: string | undefined): void {
  if (problem !== undefined) throw corrupt(name, problem);
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isErrnoException(error, 'ENOENT')) return undefined;
    throw error;
  }
}
