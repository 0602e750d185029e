// The block store of one node: verified bytes under their CID, durable when `put` resolves.
//
//   put ─ verify ─┬─ ≥ 64 KiB ─ temp file, flush, rename, flush directory ──┐
//                 └─ smaller ── queue ─ one write and flush for many ───────┴─ index ─ journal ─ acknowledged
//   get ─ index ─ read ─ verify ─┬─ bytes
//                                └─ damaged: out of the index, into quarantine, into the journal; undefined
//
// One index write serves many callers; operations on one block wait for each other, on different blocks
// they do not. A write that fails for want of space or by a fault of the disk makes the store read-only:
// nothing acknowledged is touched, reads go on, and a probe opens it again when the disk takes writes.
// A LevelDB for the blocks themselves was refused: compaction costs it four fifths of its speed at this
// block size, and it does not notice flipped bits.

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { type CID, supportedCid, verifiedBlock } from '../core/block.ts';
import { asBuffer, sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { second } from '../core/clock.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import { isAbsent, isDiskFull, isMachineFault, writeFileDurably, writeSynced } from './block-disk.ts';
import { BlockFiles } from './block-files.ts';
import { BlockIndex } from './block-index.ts';
import { ChangeRing } from './block-journal.ts';
import {
  type BlockEntry,
  type BlockKey,
  cidOfKey,
  keyFromText,
  keyOfCid,
  keyText,
  sameEntry,
} from './block-key.ts';
import { isDigestOf, recover, type RecoveryReport } from './block-recovery.ts';
import { type FramePlace, frameHeadBytes, isFrameHead, Segments } from './block-segments.ts';
import { type DataDir, discardLevel, openLevel } from './stores.ts';

/** Blocks of one node. Only supported CIDs (core/block.ts); never more than `blockBytesMax` per block. */
export interface BlockStore extends AsyncDisposable {
  /**
   * Stores a block. It is on disk, synced, when this resolves.
   * Throws BLOCK_CORRUPT when the bytes do not hash to `cid`, TOO_LARGE above `blockBytesMax`,
   * ARGUMENT_INVALID for a CID of another kind, DISK_FULL while the store is read-only.
   */
  put(cid: CID, bytes: Uint8Array): Promise<'stored' | 'present'>;
  /**
   * The bytes, checked against `cid` on this very read; undefined when absent or damaged. A damaged block
   * is moved to quarantine and told to the journal as `corrupt`. Throws FILE_UNREADABLE when the
   * machine (not the block) is at fault, e.g. out of file handles.
   */
  get(cid: CID): Promise<Uint8Array | undefined>;
  has(cid: CID): Promise<boolean>;
  /** Size of a stored block, undefined when absent. */
  stat(cid: CID): Promise<{ readonly sizeBytes: number } | undefined>;
  /** True when it was there. Durable when this resolves. DISK_FULL when even that cannot be written now. */
  delete(cid: CID): Promise<boolean>;
  /** CIDs in order of their digest (then codec), after `after`, at most `limit` (default 4,096). */
  list(after?: CID, limit?: number): Promise<CID[]>;
  /** Like list, with sizes. */
  listSizes(after?: CID, limit?: number): Promise<StoredBlock[]>;
  usage(): BlockUsage;
  readonly changes: BlockJournal;
  digest(): BlockDigest;
  /**
   * Reads and hashes stored blocks for about `budgetBytes`, going on where the last step (of this or an
   * earlier process) ended. Walks in a circle, so what was checked longest ago comes next. `done` is
   * true when this step reached the end of a round. The caller paces.
   */
  scrubStep(budgetBytes: number): Promise<ScrubStep>;
}

export interface StoredBlock {
  readonly cid: CID;
  readonly sizeBytes: number;
}

export interface BlockUsage {
  readonly blocks: number;
  /** Sum of block sizes, without overhead. */
  readonly bytes: number;
  /** Free bytes of the file system, at most about a second old. */
  readonly freeBytes: number;
  readonly state: 'ready' | 'read-only';
  /** Why it is read-only, for the operator. */
  readonly reason?: string;
}

export interface BlockChange {
  readonly seq: number;
  readonly cid: CID;
  /** `corrupt`: it was there, damage was found, it is there no more. */
  readonly op: 'add' | 'del' | 'corrupt';
  readonly sizeBytes: number;
}

/** What changed lately, for a steward that keeps an inventory. Bounded; a new epoch at each open and recovery. */
export interface BlockJournal {
  readonly epoch: string;
  /** Sequence number of the newest change of this epoch; 0 = none yet. */
  readonly seq: number;
  /** Changes after `seq`, oldest first, at most `limit`; 'reset' when they are no longer (or never were) known: list again. */
  since(seq: number, limit?: number): { readonly changes: readonly BlockChange[] } | 'reset';
}

/** Two stores with the same digest hold the same CIDs. */
export interface BlockDigest {
  readonly count: number;
  /** Sum of the sha-256 digests of all stored CIDs modulo 2^256, 32 bytes big-endian. */
  readonly sum: Uint8Array;
}

export interface ScrubStep {
  readonly checked: number;
  readonly checkedBytes: number;
  readonly corrupt: readonly CID[];
  /** Where the next step goes on: hex of digest and codec, '' = from the beginning. */
  readonly cursor: string;
  readonly done: boolean;
}

export interface BlockStoreOptions {
  /** Blocks of at least this many bytes get a file of their own. Default 65,536. */
  readonly fileBytesMin?: number;
  /** A segment is closed when it reaches this many bytes. Default 64 MiB. */
  readonly segmentBytes?: number;
  /** Free bytes below which writes are refused, so that deleting still works. Default 64 MiB, at most 5 % of the disk. */
  readonly reserveBytes?: number;
  /** Milliseconds between attempts to leave the read-only state. Default 1,000. */
  readonly probeMs?: number;
  /** Changes the journal remembers. Default 65,536: an hour of 18 changes per second. */
  readonly journalChanges?: number;
  /** Bytes the index gathers before it writes a table. Default 4 MiB. */
  readonly indexBufferBytes?: number;
  /** Told about what an operator should know; must not throw. */
  readonly onEvent?: (event: BlockStoreEvent) => void;
}

export type BlockStoreEvent =
  | { readonly type: 'read-only'; readonly reason: string; readonly error?: unknown }
  | { readonly type: 'ready' }
  | { readonly type: 'corrupt'; readonly cid: CID; readonly reason: string }
  | { readonly type: 'index-rebuilt'; readonly reason: string }
  | { readonly type: 'recovered'; readonly report: RecoveryReport }
  | { readonly type: 'compacted'; readonly segments: number; readonly freedBytes: number }
  | { readonly type: 'background-failed'; readonly what: string; readonly error: unknown };

/** The store on this machine's disk: a BlockStore that can also be told to return space now. */
export interface DiskBlockStore extends BlockStore {
  /** Rewrites segments that are mostly dead and removes them. Runs by itself after deletions. */
  compact(): Promise<void>;
}

/**
 * Opens the block store of `dir`, making it when `dir` is new. After a crash it first looks for what the
 * index missed; a lost or damaged index is rebuilt from the blocks. Throws DATA_DIR_DAMAGED when the
 * directories of the blocks are gone, DISK_FULL, FILE_UNREADABLE.
 */
export async function openBlockStore(dir: DataDir, options: BlockStoreOptions = {}): Promise<DiskBlockStore> {
  const path = dir.storePath(blocksName);
  const files = new BlockFiles(path);
  const segmentsDir = join(path, 'segments');
  if (!dir.isBorn(blocksName)) {
    await mkdir(segmentsDir, { recursive: true });
    await files.create();
    await dir.markBorn(blocksName);
  }
  await files.verifyPresent();
  const settings = await settle(options, path);
  const segments = new Segments(segmentsDir, settings.segmentBytes);
  try {
    const opened = await openIndex(dir, { files, segments, settings });
    const store = new OpenBlockStore(dir, files, segments, opened.index, settings);
    await store.refreshSpace();
    return store;
  } catch (error) {
    if (!isAbsent(error)) throw error;
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} lost a directory it had`, { cause: error });
  }
}

const blocksName = 'blocks';
const indexName = 'block-index';

type Settings = Required<BlockStoreOptions> & { readonly path: string };

async function settle(options: BlockStoreOptions, path: string): Promise<Settings> {
  const disk = await statfs(path).catch((cause: unknown) => {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is gone`, { cause });
  });
  return {
    fileBytesMin: options.fileBytesMin ?? 64 * 1024,
    segmentBytes: options.segmentBytes ?? 64 * 1024 * 1024,
    reserveBytes: options.reserveBytes ?? Math.min(64 * 1024 * 1024, (disk.blocks * disk.bsize) / 20),
    probeMs: options.probeMs ?? 1 * second,
    journalChanges: options.journalChanges ?? 65_536,
    indexBufferBytes: options.indexBufferBytes ?? 4 * 1024 * 1024,
    onEvent: options.onEvent ?? (() => undefined),
    path,
  };
}

