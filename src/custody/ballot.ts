// How custodians agree on the next record of a group's keys before they sign it, whoever carries their messages.
//
// There is one place at a time: behind the newest records of all versions of the key. The custodians of the active
// version vote; `quorum` of them decide. It is single-decree Byzantine agreement after Castro and Liskov (PBFT:
// prepare, commit, and view changes with certificates), with two differences. Nobody leads: a round belongs to
// whoever asks for it, and asking for a higher one takes it over. And it may be decided that nothing comes of an
// attempt: then shares are dealt anew in the next one.
//
//   round 1    a custodian prepares the record that it has computed itself
//   round > 1  it promises to take no part in lower ones, and says what it is locked on; then it prepares only what
//              a quorum of promises leaves open: what the highest lock among them is on, and nothing where none is
//   lock       on what a quorum has prepared in a round, written down before the vote for it leaves
//   decided    what a quorum is locked on in one round: signed if it is a record; else the next attempt begins
//
// Two quorums have more custodians in common than may be false, so a true one in each lock quorum is in every later
// quorum of promises. Everything here is a value: whoever votes writes it to the disk before its signature leaves.

import { encodeCbor } from '../core/block.ts';
import { sameBytes, uint64 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256, verifySignature } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';
import { type KekCustodian, kekPreimage, type TdecKek, type UnsignedKek } from '../envelope/kek.ts';

/** The newest record of one version of a key. Before the first one, version 0 stands for who is to make it. */
export interface Head {
  readonly ver: number;
  readonly seq: number;
  /** SHA-256 of what the group signed. */
  readonly hash: Uint8Array;
}

/** A custodian's signature. */
export interface Vote {
  /** Its index in the active version. */
  readonly i: number;
  readonly sig: Uint8Array;
}

/** That a quorum has voted alike in one round. */
export interface BallotCertificate {
  readonly attempt: number;
  readonly round: number;
  /** SHA-256 of the proposal (proposal.ts), or `nothing`. */
  readonly value: Uint8Array;
  readonly votes: readonly Vote[];
}

/** A custodian's promise for a round, with the certificate that it is locked on. */
export interface BallotPromise extends Vote {
  readonly lock: BallotCertificate | null;
}

/** What one custodian remembers of a place until the registry shows that it is filled. */
export interface Ballot {
  readonly heads: readonly Head[];
  /** From 1. */
  readonly attempt: number;
  /** The highest that it has promised or voted in; lower ones are over. */
  readonly round: number;
  readonly prepared: { readonly round: number; readonly value: Uint8Array } | null;
  /** `contents`: the proposal, empty for `nothing`. */
  readonly locked: { readonly certificate: BallotCertificate; readonly contents: Uint8Array } | null;
  /** Proof that nothing came of the attempt before; null in the first. */
  readonly ended: BallotCertificate | null;
  /** What its staged shares are of: hash of a transcript. It vouches for one in an attempt, and keeps that. */
  readonly stored: Uint8Array | null;
  /** Members that an order leaves out of the group: nobody waits for so many. */
  readonly leftOut: number;
  /** A signed record of this place that our shares went over to before the registry had it: it is kept for that. */
  readonly shown: Uint8Array | null;
  /** A record that is filed with the first one of a key, the policy; absent for every other place. */
  readonly beside?: Uint8Array;
}

/** The custodians of a version that vote. */
export interface Seats extends Pick<TdecKek, 'cg' | 'ver' | 'shareGen' | 't' | 'n'> {
  readonly custodians: readonly Pick<KekCustodian, 'i' | 'peer' | 'sigPk'>[];
}

/** Who votes, and about what. */
export interface Electorate {
  readonly place: Uint8Array;
  readonly quorum: number;
  /** Ed25519 keys by index. */
  readonly keys: ReadonlyMap<number, Uint8Array>;
}

export type BallotPhase = 'promise' | 'prepare' | 'lock';

/** The value that says that nothing comes of an attempt. */
export const nothing = new Uint8Array(32);
/** Newest versions that a place is behind; older ones are destroyed, and have no further record. */
export const headsMax = 8;
/** How far a round may lie ahead: else one message would use all of them up. */
export const roundStepMax = 65_536;

/** Members that may be false without harm: fewer than it takes to open a key, and so few that `t` true ones store what was certified. */
export function falseMax(t: number, n: number): number {
  return Math.min(t - 1, Math.floor((n - t) / 2));
}

