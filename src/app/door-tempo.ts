// The beat as a door hears it from the steward, carried on by its own clock while the steward is silent.

import type { BeatAnswer } from '../api/types.ts';
import { parseBeat } from '../backbeat/beat.ts';
import { type Clock, minute } from '../core/clock.ts';

/** Beats of silence after which the door says that it only extrapolates. */
const silentBeats = 3;

export class DoorTempo {
  readonly #clock: Clock;
  /** The steward goes on without Pulse: that moves no time here. */
  #isPulseSilent = false;
  #beat: { readonly index: number; readonly at: number; readonly beatMs: number } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isHeard(): boolean {
    return this.#beat !== undefined;
  }

  /** Takes a beat frame. Throws RECORD_INVALID for what is none. */
  hear(beat: unknown): void {
    const { frame } = parseBeat(beat);
    this.#isPulseSilent = frame.metadata?.['local'] === true;
    if (this.#isPulseSilent && this.#beat !== undefined) return;
    const beatMs = minute / frame.tempo_bpm;
    this.#beat = { index: frame.beat_index, at: this.#clock.monotonic(), beatMs };
  }

  /** The index of now; 0 before the first beat was heard. */
  index(): number {
    if (this.#beat === undefined) return 0;
    const { index, at, beatMs } = this.#beat;
    return index + Math.floor((this.#clock.monotonic() - at) / beatMs);
  }

  /** Undefined before the first beat was heard. */
  answer(kekPolicy: string): BeatAnswer | undefined {
    if (this.#beat === undefined) return undefined;
    const silent =
      this.#isPulseSilent || this.#clock.monotonic() - this.#beat.at > silentBeats * this.#beat.beatMs;
    return { index: this.index(), state: silent ? 'degraded' : 'locked', kekPolicy };
  }
}
