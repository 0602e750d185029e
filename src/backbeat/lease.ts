// Who beats: at most one Pulse of a cluster at a time, and everybody can tell an old one from the one that counts.
//
// One record with compare-and-set says who leads, under which token, and which indexes are reserved. The leader
// renews it; the others watch it. No clock is compared with another one:
//
//   leader     counts its time from before it sent the renewal     ├──── ttl ────┤ stops by itself
//   contender  counts from after it saw the record change               ├──── ttl · 5/4 ────┤ takes it
//
// so the leader has stopped before anybody takes over, as long as clocks run at about the same speed. A process that
// was frozen between looking at its watch and sending has one stale frame in its hands: that is what the token is
// for. Every taking over raises it, frames carry it, and who has seen a higher one refuses them.
//
// The record also carries the count itself, so whoever takes over goes on with it: the index continues on another
// machine as after a restart on the same one.

import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isObject, parseJson } from './fields.ts';
import type { PulseRecord } from './schedule.ts';

/** What the lease register holds. */
export interface LeaseRecord extends PulseRecord {
  /** From 1; raised with every taking over. */
  readonly token: number;
  /** Which Pulse, 16 hex digits, drawn at its start. */
  readonly pulse: string;
  /** Given back: the next one need not wait. */
  readonly released: boolean;
}

export interface LeaseEntry {
  readonly record: LeaseRecord;
  /** Names this state of the register; above 0. */
  readonly revision: number;
}

/** One value with compare-and-set, durable when `write` resolves. Both throw when it cannot be reached. */
export interface LeaseRegister {
  /** Undefined when nothing was ever written, or all of it is lost. */
  read(): Promise<LeaseEntry | undefined>;
  /** `expected`: revision of what is replaced, 0 = nothing. The new revision, or undefined when it is another by now. */
  write(record: LeaseRecord, expected: number): Promise<number | undefined>;
}

/** What a Pulse beats by. */
export interface Lease extends AsyncDisposable {
  /** The term in force now, or undefined while another Pulse leads or it cannot be known. Ask before every frame. */
  term(): LeaseTerm | undefined;
  /** Tells how far the count is: the next reservation begins there. Indexes up to `reservedTo` may be used meanwhile. */
  used(nextIndex: number): void;
}

export interface LeaseTerm {
  /** Undefined where there can be no other Pulse. */
  readonly authority: { readonly token: number; readonly pulse: string } | undefined;
  readonly epoch: Uint8Array;
  /** First index of this term. */
  readonly firstIndex: number;
  /** Indexes below this one may be used. */
  readonly reservedTo: number;
}

export interface LeaseTiming {
  /** How long a term lasts without renewal, ms. */
  readonly ttlMs: number;
  /** How often the leader renews and the others look, ms. */
  readonly everyMs: number;
}

/** A leader that dies is replaced in ten seconds: few beats at any tempo that upstream allows. */
export const defaultLeaseTiming: LeaseTiming = { ttlMs: 6000, everyMs: 2000 };

/** What one contender knows. Times are its own monotonic ms. */
export type LeaseState =
  /** `seenAt`: since when the register has had `revision`. */
  | { readonly kind: 'watching'; readonly revision: number; readonly seenAt: number }
  | {
      readonly kind: 'leading';
      readonly record: LeaseRecord;
      readonly revision: number;
      readonly firstIndex: number;
      /** Frames may be sent before this. */
      readonly until: number;
    };

/** True while `state` allows a frame to be sent at `now`. */
export function isLeading(state: LeaseState, now: number): state is Extract<LeaseState, { kind: 'leading' }> {
  return state.kind === 'leading' && now < state.until;
}

/** What a watcher does at `now` with what it has read: wait, or write over it. */
export function watch(
  state: Extract<LeaseState, { kind: 'watching' }>,
  found: LeaseEntry | undefined,
  now: number,
  timing: LeaseTiming,
): { readonly state: Extract<LeaseState, { kind: 'watching' }>; readonly mayTake: boolean } {
  const revision = found?.revision ?? 0;
  if (found?.record.released === true) return { state: { ...state, revision }, mayTake: true };
  // An empty register is waited out too: the leader of a lost one puts its record back meanwhile.
  if (revision !== state.revision)
    return { state: { kind: 'watching', revision, seenAt: now }, mayTake: false };
  return { state, mayTake: now - state.seenAt >= (timing.ttlMs * 5) / 4 };
}

/**
 * The record with which `pulse` takes over from `found`, or begins with the count of `seed`. Indexes that the one
 * before had reserved are skipped: it may have used them. `reserve`: how many to reserve.
 */
export function takeOver(
  found: LeaseEntry | undefined,
  seed: PulseRecord,
  pulse: string,
  reserve: number,
): LeaseRecord {
  const { epoch, nextIndex } = found?.record ?? seed;
  const token = (found?.record.token ?? 0) + 1;
  return { token, pulse, released: false, epoch, nextIndex: Math.min(nextIndex + reserve, indexMax) };
}

/** Indexes end here, after some billions of years. */
export const indexMax = Number.MAX_SAFE_INTEGER;

/** The record as JSON text, and back. Reading throws RECORD_INVALID. */
export function encodeLease({ token, pulse, released, epoch, nextIndex }: LeaseRecord): string {
  return JSON.stringify({ v: 1, token, pulse, released, epoch: toHex(epoch), next_index: nextIndex });
}

export function parseLease(text: string): LeaseRecord {
  const value = parseJson(text, 'pulse lease');
  const field = (name: string): unknown => (isObject(value) ? value[name] : undefined);
  const [token, pulse, released] = [field('token'), field('pulse'), field('released')];
  const [epoch, nextIndex] = [field('epoch'), field('next_index')];
  if (
    field('v') !== 1 ||
    !isIndex(token) ||
    token < 1 ||
    typeof pulse !== 'string' ||
    !/^[0-9a-f]{16}$/.test(pulse) ||
    typeof released !== 'boolean' ||
    typeof epoch !== 'string' ||
    !/^[0-9a-f]{64}$/.test(epoch) ||
    !isIndex(nextIndex)
  )
    throw new HoldfastError(
      'RECORD_INVALID',
      `pulse lease: not of the form of version 1: ${text.slice(0, 80)}`,
    );
  return { token, pulse, released, epoch: new Uint8Array(Buffer.from(epoch, 'hex')), nextIndex };
}

function isIndex(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
