// The rows of a view on LevelDB, each under a checksum bound to its key.
//
// A flipped bit can also hide rows: from a scan, or from every question. So the files are checked before they are
// opened and while they are open (level-check.ts), a scan waits until all of them were checked once and verifies the
// row that ends it, and the view asks for a missing row in a second place before it says that there is none (view.ts). Once damage was found, nothing is
// answered any more.
//
// LevelDB refuses all writes after one failed. Then the rows are opened anew before the next one.

import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import { utf8 } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { rowsOf } from '../core/row-pages.ts';
import { openBorn } from './birth.ts';
import { isDiskFull } from './errno.ts';
import type { KeyRange, Kv, KvChanges, KvRow } from './kv.ts';
import { type CheckedAtOpen, checkLevel, keepChecking } from './level-check.ts';
import { LinkedTables, removeLinkedTables } from './level-give.ts';
import { removeTablesBeside, TablesBeside } from './level-load.ts';
import type { OwnRow } from './level-pages.ts';
import type { LogPosition } from './log.ts';
import { decodeState, positionKey } from './rows.ts';
import { sealValue, storeError, unsealValue } from './seal.ts';
import type { CopyableKv } from './snapshot.ts';

type Db = ClassicLevel<string, Uint8Array>;

export interface LevelKvOptions {
  /** False only for scratch that nobody misses, and nobody checks. Default true. */
  readonly sync?: boolean;
  /** Bytes of tables that are checked before the rows open; the others are checked right after. Default 256 MiB. */
  readonly checkBytesMax?: number;
}

export class LevelKv implements Kv, CopyableKv {
  readonly copyable: CopyableKv = this;
  readonly #directory: string;
  readonly #sync: boolean;
  #db: Db;
  #checking = new AbortController();
  #checked: Promise<void> = Promise.resolve();
  /** Resolves once every table was looked at since the rows were opened, or damage was found. */
  #allChecked: Promise<void> = Promise.resolve();
  #damage: unknown;
  /** Monotonic ms until which looks are left to LevelDB's threads. */
  #tripsUntil = 0;
  /** Keys asked for in this turn, and what will be found under them. */
  #asked: { readonly keys: string[]; readonly values: Promise<(Uint8Array | undefined)[]> } | undefined;

  private constructor(directory: string, { db, files }: Opened, sync: boolean) {
    this.#directory = directory;
    this.#db = db;
    this.#sync = sync;
    this.#keepChecking(files);
  }

  /**
   * Opens the rows in `directory`, creating them on first use.
   * Throws DATA_DIR_DAMAGED, DATA_DIR_FOREIGN, DATA_DIR_NEWER, DATA_DIR_LOCKED, RECORD_CORRUPT.
   */
  static async open(directory: string, options: LevelKvOptions = {}): Promise<LevelKv> {
    const { sync = true, checkBytesMax } = options;
    const opened = await openDb(directory, sync, checkBytesMax);
    // Only now is it certain that nobody else needs them.
    await removeTablesBeside(directory);
    await removeLinkedTables(directory);
    return new LevelKv(directory, opened, sync);
  }

