// When is a job due? In beats and bars, because the cluster moves together; by the wall clock, because beats stop.
//
// Beats lie. They are lost, come twice, jump ahead, begin again at 0, or come from two Pulses at once. So a job counts
// on a clock of its own, which every delivered beat moves on by as many beats as the index says, but never by more
// than fit into the time that has passed:
//
//   index says   +1  +1  +5 (four lost)  +9000 (jump)   0 (reset)   +1 twice as often (two Pulses)
//   clock moves  +1  +1  +5              +what fits     +1          +½ each: every other one counts
//
// With that, what is due twice is done twice and nothing else is; and the floor makes a job due after so long by the
// wall clock, whatever the beats do. What is due after a long silence is done once, not once for every beat missed.

import { beatMs } from './beat.ts';
import type { Beat } from './tempo.ts';

export interface Job {
  readonly name: string;
  /** How often by the beats; from 1. */
  readonly every: { readonly beats: number } | { readonly bars: number };
  /** How long it may be undone by the wall clock, ms. */
  readonly floorMs: number;
}

/** Beats and bars as jobs count them, since this process started. A value. */
export interface BeatClock {
  readonly beats: number;
  readonly bars: number;
  /** Index of the last beat that moved the clock. */
  readonly index: number | undefined;
  /** Beats that fit into the time passed and were not counted. */
  readonly credit: number;
  /** Monotonic ms of the last beat heard. */
  readonly at: number;
}

/** What is remembered of a job. */
export interface JobFacts {
  readonly isRunning: boolean;
  /** Wall clock ms when it was last done, kept over restarts; undefined = never. */
  readonly doneAt: number | undefined;
  /** Beats and bars of the clock then; 0 when it was done by an earlier process. */
  readonly doneBeats: number;
  readonly doneBars: number;
}

export interface JobNow {
  readonly beats: number;
  readonly bars: number;
  /** Wall clock ms. */
  readonly at: number;
}

/** Why it is due: never done, its beat has come, or the floor. */
export type Due = 'first' | 'beat' | 'floor';

/** A clock that is set back by more is a jump, and makes due what was done in its future, ms. */
const skewMsMax = 60_000;
/** A beat may come so much early and still count, ms, but never half a beat. */
const jitterMs = 50;

export function startBeatClock(at: number): BeatClock {
  return { beats: 0, bars: 0, index: undefined, credit: 1, at };
}

/** The clock after `beat`, delivered at `at` (monotonic ms). The same clock when the beat came too early to count. */
export function moveClock(clock: BeatClock, beat: Beat, at: number): BeatClock {
  const interval = beatMs(beat.frame.tempo_bpm);
  const credit = clock.credit + Math.max(0, at - clock.at) / interval;
  const tolerance = Math.min(jitterMs / interval, 0.5);
  const said = clock.index === undefined ? 1 : Math.max(1, beat.frame.beat_index - clock.index);
  const moved = Math.min(said, Math.floor(credit + tolerance));
  if (moved < 1) return { ...clock, credit, at };
  return {
    beats: clock.beats + moved,
    bars: clock.bars + (beat.downbeat ? 1 : 0),
    index: beat.frame.beat_index,
    // What is left over is not saved up: a pause is no claim to many beats at once later.
    credit: Math.min(credit - moved, tolerance),
    at,
  };
}

/** Undefined when there is nothing to do now. */
export function due(job: Job, facts: JobFacts, now: JobNow): Due | undefined {
  if (facts.isRunning) return undefined;
  if (facts.doneAt === undefined) return 'first';
  if (elapsedOf(job, facts, now) >= stepsOf(job)) return 'beat';
  const age = now.at - facts.doneAt;
  return age >= job.floorMs || age < -skewMsMax ? 'floor' : undefined;
}

/** The facts after the job was done at `now`. A failed run is none: it stays due. */
export function done(facts: JobFacts, now: JobNow): JobFacts {
  return { ...facts, isRunning: false, doneAt: now.at, doneBeats: now.beats, doneBars: now.bars };
}

/** Beats until the job is due, rounded up; 0 = now. `intervalMs`: of a beat; `barBeats`: of a bar, as far as known. */
export function beatsLeft(
  job: Job,
  facts: JobFacts,
  now: JobNow,
  tempo: { readonly intervalMs: number; readonly barBeats: number },
): number {
  if (facts.doneAt === undefined) return 0;
  const left = Math.max(0, stepsOf(job) - elapsedOf(job, facts, now));
  const byBeats = 'beats' in job.every ? left : left * tempo.barBeats;
  const byFloor = Math.max(0, (facts.doneAt + job.floorMs - now.at) / tempo.intervalMs);
  return Math.ceil(Math.min(byBeats, byFloor));
}

function stepsOf({ every }: Job): number {
  return 'beats' in every ? every.beats : every.bars;
}

function elapsedOf({ every }: Job, facts: JobFacts, now: JobNow): number {
  return 'beats' in every ? now.beats - facts.doneBeats : now.bars - facts.doneBars;
}
