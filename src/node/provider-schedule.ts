// When is a provider record announced again? Decided here, done elsewhere.
//
// The key space (SHA-256 of the multihash, as Kademlia uses it) is cut into regions by its first bits, and
// each beat of a refresh period owns its share of the regions: the load is even, keys that go to the same
// peers travel together, and XOR with the node's own key gives every node another order, so that the
// cluster does not announce the same region at the same beat.
//
//   new         never announced: at once
//   overdue     older than `overdueMs` by the wall clock, least remaining lease first
//   scheduled   its region's beat has come, and it is not fresh anyway
//
// The overdue lane is the floor: beats may stop, jump, start from 0 again or come once in two hours, and
// still no record outlives its lease unannounced. It is also the catch-up of a node that was down.

import { HoldfastError } from '../core/errors.ts';

export interface ScheduleOptions {
  /** How long receivers keep a record, ms. */
  readonly validityMs: number;
  /** Age at which the wall clock makes a record due whatever the beats say, ms. Below `validityMs`. */
  readonly overdueMs: number;
  /** A scheduled record younger than this is skipped, ms: it was announced for another reason. */
  readonly freshMs: number;
  /** Beats over which all regions are spread. From 1. */
  readonly beatsPerPeriod: number;
}

/** Half the validity is the floor; a quarter of it, in beats, is the period. */
export function scheduleOptions(validityMs: number, beatMs: number): ScheduleOptions {
  if (!(validityMs > 0) || !(beatMs > 0)) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `validity ${validityMs} ms and beat ${beatMs} ms must be above 0`,
    );
  }
  return {
    validityMs,
    overdueMs: validityMs / 2,
    freshMs: validityMs / 8,
    beatsPerPeriod: Math.max(1, Math.floor(validityMs / 4 / beatMs)),
  };
}

/** What the schedule knows of an own record. */
export interface OwnAge {
  /** SHA-256 of the multihash. */
  readonly key: Uint8Array;
  /** When it was last announced, ms since 1970; 0 = never. */
  readonly announcedAt: number;
}

export type Lane = 'new' | 'overdue' | 'scheduled';

/** The beats that passed since the last look: `after` exclusive, `upTo` inclusive. `undefined` = no beat. */
export type BeatSpan = { readonly after: number; readonly upTo: number } | undefined;

/** Everything that is due, most urgent first. Two records of equal urgency come in the order of their keys. */
export function dueRecords<T extends OwnAge>(
  records: Iterable<T>,
  span: BeatSpan,
  ownKey: Uint8Array,
  now: number,
  options: ScheduleOptions,
): { record: T; lane: Lane }[] {
  const regions = new Set(regionsDue(span, ownKey, options));
  const due: { record: T; lane: Lane }[] = [];
  for (const record of records) {
    const lane = laneOf(record, regions, now, options);
    if (lane !== undefined) due.push({ record, lane });
  }
  return due.sort((a, b) => laneRank[a.lane] - laneRank[b.lane] || byUrgency(a.record, b.record));
}

/** The lane of one record, or `undefined` when it is not due. `regions` comes from `regionsDue`. */
export function laneOf(
  record: OwnAge,
  regions: ReadonlySet<number>,
  now: number,
  options: ScheduleOptions,
): Lane | undefined {
  if (record.announcedAt === 0) return 'new';
  // A clock that was set back makes ages negative: announcing again is harmless, waiting may not be.
  const age = now - record.announcedAt;
  if (age < 0 || age >= options.overdueMs) return 'overdue';
  if (age >= options.freshMs && regions.has(regionOf(record.key))) return 'scheduled';
  return undefined;
}

/** The regions whose beats lie in `span`, each once, in the order in which their beats come. */
export function regionsDue(
  span: BeatSpan,
  ownKey: Uint8Array,
  options: Pick<ScheduleOptions, 'beatsPerPeriod'>,
): number[] {
  if (span === undefined || span.upTo <= span.after) return [];
  const beats = options.beatsPerPeriod;
  const count = Math.min(beats, span.upTo - span.after);
  const regions: number[] = [];
  for (let i = count - 1; i >= 0; i--) {
    const slot = (span.upTo - i) % beats;
    const end = firstPosition(slot + 1, beats);
    for (let position = firstPosition(slot, beats); position < end; position++) {
      regions.push(position ^ regionOf(ownKey));
    }
  }
  return regions;
}

/** Regions of the key space. 1,024: a region of a million records is a thousand, one batch frame. */
export const regionsCount = 1024;
const regionBits = 10;

/** The first bits of a key as a number. */
export function regionOf(key: Uint8Array): number {
  return (((key[0] ?? 0) << 8) | (key[1] ?? 0)) >> (16 - regionBits);
}

/** The first two bytes that a key of `region` can begin with. */
export function regionStart(region: number): Uint8Array {
  const prefix = region << (16 - regionBits);
  return Uint8Array.of(prefix >> 8, prefix & 0xff);
}

// Slot s owns the positions p with ⌊beats · p / regions⌋ = s: shares differ by one at most.
function firstPosition(slot: number, beats: number): number {
  return Math.ceil((slot * regionsCount) / beats);
}

const laneRank: Record<Lane, number> = { new: 0, overdue: 1, scheduled: 2 };

function byUrgency(a: OwnAge, b: OwnAge): number {
  return a.announcedAt - b.announcedAt || Buffer.compare(a.key, b.key);
}
