// The Beacon log on LevelDB: one process owns it, every acknowledged entry is on disk.
//
// Appends queue up and one loop takes them: whatever waits when a sync begins shares the next one. In that loop,
// compare-and-set needs no lock.
//
//   e<revision>  chain ‖ payload            one per entry
//   s<subject>   revision of its last append
//   h            revision ‖ chain           the head, once per group
//
// Every value carries a checksum bound to its key (seal.ts), revisions have no gaps, and the chain is computed
// again on every read; so flipped bits, lost rows and a lost tail (mark.ts) are errors and never answers.
//
// A log can also be the copy of one that is kept elsewhere (jetstream.ts). Then a group is judged here, put in force
// there, and written here; what others put in force there comes through `take`.
//
// LevelDB refuses all writes after one failed. Then this log is read-only and says so, and an append that comes
// when there is room again closes it, opens it, verifies the tail and goes on.

import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { type BatchOperation, ClassicLevel } from 'classic-level';
import { asBuffer, concat, sameBytes, uint64, utf8 } from '../core/bytes.ts';
import { Gate } from '../core/concurrency.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { appendBytesMax } from '../core/limits.ts';
import { rowsOf } from '../core/row-pages.ts';
import { Bell, readAndFollow } from './bell.ts';
import { openBorn } from './birth.ts';
import { isDiskFull } from './errno.ts';
import {
  type Append,
  appendIdText,
  decodeEntry,
  emptyPosition,
  encodeAppend,
  expectationHolds,
  type LogEntry,
  type LogHead,
  type LogHealth,
  type LogLineage,
  type LogPosition,
  nextChain,
  nextEntry,
  type RecallingLog,
  versionConflict,
} from './log.ts';
import { checkLevel } from './level-check.ts';

import { Lru } from './lru.ts';
import { HighWaterMark } from './mark.ts';
import { corrupt, sealValue, storeError, unsealValue } from './seal.ts';

export interface LevelLogOptions {
  /** Free bytes that must be there before a full disk is tried again. Default 16 MiB. */
  readonly freeBytesMin?: number;
  /** Which log this is; `head` says it. Absent: not known here. */
  readonly lineage?: LogLineage;
  /** Where appends are put in force before they are written here. Absent: here. */
  readonly original?: Original;
}

/** A log kept elsewhere, of which a LevelLog is the copy. */
export interface Original {
  /** Payloads of one group that it takes: one append more may follow. */
  readonly groupBytesMax: number;
  /**
   * Puts `entries` in force right after `before`. `written`: they are, for good. `moved`: they are not and never will
   * be, since others came first. Throws when neither is known, or when it cannot be reached.
   */
  publish(before: LogPosition, entries: readonly LogEntry[]): Promise<'written' | 'moved'>;
  /** Resolves when all that is in force now was given to `take`. */
  catchUp(): Promise<void>;
}

type Db = ClassicLevel<Uint8Array, Uint8Array>;
type Operation = BatchOperation<Db, Uint8Array, Uint8Array>;

interface Waiting {
  readonly append: Append;
  readonly payload: Uint8Array;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (entry: LogEntry) => void;
  readonly reject: (error: unknown) => void;
}

/** Appends staged for one sync, and what they would make of the state. */
interface Group {
  head: LogPosition;
  readonly subjects: Map<string, number>;
  readonly entryOfId: Map<string, LogEntry>;
  readonly entries: LogEntry[];
  readonly operations: Operation[];
  readonly answers: (() => void)[];
}

export class LevelLog implements RecallingLog {
  readonly #directory: string;
  readonly #freeBytesMin: number;
  readonly #original: Original | undefined;
  readonly #lineage: { readonly lineage?: LogLineage };
  readonly #lane = new Gate(1);
  readonly #mark: HighWaterMark;
  readonly #bell = new Bell();
  readonly #subjects = new Lru<number>(subjectsCached);
  readonly #revisionOfId = new Lru<number>(idsRemembered);
  readonly #queue: Waiting[] = [];
  #db: Db | undefined;
  #head: LogPosition = emptyPosition;
  #health: LogHealth = { state: 'ready', reason: '' };
  #draining: Promise<void> | undefined;
  #closed = false;

