// What a share store knows about its secrets, as a value, and how it moves.
//
//   share    staged → active → previous → (erased: no longer here)
//   prekey   here until erased; dkg: here for good
//
// At most one share is staged, active and previous per group, key version and key. Activating the staged one makes
// the active one previous and drops the previous one, all in one step, so that a crash finds the old world or the
// new one. A generation that was active once is never staged again: its number is a high-water mark. Of a version that
// was erased for good no mark is kept but that it was, or a later one: versions are made in their order, so a share of
// one that is not later, and of which no generation is known, comes from the past.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import type { Ballot } from './ballot.ts';
import type { ChainPin, ChainPins } from './book.ts';

/** `kek`: a share of the key that branch keys are wrapped for. `frost`: of the group's signing key. */
export const shareKeys = ['kek', 'frost'] as const;
export type ShareKey = (typeof shareKeys)[number];
export type ShareStatus = 'staged' | 'active' | 'previous';

/** One generation of the shares of one version of a custody group's keys. */
export interface ShareRef {
  /** Custody group. */
  readonly cg: string;
  /** From 1. */
  readonly kekVer: number;
  /** Share generation: rises with every refresh and reshare. */
  readonly gen: number;
}

/** What is public about a share, as its holder has verified it. Points in the encoding of the group, 32 bytes. */
export interface ShareFacts {
  /** From 1 to n. */
  readonly index: number;
  readonly t: number;
  readonly n: number;
  readonly publicKey: Uint8Array;
  /** Of the sharing polynomial, t of them; the first is the public key. */
  readonly commitments: readonly Uint8Array[];
  /** x_i·G of each member, in the order of the indices. */
  readonly verificationShares: readonly Uint8Array[];
}

export interface ShareEntry extends ShareRef, ShareFacts {
  readonly kind: 'share';
  /** Names the files of the secret. */
  readonly id: string;
  readonly key: ShareKey;
  readonly status: ShareStatus;
  /** Beat of the last change of status. */
  readonly since: number;
  /** Hash of what entitled it to be active: the ceremony's transcript or certificate. Null while staged. */
  readonly certificate: Uint8Array | null;
}

/** An X25519 key pair of this custodian: to receive dealings of an epoch, or for life in key generation. */
export interface KeyPairEntry {
  readonly kind: 'prekey' | 'dkg';
  readonly id: string;
  /** Of a prekey; 0 for the dkg key. */
  readonly epoch: number;
  readonly publicKey: Uint8Array;
}

export type SecretEntry = ShareEntry | KeyPairEntry;

export interface ShareState {
  readonly entries: readonly SecretEntry[];
  /** Numbers that only rise, by name. */
  readonly marks: Readonly<Record<string, number>>;
  /** Nonces of orders that were obeyed, each with the last beat at which it could come again. */
  readonly nonces: Readonly<Record<string, number>>;
  /** Where the chains of records of each group stood when they were last compared. */
  readonly pins: Readonly<Record<string, ChainPins>>;
  /** How each group is voting about its next record of a key. */
  readonly ballots: Readonly<Record<string, Ballot>>;
}

/** Secrets of one custodian: a few groups with a few versions, and prekeys of some epochs. */
const entriesMax = 512;
/** Marks and nonces: they are written with every change of the state. */
const marksMax = 1024;
const noncesMax = 1024;

/** Chains pinned for one group: older versions of the key have long been destroyed. */
const pinsMax = 256;
/** Groups that a custodian votes in: those it belongs to, and those that it is asked to join. */
const ballotsMax = 16;

export const emptyState: ShareState = { entries: [], marks: {}, nonces: {}, pins: {}, ballots: {} };

/** `state` with `entry` staged in place of what was staged there. Throws VERSION_CONFLICT for a generation that has been. */
export function staged(state: ShareState, entry: ShareEntry): ShareState {
  const floor = floorOf(state, entry);
  if (entry.gen <= floor) {
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `generation ${entry.gen} of ${nameOf(entry)} cannot be staged: generation ${floor} has been active here`,
      { details: { current: floor } },
    );
  }
  const kept = state.entries.filter((each) => !(isSameKey(each, entry) && each.status === 'staged'));
  return { ...state, entries: checkedCount([...kept, entry], entriesMax, 'secrets') };
}

/** Staged → active, active → previous, previous → gone, for both keys of `ref`. Throws NOT_FOUND when nothing is staged. */
export function activated(
  state: ShareState,
  ref: ShareRef,
  { beat, certificate }: { readonly beat: number; readonly certificate: Uint8Array },
): ShareState {
  const next = state.entries.filter(
    (each): each is ShareEntry => isOf(each, ref) && each.gen === ref.gen && each.status === 'staged',
  );
  if (next.length === 0)
    throw new HoldfastError('NOT_FOUND', `nothing is staged for generation ${ref.gen} of ${nameOf(ref)}`);
  const entries = state.entries.flatMap((each): SecretEntry[] => {
    if (each.kind !== 'share') return [each];
    if (next.includes(each)) return [{ ...each, status: 'active', since: beat, certificate }];
    if (!next.some((one) => isSameKey(each, one))) return [each];
    if (each.status === 'previous') return [];
    return each.status === 'active' ? [{ ...each, status: 'previous', since: beat }] : [each];
  });
  const marks = { ...state.marks };
  for (const one of next) marks[generationMark(one)] = one.gen;
  return { ...state, entries, marks: boundedMarks(marks) };
}