/**
 * Members whose word a group goes by: so many that `t` true ones are left without the false ones, and that two such
 * quorums have more in common than may be false. `leftOut`: members that the operator's order leaves out; then `t`
 * and a majority are enough, and the others must be true.
 */
export function quorumOf(t: number, n: number, leftOut = 0): number {
  const full = Math.max(t + Math.floor((n - t) / 2), Math.ceil((n + falseMax(t, n) + 1) / 2));
  return Math.max(t, Math.floor(n / 2) + 1, Math.min(full, n - leftOut));
}

/** The newest records of these versions as a place is told by them, newest version first. */
export function headsOf(keks: readonly (TdecKek | UnsignedKek)[]): readonly Head[] {
  return keks
    .map((kek) => ({ ver: kek.ver, seq: kek.seq, hash: sha256(kekPreimage(kek)) }))
    .toSorted((a, b) => b.ver - a.ver)
    .slice(0, headsMax);
}

/** What the first record of a key is behind: the members that are to make it, whoever orders them to. */
export function firstHeads({ cg, t, custodians }: Seats): readonly Head[] {
  const members = custodians.map(({ peer }) => peer);
  return [
    { ver: 0, seq: 0, hash: sha256(preimage('CHORUS-SLURP-FIRST-v1', encodeCbor({ cg, t, members }))) },
  ];
}

/** True before the first record of a key. */
export function isFirst(heads: readonly Head[]): boolean {
  return heads[0]?.ver === 0;
}

/** Who votes about the record behind `heads`: the custodians of the active version. */
export function electorateOf(
  active: Pick<Seats, 'cg' | 't' | 'n' | 'custodians'>,
  heads: readonly Head[],
  leftOut: number,
): Electorate {
  const place = sha256(preimage('CHORUS-SLURP-PLACE-v1', encodeCbor({ cg: active.cg, heads })));
  const keys = new Map(active.custodians.map(({ i, sigPk }) => [i, sigPk]));
  return { place, quorum: quorumOf(active.t, active.n, leftOut), keys };
}

/**
 * The ballot about the place behind `heads`: `before` when it is the same, a new one when the registry has gone on.
 * Throws VERSION_CONFLICT for a place that is over, or that contradicts the known one. Other members for a first key
 * are another place: whoever has not voted yet may go over to it, because no record is decided by its vote.
 */
export function ballotAt(before: Ballot | undefined, heads: readonly Head[]): Ballot {
  if (before !== undefined) {
    const order = compareHeads(before.heads, heads);
    if (order === 'same') return before;
    const isFree =
      isFirst(before.heads) && before.prepared === null && before.locked === null && before.round === 1;
    if (order !== 'later' && !(isFree && isFirst(heads)))
      throw new HoldfastError('VERSION_CONFLICT', 'other records of the key are known here than those given');
  }
  const none = { prepared: null, locked: null, ended: null, stored: null, shown: null };
  return { heads, attempt: 1, round: 1, leftOut: 0, ...none };
}

/** True when the registry has gone on from `before` to `after`: then the place behind `before` is filled. */
export function isBehind(before: readonly Head[], after: readonly Head[]): boolean {
  return compareHeads(before, after) === 'later';
}

/** `later`: every version known before is there, none older than before, and one is newer. */
function compareHeads(before: readonly Head[], after: readonly Head[]): 'same' | 'later' | 'other' {
  const oldest = after.at(-1)?.ver ?? 0;
  let isNewer = (after[0]?.ver ?? 0) > (before[0]?.ver ?? 0);
  for (const { ver, seq, hash } of before) {
    const now = after.find((each) => each.ver === ver);
    // What falls out of the list because there are many newer ones was destroyed. Any version follows on none.
    if (now === undefined && ver > 0 && (after.length < headsMax || ver > oldest)) return 'other';
    if (now === undefined) continue;
    if (now.seq < seq || (now.seq === seq && !sameBytes(now.hash, hash))) return 'other';
    if (now.seq > seq) isNewer = true;
  }
  return isNewer ? 'later' : 'same';
}

/** The bytes that a custodian signs. `lock`: what a promise says that it is locked on. */
export function voteBytes(
  place: Uint8Array,
  phase: BallotPhase,
  { attempt, round, value }: Pick<BallotCertificate, 'attempt' | 'round' | 'value'>,
  lockRound = 0,
): Uint8Array {
  const numbers = [uint64(attempt), uint64(round), uint64(lockRound)];
  return preimage(`CHORUS-SLURP-BALLOT-${phase}-v1`, place, ...numbers, value);
}