  /**
   * Looks at once, because a trip to LevelDB's threads costs five times as much as the look. Once a look has waited for
   * the disk, the next ones make the trip for a while, and what is asked for in one turn makes it together.
   */
  async get(key: string): Promise<Uint8Array | undefined> {
    if (performance.now() >= this.#tripsUntil) return this.#getNow(key);
    let asked = this.#asked;
    if (asked === undefined) {
      const keys: string[] = [];
      asked = { keys, values: Promise.resolve().then(() => this.#fetch(keys)) };
      this.#asked = asked;
    }
    const index = asked.keys.push(key) - 1;
    const sealed = (await asked.values)[index];
    return sealed === undefined ? undefined : unseal(key, sealed);
  }

  async getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    const sealed = await this.#reading(() => this.#db.getMany([...keys]));
    return keys.map((key, index) => {
      const value = sealed[index];
      return value === undefined ? undefined : unseal(key, value);
    });
  }

  async *range({ from, to, limit = Infinity, reverse = false }: KeyRange): AsyncGenerator<KvRow> {
    if (limit <= 0) return;
    await this.#allChecked; // a row that a flipped bit hides is missed by nobody who asks for all
    this.#checkWhole();
    const start = reverse ? { lt: to, reverse } : { gte: from };
    let count = 0;
    try {
      for await (const [key, sealed] of rowsOf(this.#db.iterator(start), limit)) {
        const value = unseal(key, sealed); // the row that ends the scan too: a flipped key ends it early
        if (reverse ? lessBytes(key, from) : !lessBytes(key, to)) return;
        yield [key, value];
        if (++count >= limit) return;
      }
    } catch (error) {
      throw storeError(error, 'the view');
    }
  }

  async write(changes: KvChanges): Promise<void> {
    this.#checkWhole();
    const batch = this.#db.batch();
    for (const [key, value] of changes) {
      if (value === null) batch.del(key);
      else {
        const bytes = utf8(key);
        batch.put<Uint8Array, Uint8Array>(bytes, sealValue(bytes, value), bytesAsKeys);
      }
    }
    try {
      await batch.write({ sync: this.#sync });
    } catch (cause) {
      throw readOnly(this.#directory, cause);
    }
  }

  async *pages(): AsyncGenerator<Uint8Array> {
    await this.#allChecked;
    this.#checkWhole();
    try {
      // What LevelDB holds in memory becomes a table, wherever the range is that is to be compacted.
      await this.#db.compactRange(behindAll, behindAll, bytesAsKeys);
      await using tables = await LinkedTables.create(this.#directory);
      yield* tables.pages();
    } catch (error) {
      throw storeError(error, 'the view');
    }
  }

  async replaceAll(pages: AsyncIterable<Uint8Array>, own: KvChanges = new Map()): Promise<void> {
    await this.#replaceBy(own, async (tables) => {
      for await (const page of pages) await this.#writing(() => tables.add(page));
      await this.#writing(() => tables.endPages());
    });
  }

  async clear(): Promise<void> {
    await this.#replaceBy(new Map(), async () => undefined);
  }

  async reopen(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#use(await openDb(this.#directory, this.#sync));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#checking.abort();
    await this.#checked;
    await this.#db.close();
  }

  async #replaceBy(own: KvChanges, fill: (tables: TablesBeside) => Promise<void>): Promise<void> {
    this.#checkWhole();
    const tables = await this.#writing(() => TablesBeside.begin(this.#directory, this.#sync));
    try {
      await fill(tables);
      await this.#writing(() => tables.finish([...own].map(sealedRow)));
      await this.#writing(() => this.#exchange(tables));
    } finally {
      await tables[Symbol.asyncDispose]();
    }
  }

  /** Whatever comes of it, the rows are open again: those from before or all of the others. */
  async #exchange(tables: TablesBeside): Promise<void> {
    await this[Symbol.asyncDispose]();
    try {
      await tables.putInForce();
    } catch (error) {
      this.#use(await openDb(this.#directory, this.#sync));
      throw error;
    }
    // What this process wrote a moment ago it need not look at before it begins.
    this.#use({ ...(await openDb(this.#directory, false)), ...(this.#sync ? { files: allChecked } : {}) });
  }

  #use({ db, files }: Opened): void {
    this.#db = db;
    this.#checking = new AbortController();
    this.#keepChecking(files);
  }

  async #writing<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      throw error instanceof HoldfastError ? error : readOnly(this.#directory, error);
    }
  }

  #keepChecking(files: CheckedAtOpen | undefined): void {
    if (files === undefined) return;
    const all = Promise.withResolvers<void>();
    if (files.unchecked.length > 0) this.#allChecked = all.promise;
    const run = keepChecking(join(this.#directory, 'db'), files, this.#checking.signal, all.resolve);
    this.#checked = run
      .catch((error: unknown) => {
        this.#damage = error;
      })
      .finally(all.resolve);
  }

  #checkWhole(): void {
    if (this.#damage !== undefined) throw storeError(this.#damage, 'the view');
  }

  async #reading<T>(read: () => Promise<T>): Promise<T> {
    this.#checkWhole();
    try {
      return await read();
    } catch (error) {
      throw storeError(error, 'the view');
    }
  }

