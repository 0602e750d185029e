// BeatFrame v1, the message that the whole cluster keeps time by: emitted strictly, read leniently.
//
// Everything upstream leaves open or contradicts itself about is decided here and nowhere else. A frame
// that breaks a limit is refused with the field named; what can be understood although it is not as the
// schema says is accepted and noted, so that an operator can see who sends it.

import { type Fields, fieldsOf, hlcForm, parseJson, windowForm } from './fields.ts';

export const beatFrameType = 'backbeat.beatframe.v1';

/** Where in the bar the cluster is. */
export type Phase = 'plan' | 'execute' | 'review';

/** Open object; the known members are upstream's. */
export interface BeatMetadata {
  readonly pulse_version?: string;
  readonly cluster_health?: 'healthy' | 'degraded';
  readonly expected_agents?: number;
  readonly [name: string]: unknown;
}

export interface BeatFrame {
  readonly type: typeof beatFrameType;
  /** 1 to 64 of `a-z A-Z 0-9 _ -`. */
  readonly cluster_id: string;
  /** 0…2⁵³−1, rising for as long as Pulse keeps its state; back to 0 when that is lost. */
  readonly beat_index: number;
  /** First beat of a bar. It cannot be computed from the index: trust the flag. */
  readonly downbeat: boolean;
  readonly phase: Phase;
  /** `wall:logical:node`, 16 bits each in hex. The wall part wraps every 65.5 s: never order by it alone. */
  readonly hlc: string;
  /** RFC 3339: when the beat ends. */
  readonly deadline_at: string;
  /** Beats per minute, 0.1…1000 in steps of 0.1. */
  readonly tempo_bpm: number;
  /** 32 hex digits, another one in every bar. */
  readonly window_id: string;
  readonly metadata?: BeatMetadata;
}

/** What was accepted although the schema says otherwise. */
export type BeatNote = 'phase-mapped' | 'extra-field' | 'tempo-rounded' | 'metadata-dropped';

export interface ParsedBeat {
  readonly frame: BeatFrame;
  /** Empty for a strict frame. */
  readonly notes: readonly BeatNote[];
}

/** How often each leniency was needed and how many frames were refused; a value, see `countParsed`. */
export type BeatCounters = Readonly<Record<BeatNote | 'accepted' | 'refused', number>>;

export const zeroBeatCounters: BeatCounters = {
  accepted: 0,
  refused: 0,
  'phase-mapped': 0,
  'extra-field': 0,
  'tempo-rounded': 0,
  'metadata-dropped': 0,
};

/** Reads a frame from JSON text. Throws RECORD_INVALID naming the field, also when it is too long or no JSON. */
export function parseBeatText(text: string): ParsedBeat {
  return parseBeat(parseJson(text, label));
}

/**
 * Reads a frame from a decoded value. Unknown fields move into metadata, `work` is `execute`, a tempo
 * between two steps is rounded; each is noted.
 * @throws RECORD_INVALID naming the field
 */
export function parseBeat(value: unknown): ParsedBeat {
  const fields = fieldsOf(value, label, beatFrameType);
  const notes: BeatNote[] = [];
  const metadata = fields.metadata(known, notes);
  const frame: BeatFrame = {
    type: beatFrameType,
    cluster_id: fields.text('cluster_id', clusterIdForm, '1 to 64 letters, digits, _ or -'),
    beat_index: fields.index('beat_index'),
    downbeat: fields.flag('downbeat'),
    phase: parsePhase(fields, notes),
    hlc: fields.text('hlc', hlcForm, 'three groups of 4 hex digits').toLowerCase(),
    deadline_at: parseInstant(fields),
    tempo_bpm: parseTempo(fields, notes),
    window_id: fields.text('window_id', windowForm, '32 hex digits').toLowerCase(),
    ...(metadata === undefined ? {} : { metadata }),
  };
  return { frame, notes };
}

/** The frame as JSON text. A frame that breaks the schema is a mistake of ours and throws. */
export function encodeBeat(frame: BeatFrame): string {
  assertStrict(frame);
  return JSON.stringify(frame);
}

