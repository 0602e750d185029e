// Reverb: what the agents of a cluster did in a bar, from their claims. Pure: beats and claims in, a report out when a
// bar has ended.
//
// A bar is a window id: it ends with the first beat that has another one, so a downbeat that was lost, a Pulse that
// began again and a bar of any length all close it. Upstream's rules for the counts are not public; chosen here:
//
//   agents_reporting          agents with a claim for a beat of the bar
//   on_time_reviews           tasks claimed `reviewing` or `completed` for a beat of the review phase, before its deadline
//   help_promises_fulfilled   tasks claimed `helping` in this bar or the one before, and `completed` in this one
//   tempo_drift_ms            how much later its last beat came than the first one's arrival and the tempo say

import { type BarReport, barReportType } from './bar-report.ts';
import { type BeatFrame, beatMs, instantMs } from './beat.ts';
import type { StatusClaim } from './status-claim.ts';

export interface ReverbCounters {
  readonly claims: number;
  /** For a beat before this bar or after the present one. */
  readonly outOfBar: number;
  /** From agents beyond `agentsMax`, or about tasks beyond `tasksMax`. */
  readonly beyondBound: number;
}

interface Bar {
  readonly windowId: string;
  readonly firstBeat: number;
  /** Newest beat, and when it came. */
  last: BeatFrame;
  lastAt: number;
  /** Where the last beat ought to have come, by the tempo of every beat before it. */
  expectedAt: number;
  /** Newest beat of the review phase. */
  review: BeatFrame | undefined;
  readonly agents: BoundedSet;
  readonly reviews: BoundedSet;
  readonly promised: BoundedSet;
  readonly fulfilled: BoundedSet;
}

/** Agents counted in one bar: over a hundred times the largest deployment known, at about 100 B each. */
export const agentsMax = 4096;
/** Tasks remembered in one bar, of each kind. */
const tasksMax = 16_384;
/** Lateness that is tolerated, ms. */
const jitterMs = 50;

export class Reverb {
  #bar: Bar | undefined;
  /** Tasks that promised help in the bar before. */
  #promisedBefore: BoundedSet = new BoundedSet(0);
  #counters: ReverbCounters = { claims: 0, outOfBar: 0, beyondBound: 0 };

  get counters(): ReverbCounters {
    return this.#counters;
  }

  /**
   * Takes a beat of Pulse, never a local one, that came at `at` (wall clock ms). Returns the report of the bar that it
   * ended, if it did; `secretRotationsOk` is what that report says.
   */
  hearBeat(frame: BeatFrame, at: number, secretRotationsOk: boolean): BarReport | undefined {
    const bar = this.#bar;
    if (bar !== undefined && frame.window_id === bar.windowId && frame.beat_index > bar.last.beat_index) {
      goOn(bar, frame, at);
      return undefined;
    }
    this.#promisedBefore = bar?.promised ?? this.#promisedBefore;
    this.#bar = beginBar(frame, at);
    return bar === undefined ? undefined : reportOf(bar, secretRotationsOk);
  }

  /** Takes a claim that came at `at` (wall clock ms). Before the first beat there is no bar to count it in. */
  hearClaim(claim: StatusClaim, at: number): void {
    const { claims, outOfBar, beyondBound } = this.#counters;
    this.#counters = { claims: claims + 1, outOfBar, beyondBound };
    const bar = this.#bar;
    // A claim may overtake the beat that it answers.
    const isOutside =
      bar === undefined || claim.beat_index < bar.firstBeat || claim.beat_index > bar.last.beat_index + 1;
    if (isOutside) this.#counters = { ...this.#counters, outOfBar: outOfBar + 1 };
    else if (!this.#count(bar, claim, at))
      this.#counters = { ...this.#counters, beyondBound: beyondBound + 1 };
  }

  /** False when a bound is reached. */
  #count(bar: Bar, claim: StatusClaim, at: number): boolean {
    if (!bar.agents.add(claim.agent_id)) return false;
    const task = JSON.stringify([claim.agent_id, claim.task_id ?? '']);
    const isPromised = bar.promised.has(task) || this.#promisedBefore.has(task);
    let isCounted = true;
    if (isOnTimeReview(bar, claim, at)) isCounted &&= bar.reviews.add(task);
    if (claim.state === 'helping') isCounted &&= bar.promised.add(task);
    if (claim.state === 'completed' && isPromised) isCounted &&= bar.fulfilled.add(task);
    return isCounted;
  }
}

class BoundedSet {
  readonly #items = new Set<string>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#items.size;
  }

  has(item: string): boolean {
    return this.#items.has(item);
  }

  /** False when it is full. */
  add(item: string): boolean {
    if (this.#items.has(item)) return true;
    if (this.#items.size >= this.#max) return false;
    this.#items.add(item);
    return true;
  }
}

function beginBar(frame: BeatFrame, at: number): Bar {
  return {
    windowId: frame.window_id,
    firstBeat: frame.beat_index,
    last: frame,
    lastAt: at,
    expectedAt: at,
    review: frame.phase === 'review' ? frame : undefined,
    agents: new BoundedSet(agentsMax),
    reviews: new BoundedSet(tasksMax),
    promised: new BoundedSet(tasksMax),
    fulfilled: new BoundedSet(tasksMax),
  };
}

function goOn(bar: Bar, frame: BeatFrame, at: number): void {
  bar.expectedAt += (frame.beat_index - bar.last.beat_index) * beatMs(bar.last.tempo_bpm);
  bar.last = frame;
  bar.lastAt = at;
  if (frame.phase === 'review') bar.review = frame;
}

function isOnTimeReview({ review }: Bar, { state, beat_index }: StatusClaim, at: number): boolean {
  if (state !== 'reviewing' && state !== 'completed') return false;
  if (review === undefined || beat_index !== review.beat_index) return false;
  return at <= instantMs(review.deadline_at) + jitterMs;
}

function reportOf(bar: Bar, secretRotationsOk: boolean): BarReport {
  return {
    type: barReportType,
    window_id: bar.windowId,
    from_beat: bar.firstBeat,
    to_beat: bar.last.beat_index,
    agents_reporting: bar.agents.size,
    on_time_reviews: bar.reviews.size,
    help_promises_fulfilled: bar.fulfilled.size,
    secret_rotations_ok: secretRotationsOk,
    tempo_drift_ms: Math.round((bar.lastAt - bar.expectedAt) * 1000) / 1000,
  };
}
