// All rows of a store of LevelDB exchanged for others, in one step.
//
// Those come in key order and become tables (level-tables.ts) in a directory beside the store, each synced. When all are
// there, and the store is closed, they move in beside its files. That does nothing yet: LevelDB knows what its MANIFEST
// names, and removes the rest when it opens. A new MANIFEST, and a rename that gives CURRENT its name, put them in the
// place of everything before. Whatever moment a crash chooses, all of the old rows are there or all of the new.

import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { asBuffer } from '../core/bytes.ts';
import { encodeManifest, type NamedTable } from './level-manifest.ts';
import { TableBuilder } from './level-tables.ts';
import { corrupt } from './seal.ts';
import type { SealedRow } from './snapshot.ts';

/** Few enough files and syncs for millions of rows, and a few milliseconds to check one (level-check.ts). */
const tableBytesMax = 4 * 1024 * 1024;

type UnnamedTable = Omit<NamedTable, 'number'>;

export class TablesBeside implements AsyncDisposable {
  readonly #store: string;
  readonly #path: string;
  readonly #sync: boolean;
  readonly #builder = new TableBuilder(tableBytesMax);
  readonly #tables: UnnamedTable[] = [];
  /** The last table on its way to the disk: one at a time, while the next one is made. */
  #syncing: Promise<void> = Promise.resolve();

  private constructor(directory: string, sync: boolean) {
    this.#store = join(directory, 'db');
    this.#path = besidePath(directory);
    this.#sync = sync;
  }

  /** Begins with no rows for the store in `directory`/db. `sync`: false for scratch. */
  static async begin(directory: string, sync: boolean): Promise<TablesBeside> {
    const tables = new TablesBeside(directory, sync);
    await mkdir(tables.#path);
    return tables;
  }

  /** Adds rows that are behind all others. Throws RECORD_CORRUPT when they are not. */
  async add(rows: readonly SealedRow[]): Promise<void> {
    for (const [key, sealed] of rows) {
      this.#addOne(key, sealed);
      if (this.#builder.sizeBytes >= tableBytesMax) await this.#write();
    }
  }

  /** There are no more. Resolves once all are on the disk. */
  async finish(): Promise<void> {
    await this.#write();
    await this.#syncing;
  }

  /** Makes the store consist of these rows. Nobody must have it open. Not before `finish`. */
  async putInForce(): Promise<void> {
    const first = 1 + Math.max(0, ...(await readdir(this.#store)).map(fileNumber));
    const tables = this.#tables.map((table, index) => ({ ...table, number: first + index }));
    for (const [index, { number }] of tables.entries())
      await rename(this.#tablePath(index), join(this.#store, `${sixDigits(number)}.ldb`));
    const manifest = first + tables.length;
    const name = `MANIFEST-${sixDigits(manifest)}`;
    await this.#writeFile(join(this.#store, name), encodeManifest(tables, manifest + 1));
    const current = join(this.#store, `${sixDigits(manifest)}.dbtmp`);
    await this.#writeFile(current, Buffer.from(`${name}\n`));
    await this.#syncDirectory(this.#store); // what CURRENT will name must be there before it does
    await rename(current, join(this.#store, 'CURRENT'));
    await this.#syncDirectory(this.#store);
  }

  /** Removes what is not in force. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#syncing.catch(() => undefined); // `finish` throws it to those who want the rows
    await rm(this.#path, { recursive: true, force: true });
  }

  #addOne(key: Uint8Array, sealed: Uint8Array): void {
    try {
      this.#builder.add(key, sealed);
    } catch (error) {
      throw error instanceof RangeError ? corrupt('a copy of rows', 'is not in order', error) : error;
    }
  }

  async #write(): Promise<void> {
    const table = this.#builder.finish();
    if (table === undefined) return;
    const { bytes, smallest, largest } = table;
    const file = await open(this.#tablePath(this.#tables.length), 'wx', 0o600);
    this.#tables.push({ sizeBytes: bytes.length, smallest, largest });
    try {
      await file.writeFile(bytes);
      await this.#syncing;
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#syncing = this.#syncAndClose(file);
    this.#syncing.catch(() => undefined); // thrown when the next table is there, or by `finish`
  }

  async #syncAndClose(file: Awaited<ReturnType<typeof open>>): Promise<void> {
    try {
      if (this.#sync) await file.datasync();
    } finally {
      await file.close();
    }
  }

  #tablePath(index: number): string {
    return join(this.#path, `${index}.ldb`);
  }

  async #writeFile(path: string, bytes: Uint8Array): Promise<void> {
    const file = await open(path, 'w', 0o600);
    await file.writeFile(bytes).catch(async (error: unknown) => {
      await file.close();
      throw error;
    });
    await this.#syncAndClose(file);
  }

  async #syncDirectory(path: string): Promise<void> {
    if (!this.#sync) return;
    const directory = await open(path, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }
}

/** Removes what a process left that ended while it wrote tables. Whoever calls this must have the store to itself. */
export async function removeTablesBeside(directory: string): Promise<void> {
  await rm(besidePath(directory), { recursive: true, force: true });
}

/** `pages` with `own` rows in their places. Both in key order, and no key in both. */
export async function* withRows(
  pages: AsyncIterable<readonly SealedRow[]>,
  own: readonly SealedRow[],
): AsyncGenerator<readonly SealedRow[]> {
  let left = own;
  for await (const page of pages) {
    const last = page.at(-1);
    const here = left.filter((row) => last !== undefined && compareKeys(row, last) < 0);
    left = left.slice(here.length);
    yield here.length === 0 ? page : [...page, ...here].sort(compareKeys);
  }
  if (left.length > 0) yield left;
}

function compareKeys([a]: SealedRow, [b]: SealedRow): number {
  return asBuffer(a).compare(b);
}

function besidePath(directory: string): string {
  return join(directory, 'db.next');
}

/** The number in the name of one of LevelDB's files. */
function fileNumber(name: string): number {
  return Number(/^(?:MANIFEST-)?(\d+)/.exec(name)?.[1] ?? 0);
}

function sixDigits(number: number): string {
  return String(number).padStart(6, '0');
}
