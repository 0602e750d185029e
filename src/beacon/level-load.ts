// All rows of a store of LevelDB exchanged for others, in one step.
//
// Those come as blocks of another's tables (snapshot.ts), are walked (level-sweep.ts), and become tables again
// (level-run.ts) in a directory beside the store, each synced. When all are there, and the store is closed, they move in
// beside its files. That does nothing yet: LevelDB knows what its MANIFEST names, and removes the rest when it opens. A
// new MANIFEST, and a rename that gives CURRENT its name, put them in the place of everything before. Whatever moment a
// crash chooses, all of the old rows are there or all of the new.

import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { asBuffer } from '../core/bytes.ts';
import { trailerBytes } from './level-format.ts';
import { encodeManifest, type NamedTable } from './level-manifest.ts';
import { RunRows } from './level-rows.ts';
import { RunTables, type WrittenTable } from './level-run.ts';
import { Sweep } from './level-sweep.ts';
import { blocksOf, tableKey } from './level-tables.ts';
import { corrupt } from './seal.ts';
import { PageReader } from './snapshot.ts';

/** A row to be put over those of others; without a value it is removed. */
export type OwnRow = readonly [key: Uint8Array, sealed: Uint8Array | null];

type MadeTable = WrittenTable & Pick<NamedTable, 'level'> & { readonly run: number };

/** Own rows are newer than all runs of others. */
const ownRun = -1;

export class TablesBeside implements AsyncDisposable {
  readonly #store: string;
  readonly #path: string;
  readonly #sync: boolean;
  readonly #reader = new PageReader();
  #sweep = new Sweep(0);
  #runs: readonly RunTables[] = [];
  readonly #tables: MadeTable[] = [];
  #files = 0;
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

  /** Adds what a page of another has. Throws RECORD_CORRUPT for anything that LevelDB would not have made. */
  async add(page: Uint8Array): Promise<void> {
    const isBegun = this.#reader.levels !== undefined;
    const blocks = this.#reader.add(page);
    if (!isBegun) this.#begin(this.#reader.levels ?? []);
    await refusing(async () => {
      for (const { run, bytes } of blocks) await this.#runs[run]?.add(bytes, this.#sweep.add(run, bytes));
    });
  }

  /** There are no more pages, and all of it was there. Throws RECORD_CORRUPT. */
  async endPages(): Promise<void> {
    this.#reader.finish();
    await refusing(async () => this.#sweep.finish());
    for (const run of this.#runs) await run.finish();
  }

  /** Puts `own` over the rows so far, after which there are no more. Resolves once all are on the disk. */
  async finish(own: readonly OwnRow[]): Promise<void> {
    const rows = own
      .toSorted(([a], [b]) => asBuffer(a).compare(b))
      .map(([key, value]) => [tableKey(key, this.#sequence, value === null), value ?? noBytes] as const);
    const run = this.#newRun(ownRun, 0);
    this.#runs = [...this.#runs, run];
    const walk = new RunRows();
    for (const bytes of blocksOf(rows))
      await run.add(bytes, walk.add(bytes.subarray(0, bytes.length - trailerBytes)));
    await run.finish();
    await this.#syncing;
  }

  /** Makes the store consist of these rows. Nobody must have it open. Not before `finish`. */
  async putInForce(): Promise<void> {
    const first = 1 + Math.max(0, ...(await readdir(this.#store)).map(fileNumber));
    // Of two tables in its first level, LevelDB takes that with the higher number for the newer one.
    const tables = this.#tables
      .toSorted((a, b) => b.run - a.run)
      .map((table, index) => ({ ...table, number: first + index }));
    for (const { path, number } of tables) await rename(path, join(this.#store, `${sixDigits(number)}.ldb`));
    const manifest = first + tables.length;
    const name = `MANIFEST-${sixDigits(manifest)}`;
    await this.#writeFile(join(this.#store, name), encodeManifest(tables, manifest + 1, this.#sequence));
    const current = join(this.#store, `${sixDigits(manifest)}.dbtmp`);
    await this.#writeFile(current, Buffer.from(`${name}\n`));
    await this.#syncDirectory(this.#store); // what CURRENT will name must be there before it does
    await rename(current, join(this.#store, 'CURRENT'));
    await this.#syncDirectory(this.#store);
  }

  /** Removes what is not in force. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#syncing.catch(() => undefined); // `finish` throws it to those who want the rows
    for (const run of this.#runs) await run[Symbol.asyncDispose]();
    await rm(this.#path, { recursive: true, force: true });
  }

  /** Of own rows: above all others. */
  get #sequence(): number {
    return this.#sweep.sequenceMax + 1;
  }

  #begin(levels: readonly number[]): void {
    this.#sweep = new Sweep(levels.length);
    this.#runs = levels.map((level, index) => this.#newRun(index, level));
  }

  #newRun(run: number, level: number): RunTables {
    return new RunTables(
      () => join(this.#path, `${this.#files++}.ldb`),
      async (file, table) => {
        this.#tables.push({ ...table, run, level });
        await this.#syncing.finally(() => {
          this.#syncing = this.#syncAndClose(file);
          this.#syncing.catch(() => undefined); // thrown when the next table is there, or by `finish`
        });
      },
    );
  }

  async #syncAndClose(file: FileHandle): Promise<void> {
    try {
      if (this.#sync) await file.datasync();
    } finally {
      await file.close();
    }
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

const noBytes = new Uint8Array();

async function refusing(walk: () => Promise<void>): Promise<void> {
  try {
    await walk();
  } catch (error) {
    throw error instanceof RangeError ? corrupt('a copy of rows', error.message, error) : error;
  }
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
