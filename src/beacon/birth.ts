// The mark that a store was born: whoever finds the mark without the store knows that something was lost.
//
// LevelDB, told to create what is missing, replaces a damaged store by an empty one and deletes its tables
// (RELIABILITY.md section 1). So it may create only while there is no mark. The mark is written after the store
// exists; a crash in between leaves an unmarked store, which is opened as it is and marked then.

import { mkdir, open, readdir, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isErrnoException } from './errno.ts';
import { HoldfastError } from '../core/errors.ts';

/** What a directory holds, and in which edition of its layout. */
export interface StoreFormat {
  readonly format: string;
  readonly version: number;
}

/**
 * Opens the store in `<directory>/db`, creating it only when it was never born.
 * `open` gets the path and whether it may create.
 * Throws DATA_DIR_DAMAGED, DATA_DIR_FOREIGN, DATA_DIR_NEWER, DATA_DIR_LOCKED.
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
  const bare = !files.includes('CURRENT');
  if (bare && (found !== undefined || files.some(holdsData))) throw damaged(directory, 'CURRENT is missing');
  if (bare) await mkdir(path, { recursive: true });
  const store = await opened(directory, path, bare, open);
  if (found === undefined) await writeMark(directory, expected);
  return store;
}

/** True when a store was born in `directory`. */
export async function isBorn(directory: string): Promise<boolean> {
  return (await readMark(directory)) !== undefined;
}

/**
 * Moves a damaged store out of the way, so that a derivable one can be built anew. Returns where it is now.
 * Nothing is deleted: a person decides about that.
 */
export async function setAside(directory: string, suffix: string): Promise<string> {
  const aside = `${directory}.damaged-${suffix}`;
  await rename(directory, aside);
  return aside;
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

function holdsData(name: string): boolean {
  return /\.(?:ldb|sst)$|^MANIFEST-/.test(name);
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
  if (found.version > expected.version) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${directory} has layout ${found.version}; this program reads up to ${expected.version}`,
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