  private constructor(directory: string, db: Db, options: LevelLogOptions) {
    this.#directory = directory;
    this.#db = db;
    this.#freeBytesMin = options.freeBytesMin ?? 16 * 1024 * 1024;
    this.#original = options.original;
    this.#lineage = options.lineage === undefined ? {} : { lineage: options.lineage };
    this.#mark = new HighWaterMark(join(directory, 'mark'));
  }

  /**
   * Opens the log in `directory`, creating it on first use. Verifies the newest entries, as many as LevelDB may
   * have replayed; `beacon verify` reads them all.
   * Throws DATA_DIR_DAMAGED, DATA_DIR_FOREIGN, DATA_DIR_NEWER, DATA_DIR_LOCKED, RECORD_CORRUPT.
   */
  static async open(directory: string, options: LevelLogOptions = {}): Promise<LevelLog> {
    const log = new LevelLog(directory, await openDb(directory), options);
    try {
      await log.#load();
      return log;
    } catch (error) {
      await log[Symbol.asyncDispose]();
      throw error;
    }
  }

  health(): LogHealth {
    return this.#health;
  }

  async append(append: Append, options: { readonly signal?: AbortSignal } = {}): Promise<LogEntry> {
    this.#checkOpen();
    options.signal?.throwIfAborted();
    const payload = encodeAppend(append);
    const answer = Promise.withResolvers<LogEntry>();
    this.#queue.push({ append, payload, signal: options.signal, ...answer });
    // Queued first, drained in a later turn: the loop's first look finds what this turn brings.
    this.#draining ??= Promise.resolve().then(() => this.#drain());
    return answer.promise;
  }

  async recall(id: Uint8Array): Promise<LogEntry | undefined> {
    return this.#entryOf(this.#checkOpen(), id);
  }

