// Which blocks there are and where: a LevelDB that can always be computed again from files and segments.
//
//   b<key>  entry                a stored block
//   d<key>  empty                a file that was deleted and may still have to be unlinked
//   m       totals               count, bytes, sum of digests, and how far the segments are indexed
//   s       scrub                where scrubbing goes on
//
// Every value is sealed. Totals are written in the same batch as what they count, so a LevelDB that lost
// or swallowed records (it does so silently) disagrees with its own totals at the next open, and is
// rebuilt. Additions are not flushed one by one: the block's own bytes are already durable, and after a
// crash whatever the index forgot is found again (block-recovery.ts). Deletions are flushed.

import type { ClassicLevel } from 'classic-level';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { rowsOf } from '../core/row-pages.ts';
import {
  type BlockEntry,
  type BlockKey,
  blockKeyBytes,
  DigestSum,
  decodeEntry,
  encodeEntry,
} from './block-key.ts';
import { frameHeadBytes } from './block-segments.ts';
import type { LevelStore } from './stores.ts';
import { openValue, sealValue } from './stores.ts';

/** How far the segments are indexed: every frame before this place is either indexed or unwanted. */
export interface IndexTail {
  readonly segment: number;
  readonly offset: number;
}

export type IndexChange =
  | { readonly op: 'add'; readonly key: BlockKey; readonly entry: BlockEntry }
  | { readonly op: 'move'; readonly key: BlockKey; readonly from: BlockEntry; readonly entry: BlockEntry }
  | { readonly op: 'remove'; readonly key: BlockKey; readonly entry: BlockEntry }
  /** The file of a removed block is unlinked. */
  | { readonly op: 'buried'; readonly key: BlockKey };

export interface CommitOptions {
  /** Flush before resolving. */
  readonly sync?: boolean;
  readonly tail?: IndexTail;
  /** Called in the same turn in which count and sum change. */
  readonly committed?: () => void;
}

interface Pending extends CommitOptions {
  readonly changes: readonly IndexChange[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

type Level = ClassicLevel<Uint8Array, Uint8Array>;

type Operation =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array };

interface Totals {
  readonly count: number;
  readonly bytes: number;
  readonly sum: Uint8Array;
}

const entryPrefix = 0x62;
const deletedPrefix = 0x64;
const metaKey = utf8('m');
const scrubKey = utf8('s');
/** Unflushed additions: bounds what recovery has to find again after a power cut. */
const unsyncedMax = 4096;

export class BlockIndex {
  readonly #store: LevelStore;
  readonly #level: Level;
  readonly #sum = new DigestSum();
  #count = 0;
  #bytes = 0;
  #tail: IndexTail = { segment: 0, offset: 0 };
  #totals: Totals = { count: 0, bytes: 0, sum: new Uint8Array(32) };
  readonly #live = new Map<number, number>();
  /** Keys to be looked up at the end of this turn, and the answers to them in their order. */
  #asked: Uint8Array[] = [];
  #asking: Promise<(Uint8Array | undefined)[]> | undefined;
  #queue: Pending[] = [];
  #writing: Promise<void> | undefined;
  #unsynced = 0;
  #broken: Error | undefined;

  constructor(store: LevelStore) {
    this.#store = store;
    this.#level = store.level;
  }

