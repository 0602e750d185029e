// The beat as a custodian hears it from the steward. It decides on what has expired, so it never goes back: not in
// this process, and not behind what an earlier one heard. For the same reason it never jumps ahead: a beat that was
// believed once cannot be taken back. It moves by what fits in the time that has passed by the own clock, at the tempo
// that is known, which rises by a tenth in a bar, as Pulse's own does. A beat from further ahead moves it as far as that.
// What the custodian's own settings say of the tempo is known, too: whoever sets a cluster to quicker beats sets them.

import { parseBeat } from '../backbeat/beat.ts';
import { type Clock, minute } from '../core/clock.ts';
import { BarLength, beatsPerBarAssumed } from '../custody/bar-length.ts';
import { type BeatNow, beatAt, type HeardBeat, laterBeat } from '../custody/freshness.ts';

/** Pulse changes its tempo by no more than this at once, and here it is believed once in a bar as it is assumed. */
const tempoRiseMax = 1.1;
/**
 * Beats by which time may jump all the same, until the next anchor: a Pulse that crashed goes on behind the indexes it
 * had reserved, and reading must not stop for that. So whoever makes beats up gains a fifth at most.
 */
const slackBeats = 120;
const anchorBeats = 10 * slackBeats;

/** What is kept of time over restarts. */
export interface TempoMemory {
  /** Highest beat that an earlier process heard; beats before it are old news. */
  readonly beat: number;
  /** Wall clock when it was written down, ms since 1970; 0 for never. */
  readonly atMs: number;
  /** Beats per minute, at the quickest; 0 for unknown. */
  readonly bpm: number;
}

export class CustodianTempo {
  readonly #clock: Clock;
  readonly #memory: TempoMemory;
  #heard: HeardBeat | undefined;
  /** An earlier beat, and when it was heard, also by the wall clock: a machine that slept has only that. */
  #anchor: (HeardBeat & { readonly wallMs: number }) | undefined;
  /** The quickest tempo that was believed, and the beat at which it could last rise. */
  #bpm: number;
  #tempoBeat: number | undefined;
  #beatMs = minute;
  readonly #bar = new BarLength();

  /** `settingsMs`: from one beat to the next by this custodian's own settings; 0 where they say nothing. */
  constructor(clock: Clock, memory: TempoMemory, settingsMs = 0) {
    this.#clock = clock;
    this.#memory = memory;
    this.#bpm = Math.max(memory.bpm, settingsMs === 0 ? 0 : minute / settingsMs);
  }

  /**
   * Takes a beat frame; true when it is a new one. One that the steward made for want of a Pulse is new and moves no
   * time: what has expired is decided by Pulse's beats, carried on by the own clock. Throws RECORD_INVALID for what is
   * none.
   */
  hear(value: unknown): boolean {
    const { frame } = parseBeat(value);
    if (frame.metadata?.['local'] === true) return true;
    if (frame.beat_index < this.#memory.beat) return false;
    const beat = Math.min(frame.beat_index, this.#latest());
    const heard = laterBeat(this.#heard, { beat, atMs: this.#clock.monotonic() });
    if (heard === this.#heard) return false;
    this.#heard = heard;
    this.#takeTempo(frame.tempo_bpm, heard);
    if (frame.downbeat) this.#bar.begin(beat);
    return true;
  }

  /** What to keep. */
  memory(): TempoMemory {
    return { beat: this.now().beat, atMs: this.#clock.now(), bpm: this.#bpm };
  }

  now(): BeatNow {
    const tempo = { beatMs: this.#beatMs, beatsPerBar: this.#bar.beats };
    return beatAt(this.#heard, this.#clock.monotonic(), tempo);
  }

  /** As last heard. */
  get beatsPerBar(): number {
    return this.#bar.beats;
  }

  /** The latest beat that it can be. */
  #latest(): number {
    const wallMs = this.#clock.now();
    if (this.#anchor !== undefined) {
      const { beat, atMs, wallMs: since } = this.#anchor;
      return beat + this.#beatsIn(Math.max(this.#clock.monotonic() - atMs, wallMs - since));
    }
    const { beat, atMs, bpm } = this.#memory;
    // The first beat ever has nothing to be held against, and a clock that was set back tells nothing.
    if (bpm === 0 || atMs === 0 || wallMs < atMs) return Number.MAX_SAFE_INTEGER;
    return beat + this.#beatsIn(wallMs - atMs);
  }

  #beatsIn(elapsedMs: number): number {
    return Math.floor((elapsedMs * this.#bpm * tempoRiseMax) / minute) + slackBeats;
  }

  /** Quicker once in a bar, and a new anchor seldom, so that neither what comes early nor what comes quicker adds up. */
  #takeTempo(bpm: number, heard: HeardBeat): void {
    const isNewBar = this.#tempoBeat === undefined || heard.beat >= this.#tempoBeat + beatsPerBarAssumed;
    const known = this.#bpm === 0 ? bpm : this.#bpm;
    const believed = Math.min(bpm, isNewBar ? known * tempoRiseMax : known);
    this.#bpm = Math.max(known, believed);
    this.#beatMs = minute / believed;
    if (isNewBar) this.#tempoBeat = heard.beat;
    if (this.#anchor === undefined || heard.beat >= this.#anchor.beat + anchorBeats)
      this.#anchor = { ...heard, wallMs: this.#clock.now() };
  }
}