  #getNow(key: string): Uint8Array | undefined {
    this.#checkWhole();
    const began = performance.now();
    let sealed: Uint8Array | undefined;
    try {
      sealed = this.#db.getSync(key);
    } catch (error) {
      throw storeError(error, 'the view');
    }
    const now = performance.now();
    if (now - began > slowLookMs) this.#tripsUntil = now + tripsPerLook * (now - began);
    return sealed === undefined ? undefined : unseal(key, sealed);
  }

  async #fetch(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    this.#asked = undefined; // who asks from here on asks for the next trip
    const [only = ''] = keys;
    return this.#reading(async () =>
      keys.length === 1 ? [await this.#db.get(only)] : this.#db.getMany([...keys]),
    );
  }
}

/**
 * How far the view in `directory`, which nobody has open, had come; undefined when that is not to be read. For a view of
 * another edition: this one row is the same in all.
 */
export async function positionIn(directory: string): Promise<LogPosition | undefined> {
  const db: Db = new ClassicLevel(join(directory, 'db'), {
    keyEncoding: 'utf8',
    valueEncoding: 'view',
    createIfMissing: false,
  });
  try {
    await db.open();
    const sealed = await db.get(positionKey);
    return sealed === undefined ? undefined : decodeState(unseal(positionKey, sealed)).position;
  } catch (error) {
    console.error(`how far ${directory} had come is not to be read: ${describeError(error)}`);
    return undefined;
  } finally {
    await db.close();
  }
}

/** Behind every key: those are text. */
const behindAll = Uint8Array.of(0xff);
/** A look that takes longer than this, ms, has waited for the disk: from LevelDB's memory, or the kernel's, it takes µs. */
const slowLookMs = 1;
/** For so many times as long, other threads wait for that disk: this one does for a twentieth of its time at most. */
const tripsPerLook = 20;
/** Keys that are encoded already. */
const bytesAsKeys = { keyEncoding: 'view' } as const;
const format = { format: 'holdfast/beacon-view', version: 1 };

interface Opened {
  readonly db: Db;
  /** Absent for scratch. */
  readonly files: CheckedAtOpen | undefined;
}

const allChecked: CheckedAtOpen = { unchecked: [] };

function sealedRow([key, value]: readonly [key: string, value: Uint8Array | null]): OwnRow {
  const bytes = utf8(key);
  return [bytes, value && sealValue(bytes, value)];
}

async function openDb(directory: string, isChecked: boolean, checkBytesMax?: number): Promise<Opened> {
  return openBorn(directory, format, async (path, createIfMissing) => {
    const files = isChecked ? await checkLevel(path, checkBytesMax) : undefined;
    const db: Db = new ClassicLevel(path, { keyEncoding: 'utf8', valueEncoding: 'view', createIfMissing });
    await db.open();
    return { db, files };
  });
}

function readOnly(directory: string, cause: unknown): HoldfastError {
  const code = isDiskFull(cause) ? 'DISK_FULL' : 'BEACON_UNAVAILABLE';
  return new HoldfastError(code, `${directory} takes no entries: ${describeError(cause)}`, {
    cause,
    details: { readOnly: true },
  });
}

function unseal(key: string, sealed: Uint8Array): Uint8Array {
  return unsealValue(utf8(key), sealed, `row ${JSON.stringify(key.slice(0, 120))}`);
}

/** Order of the UTF-8 bytes. Only surrogates make it differ from that of JavaScript's text. */
function lessBytes(a: string, b: string): boolean {
  return surrogate.test(a) || surrogate.test(b) ? Buffer.from(a).compare(Buffer.from(b)) < 0 : a < b;
}

const surrogate = /[\ud800-\udfff]/;
