// All rows that a store of LevelDB has at one moment, read from its tables while it is open.
//
// A table never changes, but a compaction removes it. So the tables of one moment get a second name, in a directory
// beside the store: they are those that the MANIFEST named before and still names afterwards. What LevelDB has only in
// its log is not in them; whoever wants that has it made a table first. Rows are as of the end of some write, all of it.

import { type FileHandle, link, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { asBuffer, unfilled } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isErrnoException } from './errno.ts';
import { readLive } from './level-check.ts';
import { RunCursor, type TableFile } from './level-cursor.ts';
import type { LiveFiles, LiveTable } from './level-format.ts';
import { corrupt } from './seal.ts';
import { PageWriter } from './snapshot.ts';

/** Compactions may come in between so often. */
const triesMax = 20;
const prefix = 'db.given-';
let serial = 0;

export class LinkedTables implements AsyncDisposable {
  readonly #path: string;
  readonly #tables: LiveFiles['tables'];

  private constructor(path: string, tables: LiveFiles['tables']) {
    this.#path = path;
    this.#tables = tables;
  }

  /**
   * The tables of the store in `directory`/db. Throws RECORD_CORRUPT when they are not there, NOT_FOUND where files take
   * no second name.
   */
  static async create(directory: string): Promise<LinkedTables> {
    const store = join(directory, 'db');
    for (let tries = 0; tries < triesMax; tries++) {
      const path = join(directory, `${prefix}${serial++}`);
      await mkdir(path);
      let tables: LiveFiles['tables'] | undefined;
      try {
        tables = await linkAll(store, path);
      } finally {
        if (tables === undefined) await rm(path, { recursive: true });
      }
      if (tables !== undefined) return new LinkedTables(path, tables);
    }
    throw corrupt(store, 'has not the tables that its MANIFEST names');
  }

  /**
   * The rows in key order, in pages (snapshot.ts). `isSent`: which of them.
   * Throws RECORD_CORRUPT for a table that is damaged.
   */
  async *pages(isSent: (key: Uint8Array) => boolean): AsyncGenerator<Uint8Array> {
    const runs = runsOf([...this.#tables]).map(
      (run) => new RunCursor(run.map(([number, { sizeBytes }]) => this.#table(number, sizeBytes))),
    );
    try {
      yield* mergedPages(runs, isSent);
    } catch (error) {
      throw error instanceof RangeError ? corrupt('a table', error.message, error) : error;
    } finally {
      for (const run of runs) await run.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#path, { recursive: true, force: true });
  }

  #table(number: number, sizeBytes: number): TableFile {
    const path = join(this.#path, String(number));
    let file: FileHandle | undefined;
    return {
      sizeBytes,
      async read(offset, count) {
        file ??= await open(path, 'r');
        const bytes = unfilled(count);
        const { bytesRead } = await file.read(bytes, 0, count, offset);
        if (bytesRead !== count) throw new RangeError('ends too early');
        return bytes;
      },
      async close() {
        await file?.close();
        file = undefined;
      },
    };
  }
}

/** Removes what a process left that ended while it gave rows away. Whoever calls this must have the store to itself. */
export async function removeLinkedTables(directory: string): Promise<void> {
  for (const name of await readdir(directory))
    if (name.startsWith(prefix)) await rm(join(directory, name), { recursive: true, force: true });
}

/** Links what the store consists of; undefined when that changed meanwhile. */
async function linkAll(store: string, path: string): Promise<LiveFiles['tables'] | undefined> {
  const live = await readLive(store);
  if (live === undefined) return undefined;
  try {
    for (const number of live.tables.keys())
      await link(join(store, `${String(number).padStart(6, '0')}.ldb`), join(path, String(number)));
  } catch (error) {
    if (isErrnoException(error, 'ENOENT')) return undefined;
    const why = 'rows are not given away here: the file system gives its files no second name (hard link)';
    throw new HoldfastError('NOT_FOUND', why, { cause: error });
  }
  const after = await readLive(store);
  const isSame =
    after?.tables.size === live.tables.size && [...live.tables.keys()].every((n) => after.tables.has(n));
  return isSame ? live.tables : undefined;
}

type NumberedTable = readonly [number: number, table: LiveTable];

/** As few runs as there can be of tables that do not overlap: about as many as LevelDB has levels. */
function runsOf(tables: readonly NumberedTable[]): NumberedTable[][] {
  const runs: NumberedTable[][] = [];
  for (const table of tables.toSorted(([, a], [, b]) => compareKeys(a.smallest, b.smallest))) {
    const isBehind = (run: NumberedTable[]): boolean => {
      const [, last] = run.at(-1) ?? table;
      return compareKeys(last.largest, table[1].smallest) < 0;
    };
    const run = runs.find(isBehind);
    if (run === undefined) runs.push([table]);
    else run.push(table);
  }
  return runs;
}

/** Of keys as tables have them, what comes before LevelDB's 8 bytes. */
function compareKeys(a: Uint8Array, b: Uint8Array): number {
  return asBuffer(a.subarray(0, -8)).compare(b.subarray(0, -8));
}

async function* mergedPages(
  runs: readonly RunCursor[],
  isSent: (key: Uint8Array) => boolean,
): AsyncGenerator<Uint8Array> {
  const page = new PageWriter();
  const before = new KeyBefore();
  const left: RunCursor[] = [];
  for (const run of runs) if (await run.load()) left.push(run);
  for (;;) {
    const [run, next] = firstTwo(left);
    if (run === undefined) break;
    for (;;) {
      const { key } = run;
      if (before.moveTo(key) && !run.isRemoved && isSent(key)) {
        const { value } = run;
        if (!page.fits(key, value)) yield page.take();
        page.add(key, value);
      }
      if (!run.advance() && !(await run.load())) {
        left.splice(left.indexOf(run), 1);
        break;
      }
      if (next !== undefined && run.compare(next) > 0) break;
    }
  }
  if (!page.isEmpty) yield page.take();
}

/** The run whose row comes first, and the one that is first without it. */
function firstTwo(runs: readonly RunCursor[]): readonly [first?: RunCursor, second?: RunCursor] {
  let first: RunCursor | undefined;
  let second: RunCursor | undefined;
  for (const run of runs) {
    if (first === undefined || run.compare(first) < 0) {
      second = first;
      first = run;
    } else if (second === undefined || run.compare(second) < 0) second = run;
  }
  return first === undefined ? [] : second === undefined ? [first] : [first, second];
}

/** Remembers one key: of rows with the same one only the first counts. */
class KeyBefore {
  #bytes: Uint8Array = new Uint8Array(256);
  #length = -1;

  /** False when it was there already. */
  moveTo(key: Uint8Array): boolean {
    if (this.#is(key)) return false;
    if (key.length > this.#bytes.length) this.#bytes = new Uint8Array(2 * key.length);
    this.#bytes.set(key);
    this.#length = key.length;
    return true;
  }

  /** From the end: neighbours differ there. */
  #is(key: Uint8Array): boolean {
    let left = key.length === this.#length ? key.length : -1;
    while (left > 0 && key[left - 1] === this.#bytes[left - 1]) left--;
    return left === 0;
  }
}
