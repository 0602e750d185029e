// The tables of one run, written to files as its blocks come: no more of a table than a chunk, its index and its filter is
// in memory.

import { type FileHandle, open } from 'node:fs/promises';
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

export class RunTables {
  readonly #newPath: () => string;
  readonly #onWritten: (file: FileHandle, table: WrittenTable) => Promise<void>;
  readonly #builder = new TableBuilder(chunkBytes);
  #path = '';
  #file: FileHandle | undefined;

  /** `newPath`: of the next file. `onWritten` takes over each table, with its open file. */
  constructor(newPath: () => string, onWritten: (file: FileHandle, table: WrittenTable) => Promise<void>) {
    this.#newPath = newPath;
    this.#onWritten = onWritten;
  }

  /** The next block. Throws RangeError where too much is of one key, which must not stand in two tables of a run. */
  async add(bytes: Uint8Array, block: WalkedBlock): Promise<void> {
    const builder = this.#builder;
    if (builder.sizeBytes >= tableBytesMax && !builder.endsWith(block.first)) await this.finish();
    if (builder.sizeBytes >= tableBytesRefused) throw new RangeError('has too many rows of one key');
    builder.add(bytes, block);
    if (builder.takeableBytes >= chunkBytes) await this.#write();
  }

  /** Ends the last table. */
  async finish(): Promise<void> {
    if (this.#builder.isEmpty) return;
    const built = this.#builder.finish();
    const file = await this.#write();
    this.#file = undefined;
    await this.#onWritten(file, { ...built, path: this.#path });
  }

  /** Leaves the last table as it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.close();
  }

  async #write(): Promise<FileHandle> {
    if (this.#file === undefined) {
      this.#path = this.#newPath();
      this.#file = await open(this.#path, 'wx', 0o600);
    }
    await this.#file.writeFile(this.#builder.take());
    return this.#file;
  }
}
