// The records of custody as somebody follows them who unwraps: read on from where it stopped, believed by the
// directory, remembered by the pin. Reading begins anew when the registry was replaced, or nothing was believed. When
// another group has come into the place of one (succession.ts), that one is read and believed, and there is no way back.

import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { CustodyDirectory, type CustodyRecordBytes } from './directory.ts';
import { type DirectoryPin, mergePins, parsePin, pinOfSuccessor } from './directory-pin.ts';
import { isSuccessorName } from './group-name.ts';
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
  /** The first group of the cluster. */
  readonly cg: string;
  readonly custodians: () => ReadonlyMap<PeerName, Uint8Array>;
  /** Ed25519 key of the operator. */
  readonly operator: Uint8Array;
  /** The records behind `since`. */
  readonly read: (since: FeedCursor, signal: AbortSignal | undefined) => Promise<FeedPage>;
  readonly pins: PinStore;
}

/** A directory, and how far it was read. */
interface Read {
  readonly directory: CustodyDirectory;
  readonly cursor: FeedCursor;
}

const start: FeedCursor = { revision: 0, index: 0 };
/** Pages of one reading: a registry that never ends is not followed for ever. */
const pagesMax = 4096;

export class CustodyFeed implements CustodySource {
  readonly #options: FeedOptions;
  /** The group of now. */
  #cg: string;
  #directory: CustodyDirectory;
  #cursor = start;
  #pin: DirectoryPin | undefined;
  #reading: Promise<void> | undefined;

  private constructor(options: FeedOptions, pin: DirectoryPin | undefined) {
    this.#options = options;
    this.#pin = pin;
    this.#cg = pin !== undefined && isSuccessorName(pin.cg, options.cg) ? pin.cg : options.cg;
    this.#directory = this.#directoryOf(this.#cg, pin);
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

  /**
   * A group before the one of now, as it was believed then; undefined when it never was here. With fewer records than it
   * had at its end it is not believed any more. Throws what `read` throws.
   */
  async ended(cg: string, signal?: AbortSignal): Promise<CustodyDirectory | undefined> {
    const frostPk = this.#pin?.ended?.[cg];
    if (frostPk === undefined) return undefined;
    const pin = { v: 1, cg, frostPk, marks: this.#pin?.endedMarks?.[cg] ?? {} } as const;
    return (await this.#readOn(() => this.#directoryOf(cg, pin), undefined, signal)).directory;
  }

  async #read(signal: AbortSignal | undefined): Promise<void> {
    const known = { directory: this.#directory, cursor: this.#cursor };
    const isGood = known.directory.problem === undefined;
    const read = await this.#readOn(
      () => this.#directoryOf(this.#cg, this.#pin),
      isGood ? known : undefined,
      signal,
    );
    this.#take(read);
    await this.#remember(read.directory);
    while (await this.#goOver(signal));
  }

  /** To the group in the place of this one, once it is believed. True when it did. */
  async #goOver(signal: AbortSignal | undefined): Promise<boolean> {
    const { endedBy } = this.#directory;
    if (endedBy === undefined) return false;
    const read = await this.#readOn(() => this.#directoryOf(endedBy.to, undefined), undefined, signal);
    const pin = read.directory.pin();
    if (pin === undefined) return false;
    const before = this.#pin;
    this.#cg = endedBy.to;
    // Of a group that was never believed here nothing is kept.
    const isKnown = before !== undefined && isSuccessorName(endedBy.to, before.cg);
    await this.#keep(isKnown ? pinOfSuccessor(before, pin) : pin);
    this.#take(read);
    return true;
  }

  #take({ directory, cursor }: Read): void {
    [this.#directory, this.#cursor] = [directory, cursor];
  }

  /** Reads on from `known` to the end of now, or from the start into a new directory. */
  async #readOn(
    begin: () => CustodyDirectory,
    known: Read | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Read> {
    let { directory, cursor } = known ?? { directory: begin(), cursor: start };
    for (let pages = 0; pages < pagesMax; pages++) {
      const page = await this.#options.read(cursor, signal);
      if (page.head < cursor.revision) {
        [directory, cursor] = [begin(), start];
        continue;
      }
      for (const record of page.records) {
        directory.take(record);
        cursor = { revision: record.revision, index: record.index };
      }
      if (!page.done) continue;
      directory.settle();
      return { directory, cursor };
    }
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the records of custody do not end');
  }

  async #remember(directory: CustodyDirectory): Promise<void> {
    const seen = directory.pin();
    if (seen === undefined) return;
    await this.#keep(mergePins(this.#pin, seen));
  }

  async #keep(next: DirectoryPin): Promise<void> {
    if (JSON.stringify(next) === JSON.stringify(this.#pin)) return;
    // Another process of this directory may have seen more meanwhile.
    const text = await this.#options.pins.load();
    const merged = mergePins(text === undefined ? undefined : parsePin(text), next);
    await this.#options.pins.save(`${JSON.stringify(merged)}\n`);
    this.#pin = merged;
  }

  #directoryOf(cg: string, pin: DirectoryPin | undefined): CustodyDirectory {
    const { custodians, operator } = this.#options;
    return new CustodyDirectory({ cg, custodians, operator, pin });
  }
}