/**
 * With `entry` as the active share of its generation, which may have been active here before: its holder lost it and
 * got it again. Throws VERSION_CONFLICT for an older generation than has been.
 */
export function repaired(state: ShareState, entry: ShareEntry): ShareState {
  const floor = floorOf(state, entry);
  if (entry.gen < floor)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `generation ${entry.gen} of ${nameOf(entry)} is older than one that has been active here`,
      { details: { current: floor } },
    );
  // What is staged for a later generation was promised to those who count on it.
  const kept = state.entries.filter(
    (each) => !isSameKey(each, entry) || (each.status === 'staged' && each.gen > entry.gen),
  );
  const marks = boundedMarks({ ...state.marks, [generationMark(entry)]: entry.gen });
  return { ...state, entries: checkedCount([...kept, entry], entriesMax, 'secrets'), marks };
}

/** Without the shares of a key version that serve: who left the group may be about to join it again. */
export function left(state: ShareState, ref: Pick<ShareRef, 'cg' | 'kekVer'>): ShareState {
  return {
    ...state,
    entries: state.entries.filter((each) => !(isOf(each, ref) && each.status !== 'staged')),
  };
}

/** Without the share of `ref` that is staged or previous: an active one is only ever followed or retired. */
export function erased(state: ShareState, ref: ShareRef, id?: string): ShareState {
  const entries = state.entries.filter(
    (each) =>
      !(isOf(each, ref) && each.gen === ref.gen && each.status !== 'active') ||
      (id !== undefined && each.id !== id),
  );
  return entries.length === state.entries.length ? state : { ...state, entries };
}

/** Without any share of a key version, for good, and without what was remembered of it: it has done its service. */
export function retired(state: ShareState, ref: Pick<ShareRef, 'cg' | 'kekVer'>): ShareState {
  const marks = Object.fromEntries(
    Object.entries(state.marks).filter(([name]) => markedVersion(name, ref.cg) !== ref.kekVer),
  );
  const mark = retiredMark(ref.cg);
  marks[mark] = Math.max(ref.kekVer, marks[mark] ?? 0);
  return {
    ...state,
    entries: state.entries.filter((each) => !isOf(each, ref)),
    marks: boundedMarks(marks),
  };
}

/** Versions of a group's key of which there are shares, or something is remembered. */
export function versionsIn({ entries, marks }: ShareState, cg: string): readonly number[] {
  const held = entries.flatMap((each) => (each.kind === 'share' && each.cg === cg ? each.kekVer : []));
  const marked = Object.keys(marks).flatMap((name) => markedVersion(name, cg) ?? []);
  return [...new Set([...held, ...marked])];
}

/** True when shares of a group's key were in use here once. */
export function hasServed({ marks }: ShareState, cg: string): boolean {
  return retiredMark(cg) in marks || Object.keys(marks).some((name) => name.startsWith(`generation/${cg}/`));
}

/** With one more key pair. Throws VERSION_CONFLICT when there is one of that kind and epoch. */
export function withKeyPair(state: ShareState, entry: KeyPairEntry): ShareState {
  if (state.entries.some((each) => each.kind === entry.kind && each.epoch === entry.epoch))
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `there is a ${entry.kind} key of epoch ${entry.epoch} already`,
    );
  return { ...state, entries: checkedCount([...state.entries, entry], entriesMax, 'secrets') };
}

/** Without the prekeys of epochs before `epoch`. */
export function withoutPrekeysBefore(state: ShareState, epoch: number): ShareState {
  return {
    ...state,
    entries: state.entries.filter((each) => each.kind !== 'prekey' || each.epoch >= epoch),
  };
}

/** What a custodian remembers of a version until its shares are erased (rotation-marks.ts). */
type RotationNote = 'used' | 'retired' | 'ordered';

/** Name of a mark about a version of a key. */
export function rotationMark(cg: string, kekVer: number, note: RotationNote): string {
  return `rotation/${cg}/${kekVer}/${note}`;
}

/** With mark `name` at `value`; the same state when it is there already. Throws VERSION_CONFLICT when it is higher. */
export function raised(state: ShareState, name: string, value: number): ShareState {
  const current = state.marks[name] ?? 0;
  if (value === current) return state;
  if (value < current) {
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `${name} is at ${current} here and does not go back to ${value}`,
      {
        details: { current },
      },
    );
  }
  return { ...state, marks: boundedMarks({ ...state.marks, [name]: value }) };
}

/**
 * With `nonce` used up until `lastBeat`, and without those that no longer matter at beat `now`. Undefined when it
 * was used before. Throws RATE_LIMITED when too many are remembered.
 */
