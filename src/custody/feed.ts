// The records of custody as somebody follows them who unwraps: read on from where it stopped, believed by the
// directory, remembered by the pin. Reading begins anew when the registry was replaced, or nothing was believed.

import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import {
  CustodyDirectory,
  type CustodyRecordBytes,
  type DirectoryPin,
  mergePins,
  parsePin,
} from './directory.ts';
import type { CustodySource } from './tdec.ts';

/** How far one has read: the registry's entry, and the record in it. */
export interface FeedCursor {
  readonly revision: number;
  readonly index: number;
}

export interface FeedPage {
  /** Newest revision of the registry. */
  readonly head: number;
  readonly records: readonly (CustodyRecordBytes & FeedCursor)[];
  /** True when there is no more now. */
  readonly done: boolean;
}

/** Where the pin is kept: a text that comes back as it was given. */
export interface PinStore {
  load(): Promise<string | undefined>;
  save(text: string): Promise<void>;
}

export interface FeedOptions {
  readonly cg: string;
  readonly custodians: () => ReadonlyMap<PeerName, Uint8Array>;
  /** The records behind `since`. */
  readonly read: (since: FeedCursor, signal: AbortSignal | undefined) => Promise<FeedPage>;
  readonly pins: PinStore;
}

const start: FeedCursor = { revision: 0, index: 0 };
/** Pages of one reading: a registry that never ends is not followed for ever. */
const pagesMax = 4096;

export class CustodyFeed implements CustodySource {
  readonly #options: FeedOptions;
  #directory: CustodyDirectory;
  #cursor = start;
  #pin: DirectoryPin | undefined;
  #reading: Promise<void> | undefined;

  private constructor(options: FeedOptions, pin: DirectoryPin | undefined) {
    this.#options = options;
    this.#pin = pin;
    this.#directory = this.#newDirectory();
  }

  /** Reads what is remembered; nothing of the registry yet. Throws RECORD_INVALID when it is damaged. */
  static async open(options: FeedOptions): Promise<CustodyFeed> {
    const text = await options.pins.load();
    return new CustodyFeed(options, text === undefined ? undefined : parsePin(text));
  }

  directory(): CustodyDirectory {
    return this.#directory;
  }

  /** Reads on to the end of now. Many callers share one reading. Throws what `read` throws. */
  async reload(signal?: AbortSignal): Promise<void> {
    const mine = (this.#reading ??= this.#read(signal).finally(() => {
      this.#reading = undefined;
    }));
    await mine;
  }

  async #read(signal: AbortSignal | undefined): Promise<void> {
    let directory = this.#directory;
    let cursor = this.#cursor;
    if (directory.problem !== undefined) [directory, cursor] = [this.#newDirectory(), start];
    for (let pages = 0; pages < pagesMax; pages++) {
      const page = await this.#options.read(cursor, signal);
      if (page.head < cursor.revision) {
        [directory, cursor] = [this.#newDirectory(), start];
        continue;
      }
      for (const record of page.records) {
        directory.take(record);
        cursor = { revision: record.revision, index: record.index };
      }
      if (!page.done) continue;
      directory.settle();
      [this.#directory, this.#cursor] = [directory, cursor];
      return this.#remember(directory);
    }
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the records of custody do not end');
  }

  async #remember(directory: CustodyDirectory): Promise<void> {
    const seen = directory.pin();
    if (seen === undefined) return;
    const next = mergePins(this.#pin, seen);
    if (JSON.stringify(next) === JSON.stringify(this.#pin)) return;
    // Another process of this directory may have seen more meanwhile.
    const text = await this.#options.pins.load();
    const merged = mergePins(text === undefined ? undefined : parsePin(text), next);
    await this.#options.pins.save(`${JSON.stringify(merged)}\n`);
    this.#pin = merged;
  }

  #newDirectory(): CustodyDirectory {
    const { cg, custodians } = this.#options;
    return new CustodyDirectory({ cg, custodians, pin: this.#pin });
  }
}
