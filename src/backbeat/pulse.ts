// The embedded Pulse: what a cluster without NATS keeps time by.
//
// The index must never repeat, also after kill -9, and a synced write in every beat would be a waste. So
// the record reserves indexes ahead: what was reserved and not used is skipped after a crash (a gap that
// every subscriber survives), and given back by an orderly stop.

import type { Clock } from '../core/clock.ts';
import { assertStrict, type BeatFrame, beatMs, type Hlc, nextHlc } from './beat.ts';
import { frameAt, type PulseRecord, type PulseSettings } from './schedule.ts';
import { advance, intervalMsOf, startTracker, type Tracker, type TrackerOptions } from './tempo-tracker.ts';
import type { Beat, Tempo, TempoView } from './tempo.ts';

/** Where the Pulse keeps its record. `write` is durable when it resolves. */
export interface PulseStore {
  /** Undefined when there is none yet, or what is there is damaged: then a new count begins. */
  read(): Promise<PulseRecord | undefined>;
  write(record: PulseRecord): Promise<void>;
}

export interface PulseOptions extends PulseSettings {
  readonly store: PulseStore;
  readonly clock: Clock;
  /** `count` random bytes. */
  readonly random: (count: number) => Uint8Array;
  /** Told when the record could not be written; the Pulse goes on with what it has reserved, then stops. */
  readonly onError?: (error: unknown) => void;
}

/** Indexes reserved at once. */
const reserved = 256;

export class Pulse implements Tempo, AsyncDisposable {
  readonly #options: PulseOptions;
  readonly #tracking: TrackerOptions;
  readonly #listeners = new Set<(beat: Beat) => void>();
  #record: PulseRecord;
  #index: number;
  #hlc: Hlc;
  #tracker: Tracker;
  #timer: NodeJS.Timeout | undefined;
  #due: number;
  #writing: Promise<void> = Promise.resolve();
  #stopped = false;

  private constructor(options: PulseOptions, record: PulseRecord, index: number) {
    this.#options = options;
    this.#record = record;
    this.#index = index;
    const node = options.random(2);
    this.#hlc = { wall: 0, logical: 0, node: ((node[0] ?? 0) << 8) | (node[1] ?? 0) };
    this.#tracking = { clusterId: options.clusterId, defaultTempoBpm: options.tempoBpm, jitterMs: 50 };
    this.#tracker = startTracker(this.#tracking, options.clock.now());
    this.#due = options.clock.monotonic();
  }

  /** Reads or creates the record and beats at once, then at the tempo. Throws when the record cannot be written. */
  static async start(options: PulseOptions): Promise<Pulse> {
    const found = await options.store.read();
    const record = found ?? { epoch: options.random(32), nextIndex: 0 };
    const next = { ...record, nextIndex: record.nextIndex + reserved };
    await options.store.write(next);
    const pulse = new Pulse(options, next, record.nextIndex);
    pulse.#schedule();
    return pulse;
  }

  current(): TempoView {
    const { state, last, since } = this.#tracker;
    return { state, beat: last, since, intervalMs: intervalMsOf(this.#tracker, this.#tracking) };
  }

  onBeat(listener: (beat: Beat) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Stops and gives back the indexes that were reserved and not used. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#writing;
    await this.#options.store.write({ ...this.#record, nextIndex: this.#index });
  }

  /** Beats keep their grid: a late timer does not move the ones after it; a long sleep skips instead of rushing. */
  #schedule(): void {
    if (this.#stopped) return;
    const { clock, tempoBpm } = this.#options;
    const late = clock.monotonic() - this.#due;
    const interval = beatMs(tempoBpm);
    if (late > interval) this.#due += Math.floor(late / interval) * interval;
    this.#timer = setTimeout(() => this.#beat(), Math.max(0, this.#due - clock.monotonic()));
    this.#due += interval;
  }

  #beat(): void {
    this.#schedule();
    if (this.#index >= this.#record.nextIndex) return; // nothing reserved: the write is still under way or failing
    const now = this.#options.clock.now();
    this.#hlc = nextHlc(this.#hlc, now);
    const frame = frameAt(this.#options, this.#record, this.#index++, this.#hlc, now);
    assertStrict(frame);
    if (this.#index + reserved / 2 > this.#record.nextIndex) this.#reserve();
    this.#deliver(frame, now);
  }

  #deliver(frame: BeatFrame, at: number): void {
    const { tracker, beat } = advance(this.#tracker, { kind: 'frame', frame, at }, this.#tracking);
    this.#tracker = tracker;
    if (beat !== undefined) for (const listener of this.#listeners) listener(beat);
  }

  #reserve(): void {
    this.#writing = this.#writing.then(() =>
      this.#write({ ...this.#record, nextIndex: this.#index + reserved }),
    );
  }

  async #write(next: PulseRecord): Promise<void> {
    try {
      await this.#options.store.write(next);
      this.#record = next;
    } catch (error) {
      this.#options.onError?.(error);
    }
  }
}