  /**
   * Reads the whole index and compares it with its totals. Throws RECORD_CORRUPT when they differ or a
   * value is damaged: then it must be rebuilt.
   */
  async load(): Promise<void> {
    for await (const [key, entry] of this.entries()) this.#tally(key, entry, 1);
    this.#publish();
    const sealed = await this.#level.get(metaKey);
    if (sealed === undefined) {
      if (this.#count === 0) return;
      throw new HoldfastError('RECORD_CORRUPT', `a block index of ${this.#count} entries has no totals`);
    }
    const totals = decodeTotals(openValue(metaKey, sealed));
    this.#tail = totals.tail;
    if (totals.count !== this.#count || !sameBytes(totals.sum, this.#sum.bytes())) {
      throw new HoldfastError(
        'RECORD_CORRUPT',
        `the block index holds ${this.#count} entries where it counted ${totals.count}`,
        { details: { found: this.#count, expected: totals.count } },
      );
    }
  }

  /** Count, sum of sizes and sum of digests of what is committed. */
  get totals(): Totals {
    return this.#totals;
  }

  get tail(): IndexTail {
    return this.#tail;
  }

  /** Why nothing more can be written here, undefined while all is well. */
  get broken(): Error | undefined {
    return this.#broken;
  }

  /** Bytes of a segment, heads included, that the index refers to. */
  liveBytes(segment: number): number {
    return this.#live.get(segment) ?? 0;
  }

  /**
   * Throws RECORD_CORRUPT, or what LevelDB throws, when the index is damaged here. Those who ask in one turn share
   * a trip to LevelDB's threads: blocks that came together are then written together too.
   */
  async get(key: BlockKey): Promise<BlockEntry | undefined> {
    const at = entryKey(key);
    this.#asked.push(at);
    const place = this.#asked.length - 1;
    this.#asking ??= Promise.resolve().then(() => {
      this.#asking = undefined;
      return this.#level.getMany(this.#asked.splice(0));
    });
    const sealed = (await this.#asking)[place];
    return sealed === undefined ? undefined : decodeEntry(openValue(at, sealed));
  }

  /** Entries with `after` < key, in order. Throws like `get`. */
  async *entries(
    after?: BlockKey,
    before?: BlockKey,
  ): AsyncGenerator<[BlockKey, BlockEntry], void, undefined> {
    const range = {
      ...(after === undefined ? { gte: Uint8Array.of(entryPrefix) } : { gt: entryKey(after) }),
      lt: before === undefined ? Uint8Array.of(entryPrefix + 1) : entryKey(before),
    };
    const options = { ...range, fillCache: false, highWaterMarkBytes: 64 * 1024 };
    for await (const [at, sealed] of rowsOf(this.#level.iterator(options)))
      yield [at.slice(1), decodeEntry(openValue(at, sealed))];
  }

  /** Keys of deleted files that may not be unlinked yet. */
  async deleted(): Promise<BlockKey[]> {
    const keys: BlockKey[] = [];
    const range = { gte: Uint8Array.of(deletedPrefix), lt: Uint8Array.of(deletedPrefix + 1) };
    for await (const key of rowsOf(this.#level.keys(range)))
      if (key.length === blockKeyBytes + 1) keys.push(key.slice(1));
    return keys;
  }

  async scrubCursor(): Promise<Uint8Array> {
    const sealed = await this.#level.get(scrubKey);
    return sealed === undefined ? new Uint8Array(0) : openValue(scrubKey, sealed);
  }

  /** Not flushed: a round that begins again a little earlier does no harm. */
  async saveScrubCursor(cursor: Uint8Array): Promise<void> {
    if (this.#broken === undefined) await this.#level.put(scrubKey, sealValue(scrubKey, cursor));
  }

  /**
   * Applies changes together; many callers share one write. After a failure the index takes no more
   * writes until it is opened again, because LevelDB may have written half of it.
   */
  async commit(changes: readonly IndexChange[], options: CommitOptions = {}): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#queue.push({ ...options, changes, resolve, reject });
    });
    this.#writing ??= this.#drain();
    return done;
  }

  /** Resolves when everything given to `commit` so far is flushed. */
  async sync(): Promise<void> {
    await this.commit([], { sync: true });
  }

  async close(): Promise<void> {
    await this.#writing;
    if (this.#broken === undefined) await this.#store[Symbol.asyncDispose]();
    else await this.#store.abandon();
  }

  /** Closes without saying that all is well. */
  async abandon(): Promise<void> {
    await this.#writing;
    this.#broken ??= new Error('the index was given up');
    await this.#store.abandon();
  }

  async #drain(): Promise<void> {
    await Promise.resolve(); // those who commit in this turn join the first batch
    while (this.#queue.length > 0) {
      const group = this.#queue;
      this.#queue = [];
      await this.#writeGroup(group);
    }
    this.#writing = undefined;
  }

  async #writeGroup(group: readonly Pending[]): Promise<void> {
    try {
      if (this.#broken !== undefined) throw this.#broken;
      for (const { changes } of group) for (const change of changes) this.#countChange(change, 1);
      const tail = group.findLast(({ tail }) => tail !== undefined)?.tail ?? this.#tail;
      await this.#writeBatch(group, tail);
      this.#tail = tail;
      this.#publish();
    } catch (error) {
      this.#broken ??= error instanceof Error ? error : new Error(String(error));
      for (const { reject } of group) reject(error);
      return;
    }
    for (const { committed, resolve } of group) {
      committed?.();
      resolve();
    }
  }

  async #writeBatch(group: readonly Pending[], tail: IndexTail): Promise<void> {
    const operations: Operation[] = [];
    for (const { changes } of group) for (const change of changes) operations.push(...operationsOf(change));
    const totals = encodeCbor({ count: this.#count, sum: this.#sum.bytes(), ...tail });
    operations.push({ type: 'put', key: metaKey, value: sealValue(metaKey, totals) });
    this.#unsynced += operations.length;
    const sync = this.#unsynced >= unsyncedMax || group.some(({ sync }) => sync === true);
    await this.#level.batch(operations, { sync });
    if (sync) this.#unsynced = 0;
  }

  #publish(): void {
    this.#totals = { count: this.#count, bytes: this.#bytes, sum: this.#sum.bytes() };
  }

  #countChange(change: IndexChange, sign: 1 | -1): void {
    if (change.op === 'add') this.#tally(change.key, change.entry, sign);
    if (change.op === 'remove') this.#tally(change.key, change.entry, sign === 1 ? -1 : 1);
    if (change.op === 'move') {
      this.#countLive(change.from, -1);
      this.#countLive(change.entry, 1);
    }
  }

  #tally(key: BlockKey, entry: BlockEntry, sign: 1 | -1): void {
    this.#count += sign;
    this.#bytes += sign * entry.sizeBytes;
    if (sign === 1) this.#sum.add(key);
    else this.#sum.subtract(key);
    this.#countLive(entry, sign);
  }

  #countLive(entry: BlockEntry, sign: 1 | -1): void {
    if (entry.kind !== 'segment') return;
    const live = this.liveBytes(entry.segment) + sign * (frameHeadBytes + entry.sizeBytes);
    if (live === 0) this.#live.delete(entry.segment);
    else this.#live.set(entry.segment, live);
  }
}

function operationsOf(change: IndexChange): Operation[] {
  const { op, key } = change;
  if (op === 'buried') return [{ type: 'del', key: deletedKey(key) }];
  if (op === 'remove') {
    const gone: Operation = { type: 'del', key: entryKey(key) };
    const grave = deletedKey(key);
    const mark: Operation = { type: 'put', key: grave, value: sealValue(grave, new Uint8Array(0)) };
    return change.entry.kind === 'file' ? [gone, mark] : [gone];
  }
  const at = entryKey(key);
  const put: Operation = { type: 'put', key: at, value: sealValue(at, encodeEntry(change.entry)) };
  return change.entry.kind === 'file' ? [put, { type: 'del', key: deletedKey(key) }] : [put];
}

function decodeTotals(bytes: Uint8Array): { count: number; sum: Uint8Array; tail: IndexTail } {
  const totals = decodeCbor(bytes, 'totals of the block index');
  const { count, sum, segment, offset }: Record<string, unknown> = Object.fromEntries(
    Object.entries(Object(totals)),
  );
  if (
    !(sum instanceof Uint8Array) ||
    typeof count !== 'number' ||
    typeof segment !== 'number' ||
    typeof offset !== 'number'
  ) {
    throw new HoldfastError('RECORD_CORRUPT', 'the totals of the block index are malformed');
  }
  return { count, sum, tail: { segment, offset } };
}

function entryKey(key: BlockKey): Uint8Array {
  return concat(Uint8Array.of(entryPrefix), key);
}

function deletedKey(key: BlockKey): Uint8Array {
  return concat(Uint8Array.of(deletedPrefix), key);
}
