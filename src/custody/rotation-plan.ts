// What is to be done next about the version of a group's key, from what the registry says and nothing else: so a
// coordinator that was killed at any moment, or another one in its place, goes on where it was.
//
//   make ──▶ (pre-active) ──▶ activate ──▶ switch, page by page ──▶ (a bar without a wrap) ──▶ retire ──▶ destroy
//                  └─────── (could not be put in use for some bars) ──────────────────────────────▶ destroy
//
// A step that was done is not planned again: each shows in the registry. Of two that do the same step one loses by
// compare-and-set. The custodians plan the same way before they sign (`changeProblem`); they believe no coordinator.

import type { TdecKek, UnsignedKek } from '../envelope/kek.ts';
import { unsigned } from './ceremony.ts';
import type { BeatNow } from './freshness.ts';
import type { CustodyOrder } from './order.ts';

/** What the registry says of one group, and what time it is. */
export interface RotationView {
  /** The newest record of each version. */
  readonly keks: readonly TdecKek[];
  readonly now: BeatNow;
  readonly beatsPerBar: number;
  /** Of the newest policy; 0: never by itself. */
  readonly rotateEveryBars: number;
  /** Version that an operator wants to have replaced; 0 for none. */
  readonly orderedVer: number;
  /** Beat of the newest rotation certificate of the active version; 0 where there is none. */
  readonly lastPageBeat: number;
  /** True when a current record has a wrap under that version. */
  readonly isUsed: (ver: number) => boolean;
}

export type RotationStep =
  | { readonly step: 'idle'; readonly why: string }
  | { readonly step: 'wait'; readonly why: string }
  | { readonly step: 'make'; readonly fromVer: number; readonly cause: 'order' | 'schedule' }
  | { readonly step: 'activate' | 'retire' | 'destroy'; readonly ver: number }
  | { readonly step: 'switch'; readonly fromVer: number; readonly toVer: number };

/** A change of the life of a key that its custodians sign. */
export type KeyChange = 'activate' | 'retire' | 'destroy';
export const keyChanges = ['activate', 'retire', 'destroy'] as const satisfies readonly KeyChange[];

/** From the ceremony to the first wrap, bars: until then everybody who reads has heard of the new key. */
const noticeBars = 1;
/** From then on, until the ceremony counts as failed, bars. */
const patienceBars = 4;

/** The next step. A rotation that was begun goes on before another begins; while nobody knows the time, none moves. */
export function planRotation(view: RotationView): RotationStep {
  const { keks, now, beatsPerBar } = view;
  const active = keks.findLast(({ state }) => state === 'active');
  if (active === undefined) return { step: 'idle', why: 'the group has no key yet' };
  if (now.lost !== undefined) return { step: 'wait', why: `time is not known: ${now.lost}` };
  const coming = keks.find(({ state, ver }) => state === 'pre-active' && ver > active.ver);
  if (coming !== undefined) {
    if (now.beat >= abandonBeatOf(coming, beatsPerBar)) return { step: 'destroy', ver: coming.ver };
    if (now.beat >= coming.activateBeat) return { step: 'activate', ver: coming.ver };
    return { step: 'wait', why: `version ${coming.ver} is used from beat ${coming.activateBeat} on` };
  }
  const leaving = keks.filter(({ state }) => state === 'decrypt-only' || state === 'retired');
  const used = leaving.find(({ ver }) => view.isUsed(ver));
  if (used !== undefined) return { step: 'switch', fromVer: used.ver, toVer: active.ver };
  const [oldest] = leaving;
  if (oldest?.state === 'retired') return { step: 'destroy', ver: oldest.ver };
  if (oldest !== undefined) {
    const quiet = Math.max(oldest.retireBeat ?? 0, view.lastPageBeat) + beatsPerBar;
    if (now.beat >= quiet) return { step: 'retire', ver: oldest.ver };
    return { step: 'wait', why: `no key is under version ${oldest.ver}; it is retired at beat ${quiet}` };
  }
  if (view.orderedVer === active.ver) return { step: 'make', fromVer: active.ver, cause: 'order' };
  if (isRotationDue(active, view.rotateEveryBars, now, beatsPerBar))
    return { step: 'make', fromVer: active.ver, cause: 'schedule' };
  return { step: 'idle', why: `version ${active.ver} is in use and not due` };
}

/** True on the downbeat at which the policy wants another key, and on every one after it: a missed one is caught up. */
export function isRotationDue(
  active: Pick<TdecKek, 'activateBeat'>,
  rotateEveryBars: number,
  now: BeatNow,
  beatsPerBar: number,
): boolean {
  if (rotateEveryBars === 0 || now.lost !== undefined) return false;
  return now.bar - Math.floor(active.activateBeat / beatsPerBar) >= rotateEveryBars;
}

