// The other half of agreeing on a record (ballot.ts): whoever carries the messages asks for votes, collects them, and
// has signed what was decided. It is believed in nothing, and remembers nothing: what others began is finished or
// ended out of what the custodians say.

import { sameBytes } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { custodyOrderBytesMax, recordBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { Group } from '../threshold/group.ts';
import {
  type BallotCertificate,
  type BallotPromise,
  type Electorate,
  electorateOf,
  goodVotes,
  type Head,
  isCertificate,
  isLock,
  nothing,
  openValue,
  promiseBytes,
  readBallotCertificate,
  readPromise,
  roundStepMax,
  type Seats,
  type Vote,
  voteBytes,
} from './ballot.ts';
import { readBase, unsigned } from './ceremony.ts';
import {
  type Decision,
  decodeProposal,
  encodeProposal,
  messagesOf,
  type Proposal,
  readDecision,
} from './proposal.ts';
import { groupSignatures, type Signatory } from './rotation-signing.ts';

/** A custodian of the active version, in a session. */
export interface Voter extends Signatory {
  /** Its index. */
  readonly i: number;
}

/** The place that a record is sought for. */
export interface BallotPlace {
  /** For the first record of a key only who is to make it: that record then says what signs it. */
  readonly active: TdecKek | Seats;
  readonly heads: readonly Head[];
  readonly leftOut: number;
}

/** A record that the group has signed. */
export interface Agreed {
  readonly proposal: Proposal;
  /** Under each of `messagesOf`. */
  readonly signatures: readonly Uint8Array[];
}

/**
 * `agreed`: what an earlier one had begun, and is signed now; `beside`: what custodians say is filed with it.
 * `attempt`: this one is free; `end`: of the one before.
 */
export type Settled =
  | { readonly agreed: Agreed; readonly beside: readonly Uint8Array[] }
  | { readonly attempt: number; readonly end: BallotCertificate | null };

/** Rounds asked for before somebody else is left to it: others may be asking too. */
const roundsMax = 8;

/**
 * Finishes or ends what was begun for a place, so that a new attempt can begin.
 * @param voters in a session of the protocol `ballot`, or `birth` for the first record, that has not begun
 * @param order the operator's order, if the quorum is to be lower for it
 * @param onlyLocked leaves an attempt that nobody is locked in as it is: undefined then
 * @throws HoldfastError KEY_UNAVAILABLE when fewer than a quorum answer, naming who is missing
 */
export async function settlePlace(
  group: Group,
  place: BallotPlace,
  voters: readonly Voter[],
  { order, onlyLocked }: { readonly order: Uint8Array | null; readonly onlyLocked: boolean },
): Promise<Settled | undefined> {
  const { active } = place;
  const electorate = electorateOf(active, place.heads, place.leftOut);
  const seen = await lookAround(voters, electorate, { cg: active.cg, order });
  const signed = seen.looks.flatMap(({ shown }) => signedBefore(place, shown) ?? []);
  const beside = seen.looks.flatMap((look) => look.beside ?? []);
  if (signed[0] !== undefined) return { agreed: signed[0], beside };
  const attempt = Math.max(...seen.looks.map(({ end }) => (end === null ? 1 : end.attempt + 1)));
  const end = seen.looks.find((look) => look.end?.attempt === attempt - 1)?.end ?? null;
  const isClean = seen.looks.every((look) => look.attempt === attempt && !look.isUsed);
  const isLocked = seen.looks.some((look) => look.attempt === attempt && look.lock !== null);
  if (onlyLocked && !isLocked) return undefined;
  if (end !== null) await everyVote(seen, 'end', end, () => true);
  if (isClean) return { attempt, end };
  const round = new BallotRounds(electorate, seen, attempt);
  const decision = await round.decide();
  if (sameBytes(decision.certificate.value, nothing)) {
    await everyVote(seen, 'end', decision.certificate, () => true);
    return { attempt: attempt + 1, end: decision.certificate };
  }
  return { agreed: await signDecided(group, active, seen.voters, decision), beside };
}

/**
 * Has the record decided that custodians have voted for in round 1, each by itself, and signed.
 * @param voted their answers to the step in which they did, and why others gave none
 * @throws HoldfastError KEY_UNAVAILABLE when fewer than a quorum vote alike
 */
export async function agreeOn(
  group: Group,
  place: BallotPlace,
  voters: readonly Voter[],
  attempt: number,
  proposal: Proposal,
  voted: { readonly given: ReadonlyMap<number, Vote>; readonly missing: ReadonlyMap<number, string> },
): Promise<Agreed> {
  const electorate = electorateOf(place.active, place.heads, place.leftOut);
  const contents = encodeProposal(proposal);
  const about = { attempt, round: 1, value: sha256(contents) };
  const signed = voteBytes(electorate.place, 'prepare', about);
  const good = goodVotes(electorate.keys, [...voted.given.values()], () => signed);
  const reasons = new Map([...voted.missing].map(([i, why]) => [`custodian ${i}`, why]));
  if (good.length < electorate.quorum)
    throw tooFew('for the record', good.length, electorate.quorum, reasons);
  const session = { voters, reasons, looks: [], quorum: electorate.quorum };
  const decision = await lockOn(electorate, session, { ...about, votes: good }, contents);
  return signDecided(group, place.active, voters, decision);
}

/** Reads an answer to a step in which a custodian votes. */
export function readVoteOf(answer: unknown): Vote {
  const fields = fieldsOf(answer, 'vote', ['i', 'sig']);
  return { i: fields.integer('i', 1), sig: fields.bytes('sig', 64) };
}

interface Look {
  readonly voter: Voter;
  readonly attempt: number;
  readonly round: number;
  readonly isUsed: boolean;
  readonly end: BallotCertificate | null;
  readonly lock: Decision | null;
  readonly shown: Uint8Array | undefined;
  readonly beside: Uint8Array | undefined;
}

interface Seen {
  readonly voters: readonly Voter[];
  readonly looks: readonly Look[];
  /** Why the others do not take part, by name. */
  readonly reasons: Map<string, string>;
  readonly quorum: number;
}

async function lookAround(
  voters: readonly Voter[],
  electorate: Electorate,
  hello: Readonly<Record<string, unknown>>,
): Promise<Seen> {
  const reasons = new Map<string, string>();
  const looks = await askEach(voters, reasons, async (voter) =>
    readLook(voter, electorate, await voter.ask('hello', hello)),
  );
  if (looks.length < electorate.quorum)
    throw tooFew('about what was begun', looks.length, electorate.quorum, reasons);
  return { voters: looks.map(({ voter }) => voter), looks, reasons, quorum: electorate.quorum };
}

/** Throws RECORD_INVALID for one that is of another place, or proves nothing. */
function readLook(voter: Voter, electorate: Electorate, answer: unknown): Look {
  const names = ['place', 'attempt', 'round', 'isUsed', 'end', 'lock', 'shown', 'beside'];
  const fields = fieldsOf(answer, 'look', names);
  if (!sameBytes(fields.bytes('place', 32), electorate.place))
    throw new HoldfastError('VERSION_CONFLICT', 'it has read other records of the key');
  const attempt = fields.integer('attempt', 1);
  const [end, lock] = [readEnd(fields.any('end')), readLock(fields.any('lock'))];
  const isEnd = end === null ? attempt === 1 : end.attempt === attempt - 1;
  if (!isEnd || (end !== null && !isEndOf(electorate, end)))
    throw new HoldfastError('RECORD_INVALID', `that attempt ${attempt} has begun is not proven`);
  const round = fields.integer('round', 1);
  if (lock !== null && !isLock(electorate, attempt, round + 1, lock.certificate))
    throw new HoldfastError('RECORD_INVALID', 'what it is locked on is not proven');
  const shown = fields.any('shown') === null ? undefined : fields.bytesUpTo('shown', recordBytesMax);
  const beside = fields.any('beside') === null ? undefined : fields.bytesUpTo('beside', custodyOrderBytesMax);
  return { voter, attempt, round, isUsed: fields.boolean('isUsed'), end, lock, shown, beside };
}

/** A record of this place that is signed already, and that somebody has kept from the registry. */
function signedBefore({ active, heads }: BallotPlace, shown: Uint8Array | undefined): Agreed | undefined {
  // The first record is filed with more than itself, which is with what is locked.
  if (shown === undefined || !('frostPk' in active)) return undefined;
  const { kek } = readBase(shown);
  const before = heads.find(({ ver }) => ver === kek.ver)?.seq ?? 0;
  if (kek.cg !== active.cg || !sameBytes(kek.frostPk, active.frostPk) || kek.seq !== before + 1)
    return undefined;
  return { proposal: { keks: [unsigned(kek)], certificates: [] }, signatures: [kek.frostSig] };
}

function isEndOf(electorate: Electorate, end: BallotCertificate): boolean {
  return sameBytes(end.value, nothing) && isCertificate(electorate, 'lock', end);
}

function readLock(value: unknown): Decision | null {
  return value === null ? null : readDecision(value, 'look.lock');
}

function readEnd(value: unknown): BallotCertificate | null {
  return value === null ? null : readBallotCertificate(value, 'look.end');
}

/** Rounds above all that were begun, until one is decided. */
class BallotRounds {
  readonly #electorate: Electorate;
  readonly #seen: Seen;
  readonly #attempt: number;
  readonly #rounds: Map<Voter, number>;

  constructor(electorate: Electorate, seen: Seen, attempt: number) {
    this.#electorate = electorate;
    this.#seen = seen;
    this.#attempt = attempt;
    this.#rounds = new Map(seen.looks.map((look) => [look.voter, look.attempt === attempt ? look.round : 1]));
  }

  async decide(): Promise<Decision> {
    let refused: unknown;
    for (let tries = 0; tries < roundsMax; tries++) {
      try {
        return await this.#decideIn(this.#next());
      } catch (error) {
        refused = error; // somebody asks for higher rounds than we know of: look at the next
      }
    }
    throw refused;
  }

  /** Above the highest; where that is out of reach for the others, they come nearer with every try. */
  #next(): number {
    const falling = [...this.#rounds.values()].toSorted((a, b) => b - a);
    const common = falling[this.#electorate.quorum - 1] ?? 1;
    return 1 + Math.min(falling[0] ?? 1, common + roundStepMax - 1);
  }

  async #decideIn(round: number): Promise<Decision> {
    const about = { attempt: this.#attempt, round };
    const promises = await everyVote(this.#seen, 'promise', about, (answer, voter): BallotPromise => {
      this.#rounds.set(voter, round);
      return readPromise(answer, 'promise');
    });
    const good = goodVotes(this.#electorate.keys, promises, ({ lock }) =>
      promiseBytes(this.#electorate, this.#attempt, round, lock),
    );
    const value = openValue(this.#electorate, this.#attempt, round, good);
    if (value === undefined) throw tooFew('in a round', good.length, this.#seen.quorum, this.#seen.reasons);
    const contents = this.#contentsOf(value);
    const voted = { ...about, value };
    const votes = await everyVote(this.#seen, 'prepare', { ...voted, promises: good }, readVoteOf);
    return lockOn(this.#electorate, this.#seen, { ...voted, votes }, contents);
  }

  #contentsOf(value: Uint8Array): Uint8Array {
    if (sameBytes(value, nothing)) return new Uint8Array(0);
    const found = this.#seen.looks.find(
      ({ lock }) => lock !== null && sameBytes(sha256(lock.contents), value),
    );
    if (found?.lock) return found.lock.contents;
    throw new HoldfastError('KEY_UNAVAILABLE', 'nobody shows the record that was prepared');
  }
}

async function lockOn(
  electorate: Electorate,
  seen: Seen,
  prepared: BallotCertificate,
  contents: Uint8Array,
): Promise<Decision> {
  const certificate = withGood(electorate, 'prepare', prepared);
  const votes = await everyVote(seen, 'lock', { certificate, contents }, readVoteOf);
  const decided = withGood(electorate, 'lock', { ...certificate, votes });
  if (decided.votes.length >= electorate.quorum) return { certificate: decided, contents };
  throw tooFew('for the record', decided.votes.length, electorate.quorum, seen.reasons);
}

function withGood(
  { place, keys }: Electorate,
  phase: 'prepare' | 'lock',
  certificate: BallotCertificate,
): BallotCertificate {
  const signed = voteBytes(place, phase, certificate);
  return { ...certificate, votes: goodVotes(keys, certificate.votes, () => signed) };
}

async function signDecided(
  group: Group,
  active: BallotPlace['active'],
  voters: readonly Voter[],
  decision: Decision,
): Promise<Agreed> {
  const reasons = new Map<string, string>();
  const ready = await askEach(voters, reasons, async (voter) => {
    await voter.ask('decide', { ...decision });
    return voter;
  });
  if (ready.length < active.t) throw tooFew('to sign what was decided', ready.length, active.t, reasons);
  const proposal = decodeProposal(decision.contents);
  const signing = 'frostPk' in active ? active : proposal.keks[0];
  if (signing === undefined) throw new HoldfastError('RECORD_INVALID', 'the first record of a key expected');
  const signatures = await groupSignatures(group, signing, ready, messagesOf(proposal));
  return { proposal, signatures };
}

function everyVote<T>(
  { voters, reasons }: Seen,
  step: string,
  payload: object,
  read: (answer: unknown, voter: Voter) => T,
): Promise<T[]> {
  return askEach(voters, reasons, async (voter) => read(await voter.ask(step, { ...payload }), voter));
}

/** Answers of those that give one; why the others do not, is in `reasons`. */
async function askEach<T>(
  voters: readonly Voter[],
  reasons: Map<string, string>,
  ask: (voter: Voter) => Promise<T>,
): Promise<T[]> {
  const done = await Promise.allSettled(voters.map((voter) => ask(voter)));
  return done.flatMap((outcome, at) => {
    if (outcome.status === 'fulfilled') return [outcome.value];
    reasons.set(voters[at]?.name ?? '?', describeError(outcome.reason));
    return [];
  });
}

function tooFew(
  what: string,
  given: number,
  needed: number,
  reasons: ReadonlyMap<string, string>,
): HoldfastError {
  const why = [...reasons].map(([name, reason]) => `${name}: ${reason}`).join('; ');
  return new HoldfastError(
    'KEY_UNAVAILABLE',
    `${given} custodians vote ${what}, ${needed} are needed${why === '' ? '' : ` (${why})`}`,
    { details: { given, needed } },
  );
}
