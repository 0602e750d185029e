// From frames on the bus to beats for listeners: the tempo tracker with a clock and a timer around it.

import type { Clock } from '../core/clock.ts';
import type { BackbeatBus } from './bus.ts';
import {
  advance,
  intervalMsOf,
  startTracker,
  type Tracker,
  type TrackerCounters,
  type TrackerEvent,
  type TrackerOptions,
} from './tempo-tracker.ts';
import type { Beat, Tempo, TempoView } from './tempo.ts';

/** Upstream's subscribers tolerate so much lateness, ms. */
const jitterMsDefault = 50;
/** Timers of the platform cannot wait longer. */
const timerMsMax = 2_147_483_647;

export interface FollowerOptions {
  readonly bus: BackbeatBus;
  readonly clusterId: string;
  /** Cadence until a tempo has been heard and while Pulse is silent, beats per minute. */
  readonly defaultTempoBpm: number;
  readonly clock: Clock;
  /** Default 50. */
  readonly jitterMs?: number;
}

/** Beats as this process counts them, from start on; disposing of it ends them. */
export class TempoFollower implements Tempo, Disposable {
  readonly #options: TrackerOptions;
  readonly #clock: Clock;
  readonly #wallStart: number;
  readonly #listeners = new Set<(beat: Beat) => void>();
  readonly #stopListening: () => void;
  #tracker: Tracker;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor({ bus, clusterId, defaultTempoBpm, clock, jitterMs = jitterMsDefault }: FollowerOptions) {
    this.#options = { clusterId, defaultTempoBpm, jitterMs };
    this.#clock = clock;
    this.#wallStart = clock.now() - clock.monotonic();
    this.#tracker = startTracker(this.#options, this.#now());
    this.#stopListening = bus.onBeat((frame) => this.#take({ kind: 'frame', frame, at: this.#now() }));
    this.#schedule();
  }

  current(): TempoView {
    const { state, last, since } = this.#tracker;
    return { state, beat: last, since, intervalMs: intervalMsOf(this.#tracker, this.#options) };
  }

  onBeat(listener: (beat: Beat) => void): () => void {
    const own = (beat: Beat): void => listener(beat);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /** What was heard and how it was taken, since the start. */
  counters(): TrackerCounters {
    return this.#tracker.counters;
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#stopListening();
    clearTimeout(this.#timer);
    this.#listeners.clear();
  }

  /** The wall clock of the start, moved on by the monotonic one: a clock that is set makes no silence. */
  #now(): number {
    return Math.round(this.#wallStart + this.#clock.monotonic());
  }

  #take(event: TrackerEvent): void {
    if (this.#stopped) return;
    const { tracker, beat } = advance(this.#tracker, event, this.#options);
    this.#tracker = tracker;
    this.#schedule();
    if (beat !== undefined) for (const listener of this.#listeners) listener(beat);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const tolerance = this.#tracker.state === 'locked' ? this.#options.jitterMs : 0;
    const waitMs = Math.min(timerMsMax, Math.max(1, this.#tracker.wakeAt + tolerance - this.#now()));
    this.#timer = setTimeout(() => this.#take({ kind: 'tick', at: this.#now() }), Math.ceil(waitMs));
  }
}
