// Pulse: sends a frame at every beat for as long as its lease lasts.
//
// It keeps a grid in real time: a late timer does not move the beats after it, and a long sleep skips instead of
// rushing. It asks the lease before every frame; without one it is silent, and the cluster keeps time by itself.

import type { Clock } from '../core/clock.ts';
import { beatMs, type BeatFrame, type Hlc, nextHlc } from './beat.ts';
import type { BackbeatBus } from './bus.ts';
import type { Lease, LeaseTerm } from './lease.ts';
import { frameAt, type PulseSettings } from './schedule.ts';

export interface PulseOptions extends PulseSettings {
  readonly bus: BackbeatBus;
  /** Given back by the caller, after the Pulse was disposed of. */
  readonly lease: Lease;
  readonly clock: Clock;
  /** `count` random bytes. */
  readonly random: (count: number) => Uint8Array;
  /** What the frames say of the cluster. Absent: nothing. */
  readonly health?: () => 'healthy' | 'degraded';
}

export class Pulse implements Disposable {
  readonly #options: PulseOptions;
  #hlc: Hlc;
  #term: LeaseTerm | undefined;
  #index = 0;
  #timer: NodeJS.Timeout | undefined;
  #due: number;
  #stopped = false;

  /** Beats at once, if the lease allows it, then at the tempo. */
  constructor(options: PulseOptions) {
    this.#options = options;
    const node = options.random(2);
    this.#hlc = { wall: 0, logical: 0, node: ((node[0] ?? 0) << 8) | (node[1] ?? 0) };
    this.#due = options.clock.monotonic();
    this.#schedule();
  }

  /** True while this Pulse is the one that counts. */
  get isLeading(): boolean {
    return !this.#stopped && this.#options.lease.term() !== undefined;
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

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
    const { bus, clock, lease } = this.#options;
    const term = lease.term();
    if (term === undefined) return;
    if (isAnother(this.#term, term)) this.#index = term.firstIndex;
    this.#term = term;
    if (this.#index >= term.reservedTo) return lease.used(this.#index); // still under way or failing: asks again
    const now = clock.now();
    this.#hlc = nextHlc(this.#hlc, now);
    bus.publishBeat(this.#frame(term, now));
    lease.used(++this.#index);
  }

  #frame(term: LeaseTerm, now: number): BeatFrame {
    const { authority, epoch } = term;
    const record = { epoch, nextIndex: term.reservedTo };
    const frame = frameAt(this.#options, record, this.#index, this.#hlc, now);
    const health = this.#options.health?.();
    return {
      ...frame,
      metadata: {
        ...frame.metadata,
        ...(health === undefined ? {} : { cluster_health: health }),
        ...(authority === undefined ? {} : { fencing_token: authority.token, pulse_id: authority.pulse }),
      },
    };
  }
}

function isAnother(before: LeaseTerm | undefined, term: LeaseTerm): boolean {
  return before?.authority?.token !== term.authority?.token || before?.firstIndex !== term.firstIndex;
}
