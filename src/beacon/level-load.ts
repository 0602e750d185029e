// All rows of a store of LevelDB exchanged for others, in one step.
//
// Those come as blocks of another's tables (snapshot.ts), are walked (level-sweep.ts), and become tables again
// (level-run.ts) in a directory beside the store, each synced. When all are there, and the store is closed, they move in
// beside its files. That does nothing yet: LevelDB knows what its MANIFEST names, and removes the rest when it opens. A
// new MANIFEST, and a rename that gives CURRENT its name, put them in the place of everything before. Whatever moment a
// crash chooses, all of the old rows are there or all of the new.

import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeManifest } from './level-manifest.ts';
import { type MadeTables, type OwnRow, PageTables, type TableMaker } from './level-pages.ts';
import { PagesThread } from './level-thread.ts';
import { pageSlabs } from './snapshot.ts';

/** A thread of its own is worth its beginning from here on: what less there is takes some milliseconds. */
const threadBytesMin = 4 * 1024 * 1024;

export class TablesBeside implements AsyncDisposable {
  readonly #store: string;
  readonly #path: string;
  readonly #sync: boolean;
  #maker: TableMaker | undefined;
  /** Pages, until it is known who walks them. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #made: MadeTables = { tables: [], sequence: 0 };

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

  /** Takes a page of another: see `TableMaker`. */
  async add(page: Uint8Array): Promise<void> {
    if (this.#maker !== undefined) return this.#maker.add(page);
    this.#held.push(page);
    this.#heldBytes += page.length;
    if (this.#heldBytes < threadBytesMin) return;
    await this.#begin(new PagesThread({ path: this.#path, sync: this.#sync }));
  }

  /** There are no more pages, and all of it was there. Throws RECORD_CORRUPT. */
  async endPages(): Promise<void> {
    const maker = this.#maker ?? (await this.#begin(new PageTables(this.#path, this.#sync)));
    await maker.endPages();
  }

  /** Puts `own` over the rows so far, after which there are no more. Resolves once all are on the disk. */
  async finish(own: readonly OwnRow[]): Promise<void> {
    const maker = this.#maker ?? (await this.#begin(new PageTables(this.#path, this.#sync)));
    this.#made = await maker.finish(own);
  }

  /** Makes the store consist of these rows. Nobody must have it open. Not before `finish`. */
  async putInForce(): Promise<void> {
    const first = 1 + Math.max(0, ...(await readdir(this.#store)).map(fileNumber));
    // Of two tables in its first level, LevelDB takes that with the higher number for the newer one.
    const tables = this.#made.tables
      .toSorted((a, b) => b.run - a.run)
      .map((table, index) => ({ ...table, number: first + index }));
    for (const { path, number } of tables) await rename(path, join(this.#store, `${sixDigits(number)}.ldb`));
    const manifest = first + tables.length;
    const name = `MANIFEST-${sixDigits(manifest)}`;
    await this.#writeFile(join(this.#store, name), encodeManifest(tables, manifest + 1, this.#made.sequence));
    const current = join(this.#store, `${sixDigits(manifest)}.dbtmp`);
    await this.#writeFile(current, Buffer.from(`${name}\n`));
    await this.#syncDirectory(this.#store); // what CURRENT will name must be there before it does
    await rename(current, join(this.#store, 'CURRENT'));
    await this.#syncDirectory(this.#store);
  }

  /** Removes what is not in force. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#maker?.[Symbol.asyncDispose]();
    pageSlabs.clear();
    await rm(this.#path, { recursive: true, force: true });
  }

  async #begin(maker: TableMaker): Promise<TableMaker> {
    this.#maker = maker;
    for (const page of this.#held.splice(0)) await maker.add(page);
    return maker;
  }

  async #writeFile(path: string, bytes: Uint8Array): Promise<void> {
    const file = await open(path, 'w', 0o600);
    try {
      await file.writeFile(bytes);
      if (this.#sync) await file.datasync();
    } finally {
      await file.close();
    }
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