interface IndexParts {
  readonly files: BlockFiles;
  readonly segments: Segments;
  readonly settings: Settings;
}

/** Opens the index, rebuilding it if it is damaged, and reconciles it unless it was closed in good order. */
async function openIndex(
  dir: DataDir,
  { files, segments, settings }: IndexParts,
  force: 'as-found' | 'recover' = 'as-found',
): Promise<{ index: BlockIndex }> {
  const store = await openLevel(dir, indexName, {
    rebuildable: true,
    writeBufferSize: settings.indexBufferBytes,
  });
  const index = new BlockIndex(store);
  try {
    await index.load();
    await segments.open(index.tail.segment);
    const rebuild = store.condition === 'rebuild';
    if (rebuild) settings.onEvent({ type: 'index-rebuilt', reason: describeError(store.damage) });
    const settled = store.condition === 'clean' && (await isAsClosed(dir, index));
    if (settled && force === 'as-found') return { index };
    const report = await recover({ index, files, segments }, { trustNames: rebuild });
    if (Object.values(report).some((count) => count > 0)) settings.onEvent({ type: 'recovered', report });
    return { index };
  } catch (error) {
    await index.abandon();
    if (!isIndexDamage(error)) throw error;
    settings.onEvent({ type: 'index-rebuilt', reason: describeError(error) });
    await discardLevel(dir, indexName);
    return openIndex(dir, { files, segments, settings });
  }
}