/** What custodian `i` signs when it promises `round`. */
export function promiseBytes(
  { place }: Pick<Electorate, 'place'>,
  attempt: number,
  round: number,
  lock: BallotCertificate | null,
): Uint8Array {
  return voteBytes(place, 'promise', { attempt, round, value: lock?.value ?? nothing }, lock?.round ?? 0);
}

/** True when a quorum of the electorate has signed it. */
export function isCertificate(
  { place, quorum, keys }: Electorate,
  phase: 'prepare' | 'lock',
  certificate: BallotCertificate,
): boolean {
  const signed = voteBytes(place, phase, certificate);
  return goodVotes(keys, certificate.votes, () => signed).length >= quorum;
}

/** Those that verify, one of each custodian. */
export function goodVotes<V extends Vote>(
  keys: ReadonlyMap<number, Uint8Array>,
  votes: readonly V[],
  signed: (vote: V) => Uint8Array,
): V[] {
  const found = new Map<number, V>();
  for (const vote of votes) {
    const key = keys.get(vote.i);
    if (!found.has(vote.i) && key !== undefined && verifySignature(key, signed(vote), vote.sig))
      found.set(vote.i, vote);
  }
  return [...found.values()];
}

/** The only value that may be prepared in `round`; undefined when these are no promises of a quorum. */
export function openValue(
  electorate: Electorate,
  attempt: number,
  round: number,
  promises: readonly BallotPromise[],
): Uint8Array | undefined {
  const good = goodVotes(electorate.keys, promises, ({ lock }) =>
    promiseBytes(electorate, attempt, round, lock),
  ).filter(({ lock }) => lock === null || isLock(electorate, attempt, round, lock));
  if (good.length < electorate.quorum) return undefined;
  const locks = good.flatMap(({ lock }) => lock ?? []).toSorted((a, b) => b.round - a.round);
  return locks[0]?.value ?? nothing;
}

/** True when somebody could be locked on it before `round`. */
export function isLock(
  electorate: Electorate,
  attempt: number,
  round: number,
  lock: BallotCertificate,
): boolean {
  return lock.attempt === attempt && lock.round < round && isCertificate(electorate, 'prepare', lock);
}

// How a custodian moves on. Each throws VERSION_CONFLICT for what comes too late, RECORD_INVALID for what proves nothing.

/** Takes no part in rounds below `round` any more. */
export function promised(ballot: Ballot, attempt: number, round: number): Ballot {
  requireAttempt(ballot, attempt);
  if (round < 2 || round < ballot.round || hasVotedIn(ballot, round)) throw over(ballot, round);
  requireNear(ballot, round);
  return round === ballot.round ? ballot : { ...ballot, round };
}

/** Prepares `value` in `round`; in the first round the caller has computed it itself, later `promises` leave it open. */
export function prepared(
  ballot: Ballot,
  electorate: Electorate,
  { attempt, round, value }: Pick<BallotCertificate, 'attempt' | 'round' | 'value'>,
  promises: readonly BallotPromise[],
): Ballot {
  requireAttempt(ballot, attempt);
  if (round < ballot.round) throw over(ballot, round);
  requireNear(ballot, round);
  const before = ballot.prepared?.round === round ? ballot.prepared.value : undefined;
  if ((before !== undefined && !sameBytes(before, value)) || ballot.locked?.certificate.round === round)
    throw over(ballot, round);
  if (round === 1 ? sameBytes(value, nothing) : !isOpen(electorate, attempt, round, promises, value))
    throw new HoldfastError('RECORD_INVALID', `round ${round} is not open for that record`);
  return { ...ballot, round, prepared: { round, value } };
}

/** Locks on what a quorum has prepared. */
export function locked(
  ballot: Ballot,
  electorate: Electorate,
  certificate: BallotCertificate,
  contents: Uint8Array,
): Ballot {
  requireAttempt(ballot, certificate.attempt);
  const { round } = certificate;
  if (round < ballot.round) throw over(ballot, round);
  requireNear(ballot, round);
  requireContents(certificate, contents);
  if (!isCertificate(electorate, 'prepare', certificate))
    throw new HoldfastError('RECORD_INVALID', 'fewer than a quorum have prepared that record');
  return { ...ballot, round, locked: { certificate, contents } };
}