  /**
   * Writes entries that are in force already, as they are; those that this log has are passed over.
   * Throws RECORD_CORRUPT when they do not continue it, DISK_FULL or BEACON_UNAVAILABLE when it cannot write.
   */
  async take(entries: readonly LogEntry[]): Promise<void> {
    this.#checkOpen();
    await this.#lane.run(async () => {
      const db = await this.#writable();
      const group = emptyGroup(this.#head, new Map());
      for (const entry of entries) {
        if (entry.revision < this.#head.revision) continue;
        if (!continues(group.head, entry))
          throw corrupt(nameOf(entry.revision), 'does not continue the chain');
        if (entry.revision > this.#head.revision) stageEntry(group, entry, entry.payload, () => undefined);
      }
      if (group.entries.length === 0) return;
      await this.#write(db, group);
      this.#bell.ring();
    });
  }

  async *read(from: number, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<LogEntry> {
    const db = this.#checkOpen();
    const last = this.#head.revision;
    const first = Math.max(1, from);
    if (first > last) return;
    let before = await this.#positionAt(db, first - 1);
    for await (const [key, value] of rows(db, { gte: entryKey(first), lte: entryKey(last) })) {
      options.signal?.throwIfAborted();
      const entry = openEntry(key, value, before.revision + 1);
      if (!sameBytes(entry.chain, nextChain(before, entry.payload))) {
        throw corrupt(nameOf(entry.revision), 'does not continue the chain');
      }
      yield entry;
      before = entry;
    }
    if (before.revision !== last) throw corrupt(nameOf(before.revision + 1), 'is missing');
  }

  watch(from: number, options: { readonly signal: AbortSignal }): AsyncIterable<LogEntry> {
    return readAndFollow((next) => this.read(next), this.#bell, from, options.signal);
  }

  async head(): Promise<LogHead> {
    this.#checkOpen();
    return { ...this.#head, ...this.#lineage };
  }

  /** Appends under way are finished first. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#draining;
    await this.#lane.run(async () => undefined);
    this.#bell.ring();
    await this.#db?.close();
    this.#mark[Symbol.dispose]();
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const waiting = takeGroup(this.#queue, this.#original?.groupBytesMax ?? groupBytesMax);
      try {
        await this.#commit(waiting);
      } catch (error) {
        for (const { reject } of waiting) reject(error);
      }
    }
    this.#draining = undefined; // in the same turn as the last look at the queue: nothing is left lying in it
  }

  async #commit(waiting: readonly Waiting[]): Promise<void> {
    const original = this.#original;
    if (original !== undefined && (await this.#seemsBehind(waiting))) await original.catchUp();
    while (!(await this.#lane.run(() => this.#attempt(waiting)))) await original?.catchUp();
  }

  /** Judges, writes and answers the appends of one group, in their order. False: judge again, the log moved on. */
  async #attempt(waiting: readonly Waiting[]): Promise<boolean> {
    const db = await this.#writable();
    const group = await this.#stage(db, waiting);
    if (group.entries.length > 0) {
      if ((await this.#original?.publish(this.#head, group.entries)) === 'moved') return false;
      await this.#write(db, group);
    }
    for (const answer of group.answers) answer();
    if (group.entries.length > 0) this.#bell.ring();
    return true;
  }

  /** True when a writer knows of a revision that is not here yet: only who has caught up may call that a conflict. */
  async #seemsBehind(waiting: readonly Waiting[]): Promise<boolean> {
    const revisions = await this.#currentRevisions(await this.#writable(), waiting);
    return waiting.some(({ append }) => append.expected > (revisions.get(append.subject) ?? 0));
  }

  async #stage(db: Db, waiting: readonly Waiting[]): Promise<Group> {
    const subjects = await this.#currentRevisions(db, waiting);
    const group = emptyGroup(this.#head, subjects);
    for (const item of waiting) {
      const { append, payload, signal, resolve, reject } = item;
      const current = subjects.get(append.subject) ?? 0;
      const repeated = append.id && (await this.#entryOf(db, append.id, group));
      if (signal?.aborted === true) group.answers.push(() => reject(signal.reason));
      else if (repeated !== undefined) group.answers.push(() => resolve(repeated));
      else if (expectationHolds(append.expected, current)) stageEntry(group, append, payload, resolve);
      else group.answers.push(() => reject(versionConflict(append.subject, append.expected, current)));
    }
    return group;
  }

  /** After a failure it is unknown what LevelDB kept; nothing is written until it was opened anew. */
  async #write(db: Db, group: Group): Promise<void> {
    try {
      await db.batch([...group.operations, put(headKey, encodePosition(group.head))], { sync: true });
      this.#mark.write(group.head);
    } catch (cause) {
      throw this.#becomeReadOnly(cause);
    }
    this.#head = group.head;
    for (const [subject, revision] of group.subjects) this.#subjects.set(subject, revision);
    for (const [id, entry] of group.entryOfId) this.#revisionOfId.set(id, entry.revision);
  }

  async #currentRevisions(db: Db, waiting: readonly Waiting[]): Promise<Map<string, number>> {
    const revisions = new Map<string, number>();
    const unknown: string[] = [];
    for (const { append } of waiting) {
      if (revisions.has(append.subject)) continue;
      const cached = this.#subjects.get(append.subject);
      revisions.set(append.subject, cached ?? 0);
      if (cached === undefined) unknown.push(append.subject);
    }
    if (unknown.length === 0) return revisions;
    const keys = unknown.map(subjectKey);
    // For a few keys a hop to another thread costs more than the look itself, mostly into a Bloom filter.
    const values = unknown.length <= 4 ? keys.map((key) => db.getSync(key)) : await db.getMany(keys);
    unknown.forEach((subject, index) => {
      const value = values[index];
      if (value !== undefined) revisions.set(subject, openRevision(subjectKey(subject), value));
    });
    return revisions;
  }

  async #entryOf(db: Db, id: Uint8Array, group?: Group): Promise<LogEntry | undefined> {
    const text = appendIdText(id);
    const staged = group?.entryOfId.get(text);
    if (staged !== undefined) return staged;
    const revision = this.#revisionOfId.get(text);
    return revision === undefined ? undefined : this.#entryAt(db, revision);
  }

  #becomeReadOnly(cause: unknown): HoldfastError {
    const reason = describeError(cause);
    this.#health = { state: 'read-only', reason };
    const code = isDiskFull(cause) ? 'DISK_FULL' : 'BEACON_UNAVAILABLE';
    return new HoldfastError(code, `${this.#directory} takes no appends: ${reason}`, { cause });
  }

  /** The database, opened anew if a write failed before and there is room again. */
  async #writable(): Promise<Db> {
    if (this.#health.state === 'ready') return this.#checkOpened();
    const { bavail, bsize } = await statfs(this.#directory);
    if (bavail * bsize < this.#freeBytesMin) {
      throw new HoldfastError('DISK_FULL', `${this.#directory} takes no appends: ${this.#health.reason}`, {
        details: { freeBytes: bavail * bsize, freeBytesMin: this.#freeBytesMin },
      });
    }
    await this.#reopen();
    return this.#checkOpened();
  }

  async #reopen(): Promise<void> {
    const db = this.#db;
    this.#db = undefined;
    await db?.close();
    try {
      this.#db = await openDb(this.#directory);
      this.#subjects.clear();
      await this.#load();
    } catch (cause) {
      throw asHoldfastError(cause, 'BEACON_UNAVAILABLE', `${this.#directory} does not open again`);
    }
    this.#health = { state: 'ready', reason: '' };
  }

  /** Reads the head and verifies the newest entries against it and against the mark. */
  async #load(): Promise<void> {
    const db = this.#checkOpened();
    const value = await stored(db, headKey);
    const head = value === undefined ? emptyPosition : openPosition(headKey, value);
    const mark = this.#mark.read();
    if (mark !== undefined) await this.#checkMark(db, head, mark);
    if ((await newestRevision(db)) !== head.revision)
      throw corrupt(nameOf(head.revision), 'is not the newest');
    this.#revisionOfId.clear();
    await this.#verifyTail(db, head);
    this.#head = head;
    this.#mark.write(head);
  }

  async #checkMark(db: Db, head: LogPosition, mark: LogPosition): Promise<void> {
    if (mark.revision > head.revision) {
      throw corrupt(
        `the log ends at ${head.revision} and`,
        `had acknowledged ${mark.revision}: restore the rest from a view`,
      );
    }
    const { chain } = await this.#positionAt(db, mark.revision);
    if (!sameBytes(chain, mark.chain)) throw corrupt(nameOf(mark.revision), 'is not what was acknowledged');
  }

