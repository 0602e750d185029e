// The bytes of a block where its entry says they lie, judged against its key on every read.

import { describeError, HoldfastError } from '../core/errors.ts';
import { isMachineFault } from './block-disk.ts';
import type { BlockFiles } from './block-files.ts';
import { type BlockEntry, type BlockKey, cidOfKey } from './block-key.ts';
import { isDigestOf } from './block-recovery.ts';
import { isFrameHead, type Segments } from './block-segments.ts';

export type Reading = WholeReading | DamagedReading;

interface WholeReading {
  readonly state: 'whole';
  readonly bytes: Uint8Array;
  /** False for a frame that a scan of its segment would not find. */
  readonly headIntact: boolean;
}

export interface DamagedReading {
  readonly state: 'damaged';
  readonly reason: string;
  /** What could be read. */
  readonly bytes: Uint8Array;
}

export class BlockReader {
  readonly #files: BlockFiles;
  readonly #segments: Segments;

  constructor(files: BlockFiles, segments: Segments) {
    this.#files = files;
    this.#segments = segments;
  }

  /**
   * Bytes that are not there or hash to another key are damage: of the block, or because it was moved while it was
   * read. Throws FILE_UNREADABLE when the machine, not the block, is at fault.
   */
  async read(key: BlockKey, entry: BlockEntry): Promise<Reading> {
    try {
      const { bytes, headIntact } = await this.#bytesOf(key, entry);
      if (isDigestOf(key, bytes)) return { state: 'whole', bytes, headIntact };
      return { state: 'damaged', reason: 'bytes do not hash to the CID', bytes };
    } catch (error) {
      if (isMachineFault(error))
        throw new HoldfastError('FILE_UNREADABLE', `block ${cidOfKey(key).toString()}`, { cause: error });
      return { state: 'damaged', reason: describeError(error), bytes: new Uint8Array(0) };
    }
  }

  async #bytesOf(key: BlockKey, entry: BlockEntry): Promise<{ bytes: Uint8Array; headIntact: boolean }> {
    if (entry.kind === 'file')
      return { bytes: await this.#files.read(key, entry.sizeBytes), headIntact: true };
    const { head, payload } = await this.#segments.read(entry, entry.sizeBytes);
    return { bytes: payload, headIntact: isFrameHead(head, key, entry.sizeBytes, entry) };
  }
}
