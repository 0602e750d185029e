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
//
// What it is made of, each with its own state: which blocks there are (block-inventory.ts), their bytes, one operation
// per block at a time (block-contents.ts), groups of small ones (block-frames.ts), whether writes are taken
// (block-admission.ts, block-space.ts), and the two that work in the background (block-scrub.ts, block-compaction.ts).
// Here they are joined, opened, and closed in the right order.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type CID, supportedCid, verifiedBlock } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import { Admission } from './block-admission.ts';
import { Compaction } from './block-compaction.ts';
import { BlockContents } from './block-contents.ts';
import { isAbsent } from './block-disk.ts';
import { BlockFiles } from './block-files.ts';
import { FrameWriter } from './block-frames.ts';
import type { BlockIndex } from './block-index.ts';
import { type IndexParts, openIndex } from './block-index-open.ts';
import { BlockInventory } from './block-inventory.ts';
import { cidOfKey, keyOfCid } from './block-key.ts';
import { type BlockStoreOptions, settleOptions } from './block-options.ts';
import type {
  BlockDigest,
  BlockJournal,
  BlockUsage,
  DiskBlockStore,
  ScrubStep,
  StoredBlock,
} from './block-ports.ts';
import { BlockReader } from './block-reader.ts';
import { scrubStep } from './block-scrub.ts';
import { Segments } from './block-segments.ts';
import { FreeSpace } from './block-space.ts';
import { Operations } from './block-turns.ts';
import type { DataDir } from './stores.ts';

const blocksName = 'blocks';

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
  const settings = await settleOptions(options, path);
  const parts = { dir, files, segments: new Segments(segmentsDir, settings.segmentBytes), settings };
  try {
    const space = new FreeSpace(settings);
    await space.refresh();
    return new OpenBlockStore(await openIndex(parts), parts, space);
  } catch (error) {
    if (!isAbsent(error)) throw error;
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} lost a directory it had`, { cause: error });
  }
}

class OpenBlockStore implements DiskBlockStore {
  readonly changes: BlockJournal;
  readonly #operations = new Operations();
  readonly #segments: Segments;
  readonly #space: FreeSpace;
  readonly #inventory: BlockInventory;
  readonly #admission: Admission;
  readonly #frames: FrameWriter;
  readonly #contents: BlockContents;
  readonly #compaction: Compaction;

  constructor(index: BlockIndex, parts: IndexParts, space: FreeSpace) {
    const { files, segments, settings } = parts;
    const operations = this.#operations;
    const inventory = new BlockInventory(index, parts, (error) =>
      this.#admission.refuse('the index is damaged and will be rebuilt', error),
    );
    const mendable = { isBroken: () => inventory.isBroken, mend: () => this.#mend() };
    const admission = new Admission(space, mendable, settings);
    const frames = new FrameWriter(segments, inventory, settings.segmentBytes);
    const reader = new BlockReader(files, segments);
    const contents = new BlockContents({ files, frames, reader, inventory, admission, space, settings });
    this.changes = inventory.changes;
    this.#segments = segments;
    this.#space = space;
    this.#inventory = inventory;
    this.#admission = admission;
    this.#frames = frames;
    this.#contents = contents;
    this.#compaction = new Compaction({ inventory, contents, segments, space, operations, settings });
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
    return this.#operations.run(() => this.#contents.put(keyOfCid(cid), bytes));
  }

  async get(cid: CID): Promise<Uint8Array | undefined> {
    const key = keyOfCid(supportedCid(cid));
    return this.#operations.run(() => this.#contents.get(key));
  }

  async has(cid: CID): Promise<boolean> {
    return (await this.stat(cid)) !== undefined;
  }

  async stat(cid: CID): Promise<{ readonly sizeBytes: number } | undefined> {
    const key = keyOfCid(supportedCid(cid));
    const entry = await this.#operations.run(() => this.#inventory.lookup(key));
    return entry === undefined ? undefined : { sizeBytes: entry.sizeBytes };
  }

  async delete(cid: CID): Promise<boolean> {
    const key = keyOfCid(supportedCid(cid));
    return this.#operations.run(async () => {
      const entry = await this.#contents.remove(key);
      if (entry?.kind === 'segment') this.#compaction.runSoon();
      return entry !== undefined;
    });
  }

  async list(after?: CID, limit = 4096): Promise<CID[]> {
    return (await this.listSizes(after, limit)).map(({ cid }) => cid);
  }

  async listSizes(after?: CID, limit = 4096): Promise<StoredBlock[]> {
    return this.#operations.run(async () => {
      const blocks: StoredBlock[] = [];
      if (limit <= 0) return blocks;
      const entries = this.#inventory.entries(after === undefined ? undefined : keyOfCid(after));
      for await (const [key, entry] of entries) {
        blocks.push({ cid: cidOfKey(key), sizeBytes: entry.sizeBytes });
        if (blocks.length >= limit) break;
      }
      return blocks;
    });
  }

  usage(): BlockUsage {
    if (!this.#operations.isClosed) void this.#space.refreshIfOld();
    const { count, bytes } = this.#inventory.totals;
    const figures = { blocks: count, bytes, freeBytes: Math.max(0, this.#space.bytes) };
    const { refusal } = this.#admission;
    if (refusal === undefined) return { ...figures, state: 'ready' };
    return { ...figures, state: 'read-only', reason: refusal.reason };
  }

  digest(): BlockDigest {
    const { count, sum } = this.#inventory.totals;
    return { count, sum };
  }

  async scrubStep(budgetBytes: number): Promise<ScrubStep> {
    const parts = { inventory: this.#inventory, contents: this.#contents, admission: this.#admission };
    return this.#operations.run(() => scrubStep(parts, budgetBytes));
  }

  async compact(): Promise<void> {
    return this.#compaction.run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#operations.isClosed) return;
    this.#operations.close();
    await this.#admission.close();
    await this.#operations.settled();
    await this.#frames.settled();
    await this.#space.settled();
    await this.#segments.close();
    await this.#inventory.close();
  }

  /** Opens the index again when it takes no writes or is damaged; all else waits. */
  async #mend(): Promise<void> {
    if (!this.#inventory.mustReopen) return;
    await this.#operations.alone(async () => {
      await this.#frames.settled();
      await this.#segments.giveUp();
      await this.#inventory.reopen();
    });
  }
}