/** The next attempt, once it is decided that nothing comes of this one. Shares that are staged for it may go. */
export function ended(ballot: Ballot, electorate: Electorate, certificate: BallotCertificate): Ballot {
  if (certificate.attempt < ballot.attempt) return ballot;
  if (!sameBytes(certificate.value, nothing) || !isCertificate(electorate, 'lock', certificate))
    throw new HoldfastError('RECORD_INVALID', 'it is not decided that nothing comes of that attempt');
  const none = { prepared: null, locked: null, stored: null };
  return { ...ballot, attempt: certificate.attempt + 1, round: 1, ended: certificate, ...none };
}

/** Vouches for the shares of one transcript in this attempt. */
export function withStored(ballot: Ballot, attempt: number, transcript: Uint8Array): Ballot {
  requireAttempt(ballot, attempt);
  if (ballot.stored !== null && !sameBytes(ballot.stored, transcript))
    throw new HoldfastError(
      'VERSION_CONFLICT',
      'shares of an earlier attempt are kept here until it is decided that nothing comes of it',
    );
  return ballot.stored === null ? { ...ballot, stored: transcript } : ballot;
}

/** Throws VERSION_CONFLICT unless this custodian vouches in this attempt for the shares of that transcript. */
export function requireStored({ stored }: Ballot, transcript: Uint8Array): void {
  if (stored !== null && sameBytes(stored, transcript)) return;
  throw new HoldfastError('VERSION_CONFLICT', 'the attempt in which these shares were dealt is over here');
}

/** Keeps a record of this place that the group has signed. */
export function withShown(ballot: Ballot | undefined, shown: Uint8Array): Ballot {
  if (ballot !== undefined) return { ...ballot, shown };
  throw new HoldfastError('INTERNAL', 'shares are staged in a ballot');
}

function isOpen(
  electorate: Electorate,
  attempt: number,
  round: number,
  promises: readonly BallotPromise[],
  value: Uint8Array,
): boolean {
  const open = openValue(electorate, attempt, round, promises);
  return open !== undefined && sameBytes(open, value);
}

function hasVotedIn({ prepared: vote, locked: lock }: Ballot, round: number): boolean {
  return vote?.round === round || lock?.certificate.round === round;
}

function requireAttempt({ attempt }: Ballot, given: number): void {
  if (given === attempt) return;
  throw new HoldfastError('VERSION_CONFLICT', `attempt ${given} given, ${attempt} is under way here`, {
    details: { current: attempt },
  });
}

function requireNear({ round }: Ballot, given: number): void {
  if (given <= round + roundStepMax) return;
  throw new HoldfastError('ARGUMENT_INVALID', `round ${given} is too far behind round ${round}`);
}

/** Throws RECORD_INVALID when `contents` is not what the votes are about. */
export function requireContents({ value }: Pick<BallotCertificate, 'value'>, contents: Uint8Array): void {
  const isSame = sameBytes(value, nothing) ? contents.length === 0 : sameBytes(sha256(contents), value);
  if (!isSame) throw new HoldfastError('RECORD_INVALID', 'the record is not the one that was voted about');
}

function over({ round }: Ballot, given: number): HoldfastError {
  return new HoldfastError('VERSION_CONFLICT', `round ${given} is over here: round ${round} was begun`, {
    details: { current: round },
  });
}

// Wire

export function readBallotCertificate(value: unknown, name: string): BallotCertificate {
  const fields = fieldsOf(value, name, ['attempt', 'round', 'value', 'votes']);
  return {
    attempt: fields.integer('attempt', 1),
    round: fields.integer('round', 1),
    value: fields.bytes('value', 32),
    votes: fields.list('votes', custodiansMax).map((row, at) => readVote(row, `${name}.votes[${at}]`)),
  };
}

function readVote(value: unknown, name: string): Vote {
  const fields = fieldsOf(value, name, ['i', 'sig']);
  return { i: fields.integer('i', 1, custodiansMax), sig: fields.bytes('sig', 64) };
}

export function readPromises(fields: Fields, field: string): readonly BallotPromise[] {
  return fields.list(field, custodiansMax).map((row, at) => readPromise(row, `${field}[${at}]`));
}

export function readPromise(value: unknown, name: string): BallotPromise {
  const fields = fieldsOf(value, name, ['i', 'sig', 'lock']);
  const lock = fields.any('lock');
  return {
    i: fields.integer('i', 1, custodiansMax),
    sig: fields.bytes('sig', 64),
    lock: lock === null ? null : readBallotCertificate(lock, `${name}.lock`),
  };
}