  /** Far enough back to cover LevelDB's write-ahead log twice, and every append that may still be sent again. */
  async #verifyTail(db: Db, head: LogPosition): Promise<void> {
    let later: LogEntry | undefined;
    let sizeBytes = 0;
    const ids: [string, number][] = [];
    for await (const [key, value] of rows(db, {
      gte: entryKey(1),
      lte: entryKey(head.revision),
      reverse: true,
    })) {
      const entry = openEntry(key, value, later === undefined ? head.revision : later.revision - 1);
      const claimed = later === undefined ? head.chain : later.chain;
      const computed = later === undefined ? entry.chain : nextChain(entry, later.payload);
      if (!sameBytes(claimed, computed))
        throw corrupt(nameOf(entry.revision), 'is not what the next one follows');
      if (entry.id !== undefined) ids.push([appendIdText(entry.id), entry.revision]);
      later = entry;
      sizeBytes += value.length;
      if (sizeBytes > tailBytes && head.revision - entry.revision >= idsRemembered) break;
    }
    for (const [id, revision] of ids.toReversed()) this.#revisionOfId.set(id, revision);
    if (head.revision > 0 && later === undefined) throw corrupt(nameOf(head.revision), 'is missing');
  }

  async #positionAt(db: Db, revision: number): Promise<LogPosition> {
    return revision === 0 ? emptyPosition : this.#entryAt(db, revision);
  }

  async #entryAt(db: Db, revision: number): Promise<LogEntry> {
    const key = entryKey(revision);
    const value = await stored(db, key);
    if (value === undefined) throw corrupt(nameOf(revision), 'is missing');
    return openEntry(key, value, revision);
  }

  #checkOpen(): Db {
    if (this.#closed) throw new HoldfastError('BEACON_UNAVAILABLE', `${this.#directory} is closed`);
    return this.#checkOpened();
  }

  #checkOpened(): Db {
    if (this.#db !== undefined) return this.#db;
    throw new HoldfastError('BEACON_UNAVAILABLE', `${this.#directory}: ${this.#health.reason}`);
  }
}

/** Subjects whose last revision is kept in memory. About 200 B each. */
const subjectsCached = 32_768;
/** Appends that may be sent again and recognised. Far more than are ever under way; about 100 B each. */
const idsRemembered = 16_384;
/** LevelDB's write buffer is 4 MiB and two may be replayed. */
const tailBytes = 16 * 1024 * 1024;
/** What shares one sync: enough to make it cheap, little enough to keep the wait short. */
const groupAppendsMax = 512;
const groupBytesMax = 4 * appendBytesMax;