export function withNonce(
  state: ShareState,
  nonce: string,
  lastBeat: number,
  now: number,
): ShareState | undefined {
  if (Object.hasOwn(state.nonces, nonce)) return undefined;
  const kept = Object.entries(state.nonces).filter(([, last]) => last >= now);
  if (kept.length >= noncesMax)
    throw new HoldfastError(
      'RATE_LIMITED',
      `${noncesMax} orders are remembered; retry when some have expired`,
    );
  return { ...state, nonces: { ...Object.fromEntries(kept), [nonce]: lastBeat } };
}

/** With the chains of a group pinned where they stand; the same state when they are there already. */
export function pinned(state: ShareState, cg: string, positions: ReadonlyMap<string, ChainPin>): ShareState {
  const before = state.pins[cg] ?? {};
  const isSame = ([chain, { number, cid }]: readonly [string, ChainPin]): boolean => {
    const pin = before[chain];
    return pin !== undefined && pin.number === number && sameBytes(pin.cid, cid);
  };
  if ([...positions].every(isSame)) return state;
  const all = Object.entries({ ...before, ...Object.fromEntries(positions) });
  // By the number of the version: what is oldest goes first, when there are too many.
  const versionOf = ([chain]: readonly [string, unknown]): number =>
    Number(/^(?:kek|cert)\/.*\/(\d+)$/.exec(chain)?.[1] ?? Number.MAX_SAFE_INTEGER);
  const kept = all.toSorted((a, b) => versionOf(b) - versionOf(a)).slice(0, pinsMax);
  return { ...state, pins: { ...state.pins, [cg]: Object.fromEntries(kept) } };
}

/** With another ballot of a group. Throws TOO_LARGE for more groups than anybody belongs to. */
export function withBallot(state: ShareState, cg: string, ballot: Ballot): ShareState {
  const ballots = { ...state.ballots, [cg]: ballot };
  checkedCount(Object.keys(ballots), ballotsMax, 'ballots');
  return { ...state, ballots };
}

export function encodeState(state: ShareState): Uint8Array {
  return encodeCbor(state);
}

/** Reads what `encodeState` wrote; the bytes were authenticated, so only their version of the form is in question. */
export function decodeState(bytes: Uint8Array): ShareState {
  const value = decodeCbor(bytes, 'share store');
  // Stores of before had no pins and no ballots.
  const whole = isMap(value) ? { pins: {}, ballots: {}, ...value } : value;
  if (isState(whole)) return whole;
  throw new HoldfastError('RECORD_CORRUPT', 'share store: the state has another form');
}

/** For messages. */
export function nameOf({ cg, kekVer }: Pick<ShareRef, 'cg' | 'kekVer'>): string {
  return `key ${kekVer} of group ${cg}`;
}

/** The highest generation that was active here; −1 for none. Throws VERSION_CONFLICT for a version that was erased for good. */
function floorOf({ marks }: ShareState, entry: ShareEntry): number {
  const floor = marks[generationMark(entry)];
  if (floor !== undefined) return floor;
  const last = marks[retiredMark(entry.cg)] ?? 0;
  if (entry.kekVer > last) return -1;
  throw new HoldfastError(
    'VERSION_CONFLICT',
    `${nameOf(entry)} is over: version ${last} was erased here for good`,
    { details: { current: last } },
  );
}

/** Name of the mark that says up to which version those that are not remembered are over. */
function retiredMark(cg: string): string {
  return `retired/${cg}`;
}

/** The version that a mark is about. */
function markedVersion(name: string, cg: string): number | undefined {
  const [kind = '', group, ver] = name.split('/');
  return (kind === 'generation' || kind === 'rotation') && group === cg ? Number(ver) : undefined;
}

function generationMark({ cg, kekVer, key }: Pick<ShareEntry, 'cg' | 'kekVer' | 'key'>): string {
  return `generation/${cg}/${kekVer}/${key}`;
}

function isOf(entry: SecretEntry, { cg, kekVer }: Pick<ShareRef, 'cg' | 'kekVer'>): entry is ShareEntry {
  return entry.kind === 'share' && entry.cg === cg && entry.kekVer === kekVer;
}

function isSameKey(entry: SecretEntry, other: ShareEntry): entry is ShareEntry {
  return isOf(entry, other) && entry.key === other.key;
}

function boundedMarks(marks: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  checkedCount(Object.keys(marks), marksMax, 'marks');
  return marks;
}

function checkedCount<T>(items: readonly T[], most: number, what: string): readonly T[] {
  if (items.length <= most) return items;
  throw new HoldfastError('TOO_LARGE', `this share store holds ${most} ${what}, and no more`);
}

function isState(value: unknown): value is ShareState {
  return (
    isMap(value) &&
    Array.isArray(value['entries']) &&
    isMap(value['marks']) &&
    isMap(value['nonces']) &&
    isMap(value['pins']) &&
    isMap(value['ballots'])
  );
}