/**
 * LevelDB drops the damaged end of its log without a word, and is then exactly as it was a while before
 * it was closed. So what it held at the end also stands in a file beside it.
 */
async function isAsClosed(dir: DataDir, index: BlockIndex): Promise<boolean> {
  try {
    return sameBytes(await readFile(closingTotalsPath(dir)), closingTotals(index));
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

function closingTotals(index: BlockIndex): Uint8Array {
  const { count, sum } = index.totals;
  return utf8(`${count} ${toHex(sum)} ${index.tail.segment} ${index.tail.offset}\n`);
}

function closingTotalsPath(dir: DataDir): string {
  return `${dir.storePath(indexName)}.totals`;
}

/** True when the index contradicts itself, as opposed to a disk that refuses. */
function isIndexDamage(error: unknown): boolean {
  if (isDiskFull(error)) return false;
  return isHoldfastError(error, 'RECORD_CORRUPT') || /Corruption|checksum/i.test(describeError(error));
}

type Reading =
  | { readonly state: 'absent' }
  | { readonly state: 'whole'; readonly bytes: Uint8Array; readonly headIntact: boolean }
  | { readonly state: 'damaged'; readonly reason: string; readonly bytes: Uint8Array };

interface SmallPut {
  readonly key: BlockKey;
  readonly bytes: Uint8Array;
  /** Where it was, for a frame that is moved. */
  readonly from?: BlockEntry;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Frames written with one flush. */
const groupBytesMax = 4 * blockBytesMax;
/** How old a figure of free space may be. */
const spaceAgeMsMax = 1 * second;
/** A segment is worth rewriting when less than this part of it lives. */
const liveShareMin = 0.5;
/** More small closed segments than this are joined. */
const smallSegmentsMax = 16;

class OpenBlockStore implements DiskBlockStore {
  readonly changes: ChangeRing;
  readonly #dir: DataDir;
  readonly #files: BlockFiles;
  readonly #segments: Segments;
  readonly #settings: Settings;
  #index: BlockIndex;
  /** Set while the index is being opened again: everything waits for it. */
  #reopening: Promise<void> | undefined;
  /** Why writes are refused, undefined while they are not. */
  #refusal: { readonly reason: string; readonly error?: unknown } | undefined;
  #indexDamaged = false;
  #probeTimer: NodeJS.Timeout | undefined;
  #probing: Promise<void> | undefined;
  #freeBytes = 0;
  #freeBytesAt = 0;
  #refreshing: Promise<void> | undefined;
  readonly #locks = new Map<string, Promise<unknown>>();
  readonly #puts = new Map<string, Promise<'stored' | 'present'>>();
  #small: SmallPut[] = [];
  #appending: Promise<void> | undefined;
  #compacting: Promise<void> | undefined;
  #underway = 0;
  #idle: (() => void) | undefined;
  #closed = false;

  constructor(dir: DataDir, files: BlockFiles, segments: Segments, index: BlockIndex, settings: Settings) {
    this.#dir = dir;
    this.#files = files;
    this.#segments = segments;
    this.#index = index;
    this.#settings = settings;
    this.changes = new ChangeRing(newEpoch(), settings.journalChanges);
  }

  async put(cid: CID, bytes: Uint8Array): Promise<'stored' | 'present'> {
    supportedCid(cid);
    if (bytes.length > blockBytesMax) {
      throw new HoldfastError(
        'TOO_LARGE',
        `block ${cid.toString()} has ${bytes.length} bytes; the limit is ${blockBytesMax}`,
      );
    }
    verifiedBlock(cid, bytes, 'the writer');
    return this.#doing(() => this.#joinPut(keyOfCid(cid), bytes));
  }

  async get(cid: CID): Promise<Uint8Array | undefined> {
    const key = keyOfCid(supportedCid(cid));
    return this.#doing(async () => {
      const entry = await this.#lookup(key);
      if (entry === undefined) return undefined;
      const reading = await this.#read(key, entry);
      if (reading.state === 'whole') return reading.bytes;
      return this.#locked(key, () => this.#readAgain(key));
    });
  }

  async has(cid: CID): Promise<boolean> {
    return (await this.stat(cid)) !== undefined;
  }

  async stat(cid: CID): Promise<{ readonly sizeBytes: number } | undefined> {
    const key = keyOfCid(supportedCid(cid));
    const entry = await this.#doing(() => this.#lookup(key));
    return entry === undefined ? undefined : { sizeBytes: entry.sizeBytes };
  }

  async delete(cid: CID): Promise<boolean> {
    const key = keyOfCid(supportedCid(cid));
    return this.#doing(() => this.#locked(key, () => this.#delete(key)));
  }

  async list(after?: CID, limit = 4096): Promise<CID[]> {
    return (await this.listSizes(after, limit)).map(({ cid }) => cid);
  }

  async listSizes(after?: CID, limit = 4096): Promise<StoredBlock[]> {
    return this.#doing(async () => {
      const blocks: StoredBlock[] = [];
      if (limit <= 0) return blocks;
      for await (const [key, entry] of this.#entries(after === undefined ? undefined : keyOfCid(after))) {
        blocks.push({ cid: cidOfKey(key), sizeBytes: entry.sizeBytes });
        if (blocks.length >= limit) break;
      }
      return blocks;
    });
  }

  usage(): BlockUsage {
    if (!this.#closed) void this.#spaceSoon();
    const { count, bytes } = this.#index.totals;
    const figures = { blocks: count, bytes, freeBytes: Math.max(0, this.#freeBytes) };
    if (this.#refusal === undefined) return { ...figures, state: 'ready' };
    return { ...figures, state: 'read-only', reason: this.#refusal.reason };
  }

  digest(): BlockDigest {
    const { count, sum } = this.#index.totals;
    return { count, sum };
  }

  async scrubStep(budgetBytes: number): Promise<ScrubStep> {
    return this.#doing(() => this.#scrub(budgetBytes));
  }

  async compact(): Promise<void> {
    return this.#doing(() => (this.#compacting ??= this.#compactOnce()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#probeTimer);
    await this.#probing;
    if (this.#underway > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    await this.#appending;
    await this.#refreshing;
    await this.#segments.close();
    await this.#writeClosingTotals();
    await this.#index.close();
  }

  /** When they cannot be written, the next open looks for forgotten blocks: slower, and right. */
  async #writeClosingTotals(): Promise<void> {
    if (this.#index.broken !== undefined) return;
    try {
      await this.#index.sync();
      await writeFileDurably(closingTotalsPath(this.#dir), closingTotals(this.#index));
    } catch (error) {
      this.#settings.onEvent({ type: 'background-failed', what: 'closing', error });
    }
  }

  // ── put ──

  /** Writers of the same block wait for the first one instead of writing again. */
  async #joinPut(key: BlockKey, bytes: Uint8Array): Promise<'stored' | 'present'> {
    const text = keyText(key);
    const first = this.#puts.get(text);
    if (first !== undefined) {
      await first;
      return 'present';
    }
    const mine = this.#locked(key, () => this.#putNew(key, bytes));
    this.#puts.set(text, mine);
    try {
      return await mine;
    } finally {
      this.#puts.delete(text);
    }
  }

  async #putNew(key: BlockKey, bytes: Uint8Array): Promise<'stored' | 'present'> {
    if ((await this.#lookup(key)) !== undefined) return 'present';
    await this.#admit(bytes.length);
    try {
      if (bytes.length >= this.#settings.fileBytesMin) await this.#putFile(key, bytes);
      else await this.#putFrame(key, bytes);
    } catch (error) {
      throw this.#writeFailed(error);
    }
    return 'stored';
  }

  async #putFile(key: BlockKey, bytes: Uint8Array): Promise<void> {
    await this.#files.write(key, bytes);
    const entry: BlockEntry = { kind: 'file', sizeBytes: bytes.length };
    const committed = (): void => this.changes.add(cidOfKey(key), 'add', bytes.length);
    await this.#index.commit([{ op: 'add', key, entry }], { committed });
  }

  async #putFrame(key: BlockKey, bytes: Uint8Array, from?: BlockEntry): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#small.push({ key, bytes, resolve, reject, ...(from === undefined ? {} : { from }) });
    });
    this.#appending ??= this.#appendAll();
    return done;
  }

  async #appendAll(): Promise<void> {
    await Promise.resolve(); // those who write in this turn join the first group
    while (this.#small.length > 0) {
      const group = this.#takeGroup();
      try {
        const places = await this.#segments.append(group);
        this.#commitFrames(group, places);
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#appending = undefined;
  }

  #takeGroup(): SmallPut[] {
    let bytes = 0;
    let count = 0;
    for (const put of this.#small) {
      if (bytes >= Math.min(groupBytesMax, this.#settings.segmentBytes)) break;
      bytes += put.bytes.length;
      count++;
    }
    return this.#small.splice(0, count);
  }

  /** Index writes follow each other in the order of the appends, so the tail only moves forward. */
  #commitFrames(group: readonly SmallPut[], places: readonly FramePlace[]): void {
    const changes = group.map(({ key, bytes, from }, at) => {
      const place = places[at];
      if (place === undefined) throw new RangeError('commitFrames: a frame without its place');
      const entry: BlockEntry = { kind: 'segment', sizeBytes: bytes.length, ...place };
      return from === undefined
        ? ({ op: 'add', key, entry } as const)
        : ({ op: 'move', key, from, entry } as const);
    });
    const last = changes.at(-1)?.entry;
    if (last?.kind !== 'segment') return;
    const tail = { segment: last.segment, offset: last.offset + frameHeadBytes + last.sizeBytes };
    const committed = (): void => {
      for (const { key, bytes, from } of group) {
        if (from === undefined) this.changes.add(cidOfKey(key), 'add', bytes.length);
      }
    };
    this.#index.commit(changes, { tail, committed }).then(
      () => group.forEach(({ resolve }) => resolve()),
      (error: unknown) => group.forEach(({ reject }) => reject(error)),
    );
  }

  // ── get ──

  async #lookup(key: BlockKey): Promise<BlockEntry | undefined> {
    try {
      return await this.#index.get(key);
    } catch (error) {
      throw this.#indexFailed(error);
    }
  }

  async *#entries(after?: BlockKey): AsyncGenerator<[BlockKey, BlockEntry], void, undefined> {
    try {
      yield* this.#index.entries(after);
    } catch (error) {
      throw this.#indexFailed(error);
    }
  }

  async #read(key: BlockKey, entry: BlockEntry): Promise<Reading> {
    try {
      if (entry.kind === 'file') {
        const bytes = await this.#files.read(key, entry.sizeBytes);
        if (isDigestOf(key, bytes)) return { state: 'whole', bytes, headIntact: true };
        return { state: 'damaged', reason: 'bytes do not hash to the CID', bytes };
      }
      const { head, payload } = await this.#segments.read(entry, entry.sizeBytes);
      const headIntact = isFrameHead(head, key, entry.sizeBytes, entry);
      if (isDigestOf(key, payload)) return { state: 'whole', bytes: payload, headIntact };
      return { state: 'damaged', reason: 'bytes do not hash to the CID', bytes: payload };
    } catch (error) {
      if (isMachineFault(error))
        throw new HoldfastError('FILE_UNREADABLE', `block ${cidOfKey(key).toString()}`, { cause: error });
      return { state: 'damaged', reason: describeError(error), bytes: new Uint8Array(0) };
    }
  }

  /** Under the block's lock nothing moves: damage seen here is damage. */
  async #readAgain(key: BlockKey): Promise<Uint8Array | undefined> {
    const reading = await this.#check(key);
    return reading.state === 'whole' ? reading.bytes : undefined;
  }

  /** Reads a block under its lock; condemns it when damaged. */
  async #check(key: BlockKey): Promise<Reading> {
    const entry = await this.#lookup(key);
    if (entry === undefined) return { state: 'absent' };
    const reading = await this.#read(key, entry);
    if (reading.state === 'damaged') await this.#condemn(key, entry, reading);
    return reading;
  }

  /** Out of the index first, then aside: a crash between the two leaves a file that was given up anyway. */
  async #condemn(
    key: BlockKey,
    entry: BlockEntry,
    { reason, bytes }: Reading & { state: 'damaged' },
  ): Promise<void> {
    const cid = cidOfKey(key);
    const committed = (): void => this.changes.add(cid, 'corrupt', entry.sizeBytes);
    this.#settings.onEvent({ type: 'corrupt', cid, reason });
    try {
      await this.#index.commit([{ op: 'remove', key, entry }], { sync: true, committed });
      if (entry.kind === 'segment') await this.#files.quarantineBytes(key, bytes);
      else await this.#files.quarantine(key);
      if (entry.kind === 'file') await this.#index.commit([{ op: 'buried', key }]);
    } catch (error) {
      if (!isAbsent(error)) this.#writeFailed(error); // it is served to nobody; what could not be done is tried at the next read
    }
  }

  // ── delete, scrub, compact ──

  async #delete(key: BlockKey): Promise<boolean> {
    const entry = await this.#lookup(key);
    if (entry === undefined) return false;
    const committed = (): void => this.changes.add(cidOfKey(key), 'del', entry.sizeBytes);
    try {
      await this.#index.commit([{ op: 'remove', key, entry }], { sync: true, committed });
      if (entry.kind === 'file') {
        await this.#files.remove(key);
        await this.#index.commit([{ op: 'buried', key }]);
      }
    } catch (error) {
      throw this.#writeFailed(error);
    }
    this.#freeBytes += entry.kind === 'file' ? entry.sizeBytes : 0;
    if (entry.kind === 'segment') this.#compactLater();
    return true;
  }

  async #scrub(budgetBytes: number): Promise<ScrubStep> {
    let cursor = await this.#scrubCursor();
    const corrupt: CID[] = [];
    let checked = 0;
    let checkedBytes = 0;
    let done = true;
    for await (const [key] of this.#entries(cursor)) {
      if (checkedBytes >= budgetBytes) {
        done = false;
        break;
      }
      const sizeBytes = await this.#locked(key, () => this.#scrubOne(key, corrupt));
      cursor = key;
      if (sizeBytes === undefined) continue;
      checked++;
      checkedBytes += sizeBytes;
    }
    const next = done ? new Uint8Array(0) : (cursor ?? new Uint8Array(0));
    await this.#index.saveScrubCursor(next).catch((error: unknown) => this.#writeFailed(error));
    return { checked, checkedBytes, corrupt, cursor: keyText(next), done };
  }

  async #scrubCursor(): Promise<BlockKey | undefined> {
    try {
      return keyFromText(asBuffer(await this.#index.scrubCursor()).toString('hex'));
    } catch (error) {
      throw this.#indexFailed(error);
    }
  }

  async #scrubOne(key: BlockKey, corrupt: CID[]): Promise<number | undefined> {
    const entry = await this.#lookup(key);
    if (entry === undefined) return undefined; // deleted meanwhile
    const reading = await this.#check(key);
    if (reading.state === 'damaged') corrupt.push(cidOfKey(key));
    // A frame with a damaged head is served, but would not be found if the index were lost: write it again.
    if (reading.state === 'whole' && !reading.headIntact && this.#refusal === undefined) {
      await this.#putFrame(key, reading.bytes, entry).catch((error: unknown) => this.#writeFailed(error));
    }
    return entry.sizeBytes;
  }

  #compactLater(): void {
    if (this.#compacting !== undefined || this.#closed || this.#worthRewriting().size === 0) return;
    void this.#doing(() => (this.#compacting ??= this.#compactOnce())).catch((error: unknown) =>
      this.#settings.onEvent({ type: 'background-failed', what: 'compaction', error }),
    );
  }

  #worthRewriting(): Set<number> {
    const closed = [...this.#segments.sizes].filter(([id]) => id !== this.#segments.activeId);
    const small = closed.filter(([, size]) => size < this.#settings.segmentBytes / 8);
    const chosen = new Set(small.length > smallSegmentsMax ? small.map(([id]) => id) : []);
    for (const [id, size] of closed) if (this.#index.liveBytes(id) <= size * liveShareMin) chosen.add(id);
    return chosen;
  }

  async #compactOnce(): Promise<void> {
    try {
      const chosen = this.#worthRewriting();
      if (chosen.size === 0) return;
      const needed = [...chosen].reduce((sum, id) => sum + this.#index.liveBytes(id), 0);
      await this.refreshSpace();
      if (needed + this.#settings.reserveBytes / 2 > this.#freeBytes && needed > 0) return;
      await this.#moveOut(chosen);
      await this.#removeEmpty(chosen);
    } finally {
      this.#compacting = undefined;
    }
  }

  async #moveOut(chosen: ReadonlySet<number>): Promise<void> {
    const moving: Promise<void>[] = [];
    for await (const [key, entry] of this.#entries()) {
      if (this.#closed) break;
      if (entry.kind !== 'segment' || !chosen.has(entry.segment)) continue;
      const move = this.#locked(key, () => this.#moveOne(key, entry));
      move.catch(() => undefined); // thrown below, with its batch
      moving.push(move);
      if (moving.length >= movesMax) await Promise.all(moving.splice(0));
    }
    await Promise.all(moving);
  }

  async #moveOne(key: BlockKey, expected: BlockEntry): Promise<void> {
    const entry = await this.#lookup(key);
    if (entry === undefined || !sameEntry(entry, expected)) return;
    const reading = await this.#check(key);
    if (reading.state !== 'whole') return;
    try {
      await this.#putFrame(key, reading.bytes, entry);
    } catch (error) {
      throw this.#writeFailed(error);
    }
  }

  async #removeEmpty(chosen: ReadonlySet<number>): Promise<void> {
    await this.#index.sync(); // no crash may bring back an index that points into a removed segment
    let freedBytes = 0;
    let segments = 0;
    for (const id of chosen) {
      const size = this.#segments.sizes.get(id) ?? 0;
      if (this.#index.liveBytes(id) > 0) continue;
      await this.#segments.remove(id);
      freedBytes += size;
      segments++;
    }
    this.#settings.onEvent({ type: 'compacted', segments, freedBytes });
  }

  // ── state of the disk ──

  /** Asks the file system how much space is left. */
  async refreshSpace(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#settings.path);
    this.#freeBytes = bavail * bsize;
    this.#freeBytesAt = performance.now();
  }

  /** Single-flight, in the background; a failure leaves the old figure. */
  async #spaceSoon(): Promise<void> {
    if (performance.now() - this.#freeBytesAt < spaceAgeMsMax) return;
    this.#refreshing ??= this.refreshSpace()
      .catch((error: unknown) => this.#settings.onEvent({ type: 'background-failed', what: 'statfs', error }))
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  /** Throws DISK_FULL when writes are refused or `sizeBytes` more would touch the reserve. */
  async #admit(sizeBytes: number): Promise<void> {
    await this.#spaceSoon();
    this.#freeBytes -= sizeBytes;
    if (this.#refusal === undefined && this.#freeBytes < this.#settings.reserveBytes) {
      await this.refreshSpace(); // the running figure ignores what others freed
      const { reserveBytes } = this.#settings;
      if (this.#freeBytes - sizeBytes < reserveBytes)
        this.#refuse(`less than ${reserveBytes} bytes of space are left`);
    }
    if (this.#refusal !== undefined) throw this.#diskFull();
  }

  #diskFull(): HoldfastError {
    const reason = this.#refusal?.reason ?? 'closing';
    return new HoldfastError('DISK_FULL', `the block store is read-only: ${reason}`, {
      cause: this.#refusal?.error,
      details: { reason },
    });
  }

  /** Turns a failed write into the read-only state; returns what the caller is told. */
  #writeFailed(error: unknown): HoldfastError {
    if (isHoldfastError(error)) return error;
    if (isMachineFault(error))
      return new HoldfastError('FILE_UNREADABLE', 'a block cannot be written', { cause: error });
    this.#refuse(
      isDiskFull(error) ? 'no space left on the disk' : `the disk failed: ${describeError(error)}`,
      error,
    );
    return this.#diskFull();
  }

  /** A damaged index is rebuilt by the probe; until then nobody is told that a block is absent. */
  #indexFailed(error: unknown): HoldfastError {
    if (!isIndexDamage(error))
      return new HoldfastError('FILE_UNREADABLE', 'the block index', { cause: error });
    this.#indexDamaged = true;
    this.#refuse('the index is damaged and will be rebuilt', error);
    return new HoldfastError('FILE_UNREADABLE', 'the block index is damaged and being rebuilt', {
      cause: error,
    });
  }

  #refuse(reason: string, error?: unknown): void {
    if (this.#refusal === undefined || this.#index.broken !== undefined) {
      this.#refusal = error === undefined ? { reason } : { reason, error };
      this.#settings.onEvent({ type: 'read-only', ...this.#refusal });
    }
    this.#probeLater();
  }

  #probeLater(): void {
    if (this.#closed || this.#probeTimer !== undefined) return;
    this.#probeTimer = setTimeout(() => {
      this.#probeTimer = undefined;
      this.#probing ??= this.#probe().finally(() => {
        this.#probing = undefined;
        if (this.#refusal !== undefined) this.#probeLater();
      });
    }, this.#settings.probeMs);
    this.#probeTimer.unref();
  }

  /** Leaves the read-only state when the disk takes writes again; the index first, so that deletions work. */
  async #probe(): Promise<void> {
    try {
      await this.refreshSpace();
      const { reserveBytes, indexBufferBytes } = this.#settings;
      if (this.#freeBytes < Math.min(2 * indexBufferBytes, Math.max(reserveBytes, 4096))) return;
      await this.#tryWriting();
      if (this.#index.broken !== undefined || this.#indexDamaged) await this.#reopenIndex();
      if (this.#freeBytes < reserveBytes * resumeFactor) return;
      this.#refusal = undefined;
      this.#settings.onEvent({ type: 'ready' });
    } catch (error) {
      this.#settings.onEvent({ type: 'background-failed', what: 'leaving the read-only state', error });
    }
  }

  async #tryWriting(): Promise<void> {
    const path = join(this.#settings.path, 'tmp', 'probe');
    try {
      await writeSynced(path, new Uint8Array(64 * 1024));
      await rename(path, `${path}.done`);
    } finally {
      await rm(path, { force: true });
      await rm(`${path}.done`, { force: true });
    }
  }

  async #reopenIndex(): Promise<void> {
    let release = (): void => undefined;
    this.#reopening = new Promise((resolve) => (release = resolve));
    try {
      if (this.#underway > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
      await this.#appending;
      await this.#segments.giveUp();
      await this.#index.abandon();
      if (this.#indexDamaged) await discardLevel(this.#dir, indexName);
      const parts = { files: this.#files, segments: this.#segments, settings: this.#settings };
      this.#index = (await openIndex(this.#dir, parts, 'recover')).index;
      this.#indexDamaged = false;
      this.changes.restart(newEpoch());
    } finally {
      this.#reopening = undefined;
      release();
    }
  }

  // ── who is doing what ──

  /** Runs an operation; waits while the index is opened again; closing waits for it. */
  async #doing<T>(work: () => Promise<T>): Promise<T> {
    while (this.#reopening !== undefined) await this.#reopening;
    if (this.#closed) throw new HoldfastError('INTERNAL', 'the block store is closed');
    this.#underway++;
    try {
      return await work();
    } finally {
      this.#underway--;
      if (this.#underway === 0) this.#idle?.();
    }
  }

  /** One at a time per block, in the order they came. */
  async #locked<T>(key: BlockKey, work: () => Promise<T>): Promise<T> {
    const text = keyText(key);
    const before = this.#locks.get(text);
    const mine = before === undefined ? work() : before.then(work, work);
    this.#locks.set(text, mine);
    try {
      return await mine;
    } finally {
      if (this.#locks.get(text) === mine) this.#locks.delete(text);
    }
  }
}

/** Frames moved at once by the compactor. */
const movesMax = 64;
/** Writing resumes when this many times the reserve are free: not to flutter at the edge. */
const resumeFactor = 1.25;

function newEpoch(): string {
  return randomBytes(8).toString('hex');
}
