// From the frames that arrive (late, twice, out of order, from a Pulse that began again at 0, or not at
// all) to beats that rise by one: a pure state machine. It is told the time and says when to wake it.
//
//   waiting ──frame──▶ locked ──silence──▶ degraded ──frame──▶ locked
//      └──── tick: local beats at the default tempo ────┘
//
// First the authority: a frame of a Pulse that leads by a lease carries a fencing token, and a lower one than
// the newest seen is refused, however plausible its index. Then the count.
//
// A lower index is either late or a new count. A late frame has a deadline that is not after the newest
// one seen; a Pulse that lost its state goes on in real time, so its deadlines do. Where clocks went back
// even that fails: then several rising frames in a row below the old index are believed.

import { type BeatFrame, beatMs, compareBeats, instantMs } from './beat.ts';
import type { Beat, TempoState } from './tempo.ts';

export interface TrackerOptions {
  readonly clusterId: string;
  /** Used until a tempo has been heard, and while Pulse is silent. */
  readonly defaultTempoBpm: number;
  /** Tolerated lateness of a beat, ms. Upstream's subscribers use 50. */
  readonly jitterMs: number;
}

export interface TrackerCounters {
  readonly beats: number;
  readonly local: number;
  readonly duplicates: number;
  readonly late: number;
  readonly missed: number;
  readonly resets: number;
  readonly foreign: number;
  /** Refused because a Pulse with a higher token has been heard. */
  readonly fenced: number;
}

/** Which Pulse a frame comes from: `token` 0 and no name for one that leads without a lease. */
export interface Authority {
  readonly token: number;
  readonly pulse: string;
}

export interface Tracker {
  readonly state: TempoState;
  readonly since: number;
  readonly sequence: number;
  /** Newest frame heard of the present count. */
  readonly heard: BeatFrame | undefined;
  /** Frame of the last beat delivered. */
  readonly last: Beat | undefined;
  /** When to send a tick if no frame comes before, ms. */
  readonly wakeAt: number;
  /** Lower frames in a row that might be a new count. */
  readonly lower: { readonly frame: BeatFrame; readonly run: number } | undefined;
  /** Of the Pulse that is followed; undefined until one was heard. */
  readonly authority: Authority | undefined;
  /** Frames in a row of a Pulse with less authority: when the other stays silent, its lease records may be lost. */
  readonly refused: { readonly frame: BeatFrame; readonly run: number } | undefined;
  readonly counters: TrackerCounters;
}

export type TrackerEvent =
  | { readonly kind: 'frame'; readonly frame: BeatFrame; readonly at: number }
  | { readonly kind: 'tick'; readonly at: number };

export interface Step {
  readonly tracker: Tracker;
  /** The beat to deliver, if this event makes one. */
  readonly beat: Beat | undefined;
}

/** So many rising frames below the old index are a new count, whatever their deadlines say. */
const lowerRunMax = 3;

export function startTracker(options: TrackerOptions, now: number): Tracker {
  return {
    state: 'waiting',
    since: now,
    sequence: 0,
    heard: undefined,
    last: undefined,
    wakeAt: now + beatMs(options.defaultTempoBpm),
    lower: undefined,
    authority: undefined,
    refused: undefined,
    counters: { beats: 0, local: 0, duplicates: 0, late: 0, missed: 0, resets: 0, foreign: 0, fenced: 0 },
  };
}

/** Milliseconds between beats as now expected. */
export function intervalMsOf(tracker: Tracker, options: TrackerOptions): number {
  const heard = tracker.state === 'locked' ? tracker.heard?.tempo_bpm : undefined;
  return beatMs(heard ?? options.defaultTempoBpm);
}

export function advance(tracker: Tracker, event: TrackerEvent, options: TrackerOptions): Step {
  return event.kind === 'tick'
    ? tick(tracker, event.at, options)
    : hear(tracker, event.frame, event.at, options);
}

function hear(tracker: Tracker, frame: BeatFrame, at: number, options: TrackerOptions): Step {
  if (frame.cluster_id !== options.clusterId) return counted(tracker, 'foreign');
  const authority = authorityOf(frame);
  const order = authorityOrder(authority, tracker.authority);
  if (order < 0 && !isSuccessor(tracker, frame)) return fenced(tracker, frame);
  return hearCount({ ...tracker, authority, refused: undefined }, frame, at, order > 0);
}

/** `isNewer`: its Pulse has just taken over, so nothing of it can be late. */
function hearCount(tracker: Tracker, frame: BeatFrame, at: number, isNewer: boolean): Step {
  const { heard } = tracker;
  if (heard === undefined) return accept(tracker, frame, at, 0);
  if (frame.beat_index > heard.beat_index) {
    return accept(tracker, frame, at, frame.beat_index - heard.beat_index - 1);
  }
  if (frame.beat_index === heard.beat_index && isSameTime(frame, heard))
    return duplicate(tracker, frame, heard);
  if (isNewer || isNewCount(tracker, frame, heard)) {
    return accept(bump(tracker, 'resets', 1), frame, at, 0);
  }
  const run = rises(tracker.lower?.frame, frame) ? (tracker.lower?.run ?? 0) + 1 : 1;
  if (run >= lowerRunMax) return accept(bump(tracker, 'resets', 1), frame, at, 0);
  return counted({ ...tracker, lower: { frame, run } }, 'late');
}