/** First beat of wrapping under a key that is made at `beat`. */
export function activateBeatOf(beat: number, beatsPerBar: number): number {
  return beat + noticeBars * beatsPerBar;
}

/** A key that could not be put in use until then never is: too many have lost their shares of it. Another is made. */
function abandonBeatOf({ activateBeat }: Pick<TdecKek, 'activateBeat'>, beatsPerBar: number): number {
  return activateBeat + patienceBars * beatsPerBar;
}

/** The version that an order to rotate is about: it is good for that one, and done when another one is active. */
export function orderedVersion({ args }: Pick<CustodyOrder, 'args'>): number {
  const ver = args['ver'];
  return typeof ver === 'number' && Number.isSafeInteger(ver) && ver > 0 ? ver : 0;
}

/** The records that follow from a change, as whoever knows the same records computes them. */
export function changedKeks(change: KeyChange, ver: number, keks: readonly TdecKek[]): UnsignedKek[] {
  const subject = keks.find((kek) => kek.ver === ver);
  if (subject === undefined) return [];
  const next = (kek: TdecKek, changes: Partial<UnsignedKek>): UnsignedKek => ({
    ...unsigned(kek),
    seq: kek.seq + 1,
    ...changes,
  });
  if (change === 'retire') return [next(subject, { state: 'retired' })];
  if (change === 'destroy') return [next(subject, { state: 'destroyed' })];
  const before = keks.filter(({ state, ver: other }) => state === 'active' && other < ver);
  return [
    next(subject, { state: 'active' }),
    ...before.map((kek) => next(kek, { state: 'decrypt-only', retireBeat: subject.activateBeat })),
  ];
}

/**
 * Why a custodian does not sign this change, in words; undefined when it does. `lastUse`: beat at which it last gave
 * a key of that version; 0 for never.
 */
export function changeProblem(
  change: KeyChange,
  ver: number,
  keks: readonly TdecKek[],
  now: BeatNow,
  beatsPerBar: number,
  lastUse: number,
): string | undefined {
  const subject = keks.find((kek) => kek.ver === ver);
  if (now.lost !== undefined) return `time is not known: ${now.lost}`;
  if (subject === undefined) return `version ${ver} is not known`;
  const { state, activateBeat } = subject;
  const abandon = abandonBeatOf(subject, beatsPerBar);
  if (change === 'destroy' && state === 'pre-active')
    return now.beat >= abandon ? undefined : `version ${ver} may still come in use, until beat ${abandon}`;
  const from = { activate: 'pre-active', retire: 'decrypt-only', destroy: 'retired' }[change];
  if (state !== from) return `version ${ver} is ${state}, not ${from}`;
  if (change === 'activate' && now.beat >= abandon)
    return `version ${ver} was to come in use before beat ${abandon}`;
  if (change === 'activate')
    return now.beat >= activateBeat ? undefined : `version ${ver} begins at beat ${activateBeat}`;
  if (!keks.some((kek) => kek.state === 'active' && kek.ver > ver)) return 'there is no newer key';
  const quiet = Math.max(subject.retireBeat ?? 0, lastUse) + beatsPerBar;
  return now.beat >= quiet ? undefined : `version ${ver} was in use until lately; not before beat ${quiet}`;
}

/**
 * The field `secret_rotations_ok` of a BarReport: false while a rotation is overdue by more than a bar, or one that
 * was begun cannot go on. A silent pulse is no failure of ours: nothing is due while nobody knows the time.
 */
export function secretRotationsOk(
  view: Pick<RotationView, 'keks' | 'now' | 'beatsPerBar' | 'rotateEveryBars'>,
  problem: string,
): boolean {
  if (problem !== '') return false;
  const active = view.keks.findLast(({ state }) => state === 'active');
  if (active === undefined || view.rotateEveryBars === 0) return true;
  return !isRotationDue(active, view.rotateEveryBars + 1, view.now, view.beatsPerBar);
}

/** One line for people. */
export function stepText(step: RotationStep): string {
  switch (step.step) {
    case 'idle':
    case 'wait':
      return step.why;
    case 'make':
      return `making the key that follows version ${step.fromVer} (${step.cause})`;
    case 'switch':
      return `moving keys from version ${step.fromVer} to version ${step.toVer}`;
    default:
      return `${step.step} version ${step.ver}`;
  }
}
