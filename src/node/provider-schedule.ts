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
//
// Of a million own records nearly none are due. So the decision has two halves: `placesDue` says in which
// ranges of age and key what is due can lie, and `laneOf` judges each record found there.

import { minute } from '../core/clock.ts';
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

/** A clock may be set back a little all the time; from here on it is a jump, ms. */
const skewMsMax = minute;

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

/** The beats that passed since the last look: `after` exclusive, `upTo` inclusive. */
export interface BeatSpan {
  readonly after: number;
  readonly upTo: number;
}

/**
 * The span that beat `index` ends when the one before was `last`. The first beat after a start, or one of a Pulse
 * that began again, stands for itself alone: of what was missed the wall clock tells.
 */
export function spanOf(last: number | undefined, index: number): BeatSpan {
  return last === undefined || index <= last
    ? { after: index - 1, upTo: index }
    : { after: last, upTo: index };
}

/** A range of own records in which some of `lane` may lie; `laneOf` says which. */
export type Place =
  /** By the time of the last announcement, ms since 1970: `from` inclusive, `before` exclusive, the oldest first. */
  | { readonly lane: 'new' | 'overdue'; readonly from: number; readonly before: number }
  | { readonly lane: 'scheduled'; readonly region: number };

/** Where everything lies that is due, the most urgent first. `region` is the next one whose beat has come, if any. */
export function placesDue(region: number | undefined, now: number, options: ScheduleOptions): Place[] {
  const places: Place[] = [
    { lane: 'new', from: 0, before: 1 },
    { lane: 'overdue', from: 1, before: Math.max(1, now - options.overdueMs + 1) },
    { lane: 'overdue', from: now + skewMsMax + 1, before: Number.POSITIVE_INFINITY },
  ];
  if (region !== undefined) places.push({ lane: 'scheduled', region });
  return places;
}

/** The lane of one record, or `undefined` when it is not due. `region` as for `placesDue`. */
export function laneOf(
  record: OwnAge,
  region: number | undefined,
  now: number,
  options: ScheduleOptions,
): Lane | undefined {
  if (record.announcedAt === 0) return 'new';
  // A clock that was set back makes ages negative: announcing again is harmless, waiting may not be.
  const age = now - record.announcedAt;
  if (age < -skewMsMax || age >= options.overdueMs) return 'overdue';
  if (age >= options.freshMs && regionOf(record.key) === region) return 'scheduled';
  return undefined;
}

/** The regions whose beats lie in `span`, each once, in the order in which their beats come. */
export function regionsDue(
  span: BeatSpan,
  ownKey: Uint8Array,
  options: Pick<ScheduleOptions, 'beatsPerPeriod'>,
): number[] {
  if (span.upTo <= span.after) return [];
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
