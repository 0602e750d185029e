// The mark that a store was born: whoever finds the mark without the store knows that something was lost.
//
// LevelDB, told to create what is missing, replaces a damaged store by an empty one and deletes its tables. So it may
// create only while there is no mark, no table and no byte in a log. The mark is written after the store exists; a
// crash in between leaves an unmarked store, which is made again while it holds nothing, and opened as it is otherwise.

import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isErrnoException } from './errno.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';

/** What a directory holds, and in which edition of its layout. */
export interface StoreFormat {
  readonly format: string;
  readonly version: number;
}

/**
 * Opens the store in `<directory>/db`, creating it only when it was never born.
 * `open` gets the path and whether it may create.
 * Throws DATA_DIR_DAMAGED, DATA_DIR_FOREIGN for another store or an earlier edition, DATA_DIR_NEWER, DATA_DIR_LOCKED.
 */
export async function openBorn<Store>(
  directory: string,
  expected: StoreFormat,
  open: (path: string, mayCreate: boolean) => Promise<Store>,
): Promise<Store> {
  const path = join(directory, 'db');
  const found = await readMark(directory);
  if (found !== undefined) checkFormat(directory, found, expected);
  const files = await filesIn(path);
  const isUnborn = found === undefined && (await isBlank(path, files));
  if (isUnborn) await begin(path, files);
  else if (!files.includes('CURRENT')) throw damaged(directory, 'CURRENT is missing');
  const store = await opened(directory, path, isUnborn, open);
  // LevelDB wrote what it found into a new table and named that by a rename, which it does not sync. What a failed
  // sync had left in its old log is kept only with that name.
  await syncDirectory(path);
  if (found === undefined) await writeMark(directory, expected);
  return store;
}

/** True when a store was born in `directory`. */
export async function isBorn(directory: string): Promise<boolean> {
  return (await readMark(directory)) !== undefined;
}

/** Copies of a kind that stay, for a person to look at. */
const asideMax = 3;

/**
 * Moves a store that can be derived again, and is damaged or of an earlier edition, out of the way, under a name that ends
 * with the time. Returns where it is now. Only the last few stay: a disk that damages one after the other would be full
 * of them.
 */
export async function setAside(
  directory: string,
  atMs: number,
  why: 'damaged' | 'earlier' = 'damaged',
): Promise<string> {
  const aside = `${directory}.${why}-${atMs}`;
  await rename(directory, aside);
  const [parent, prefix] = [dirname(directory), `${basename(directory)}.${why}-`];
  const there = (await readdir(parent)).filter((name) => name.startsWith(prefix));
  const byAge = there.toSorted((a, b) => Number(a.slice(prefix.length)) - Number(b.slice(prefix.length)));
  for (const name of byAge.slice(0, -asideMax))
    await rm(join(parent, name), { recursive: true, force: true });
  return aside;
}

/** True for what says that a store is damaged. One that is derivable is set aside then, and built anew. */
export function isStoreDamage(error: unknown): error is HoldfastError {
  return isHoldfastError(error, 'DATA_DIR_DAMAGED') || isHoldfastError(error, 'RECORD_CORRUPT');
}

/** True for what says that a store has the layout of an earlier edition. One that is derivable is set aside, too. */
export function isEarlierEdition(error: unknown): error is HoldfastError {
  return isHoldfastError(error, 'DATA_DIR_FOREIGN') && error.details['edition'] !== undefined;
}

const markName = 'born.json';

async function opened<Store>(
  directory: string,
  path: string,
  mayCreate: boolean,
  open: (path: string, mayCreate: boolean) => Promise<Store>,
): Promise<Store> {
  try {
    return await open(path, mayCreate);
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    if (causeCode(cause) === 'LEVEL_LOCKED') {
      throw new HoldfastError('DATA_DIR_LOCKED', `${directory} is used by another process`, { cause });
    }
    throw damaged(directory, 'the store does not open', cause);
  }
}

function causeCode(error: unknown): unknown {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause ? cause.code : undefined;
}

/** What a power cut left of a store while LevelDB made it may not open: it is made again. */
async function begin(path: string, files: readonly string[]): Promise<void> {
  await mkdir(path, { recursive: true });
  for (const name of files) await rm(join(path, name), { recursive: true });
}

/** True when nothing was ever written: no table, and no byte in a log. */
async function isBlank(path: string, files: readonly string[]): Promise<boolean> {
  for (const name of files) {
    if (/\.(?:ldb|sst)$/.test(name)) return false;
    if (name.endsWith('.log') && (await stat(join(path, name))).size > 0) return false;
  }
  return true;
}

async function filesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (isErrnoException(error, 'ENOENT')) return [];
    throw error;
  }
}

async function readMark(directory: string): Promise<StoreFormat | undefined> {
  let text: string;
  try {
    text = await readFile(join(directory, markName), 'utf8');
  } catch (error) {
    if (isErrnoException(error, 'ENOENT')) return undefined;
    throw error;
  }
  return parseMark(directory, text);
}

function parseMark(directory: string, text: string): StoreFormat {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && 'format' in value && 'version' in value) {
      const { format, version } = value;
      if (typeof format === 'string' && typeof version === 'number') return { format, version };
    }
  } catch (cause) {
    throw damaged(directory, `${markName} does not parse`, cause);
  }
  throw damaged(directory, `${markName} is incomplete`);
}

function checkFormat(directory: string, found: StoreFormat, expected: StoreFormat): void {
  if (found.format !== expected.format) {
    throw new HoldfastError('DATA_DIR_FOREIGN', `${directory} holds ${found.format}, not ${expected.format}`);
  }
  if (found.version < expected.version) {
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${directory} has layout ${found.version} of an earlier edition; this program reads ${expected.version}`,
      { details: { edition: found.version } },
    );
  }
  if (found.version > expected.version) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${directory} has layout ${found.version}; this program reads ${expected.version}`,
    );
  }
}

async function writeMark(directory: string, mark: StoreFormat): Promise<void> {
  const temporary = join(directory, `${markName}.new`);
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(mark)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(directory, markName));
  await syncDirectory(directory);
  await syncDirectory(dirname(directory));
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function damaged(directory: string, problem: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${directory}: ${problem}; restore it from a copy, it is not replaced by an empty one`,
    { details: { directory, problem }, cause },
  );
}
