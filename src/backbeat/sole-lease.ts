// The lease of a Pulse that has no rival: its file lies in a data directory that one process can open.
//
// The index must never repeat, also after kill -9, and a synced write in every beat would be a waste. So the record
// reserves indexes ahead: what was reserved and not used is skipped after a crash (a gap that every subscriber
// survives), and given back by an orderly stop.

import type { Lease, LeaseTerm } from './lease.ts';
import type { PulseRecord } from './schedule.ts';

/** Where the record is kept. `write` is durable when it resolves. */
export interface PulseStore {
  /** Undefined when there is none yet, or what is there is damaged: then a new count begins. */
  read(): Promise<PulseRecord | undefined>;
  write(record: PulseRecord): Promise<void>;
}

export interface SoleLeaseOptions {
  readonly store: PulseStore;
  /** `count` random bytes. */
  readonly random: (count: number) => Uint8Array;
  /** Told when the record could not be written: what is reserved is used up, then there are no beats. */
  readonly onError?: (error: unknown) => void;
  /** Indexes reserved at once. Default 256. */
  readonly reserve?: number;
}

const reserveDefault = 256;

export class SoleLease implements Lease {
  readonly #options: SoleLeaseOptions;
  readonly #firstIndex: number;
  #record: PulseRecord;
  #next: number;
  readonly #reserveCount: number;
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  #stopped = false;

  private constructor(options: SoleLeaseOptions, record: PulseRecord, firstIndex: number) {
    this.#options = options;
    this.#record = record;
    this.#firstIndex = firstIndex;
    this.#reserveCount = options.reserve ?? reserveDefault;
    this.#next = firstIndex;
  }

  /** Reads or creates the record. Throws when it cannot be written. */
  static async open(options: SoleLeaseOptions): Promise<SoleLease> {
    const found = await options.store.read();
    const record = found ?? { epoch: options.random(32), nextIndex: 0 };
    const next = { ...record, nextIndex: record.nextIndex + (options.reserve ?? reserveDefault) };
    await options.store.write(next);
    return new SoleLease(options, next, record.nextIndex);
  }

  term(): LeaseTerm | undefined {
    if (this.#stopped) return undefined;
    const { epoch, nextIndex } = this.#record;
    return { authority: undefined, epoch, firstIndex: this.#firstIndex, reservedTo: nextIndex };
  }

  used(nextIndex: number): void {
    this.#next = nextIndex;
    if (this.#isWriting || nextIndex + this.#reserveCount / 2 <= this.#record.nextIndex) return;
    this.#isWriting = true;
    this.#writing = this.#reserve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.#writing;
    await this.#options.store.write({ ...this.#record, nextIndex: this.#next });
  }

  async #reserve(): Promise<void> {
    const next = { ...this.#record, nextIndex: this.#next + this.#reserveCount };
    try {
      await this.#options.store.write(next);
      this.#record = next;
    } catch (error) {
      this.#options.onError?.(error);
    } finally {
      this.#isWriting = false;
    }
  }
}