/** Who sent the frame, as far as its metadata says. */
function authorityOf({ metadata }: BeatFrame): Authority {
  const token = metadata?.['fencing_token'];
  const pulse = metadata?.['pulse_id'];
  if (typeof token !== 'number' || !Number.isSafeInteger(token) || token < 1) return { token: 0, pulse: '' };
  return { token, pulse: typeof pulse === 'string' ? pulse.slice(0, 64) : '' };
}

/** Below 0: to be refused. Of two with one token, which lost lease records can make, the first one stays. */
function authorityOrder(authority: Authority, followed: Authority | undefined): number {
  if (followed === undefined || authority.token > followed.token) return 1;
  return authority.token === followed.token && authority.pulse === followed.pulse ? 0 : -1;
}

/**
 * A token can only go back when the lease records were lost, or when upstream's Pulse took over. Who has lost its
 * lease sends one frame at most, so several of one Pulse, with nothing from the one followed, are believed.
 */
function isSuccessor(tracker: Tracker, frame: BeatFrame): boolean {
  return tracker.state !== 'locked' && runAfter(tracker, frame) >= lowerRunMax;
}

function runAfter({ refused }: Tracker, frame: BeatFrame): number {
  if (refused === undefined || !rises(refused.frame, frame)) return 1;
  return authorityOrder(authorityOf(frame), authorityOf(refused.frame)) === 0 ? refused.run + 1 : 1;
}

function fenced(tracker: Tracker, frame: BeatFrame): Step {
  const refused = tracker.state === 'locked' ? undefined : { frame, run: runAfter(tracker, frame) };
  return counted({ ...tracker, refused }, 'fenced');
}

/** Same index, a later reading: another Pulse with the same count. The beat has been; its facts are kept. */
function duplicate(tracker: Tracker, frame: BeatFrame, heard: BeatFrame): Step {
  const newest = compareBeats(frame, heard) > 0 ? frame : heard;
  return counted({ ...tracker, heard: newest }, 'duplicates');
}

function isSameTime(frame: BeatFrame, heard: BeatFrame): boolean {
  return Math.abs(instantMs(frame.deadline_at) - instantMs(heard.deadline_at)) <= beatMs(heard.tempo_bpm);
}

function isNewCount(tracker: Tracker, frame: BeatFrame, heard: BeatFrame): boolean {
  const later = instantMs(frame.deadline_at) > instantMs(heard.deadline_at);
  return later && (frame.window_id !== heard.window_id || tracker.state === 'degraded');
}

function rises(before: BeatFrame | undefined, frame: BeatFrame): boolean {
  return before !== undefined && frame.beat_index > before.beat_index;
}

function accept(tracker: Tracker, frame: BeatFrame, at: number, missed: number): Step {
  const lastHeard = tracker.heard;
  const beat: Beat = {
    sequence: tracker.sequence + 1,
    frame,
    source: 'pulse',
    downbeat: frame.downbeat || (lastHeard !== undefined && frame.window_id !== lastHeard.window_id),
  };
  const next: Tracker = {
    ...bump(bump(tracker, 'beats', 1), 'missed', missed),
    state: 'locked',
    since: tracker.state === 'locked' ? tracker.since : at,
    sequence: beat.sequence,
    heard: frame,
    last: beat,
    lower: undefined,
    wakeAt: at + silenceMs(frame),
  };
  return { tracker: next, beat };
}

/** One beat may be lost without alarm; the second that does not come is silence. */
function silenceMs(frame: BeatFrame): number {
  return 2 * beatMs(frame.tempo_bpm);
}

function tick(tracker: Tracker, at: number, options: TrackerOptions): Step {
  const lateBy = tracker.state === 'locked' ? options.jitterMs : 0;
  if (at < tracker.wakeAt + lateBy) return { tracker, beat: undefined };
  const intervalMs = beatMs(options.defaultTempoBpm);
  const beat: Beat = {
    sequence: tracker.sequence + 1,
    frame: continued(tracker, at, intervalMs, options),
    source: 'local',
    downbeat: false,
  };
  const state: TempoState = tracker.heard === undefined ? 'waiting' : 'degraded';
  const next: Tracker = {
    ...bump(bump(tracker, 'beats', 1), 'local', 1),
    state,
    since: state === tracker.state ? tracker.since : at,
    sequence: beat.sequence,
    last: beat,
    wakeAt: at + intervalMs,
  };
  return { tracker: next, beat };
}

/** A frame for a beat that nobody sent: counts on from the last one, claims no downbeat and no new window. */
function continued(tracker: Tracker, at: number, intervalMs: number, options: TrackerOptions): BeatFrame {
  const before = tracker.last?.frame;
  return {
    type: 'backbeat.beatframe.v1',
    cluster_id: options.clusterId,
    beat_index: before === undefined ? 0 : Math.min(before.beat_index + 1, Number.MAX_SAFE_INTEGER),
    downbeat: false,
    phase: before?.phase ?? 'execute',
    hlc: before?.hlc ?? '0000:0000:0000',
    deadline_at: new Date(at + intervalMs).toISOString(),
    tempo_bpm: options.defaultTempoBpm,
    window_id: before?.window_id ?? '0'.repeat(32),
    metadata: { cluster_health: 'degraded', local: true },
  };
}

function counted(tracker: Tracker, name: keyof TrackerCounters): Step {
  return { tracker: bump(tracker, name, 1), beat: undefined };
}

function bump(tracker: Tracker, name: keyof TrackerCounters, by: number): Tracker {
  return { ...tracker, counters: { ...tracker.counters, [name]: tracker.counters[name] + by } };
}
