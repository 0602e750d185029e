// Which blocks the store has, and what changed lately: the index that is open now, and the journal beside it.
//
// The two are kept by one owner because they must say the same: the journal tells of a change in the very turn in which
// the totals change, and begins a new epoch when the index is opened again. A damaged index never says that a block is
// absent: until it is rebuilt everybody is told that it cannot be read.

import { randomBytes } from 'node:crypto';
import { asBuffer } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { BlockIndex, IndexChange, IndexTail } from './block-index.ts';
import { closeIndex, discardIndex, type IndexParts, isIndexDamage, openIndex } from './block-index-open.ts';
import { ChangeRing } from './block-journal.ts';
import { type BlockEntry, type BlockKey, cidOfKey, keyFromText } from './block-key.ts';

/** All but removals, which are flushed (`remove`). */
type KeptChange = Exclude<IndexChange, { readonly op: 'remove' }>;

export class BlockInventory {
  readonly changes: ChangeRing;
  readonly #parts: IndexParts;
  readonly #onDamage: (error: unknown) => void;
  #index: BlockIndex;
  #isDamaged = false;

  /**
   * @param index as `openIndex` gave it for `parts`; the inventory closes it
   * @param onDamage told whenever a read shows that the index contradicts itself: it is to be opened again
   */
  constructor(index: BlockIndex, parts: IndexParts, onDamage: (error: unknown) => void) {
    this.#index = index;
    this.#parts = parts;
    this.#onDamage = onDamage;
    this.changes = new ChangeRing(newEpoch(), parts.settings.journalChanges);
  }

  /** Count, sum of sizes and sum of digests of what is committed. */
  get totals(): BlockIndex['totals'] {
    return this.#index.totals;
  }

  /** True when a write failed: nothing can be written until it is opened again. */
  get isBroken(): boolean {
    return this.#index.broken !== undefined;
  }

  /** True when it takes no writes, or was seen to be damaged. */
  get mustReopen(): boolean {
    return this.isBroken || this.#isDamaged;
  }

  /** Bytes of a segment, heads included, that blocks lie in. */
  liveBytes(segment: number): number {
    return this.#index.liveBytes(segment);
  }

  /** Where a block lies, undefined when absent. Throws FILE_UNREADABLE. */
  async lookup(key: BlockKey): Promise<BlockEntry | undefined> {
    try {
      return await this.#index.get(key);
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  /** Entries with `after` < key, in order. Throws FILE_UNREADABLE. */
  async *entries(after?: BlockKey): AsyncGenerator<[BlockKey, BlockEntry], void, undefined> {
    try {
      yield* this.#index.entries(after);
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  /** The block after which scrubbing goes on, undefined for the beginning. Throws FILE_UNREADABLE. */
  async scrubCursor(): Promise<BlockKey | undefined> {
    try {
      return keyFromText(asBuffer(await this.#index.scrubCursor()).toString('hex'));
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  /** @param cursor a block's key, or no bytes for the beginning. Not flushed. Throws what LevelDB throws. */
  async saveScrubCursor(cursor: Uint8Array): Promise<void> {
    await this.#index.saveScrubCursor(cursor);
  }

  /**
   * Applies changes together, and tells of those that add a block. `tail`: how far the segments are indexed then. Not
   * flushed: recovery finds them again. Throws what the disk says; after that the index takes no more writes.
   */
  async commit(changes: readonly KeptChange[], options: { readonly tail?: IndexTail } = {}): Promise<void> {
    const committed = (): void => {
      for (const change of changes)
        if (change.op === 'add') this.changes.add(cidOfKey(change.key), 'add', change.entry.sizeBytes);
    };
    await this.#index.commit(changes, { ...options, committed });
  }

  /** Takes a block out, durable when it resolves, and tells of it: it was deleted, or is damaged. Throws like `commit`. */
  async remove(key: BlockKey, entry: BlockEntry, why: 'del' | 'corrupt'): Promise<void> {
    const committed = (): void => this.changes.add(cidOfKey(key), why, entry.sizeBytes);
    await this.#index.commit([{ op: 'remove', key, entry }], { sync: true, committed });
  }

  /** Resolves when all that was committed so far is flushed. Throws like `commit`. */
  async sync(): Promise<void> {
    await this.#index.sync();
  }

  /**
   * Opens the index again and makes it agree with the disk; a damaged one is made anew. Nobody may be reading or
   * writing. Throws like `openIndex`: then it is as broken as before, and may be opened again later.
   */
  async reopen(): Promise<void> {
    await this.#index.abandon();
    if (this.#isDamaged) await discardIndex(this.#parts.dir);
    this.#index = await openIndex(this.#parts, 'recover');
    this.#isDamaged = false;
    this.changes.restart(newEpoch());
  }

  async close(): Promise<void> {
    await closeIndex(this.#index, this.#parts);
  }

  #unreadable(cause: unknown): HoldfastError {
    if (!isIndexDamage(cause)) return new HoldfastError('FILE_UNREADABLE', 'the block index', { cause });
    this.#isDamaged = true;
    this.#onDamage(cause);
    return new HoldfastError('FILE_UNREADABLE', 'the block index is damaged and being rebuilt', { cause });
  }
}

function newEpoch(): string {
  return randomBytes(8).toString('hex');
}