/** Throws unless `frame` satisfies the schema to the letter. */
function assertStrict(frame: BeatFrame): void {
  const { notes } = parseBeat(frame);
  if (notes.length > 0) throw new TypeError(`frame is not strict: ${notes.join(', ')}`);
}

/** `counters` with one more accepted frame and its notes. */
export function countParsed(counters: BeatCounters, parsed: ParsedBeat): BeatCounters {
  const next = { ...counters, accepted: counters.accepted + 1 };
  for (const note of parsed.notes) next[note]++;
  return next;
}

/**
 * Orders frames of one Pulse: by index, and only within one index by hybrid clock. Negative when `a` is
 * earlier. The wall part is compared as a serial number, so that 0000 follows ffff.
 */
export function compareBeats(a: BeatFrame, b: BeatFrame): number {
  if (a.beat_index !== b.beat_index) return a.beat_index < b.beat_index ? -1 : 1;
  const left = parseHlc(a.hlc);
  const right = parseHlc(b.hlc);
  return serialOrder(left.wall, right.wall) || left.logical - right.logical || left.node - right.node;
}

/** Milliseconds between two beats at this tempo. */
export function beatMs(tempoBpm: number): number {
  return 60_000 / tempoBpm;
}

/** A hybrid logical clock reading: 16 bits each. */
export interface Hlc {
  readonly wall: number;
  readonly logical: number;
  readonly node: number;
}

export function parseHlc(text: string): Hlc {
  const [wall = 0, logical = 0, node = 0] = text.split(':').map((part) => Number.parseInt(part, 16));
  return { wall, logical, node };
}

export function formatHlc(hlc: Hlc): string {
  return [hlc.wall, hlc.logical, hlc.node].map((part) => part.toString(16).padStart(4, '0')).join(':');
}

/** The reading that follows `previous` at `now` (ms since 1970): logical counts within one millisecond or when the clock went back. */
export function nextHlc(previous: Hlc, now: number): Hlc {
  const wall = Math.floor(now) % 0x1_0000;
  if (serialOrder(wall, previous.wall) > 0) return { wall, logical: 0, node: previous.node };
  const logical = previous.logical + 1;
  if (logical <= 0xffff) return { ...previous, logical };
  return { wall: (previous.wall + 1) % 0x1_0000, logical: 0, node: previous.node };
}

/** Below half the circle ahead is later. */
function serialOrder(a: number, b: number): number {
  const ahead = (a - b + 0x1_0000) % 0x1_0000;
  if (ahead === 0) return 0;
  return ahead < 0x8000 ? 1 : -1;
}

const label = 'beat frame';
const clusterIdForm = /^[a-zA-Z0-9_-]{1,64}$/;
const instantForm = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/;
const known = new Set([
  'type',
  'cluster_id',
  'beat_index',
  'downbeat',
  'phase',
  'hlc',
  'deadline_at',
  'tempo_bpm',
  'window_id',
  'metadata',
]);

function parsePhase(fields: Fields, notes: BeatNote[]): Phase {
  const value = fields.get('phase');
  if (value === 'plan' || value === 'execute' || value === 'review') return value;
  if (value !== 'work') throw fields.invalid('phase', 'plan, execute or review');
  notes.push('phase-mapped');
  return 'execute';
}

/** Remainders of decimal fractions are never exact in binary: steps are counted in tenths with a tolerance. */
function parseTempo(fields: Fields, notes: BeatNote[]): number {
  const value = fields.number('tempo_bpm', 0.1, 1000);
  const tenths = Math.round(value * 10);
  if (Math.abs(value * 10 - tenths) > 1e-6) notes.push('tempo-rounded');
  return tenths / 10;
}

function parseInstant(fields: Fields): string {
  const text = fields.text('deadline_at', instantForm, 'an RFC 3339 date-time');
  if (Number.isNaN(instantMs(text))) throw fields.invalid('deadline_at', 'a date that exists');
  return text;
}

/** Milliseconds since 1970 of an RFC 3339 text; NaN when the date does not exist. A leap second counts as the one before. */
export function instantMs(text: string): number {
  return Date.parse(text.toUpperCase().replace(/^(.{17})60/, '$159'));
}