const headKey = utf8('h');
const format = { format: 'holdfast/beacon-log', version: 1 };

async function openDb(directory: string): Promise<Db> {
  return openBorn(directory, format, async (path, createIfMissing) => {
    await checkLevel(path);
    const db: Db = new ClassicLevel(path, { keyEncoding: 'view', valueEncoding: 'view', createIfMissing });
    await db.open();
    return db;
  });
}

async function stored(db: Db, key: Uint8Array): Promise<Uint8Array | undefined> {
  try {
    return await db.get(key);
  } catch (error) {
    throw storeError(error, 'the log');
  }
}

function takeGroup(queue: Waiting[], bytesMax: number): Waiting[] {
  let sizeBytes = 0;
  let count = 0;
  while (count < queue.length && count < groupAppendsMax && sizeBytes < bytesMax) {
    sizeBytes += queue[count]?.payload.length ?? 0;
    count++;
  }
  return queue.splice(0, count);
}

function emptyGroup(head: LogPosition, subjects: Map<string, number>): Group {
  return { head, subjects, entryOfId: new Map(), entries: [], operations: [], answers: [] };
}

/** True when `entry` comes right after `before`, or is the entry at `before`. */
function continues(before: LogPosition, entry: LogEntry): boolean {
  if (entry.revision === before.revision) return sameBytes(entry.chain, before.chain);
  return entry.revision === before.revision + 1 && sameBytes(entry.chain, nextChain(before, entry.payload));
}

function stageEntry(
  group: Group,
  append: Append,
  payload: Uint8Array,
  resolve: (entry: LogEntry) => void,
): void {
  const entry = nextEntry(group.head, append, payload);
  group.operations.push(
    put(entryKey(entry.revision), concat(entry.chain, payload)),
    put(subjectKey(append.subject), uint64(entry.revision)),
  );
  group.entries.push(entry);
  group.head = { revision: entry.revision, chain: entry.chain };
  group.subjects.set(append.subject, entry.revision);
  if (append.id !== undefined) group.entryOfId.set(appendIdText(append.id), entry);
  group.answers.push(() => resolve(entry));
}

function put(key: Uint8Array, value: Uint8Array): Operation {
  return { type: 'put', key, value: sealValue(key, value) };
}

/** An iteration whose failures are ours: LevelDB reports some of the damage that it meets. */
async function* rows(
  db: Db,
  range: { gte: Uint8Array; lte: Uint8Array; reverse?: boolean },
): AsyncGenerator<[Uint8Array, Uint8Array]> {
  try {
    yield* rowsOf(db.iterator(range));
  } catch (error) {
    throw storeError(error, 'the log');
  }
}

async function newestRevision(db: Db): Promise<number> {
  for await (const key of db.keys({ gte: entryKey(0), lt: utf8('f'), reverse: true, limit: 1 })) {
    return Number(asBuffer(key).readBigUInt64BE(1));
  }
  return 0;
}

function entryKey(revision: number): Uint8Array {
  return concat(utf8('e'), uint64(revision));
}

function subjectKey(subject: string): Uint8Array {
  return utf8(`s${subject}`);
}

function openEntry(key: Uint8Array, value: Uint8Array, revision: number): LogEntry {
  if (!sameBytes(key, entryKey(revision))) throw corrupt(nameOf(revision), 'is missing');
  const plain = unsealValue(key, value, nameOf(revision));
  return decodeEntry(revision, plain.subarray(0, 32), plain.subarray(32));
}

function openRevision(key: Uint8Array, value: Uint8Array): number {
  return Number(asBuffer(unsealValue(key, value, 'the revision of a subject')).readBigUInt64BE(0));
}

function encodePosition({ revision, chain }: LogPosition): Uint8Array {
  return concat(uint64(revision), chain);
}

function openPosition(key: Uint8Array, value: Uint8Array): LogPosition {
  const plain = unsealValue(key, value, 'the head of the log');
  return { revision: Number(asBuffer(plain).readBigUInt64BE(0)), chain: plain.slice(8) };
}

function nameOf(revision: number): string {
  return `log entry ${revision}`;
}
