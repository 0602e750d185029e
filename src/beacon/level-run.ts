// Tables written to files as their blocks come: no more of one than a chunk, its index and its filter is in memory.
//
// Whoever writes much does nothing else (level-pages.worker.ts), so it waits for each write: that takes less than to have
// another thread do it.

import { closeSync, fdatasync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { WalkedBlock } from './level-rows.ts';
import { type BuiltTable, TableBuilder } from './level-tables.ts';

/** Few enough files and syncs for millions of rows, and a few milliseconds to check one (level-check.ts). */
const tableBytesMax = 4 * 1024 * 1024;
/** One that all rows of one key do not end: LevelDB writes 4 MiB at most before it drops those that are not needed. */
const tableBytesRefused = 16 * tableBytesMax;
/** What is collected before it is written. */
const chunkBytes = 256 * 1024;

/** A table that is in a file. */
export interface WrittenTable extends BuiltTable {
  readonly path: string;
}

/** Whose it is: the runs of others count from 0, the newest; what is newer than all of them is below. */
export interface MadeTable extends WrittenTable {
  readonly run: number;
  readonly level: number;
}

/** The tables of all runs, in one directory. */
export class TableFiles implements AsyncDisposable {
  readonly #path: string;
  readonly #sync: boolean;
  readonly #tables: MadeTable[] = [];
  readonly #runs: RunTables[] = [];
  #files = 0;
  /** The last table on its way to the disk: one at a time, while the next one is made. */
  #syncing: Promise<void> = Promise.resolve();
  #unsynced = 0;

  /** `sync`: false for scratch. */
  constructor(path: string, sync: boolean) {
    this.#path = path;
    this.#sync = sync;
  }

  newRun(run: number, level: number): RunTables {
    const tables = new RunTables(
      () => join(this.#path, `${this.#files++}.ldb`),
      (file, table) => {
        this.#tables.push({ ...table, run, level });
        this.#unsynced++;
        this.#syncing = this.#syncBehind(this.#syncing, file);
        this.#syncing.catch(() => undefined); // thrown to whoever waits for it
      },
    );
    this.#runs.push(tables);
    return tables;
  }

  /** Resolves once no more than a few tables wait for the disk. Throws what became of the others. */
  async keptUp(): Promise<void> {
    if (this.#unsynced >= unsyncedMax) await this.#syncing;
  }

  /** Ends every run. Resolves with all tables, once they are on the disk. */
  async finish(): Promise<readonly MadeTable[]> {
    for (const run of this.#runs) run.finish();
    await this.#syncing;
    return this.#tables;
  }

  /** Leaves tables that are not finished as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#syncing.catch(() => undefined); // thrown to those who want the tables
    for (const run of this.#runs) run[Symbol.dispose]();
  }

  async #syncBehind(before: Promise<void>, file: number): Promise<void> {
    try {
      await before;
      if (this.#sync) await dataSync(file);
    } finally {
      this.#unsynced--;
      closeSync(file);
    }
  }
}

/** More would be one write of all of them at the end, for which everybody else waits too. */
const unsyncedMax = 4;

const dataSync = promisify(fdatasync);

export class RunTables implements Disposable {
  readonly #newPath: () => string;
  readonly #onWritten: (file: number, table: WrittenTable) => void;
  readonly #builder = new TableBuilder(chunkBytes);
  #path = '';
  #file: number | undefined;

  /** `newPath`: of the next file. `onWritten` takes over each table, with its open file. */
  constructor(newPath: () => string, onWritten: (file: number, table: WrittenTable) => void) {
    this.#newPath = newPath;
    this.#onWritten = onWritten;
  }

  /** The next block. Throws RangeError where too much is of one key, which must not stand in two tables of a run. */
  add(bytes: Uint8Array, block: WalkedBlock): void {
    const builder = this.#builder;
    if (builder.sizeBytes >= tableBytesMax && !builder.endsWith(block.first)) this.finish();
    if (builder.sizeBytes >= tableBytesRefused) throw new RangeError('has too many rows of one key');
    builder.add(bytes, block);
    if (builder.takeableBytes >= chunkBytes) this.#write();
  }

  /** Ends the last table. */
  finish(): void {
    if (this.#builder.isEmpty) return;
    const built = this.#builder.finish();
    const file = this.#write();
    this.#file = undefined;
    this.#onWritten(file, { ...built, path: this.#path });
  }

  /** Leaves the last table as it is. */
  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #write(): number {
    if (this.#file === undefined) {
      this.#path = this.#newPath();
      this.#file = openSync(this.#path, 'wx', 0o600);
    }
    writeFileSync(this.#file, this.#builder.take());
    return this.#file;
  }
}
