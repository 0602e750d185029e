// Directories of this machine, as a client stores and recreates them.
//
// Reading follows no symbolic link and says which it left out: what a link names may lie anywhere. Writing
// trusts no name: parents are made one by one and must be real directories, a file appears whole or not at
// all, and nothing that exists is replaced unless the caller says so.

import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { treeEntriesMax } from '../core/limits.ts';
import { plaintextSegmentBytes } from '../envelope/floe.ts';
import { createWhole, errnoOf, fileError, writeWhole } from '../files/whole.ts';

export interface SourceFile {
  /** Relative path inside the directory, parts joined by `/`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** The bytes, read as they are taken. Throws FILE_NOT_FOUND or FILE_UNREADABLE naming the file. */
  open(): AsyncIterable<Uint8Array>;
}

export interface SourceDirectory {
  /** Sorted by name. */
  readonly files: readonly SourceFile[];
  /** What is there and is not stored. */
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
  readonly sizeBytes: number;
}

/**
 * Lists every file below `path` and makes sure that each can be read.
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE naming what cannot be read, TOO_LARGE beyond 100,000 files.
 */
export async function readDirectory(path: string): Promise<SourceDirectory> {
  const found: { files: SourceFile[]; skipped: { name: string; reason: string }[] } = {
    files: [],
    skipped: [],
  };
  await walk(path, '', found);
  found.files.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { ...found, sizeBytes: found.files.reduce((sum, file) => sum + file.sizeBytes, 0) };
}

/** The bytes of the file at `path`. Throws FILE_NOT_FOUND, FILE_UNREADABLE naming it. */
export async function* readFileBytes(
  path: string,
  options: { readonly follow?: boolean } = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | (options.follow === true ? 0 : constants.O_NOFOLLOW));
  } catch (cause) {
    throw fileError(path, 'cannot be opened', cause);
  }
  try {
    for (;;) {
      const bytes = Buffer.allocUnsafeSlow(readBytes);
      const { bytesRead } = await file.read(bytes, 0, readBytes).catch((cause: unknown) => {
        throw fileError(path, 'cannot be read', cause);
      });
      if (bytesRead === 0) return;
      yield bytes.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

export interface WriteOptions {
  /** Replaces a file that exists. Default false. */
  readonly force?: boolean;
}

/**
 * Writes the file at `path`, whole and synced, or leaves everything as it was.
 * Throws FILE_EXISTS unless forced, FILE_NOT_FOUND without its directory, FILE_UNREADABLE, DISK_FULL, and what
 * `source` throws.
 */
export async function writeFileWhole(
  path: string,
  source: AsyncIterable<Uint8Array>,
  options: WriteOptions = {},
): Promise<void> {
  await checkFree(path, options);
  if (options.force === true) return writeWhole(path, source, fileMode);
  try {
    await createWhole(path, source, fileMode);
  } catch (error) {
    throw isHoldfastError(error, 'FILE_EXISTS') ? exists(path, error) : error;
  }
}

/**
 * Writes files below `target`, which is made when it is missing. Names are relative paths with `/`.
 * Throws FILE_EXISTS when `target` holds anything, unless forced; FILE_UNREADABLE when a parent is no plain directory.
 */
export class DirectoryWriter {
  readonly #root: string;
  readonly #options: WriteOptions;
  readonly #known = new Set<string>();

  private constructor(root: string, options: WriteOptions) {
    this.#root = root;
    this.#options = options;
  }

  static async open(target: string, options: WriteOptions = {}): Promise<DirectoryWriter> {
    const root = resolve(target);
    try {
      await mkdir(root, { recursive: true });
      if (options.force !== true && (await readdir(root)).length > 0)
        throw new HoldfastError('FILE_EXISTS', `${target} is not empty; --force writes into it`, {
          details: { path: target },
        });
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause;
      throw fileError(target, 'cannot be used as a directory', cause);
    }
    return new DirectoryWriter(root, options);
  }

  async write(name: string, source: AsyncIterable<Uint8Array>): Promise<void> {
    const path = join(this.#root, ...name.split('/'));
    if (!path.startsWith(this.#root.endsWith(sep) ? this.#root : this.#root + sep))
      throw new HoldfastError('RECORD_INVALID', `${JSON.stringify(name)} leads out of the directory`);
    await this.#makeParents(name.split('/').slice(0, -1));
    await writeFileWhole(path, source, this.#options);
  }

  /** `mkdir -p` would walk through a symbolic link that somebody left in the target. */
  async #makeParents(parts: readonly string[]): Promise<void> {
    let path = this.#root;
    for (const part of parts) {
      path = join(path, part);
      if (this.#known.has(path)) continue;
      try {
        await mkdir(path);
      } catch (cause) {
        if (errnoOf(cause) !== 'EEXIST') throw fileError(path, 'cannot be made', cause);
        if (!(await lstat(path)).isDirectory())
          throw new HoldfastError('FILE_UNREADABLE', `${path} is in the way: it is no plain directory`);
      }
      this.#known.add(path);
    }
  }
}

/** As the umask has it: what a person gets out is as open as what he makes himself. */
const fileMode = 0o666;
/** Bytes read at a time: whole segments, which put then seals out of this memory without a copy. */
const readBytes = 2 * plaintextSegmentBytes();

async function walk(
  root: string,
  folder: string,
  found: { files: SourceFile[]; skipped: { name: string; reason: string }[] },
): Promise<void> {
  const here = join(root, folder);
  const entries = await readdir(here, { withFileTypes: true }).catch((cause: unknown) => {
    throw fileError(here, 'cannot be read as a directory', cause);
  });
  for (const entry of entries) {
    const name = folder === '' ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) await walk(root, name, found);
    else if (entry.isFile()) found.files.push(await sourceFile(join(root, name), name));
    else
      found.skipped.push({
        name,
        reason: entry.isSymbolicLink() ? 'a symbolic link, not followed' : 'not a plain file',
      });
    if (found.files.length > treeEntriesMax)
      throw new HoldfastError('TOO_LARGE', `${root} holds more than ${treeEntriesMax} files`);
  }
}

/** Opening it is the only check that says what opening it later will say. */
async function sourceFile(path: string, name: string): Promise<SourceFile> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { size } = await file.stat();
    return { name, sizeBytes: size, open: () => readFileBytes(path) };
  } catch (cause) {
    throw fileError(path, 'cannot be read', cause);
  }
}

async function checkFree(path: string, options: WriteOptions): Promise<void> {
  if (options.force === true) return;
  const there = await lstat(path).then(
    () => true,
    (error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return false;
      throw fileError(path, 'cannot be written', error);
    },
  );
  if (there) throw exists(path);
}

function exists(path: string, cause?: unknown): HoldfastError {
  return new HoldfastError('FILE_EXISTS', `${path} is there already; --force replaces it`, {
    details: { path },
    cause,
  });
}
