// All rows that a store of LevelDB has at one moment, as they lie in its tables, while it is open.
//
// A table never changes, but a compaction removes it. So the tables of one moment get a second name, in a directory
// beside the store: they are those that the MANIFEST named before and still names afterwards. What LevelDB has only in
// its log is not in them; whoever wants that has it made a table first. Rows are as of the end of some write, all of it.

import { type FileHandle, link, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { asBuffer } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isErrnoException } from './errno.ts';
import { readLive } from './level-check.ts';
import { BlockCursor, type TableFile } from './level-cursor.ts';
import type { LiveFiles, LiveTable } from './level-format.ts';
import { compareKeys } from './level-keys.ts';
import { corrupt } from './seal.ts';
import { PageWriter, runsMax } from './snapshot.ts';

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

  /** The rows, in pages (snapshot.ts). Throws RECORD_CORRUPT for a table that is damaged where it must be read. */
  async *pages(): AsyncGenerator<Uint8Array> {
    const runs = runsOf([...this.#tables]);
    if (runs.length > runsMax)
      throw new HoldfastError('NOT_FOUND', `rows lie in ${runs.length} runs of tables`);
    const cursors = runs.map(
      ({ tables }) =>
        new BlockCursor(tables.map(([number, { sizeBytes }]) => this.#table(number, sizeBytes))),
    );
    try {
      const page = new PageWriter(runs.map(({ level }) => level));
      yield* blockPages(page, cursors);
    } catch (error) {
      throw error instanceof RangeError ? corrupt('a table', error.message, error) : error;
    } finally {
      for (const cursor of cursors) await cursor.close();
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
      async read(into, offset) {
        file ??= await open(path, 'r');
        const { bytesRead } = await file.read(into, 0, into.length, offset);
        if (bytesRead !== into.length) throw new RangeError('ends too early');
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

interface Run {
  readonly level: number;
  readonly tables: readonly NumberedTable[];
}

/** Tables that do not overlap, the newest first: each one of LevelDB's first level, and all of each other level. */
function runsOf(tables: readonly NumberedTable[]): Run[] {
  const levels = Map.groupBy(tables, ([, { level }]) => level);
  const first = (levels.get(0) ?? []).toSorted(([a], [b]) => b - a);
  levels.delete(0);
  const others = [...levels]
    .toSorted(([a], [b]) => a - b)
    .map(([level, all]) => ({
      level,
      tables: all.toSorted(([, a], [, b]) => asBuffer(a.smallest).compare(b.smallest)),
    }));
  return [...first.map((table) => ({ level: 0, tables: [table] })), ...others];
}

interface Place {
  readonly run: number;
  readonly cursor: BlockCursor;
}

/** All blocks in the order of their first keys. */
async function* blockPages(page: PageWriter, cursors: readonly BlockCursor[]): AsyncGenerator<Uint8Array> {
  const left: Place[] = [];
  for (const [run, cursor] of cursors.entries()) if (await cursor.load()) left.push({ run, cursor });
  for (;;) {
    const [next, second] = firstTwo(left);
    if (next === undefined) break;
    const { run, cursor } = next;
    const isStillNext = (): boolean => second === undefined || cursor.isBefore(second.cursor.firstKey);
    let isThere = true;
    do {
      for (const full of page.add({ run, bytes: cursor.bytes })) yield full;
      isThere = cursor.advance() || (await cursor.load());
    } while (isThere && isStillNext());
    if (!isThere) left.splice(left.indexOf(next), 1);
  }
  yield page.take();
}

/** The one whose block comes first, and the one that is first without it. */
function firstTwo(places: readonly Place[]): readonly [first?: Place, second?: Place] {
  let first: Place | undefined;
  let second: Place | undefined;
  const isBefore = (one: Place, other: Place | undefined): boolean =>
    other === undefined || compareKeys(one.cursor.firstKey, other.cursor.firstKey) < 0;
  for (const place of places) {
    if (isBefore(place, first)) [first, second] = [place, first];
    else if (isBefore(place, second)) second = place;
  }
  return first === undefined ? [] : second === undefined ? [first] : [first, second];
}
