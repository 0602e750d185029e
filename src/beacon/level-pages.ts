// Tables made of the pages of another's snapshot (snapshot.ts): every byte is walked (level-sweep.ts) before it is written
// (level-run.ts).

import { trailerBytes } from './level-format.ts';
import { RunRows } from './level-rows.ts';
import { type MadeTable, type RunTables, TableFiles } from './level-run.ts';
import { Sweep } from './level-sweep.ts';
import { blocksOf, tableKey } from './level-tables.ts';
import { corrupt } from './seal.ts';
import { PageReader, pageSlabs } from './snapshot.ts';

/** A row to be put over those of others, as it is stored; without a value it is removed. */
export type OwnRow = readonly [key: Uint8Array, sealed: Uint8Array | null];

/** Tables that are on the disk, and in no store yet. */
export interface MadeTables {
  readonly tables: readonly MadeTable[];
  /** No row has a higher number. */
  readonly sequence: number;
}

/** Makes them. */
export interface TableMaker extends AsyncDisposable {
  /**
   * Takes a page, which is given away. Throws RECORD_CORRUPT for anything that LevelDB would not have made, in this page or
   * in one before, and what writing threw.
   */
  add(page: Uint8Array): Promise<void>;
  /** There are no more pages, and all of it was there. Throws as `add`. */
  endPages(): Promise<void>;
  /** Puts `own` over the rows so far, after which there are no more. Resolves once all are on the disk. */
  finish(own: readonly OwnRow[]): Promise<MadeTables>;
}

/** Own rows are newer than all runs of others. */
const ownRun = -1;

export class PageTables implements TableMaker {
  readonly #files: TableFiles;
  readonly #reader = new PageReader();
  #sweep = new Sweep(0);
  #runs: readonly RunTables[] = [];

  /** Writes into the directory `path`. `sync`: false for scratch. */
  constructor(path: string, sync: boolean) {
    this.#files = new TableFiles(path, sync);
  }

  async add(page: Uint8Array): Promise<void> {
    refusing(() => this.#add(page));
    pageSlabs.give(page); // in the thread that walks it, those are none of its own
    await this.#files.keptUp();
  }

  async endPages(): Promise<void> {
    refusing(() => {
      this.#reader.finish();
      this.#sweep.finish();
    });
  }

  async finish(own: readonly OwnRow[]): Promise<MadeTables> {
    const sequence = this.#sweep.sequenceMax + 1;
    const rows = own
      .toSorted(([a], [b]) => Buffer.compare(a, b))
      .map(([key, value]) => [tableKey(key, sequence, value === null), value ?? noBytes] as const);
    const run = this.#files.newRun(ownRun, 0);
    const walk = new RunRows();
    for (const bytes of blocksOf(rows)) run.add(bytes, walk.add(bytes.subarray(0, -trailerBytes)));
    return { tables: await this.#files.finish(), sequence };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files[Symbol.asyncDispose]();
  }

  #add(page: Uint8Array): void {
    const isBegun = this.#reader.levels !== undefined;
    const blocks = this.#reader.add(page);
    if (!isBegun) this.#begin(this.#reader.levels ?? []);
    for (const { run, bytes } of blocks) this.#runs[run]?.add(bytes, this.#sweep.add(run, bytes));
  }

  #begin(levels: readonly number[]): void {
    this.#sweep = new Sweep(levels.length);
    this.#runs = levels.map((level, run) => this.#files.newRun(run, level));
  }
}

const noBytes = new Uint8Array();

function refusing(walk: () => void): void {
  try {
    walk();
  } catch (error) {
    throw error instanceof RangeError ? corrupt('a copy of rows', error.message, error) : error;
  }
}
