// The beat as a custodian hears it from the steward. It decides on what has expired, so it never goes back: not in
// this process, and not behind what an earlier one heard.

import { parseBeat } from '../backbeat/beat.ts';
import { type Clock, minute } from '../core/clock.ts';
import { type BeatNow, beatAt, type HeardBeat, laterBeat } from '../custody/freshness.ts';

/** Used until two downbeats have shown how long a bar is. */
const beatsPerBarAssumed = 60;

export class CustodianTempo {
  readonly #clock: Clock;
  /** Beats before this one are old news. */
  readonly #floor: number;
  #heard: HeardBeat | undefined;
  #beatMs = minute;
  #beatsPerBar = beatsPerBarAssumed;
  #downbeat: number | undefined;

  /** `floor`: highest beat that an earlier process heard. */
  constructor(clock: Clock, floor: number) {
    this.#clock = clock;
    this.#floor = floor;
  }

  /**
   * Takes a beat frame; true when it is a new one. One that the steward made for want of a Pulse is new and moves no
   * time: what has expired is decided by Pulse's beats, carried on by the own clock. Throws RECORD_INVALID for what is
   * none.
   */
  hear(value: unknown): boolean {
    const { frame } = parseBeat(value);
    if (frame.metadata?.['local'] === true) return true;
    const { beat_index: beat } = frame;
    if (beat < this.#floor) return false;
    const heard = laterBeat(this.#heard, { beat, atMs: this.#clock.monotonic() });
    if (heard === this.#heard) return false;
    this.#heard = heard;
    this.#beatMs = minute / frame.tempo_bpm;
    if (frame.downbeat) this.#beginBar(beat);
    return true;
  }

  now(): BeatNow {
    const tempo = { beatMs: this.#beatMs, beatsPerBar: this.#beatsPerBar };
    return beatAt(this.#heard, this.#clock.monotonic(), tempo);
  }

  /** As last heard. */
  get beatsPerBar(): number {
    return this.#beatsPerBar;
  }

  #beginBar(beat: number): void {
    const length = beat - (this.#downbeat ?? beat);
    // A longer distance has a downbeat in it that was not heard.
    if (length > 0 && length < 2 * this.#beatsPerBar) this.#beatsPerBar = length;
    this.#downbeat = beat;
  }
}
