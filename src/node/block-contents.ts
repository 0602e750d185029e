// Blocks by their keys: bytes on the disk, and an inventory that says the same.
//
// What changes a block takes its turn; reading takes one only to decide that a block is damaged, because a reading
// without one may have met a block that was just moved or deleted. A damaged block is condemned: it is served to nobody
// from then on, told to the journal, and its bytes are put aside.

import { isAbsent } from './block-disk.ts';
import type { Admission } from './block-admission.ts';
import type { BlockFiles } from './block-files.ts';
import type { FrameWriter } from './block-frames.ts';
import type { BlockInventory } from './block-inventory.ts';
import { type BlockEntry, type BlockKey, cidOfKey, keyText, sameEntry } from './block-key.ts';
import type { BlockSettings } from './block-options.ts';
import type { BlockReader, DamagedReading, Reading } from './block-reader.ts';
import type { FreeSpace } from './block-space.ts';
import { BlockTurns } from './block-turns.ts';

/** What the contents are made of; all of it belongs to one store. */
export interface ContentParts {
  readonly files: BlockFiles;
  readonly frames: FrameWriter;
  readonly reader: BlockReader;
  readonly inventory: BlockInventory;
  readonly admission: Admission;
  readonly space: FreeSpace;
  readonly settings: BlockSettings;
}

export class BlockContents {
  readonly #parts: ContentParts;
  readonly #turns = new BlockTurns();
  readonly #puts = new Map<string, Promise<'stored' | 'present'>>();

  constructor(parts: ContentParts) {
    this.#parts = parts;
  }

  /**
   * Stores bytes that hash to `key`; durable when it resolves. Writers of the same block wait for the first one instead
   * of writing again. Throws DISK_FULL, FILE_UNREADABLE.
   */
  async put(key: BlockKey, bytes: Uint8Array): Promise<'stored' | 'present'> {
    const text = keyText(key);
    const first = this.#puts.get(text);
    if (first !== undefined) {
      await first;
      return 'present';
    }
    const mine = this.#turns.take(key, () => this.#putNew(key, bytes));
    this.#puts.set(text, mine);
    try {
      return await mine;
    } finally {
      this.#puts.delete(text);
    }
  }

  /** The bytes, which hash to `key`; undefined when absent, or damaged and now condemned. Throws FILE_UNREADABLE. */
  async get(key: BlockKey): Promise<Uint8Array | undefined> {
    const { inventory, reader } = this.#parts;
    const entry = await inventory.lookup(key);
    if (entry === undefined) return undefined;
    const reading = await reader.read(key, entry);
    if (reading.state === 'whole') return reading.bytes;
    return this.#turns.take(key, () => this.#getAgain(key));
  }

  /** Where it lay, undefined when it was absent. Durable when it resolves. Throws DISK_FULL, FILE_UNREADABLE. */
  async remove(key: BlockKey): Promise<BlockEntry | undefined> {
    return this.#turns.take(key, () => this.#remove(key));
  }

  /**
   * Reads a block to see whether it is whole; a damaged one is condemned. Undefined when it is absent. Throws
   * FILE_UNREADABLE.
   */
  async recheck(
    key: BlockKey,
  ): Promise<{ readonly sizeBytes: number; readonly isWhole: boolean } | undefined> {
    return this.#turns.take(key, () => this.#recheck(key));
  }

  /** Writes a frame that lies at `expected` again at the end of the segments, unless it is there no more. Throws like `put`. */
  async move(key: BlockKey, expected: BlockEntry): Promise<void> {
    return this.#turns.take(key, () => this.#move(key, expected));
  }

  async #putNew(key: BlockKey, bytes: Uint8Array): Promise<'stored' | 'present'> {
    const { inventory, admission, settings, frames } = this.#parts;
    if ((await inventory.lookup(key)) !== undefined) return 'present';
    await admission.admit(bytes.length);
    try {
      if (bytes.length >= settings.fileBytesMin) await this.#putFile(key, bytes);
      else await frames.append(key, bytes);
    } catch (error) {
      throw admission.failed(error);
    }
    return 'stored';
  }

  async #putFile(key: BlockKey, bytes: Uint8Array): Promise<void> {
    const { files, inventory } = this.#parts;
    await files.write(key, bytes);
    await inventory.commit([{ op: 'add', key, entry: { kind: 'file', sizeBytes: bytes.length } }]);
  }

  async #getAgain(key: BlockKey): Promise<Uint8Array | undefined> {
    const entry = await this.#parts.inventory.lookup(key);
    if (entry === undefined) return undefined;
    const reading = await this.#judge(key, entry);
    return reading.state === 'whole' ? reading.bytes : undefined;
  }

  async #remove(key: BlockKey): Promise<BlockEntry | undefined> {
    const { inventory, files, admission, space } = this.#parts;
    const entry = await inventory.lookup(key);
    if (entry === undefined) return undefined;
    try {
      await inventory.remove(key, entry, 'del');
      if (entry.kind === 'file') {
        await files.remove(key);
        await inventory.commit([{ op: 'buried', key }]);
      }
    } catch (error) {
      throw admission.failed(error);
    }
    if (entry.kind === 'file') space.give(entry.sizeBytes);
    return entry;
  }

  async #recheck(key: BlockKey): Promise<{ sizeBytes: number; isWhole: boolean } | undefined> {
    const { inventory, frames, admission } = this.#parts;
    const entry = await inventory.lookup(key);
    if (entry === undefined) return undefined;
    const reading = await this.#judge(key, entry);
    // A frame with a damaged head is served, but would not be found if the index were lost: write it again.
    if (reading.state === 'whole' && !reading.headIntact && admission.refusal === undefined)
      await frames.append(key, reading.bytes, entry).catch((error: unknown) => admission.failed(error));
    return { sizeBytes: entry.sizeBytes, isWhole: reading.state === 'whole' };
  }

  async #move(key: BlockKey, expected: BlockEntry): Promise<void> {
    const { inventory, frames, admission } = this.#parts;
    const entry = await inventory.lookup(key);
    if (entry === undefined || !sameEntry(entry, expected)) return;
    const reading = await this.#judge(key, entry);
    if (reading.state !== 'whole') return;
    try {
      await frames.append(key, reading.bytes, entry);
    } catch (error) {
      throw admission.failed(error);
    }
  }

  /** In its block's turn, when nothing moves: damage seen here is damage, and condemns. */
  async #judge(key: BlockKey, entry: BlockEntry): Promise<Reading> {
    const reading = await this.#parts.reader.read(key, entry);
    if (reading.state === 'damaged') await this.#condemn(key, entry, reading);
    return reading;
  }

  /** Out of the index first, then aside: a crash between the two leaves a file that was given up anyway. */
  async #condemn(key: BlockKey, entry: BlockEntry, { reason, bytes }: DamagedReading): Promise<void> {
    const { inventory, files, admission, settings } = this.#parts;
    settings.onEvent({ type: 'corrupt', cid: cidOfKey(key), reason });
    try {
      await inventory.remove(key, entry, 'corrupt');
      if (entry.kind === 'segment') await files.quarantineBytes(key, bytes);
      else await files.quarantine(key);
      if (entry.kind === 'file') await inventory.commit([{ op: 'buried', key }]);
    } catch (error) {
      if (!isAbsent(error)) admission.failed(error); // it is served to nobody; what could not be done is tried at the next read
    }
  }
}
