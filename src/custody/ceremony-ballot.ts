// A custodian's part in agreeing on the next record of its group's keys (ballot.ts), and in signing what was agreed.
//
//   end      that nothing came of an attempt      → {}
//   promise  a round                              → our promise
//   prepare  a round, a value, promises           → our vote
//   lock     what a quorum prepared               → our vote
//   decide   what a quorum is locked on           → {}; then
//   commit, sign                                  → a share of the group's signatures (ceremony-signing.ts)
//
// Every session that ends in a record has these steps; it adds one of its own, in which it votes in round 1 for the
// record that it has computed. The session `ballot` has nothing else: with it whoever carries the messages now
// finishes or ends what an earlier one began. A vote is on the disk before its signature leaves, and a share of the
// group's signature leaves only for what is decided.

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { custodyOrderBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import {
  type Ballot,
  ballotAt,
  type BallotCertificate,
  type Electorate,
  electorateOf,
  ended,
  type Head,
  headsOf,
  isCertificate,
  isFirst,
  locked,
  nothing,
  prepared,
  promiseBytes,
  promised,
  readBallotCertificate,
  readPromises,
  requireContents,
  requireStored,
  type Seats,
  voteBytes,
  withStored,
} from './ballot.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import { committed, keySetOfEntry, Signing } from './ceremony-signing.ts';
import { readDealArgs } from './ceremony-plan.ts';
import type { OpenedOrder } from './order.ts';
import { decodeProposal, messagesOf, type Proposal, readDecision, valueOf } from './proposal.ts';
import { versionsOf } from './rotation-marks.ts';

/** What a poll is about. */
export interface PollTerms {
  /** The active version, or the first one as it is to be: its custodians vote. */
  readonly active: Seats;
  /** Its shares here, of which that of the signing key signs. */
  readonly own: () => Pick<OwnShares, 'frost'> | undefined;
  /** The newest records of all versions. */
  readonly heads: readonly Head[];
  /** Members that the operator's order leaves out. */
  readonly leftOut: number;
}

/** The attempt in which shares are dealt. */
export interface DealtFor {
  readonly place: Uint8Array;
  readonly attempt: number;
}

export class Poll {
  readonly #desk: CeremonyDesk;
  readonly #terms: PollTerms;
  #attempt: number;
  /** Shares were dealt for that attempt here. */
  #isDealt = false;
  #signing: Signing | undefined;

  /** Throws VERSION_CONFLICT when the place is over here. */
  constructor(desk: CeremonyDesk, terms: PollTerms) {
    this.#desk = desk;
    this.#terms = terms;
    this.#attempt = this.#now().attempt;
  }

  /**
   * What shares are dealt for here: with those that are dealt for another attempt nothing is made. The session stays with
   * it, also when that attempt comes to nothing: else its shares, which are not kept then, could be voted for in the next.
   */
  dealFor(): DealtFor {
    this.#isDealt = true;
    return { place: this.#electorate().place, attempt: this.#attempt };
  }

  /** The steps that every session has. */
  steps(): Session['steps'] {
    return {
      end: (payload) => this.#end(payload),
      promise: (payload) => this.#promise(payload),
      prepare: (payload) => this.#prepare(payload),
      lock: (payload) => this.#lock(payload),
      decide: (payload) => this.#decide(payload),
      commit: () => this.#commit(),
      sign: (payload) => there(this.#signing).sign(payload),
    };
  }

  /** How far this custodian is, for whoever goes on from there. */
  look(): unknown {
    const {
      attempt,
      round,
      ended: end,
      locked: lock,
      prepared: vote,
      stored,
      shown,
      beside = null,
    } = this.#now();
    const isUsed = round > 1 || lock !== null || vote !== null || stored !== null;
    return { place: this.#electorate().place, attempt, round, isUsed, end, lock, shown, beside };
  }

  /** Before this custodian vouches for shares that it has put by. Durable when it resolves. */
  async store(transcript: Uint8Array): Promise<void> {
    await this.#move((ballot) => withStored(ballot, this.#attempt, transcript));
  }

  /** Before shares are put by: throws VERSION_CONFLICT when others are kept here. */
  requireRoom(transcript: Uint8Array): void {
    withStored(this.#now(), this.#attempt, transcript);
  }

  /** Our vote in round 1 for what we have computed ourselves. Throws VERSION_CONFLICT when that round is over here. */
  async propose(proposal: Proposal): Promise<unknown> {
    const about = { attempt: this.#attempt, round: 1, value: valueOf(proposal) };
    await this.#move((ballot) => prepared(ballot, this.#electorate(), about, []));
    return this.#signed('prepare', about);
  }

  /** The same for the first record of a key: whoever finishes it finds here what is filed `beside` it. */
  async proposeFirst(proposal: Proposal, transcript: Uint8Array, beside: Uint8Array): Promise<unknown> {
    await this.#move((ballot) => {
      requireStored(ballot, transcript);
      return { ...ballot, beside };
    });
    return this.propose(proposal);
  }

  /** Throws VERSION_CONFLICT unless we still vouch for the shares of that transcript. */
  requireKept(transcript: Uint8Array): void {
    requireStored(this.#now(), transcript);
  }

  close(): void {
    this.#signing?.close();
    this.#signing = undefined;
  }

  async #end(payload: unknown): Promise<unknown> {
    const certificate = readBallotCertificate(payload, 'ballot.end');
    const { attempt } = await this.#move((ballot) => ended(ballot, this.#electorate(), certificate));
    if (!this.#isDealt) this.#attempt = attempt;
    return {};
  }

  async #promise(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'ballot.promise', ['attempt', 'round']);
    const [attempt, round] = [fields.integer('attempt', 1), fields.integer('round', 2)];
    const { locked: lock } = await this.#move((ballot) => promised(ballot, attempt, round));
    const certificate = lock?.certificate ?? null;
    const bytes = promiseBytes(this.#electorate(), attempt, round, certificate);
    return { i: this.#seat(), sig: this.#desk.ports.signer.sign(bytes), lock: certificate };
  }

  async #prepare(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'ballot.prepare', ['attempt', 'round', 'value', 'promises']);
    const about = {
      attempt: fields.integer('attempt', 1),
      round: fields.integer('round', 2),
      value: fields.bytes('value', 32),
    };
    const promises = readPromises(fields, 'promises');
    await this.#move((ballot) => prepared(ballot, this.#electorate(), about, promises));
    return this.#signed('prepare', about);
  }

  async #lock(payload: unknown): Promise<unknown> {
    const { certificate, contents } = readDecision(payload, 'ballot.decide');
    if (!sameBytes(certificate.value, nothing)) decodeProposal(contents);
    await this.#move((ballot) => locked(ballot, this.#electorate(), certificate, contents));
    return this.#signed('lock', certificate);
  }

  /** Nothing is signed that a quorum is not locked on: so there is one such record, whoever asks. */
  async #decide(payload: unknown): Promise<unknown> {
    const { certificate, contents } = readDecision(payload, 'ballot.decide');
    requireContents(certificate, contents);
    const proposal = decodeProposal(contents);
    if (!isCertificate(this.#electorate(), 'lock', certificate))
      throw new HoldfastError('RECORD_INVALID', 'fewer than a quorum are locked on that record');
    this.#requireHere();
    const { cg, ver, shareGen } = this.#terms.active;
    const own = this.#own();
    const what = proposal.keks.map((kek) => `record ${kek.seq} of version ${kek.ver}`).join(', ');
    await this.#desk.note('sign', { cg, kekVer: ver, shareGen }, what);
    if (proposal.certificates.some((each) => each.what === 'epoch'))
      this.#desk.refreshedAtMs = this.#desk.ports.now();
    this.close();
    const ref = { cg, kekVer: ver, gen: shareGen };
    this.#signing = new Signing(
      this.#desk,
      ref,
      own.frost.index,
      keySetOfEntry(own.frost),
      messagesOf(proposal),
    );
    return {};
  }

  async #commit(): Promise<unknown> {
    return committed(there(this.#signing), this.#own().frost);
  }

  #own(): Pick<OwnShares, 'frost'> {
    const own = this.#terms.own();
    if (own !== undefined) return own;
    throw new HoldfastError('KEY_UNAVAILABLE', 'no share of the active key is here');
  }

  #signed(
    phase: 'prepare' | 'lock',
    about: Pick<BallotCertificate, 'attempt' | 'round' | 'value'>,
  ): { readonly i: number; readonly sig: Uint8Array } {
    const bytes = voteBytes(this.#electorate().place, phase, about);
    return { i: this.#seat(), sig: this.#desk.ports.signer.sign(bytes) };
  }

  #move(step: (ballot: Ballot) => Ballot): Promise<Ballot> {
    this.#requireHere();
    return this.#desk.ports.shares.vote(this.#terms.active.cg, (before) => step(this.#ballot(before)));
  }

  /** Throws VERSION_CONFLICT when the place is over here. */
  #now(): Ballot {
    return this.#ballot(this.#desk.ports.shares.ballot(this.#terms.active.cg));
  }

  #ballot(before: Ballot | undefined): Ballot {
    const ballot = ballotAt(before, this.#terms.heads);
    const leftOut = Math.max(ballot.leftOut, this.#terms.leftOut);
    return leftOut === ballot.leftOut ? ballot : { ...ballot, leftOut };
  }

  #electorate(): Electorate {
    const { active, heads } = this.#terms;
    return electorateOf(active, heads, this.#now().leftOut);
  }

  /** The registry may have gone on since the session began. */
  #requireHere(): void {
    const { active, heads } = this.#terms;
    const book = this.#desk.ports.books.book(active.cg);
    // Who only joins votes about nothing, and has no records of its own, or those of when it was a member.
    if (book === undefined || this.#desk.seat(active) === undefined) return;
    const problem = this.#desk.ports.books.problem(active.cg);
    if (problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', problem);
    const keks = versionsOf(book);
    if (keks.length === 0 && isFirst(heads)) return; // shown to us, and not in the registry
    const now = electorateOf(active, headsOf(keks), 0).place;
    if (!sameBytes(now, electorateOf(active, heads, 0).place))
      throw new HoldfastError('VERSION_CONFLICT', 'the registry tells of other records of the key here');
  }

  #seat(): number {
    const seat = this.#desk.seat(this.#terms.active);
    if (seat !== undefined) return seat.i;
    throw new HoldfastError('FORBIDDEN', 'only custodians of the active key vote');
  }
}

/** The session in which what was begun is finished or ended. */
export async function beginBallot(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'ballot.hello', ['cg', 'order']);
  const cg = fields.text('cg', 64);
  await desk.ports.follow();
  const bytes = fields.any('order') === null ? undefined : fields.bytesUpTo('order', custodyOrderBytesMax);
  const order = bytes === undefined ? undefined : desk.order(bytes, cg, ['refresh', 'reshare', 'evict']);
  const keks = versionsOf(desk.ports.books.book(cg));
  const active = activeOf(keks);
  const terms = { active, own: () => desk.own(active), heads: headsOf(keks) };
  const poll = new Poll(desk, { ...terms, leftOut: leftOutBy(order, active) });
  return { cg, begun: poll.look(), steps: poll.steps(), close: () => poll.close() };
}

/**
 * The version that is in use. Throws KEY_UNAVAILABLE when there is not exactly one, as it is for whoever was shown
 * only a part of what was filed together.
 */
export function activeOf<K extends Pick<TdecKek, 'state'>>(keks: readonly K[]): K {
  const [active, ...more] = keks.filter(({ state }) => state === 'active');
  if (active !== undefined && more.length === 0) return active;
  throw new HoldfastError('KEY_UNAVAILABLE', 'the records of the key are not complete here');
}

/** Members that an order leaves out of the group. */
export function leftOutBy(
  order: OpenedOrder | undefined,
  active: Pick<TdecKek, 'ver' | 'shareGen' | 'custodians'>,
): number {
  if (order === undefined || order.order.op === 'refresh') return 0;
  const { ver, gen, members } = readDealArgs(order.order);
  if (ver !== active.ver || gen !== active.shareGen) return 0;
  return active.custodians.filter(({ peer }) => !members.some((each) => each.peer === peer)).length;
}

function there<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new HoldfastError('ARGUMENT_INVALID', 'this step is not due in the ceremony');
}
