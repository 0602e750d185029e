// The lease over a register that several Pulses share: a loop that renews or watches, and never lets a failure count
// as leading.

import { setTimeout as wait } from 'node:timers/promises';
import { toHex } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import {
  defaultLeaseTiming,
  indexMax,
  isLeading,
  type Lease,
  type LeaseEntry,
  type LeaseRegister,
  type LeaseState,
  type LeaseTerm,
  type LeaseTiming,
  takeOver,
  watch,
} from './lease.ts';
import type { PulseRecord } from './schedule.ts';

export interface SharedLeaseOptions {
  readonly register: LeaseRegister;
  readonly clock: Clock;
  /** `count` random bytes. */
  readonly random: (count: number) => Uint8Array;
  /** The count to begin with where the register is empty: of a Pulse that was alone before. Default: a new one. */
  readonly seed?: PulseRecord | undefined;
  /** Beats that may be sent within one `ttlMs`, so many are reserved ahead. */
  readonly reserve: number;
  readonly timing?: LeaseTiming;
  /** Told when the register could not be reached. */
  readonly onError?: (error: unknown) => void;
}

export class SharedLease implements Lease {
  readonly #options: SharedLeaseOptions;
  readonly #timing: LeaseTiming;
  readonly #pulse: string;
  readonly #seed: PulseRecord;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #state: LeaseState;
  #next = 0;

  constructor(options: SharedLeaseOptions) {
    this.#options = options;
    this.#timing = options.timing ?? defaultLeaseTiming;
    this.#pulse = toHex(options.random(8));
    this.#seed = options.seed ?? { epoch: options.random(32), nextIndex: 0 };
    this.#state = { kind: 'watching', revision: 0, seenAt: options.clock.monotonic() };
    this.#loop = this.#run();
  }

  term(): LeaseTerm | undefined {
    const state = this.#state;
    if (!isLeading(state, this.#options.clock.monotonic())) return undefined;
    const { record, firstIndex } = state;
    const authority = { token: record.token, pulse: record.pulse };
    return { authority, epoch: record.epoch, firstIndex, reservedTo: record.nextIndex };
  }

  used(nextIndex: number): void {
    this.#next = nextIndex;
  }

  /** Gives the lease back, with the indexes that were not used, so that the next Pulse goes on at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    await this.#loop;
    const state = this.#state;
    if (!isLeading(state, this.#options.clock.monotonic())) return;
    this.#state = { kind: 'watching', revision: 0, seenAt: 0 };
    const record = { ...state.record, nextIndex: this.#nextIndex(state.firstIndex), released: true };
    await this.#attempt(async () => void (await this.#options.register.write(record, state.revision)));
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#attempt(() => this.#step());
      await wait(this.#timing.everyMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  async #step(): Promise<void> {
    if (this.#state.kind === 'leading') return this.#renew(this.#state);
    const found = await this.#options.register.read();
    const now = this.#options.clock.monotonic();
    const { state, mayTake } = watch(this.#state, found, now, this.#timing);
    this.#state = state;
    if (!mayTake || this.#stop.signal.aborted) return;
    await this.#take(found);
  }

  async #take(found: LeaseEntry | undefined): Promise<void> {
    const { clock, register, reserve } = this.#options;
    const before = clock.monotonic();
    const record = takeOver(found, this.#seed, this.#pulse, reserve);
    const revision = await register.write(record, found?.revision ?? 0);
    if (revision === undefined) return; // somebody was quicker: the next look shows who
    const firstIndex = found?.record.nextIndex ?? this.#seed.nextIndex;
    this.#next = firstIndex;
    this.#state = { kind: 'leading', record, revision, firstIndex, until: before + this.#timing.ttlMs };
  }

  async #renew(state: Extract<LeaseState, { kind: 'leading' }>): Promise<void> {
    const { clock, register, reserve } = this.#options;
    const before = clock.monotonic();
    if (before >= state.until) return this.#lose(); // another one may have it by now: it is taken, not renewed
    const nextIndex = Math.min(this.#nextIndex(state.firstIndex) + reserve, indexMax);
    const record = { ...state.record, nextIndex: Math.max(nextIndex, state.record.nextIndex) };
    const revision = await register.write(record, state.revision);
    const until = before + this.#timing.ttlMs;
    if (revision !== undefined) this.#state = { ...state, record, revision, until };
    else await this.#explain(state);
  }

  /** A renewal was refused: an answer to an earlier one was lost, the register was lost, or the lease is. */
  async #explain(state: Extract<LeaseState, { kind: 'leading' }>): Promise<void> {
    const found = await this.#options.register.read();
    const { token, pulse } = state.record;
    if (found === undefined) this.#state = { ...state, revision: 0 };
    else if (found.record.token === token && found.record.pulse === pulse)
      this.#state = { ...state, record: found.record, revision: found.revision };
    else this.#lose();
  }

  #lose(): void {
    this.#state = { kind: 'watching', revision: 0, seenAt: this.#options.clock.monotonic() };
  }

  #nextIndex(firstIndex: number): number {
    return Math.max(firstIndex, this.#next);
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.onError?.(error);
    }
  }
}
