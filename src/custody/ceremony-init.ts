// A custodian's part in making a group's keys, of which nobody ever holds more than a share (COCKTAIL-DKG,
// c2sp.org/cocktail-dkg): the KEK, and beside it the key that the group signs its records with.
//
//   hello    order, who we are                          → keys for this session, signed
//   deal     all hellos                                 → message 1 of both keys, signed
//   receive  all messages 1                             → shares staged on the disk; signatures of both transcripts
//   conclude all signatures, the record proposed        → our signature under the record
//   propose  all signatures under it                    → our vote for the record
//   and then what custodians agree on a record by (ceremony-ballot.ts)
//
// What is staged is never used before the signed record comes back (activation.ts), and never given up before that or
// before a quorum has decided that nothing comes of the attempt, whoever begins another one meanwhile: a record may be
// in the registry already. The session `birth` has only the last part: with it another coordinator finishes or ends
// what the one before has begun.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { ceremonyMessageBytesMax, custodiansMax, custodyOrderBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { UnsignedKek } from '../envelope/kek.ts';
import { begin, conclude, dkgContext, type DkgCertifying, type DkgDealt, receive } from '../threshold/dkg.ts';
import type { DkgSession } from '../threshold/dkg-message.ts';
import { type DkgSuite, ed25519Suite, ristrettoSuite } from '../threshold/dkg-suite.ts';
import type { Outcome } from '../threshold/fault.ts';
import type { Scalar } from '../threshold/group.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { collectSteps, signStep } from '../threshold/signed-step.ts';
import { firstHeads, isFirst, type Seats } from './ballot.ts';
import { birthPreimage } from './birth.ts';
import {
  attemptId,
  attestedBy,
  type Both,
  broken,
  type CustodyGroups,
  type Hello,
  type Participant,
  readHellos,
  sessionNonce,
  signHello,
} from './ceremony.ts';
import { Poll } from './ceremony-ballot.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import { type InitPlan, initPlan } from './ceremony-plan.ts';
import { readAttestations, readMessages } from './ceremony-wire.ts';
import type { BirthCertificate } from './certificate.ts';
import { openOrder, type OpenedOrder } from './order.ts';

/** What the members of a new group agree on. */
export interface InitSession {
  readonly plan: InitPlan;
  readonly cg: string;
  readonly participants: readonly Participant[];
  readonly attempt: Uint8Array;
}

/** All that is public about the keys once they are made. */
export interface MadeKeys {
  readonly keys: Both<KeySet>;
  /** Hash of both transcripts. */
  readonly dkgCert: Uint8Array;
}

/** Begins our part; the answer is our hello. Throws FORBIDDEN for an order that is not the operator's, or too late. */
export async function beginInit(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'init.hello', ['attempt', 'order']);
  const message = fields.bytesUpTo('order', custodyOrderBytesMax);
  const opened = openOrder(message);
  const attempt = fields.bytes('attempt', 32);
  const { cg } = opened.order;
  requireAllowed(desk, opened);
  if (desk.frostPkOf(cg) !== undefined) throw thereAlready(cg);
  const plan = initPlan(opened.order);
  const session = initSession(plan, cg, attempt, opened, desk.ports.custodianKey);
  const index = session.participants.findIndex(({ peer }) => peer === desk.ports.peer) + 1;
  if (index === 0)
    throw new HoldfastError('FORBIDDEN', 'this custodian is no member of the group to be made');
  const order = { ...opened, message };
  return new InitPart(desk, session, index, order, await desk.ports.groups()).begin();
}

/** The session in which the first record is finished or ended. Whose shares are active already may sign it again. */
export async function beginBirth(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'birth.hello', ['cg', 'order']);
  const opened = openOrder(fields.bytesUpTo('order', custodyOrderBytesMax));
  requireAllowed(desk, opened);
  const seats = firstSeats(initPlan(opened.order), opened.order.cg, desk.ports.custodianKey);
  const poll = firstPoll(desk, seats);
  return { cg: seats.cg, begun: poll.look(), steps: poll.steps(), close: () => poll.close() };
}

/** Who votes about the first record: all whom the operator has ordered to make it. */
export function firstSeats({ t, seats }: InitPlan, cg: string, keyOf: (peer: string) => Uint8Array): Seats {
  const custodians = seats.map(({ peer }, at) => ({ i: at + 1, peer, sigPk: keyOf(peer) }));
  return { cg, ver: 1, shareGen: 1, t, n: seats.length, custodians };
}

function firstPoll(desk: CeremonyDesk, seats: Seats): Poll {
  const own = (): Pick<OwnShares, 'frost'> | undefined => {
    const frost = desk.ports.shares
      .shares()
      .find(({ cg, kekVer, gen, key }) => cg === seats.cg && kekVer === 1 && gen === 1 && key === 'frost');
    return frost && { frost };
  };
  return new Poll(desk, { active: seats, own, heads: firstHeads(seats), leftOut: 0 });
}

/** The same session for everybody who is told the same. */
export function initSession(
  plan: InitPlan,
  cg: string,
  attempt: Uint8Array,
  order: OpenedOrder,
  keyOf: (peer: string) => Uint8Array,
): InitSession {
  const participants = plan.seats.map(({ peer }) => ({ peer, sigPk: keyOf(peer) }));
  return { plan, cg, participants, attempt: attemptId('init', cg, attempt, order.hash, undefined) };
}

/**
 * An order to begin stays good until it has been followed: it cannot be followed twice, and there may be no beat yet.
 * Shares that are active under a first record which the registry has not shown here yet do not say that it was.
 */
function requireAllowed(desk: CeremonyDesk, { order }: OpenedOrder): void {
  const { operator, shares, beat } = desk.ports;
  const refuse = (why: string): never => {
    throw new HoldfastError('FORBIDDEN', why);
  };
  if (order.op !== 'init') refuse('an order to begin a group expected');
  if (Buffer.compare(order.by, operator) !== 0) refuse('only the operator of the cluster begins a group');
  const now = beat();
  if (now.lost === undefined && order.exp < now.beat)
    refuse(`the order ended with beat ${order.exp}, now is ${now.beat}`);
  const ballot = shares.ballot(order.cg);
  const isBeingMade = ballot !== undefined && isFirst(ballot.heads);
  // With another ballot, what is staged is of a group that is there.
  const isThere = ballot !== undefined || shares.hasServed(order.cg);
  if ((isThere && !isBeingMade) || desk.ports.books.book(order.cg)?.kek(1) !== undefined)
    throw thereAlready(order.cg);
}

function thereAlready(cg: string): HoldfastError {
  return new HoldfastError('FORBIDDEN', `group ${cg} has a key already`);
}

/** The order with its bytes, which the certificate of birth may hold. */
interface CarriedOrder extends OpenedOrder {
  readonly message: Uint8Array;
}

class InitPart {
  readonly #desk: CeremonyDesk;
  readonly #session: InitSession;
  readonly #index: number;
  readonly #order: CarriedOrder;
  readonly #groups: CustodyGroups;
  readonly #frostSecret: Scalar;
  #dkg: Both<DkgSession> | undefined;
  #sid: Uint8Array = new Uint8Array(0);
  #hellos: ReadonlyMap<number, Hello> = new Map();
  #dealt: Both<DkgDealt> | undefined;
  #certifying: Both<DkgCertifying> | undefined;
  #kek: UnsignedKek | undefined;
  readonly #poll: Poll;

  constructor(
    desk: CeremonyDesk,
    session: InitSession,
    index: number,
    order: CarriedOrder,
    groups: CustodyGroups,
  ) {
    this.#desk = desk;
    this.#session = session;
    this.#index = index;
    this.#order = order;
    this.#groups = groups;
    this.#frostSecret = groups.frost.scalar.random(desk.ports.random);
    this.#poll = firstPoll(desk, firstSeats(session.plan, session.cg, desk.ports.custodianKey));
  }

  async begin(): Promise<Session> {
    const { signer } = this.#desk.ports;
    const hello = await this.#desk.hello(undefined, undefined, this.#groups.frost.base(this.#frostSecret));
    return {
      cg: this.#session.cg,
      begun: { hello: signHello(signer, this.#session.attempt, this.#index, hello) },
      steps: {
        deal: (payload) => this.#deal(payload),
        receive: (payload) => this.#receive(payload),
        conclude: (payload) => this.#conclude(payload),
        propose: (payload) => this.#propose(payload),
        ...this.#poll.steps(),
      },
      close: () => {
        this.#frostSecret.fill(0);
        this.#poll.close();
      },
    };
  }

  async #deal(payload: unknown): Promise<unknown> {
    const messages = readMessages(payload, 'hellos', ceremonyMessageBytesMax);
    const { session, hellos, sid } = openInit(this.#groups, this.#session, messages);
    this.#dkg = session;
    this.#hellos = hellos;
    this.#sid = sid;
    const { random, signer, shares } = this.#desk.ports;
    const secret = await shares.openKeyPair('dkg');
    try {
      const suites = suitesOf(this.#groups);
      const kek = begin(suites.kek, session.kek, this.#index, secret, random);
      const frost = begin(suites.frost, session.frost, this.#index, this.#frostSecret, random);
      this.#dealt = { kek: kek.state, frost: frost.state };
      const body = encodeCbor({ kek: kek.message, frost: frost.message });
      return { message: signStep(signer, sid, 'dkg', this.#index, body) };
    } finally {
      secret.fill(0);
    }
  }

  async #receive(payload: unknown): Promise<unknown> {
    const session = there(this.#dkg);
    const dealt = there(this.#dealt);
    const keys = this.#session.participants.map(({ sigPk }) => sigPk);
    const messages = readMessages(payload, 'messages', ceremonyMessageBytesMax);
    const { kek, frost } = readDkgMessages(keys, this.#sid, messages);
    const suites = suitesOf(this.#groups);
    const secret = await this.#desk.ports.shares.openKeyPair('dkg');
    try {
      this.#poll.requireRoom(this.#sid);
      const mine = must('dkg', receive(suites.kek, session.kek, dealt.kek, secret, kek));
      const signing = must(
        'dkg',
        receive(suites.frost, session.frost, dealt.frost, this.#frostSecret, frost),
      );
      this.#certifying = { kek: mine.state, frost: signing.state };
      const about = { cg: this.#session.cg, kekVer: 1, shareGen: 1 };
      const { inPlaceOf } = this.#session.plan;
      const why = inPlaceOf === undefined ? '' : `, in the place of ${inPlaceOf.cg}: ${inPlaceOf.reason}`;
      await this.#desk.note('init', about, `a share of a new key${why}`, this.#order);
      await this.#desk.stage(
        { cg: this.#session.cg, kekVer: 1, gen: 1 },
        this.#index,
        { kek: mine.state.keys, frost: signing.state.keys },
        { kek: mine.share, frost: signing.share },
      );
      mine.share.fill(0);
      signing.share.fill(0);
      await this.#poll.store(this.#sid);
      return { kek: mine.state.signature, frost: signing.state.signature };
    } finally {
      secret.fill(0);
    }
  }

  async #conclude(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'init.conclude', ['kek', 'frost', 'createdAt', 'beat']);
    const session = there(this.#dkg);
    const state = there(this.#certifying);
    const suites = suitesOf(this.#groups);
    const lists = {
      kek: fields.bytesList('kek', 64, 2, custodiansMax),
      frost: fields.bytesList('frost', 64, 2, custodiansMax),
    };
    const made = madeKeys(
      must('conclude', conclude(suites.kek, session.kek, state.kek, lists.kek)),
      must('conclude', conclude(suites.frost, session.frost, state.frost, lists.frost)),
    );
    const when = { createdAt: fields.text('createdAt', 40), beat: fields.integer('beat', 0) };
    this.#kek = firstKek(this.#session, this.#hellos, made, when);
    this.#poll.requireKept(this.#sid);
    return { sig: this.#desk.ports.signer.sign(birthPreimage(this.#kek)) };
  }

  async #propose(payload: unknown): Promise<unknown> {
    const kek = there(this.#kek);
    const fields = fieldsOf(payload, 'init.propose', ['attestations', 'beat']);
    const attestations = readAttestations(fields, 'attestations');
    const good = attestedBy(attestations, kek.custodians, birthPreimage(kek));
    if (good.length !== kek.n || attestations.length !== kek.n)
      throw new HoldfastError(
        'RECORD_INVALID',
        `${good.length} of ${kek.n} custodians have signed for the key`,
      );
    const { plan } = this.#session;
    const certificate = birthCertificate(
      kek,
      attestations,
      fields.integer('beat', 0),
      plan.inPlaceOf && this.#order.message,
    );
    const proposal = { keks: [kek], certificates: [certificate] };
    return this.#poll.proposeFirst(proposal, this.#sid, plan.policy);
  }
}

export function suitesOf(groups: CustodyGroups): Both<DkgSuite> {
  return { kek: ristrettoSuite(groups.kek), frost: ed25519Suite(groups.frost) };
}

/** Both key generations, as the hellos of all members make them. Throws RECORD_INVALID when one is missing. */
export function openInit(
  groups: CustodyGroups,
  { plan, cg, participants, attempt }: InitSession,
  messages: readonly Uint8Array[],
): {
  readonly session: Both<DkgSession>;
  readonly hellos: ReadonlyMap<number, Hello>;
  readonly sid: Uint8Array;
} {
  const hellos = readHellos(participants, attempt, messages);
  const n = participants.length;
  const all = participants.map((_, at) => hellos.get(at + 1));
  const statics = {
    kek: all.flatMap((hello) => hello?.dkgPk ?? []),
    frost: all.flatMap((hello) => hello?.frostDkgPk ?? []),
  };
  if (statics.kek.length !== n || statics.frost.length !== n)
    throw new HoldfastError('RECORD_INVALID', `${n} hellos with keys for both generations expected`);
  const sid = sessionNonce(attempt, messages);
  const agreed = { cg, t: plan.t, n, policy: plan.policyRoot, members: participants.map(({ peer }) => peer) };
  const ext = sha512(preimage('CHORUS-SLURP-DKG-EXT-v1', encodeCbor(agreed)));
  const suites = suitesOf(groups);
  const of = (key: 'kek' | 'frost'): DkgSession => ({
    t: plan.t,
    n,
    statics: statics[key],
    context: dkgContext(suites[key], preimage(`CHORUS-SLURP-DKG-${key}-v1`, sid), statics[key]),
    ext,
  });
  return { session: { kek: of('kek'), frost: of('frost') }, hellos, sid };
}

/** Messages 1 of all members in order. Throws RECORD_INVALID naming who sent none. */
export function readDkgMessages(
  keys: readonly Uint8Array[],
  sid: Uint8Array,
  messages: readonly Uint8Array[],
): Both<readonly Uint8Array[]> {
  const { steps, faults } = collectSteps(keys, sid, 'dkg', messages);
  if (faults.length > 0) throw broken('dkg', faults);
  if (steps.length !== keys.length) throw broken('dkg', [{ culprit: 0, reason: 'missing' }]);
  const read = steps.map(({ body }) => {
    const fields = fieldsOf(decodeCbor(body, 'dkg'), 'dkg', ['kek', 'frost']);
    return {
      kek: fields.bytesUpTo('kek', ceremonyMessageBytesMax),
      frost: fields.bytesUpTo('frost', ceremonyMessageBytesMax),
    };
  });
  return { kek: read.map(({ kek }) => kek), frost: read.map(({ frost }) => frost) };
}

interface Concluded {
  readonly keys: KeySet;
  readonly transcriptHash: Uint8Array;
}

export function madeKeys(kek: Concluded, frost: Concluded): MadeKeys {
  const dkgCert = sha512(preimage('CHORUS-SLURP-DKG-CERT-v1', kek.transcriptHash, frost.transcriptHash));
  return { keys: { kek: kek.keys, frost: frost.keys }, dkgCert };
}

/** The first record of a group, as every member computes it. */
export function firstKek(
  { plan, cg, participants }: InitSession,
  hellos: ReadonlyMap<number, Hello>,
  { keys, dkgCert }: MadeKeys,
  { createdAt, beat }: { readonly createdAt: string; readonly beat: number },
): UnsignedKek {
  return {
    provider: 'tdec',
    suite: 'tdh2-r255-1',
    cg,
    ver: 1,
    state: 'active',
    createdAt,
    seq: 1,
    t: plan.t,
    n: plan.seats.length,
    Y: keys.kek.Y,
    C: keys.kek.C,
    shareGen: 1,
    Yi: keys.kek.Yi,
    custodians: participants.map(({ peer, sigPk }, at) => {
      const hello = there(hellos.get(at + 1));
      const org = plan.seats[at]?.org ?? peer;
      const { dkgPk, nextPrekey: prekey, nextEpoch: prekeyEpoch } = hello;
      return { i: at + 1, org, peer, sigPk, dkgPk, prekey, prekeyEpoch };
    }),
    dkgCert,
    frostPk: keys.frost.Y,
    frostYi: keys.frost.Yi,
    activateBeat: beat,
    retireBeat: null,
    refreshEveryBars: plan.refreshEveryBars,
    policyRoot: plan.policyRoot,
  };
}

/** What all members together say about the first record. `order`: where the group is in the place of another. */
export function birthCertificate(
  kek: UnsignedKek,
  attestations: BirthCertificate['attestations'],
  beat: number,
  order: Uint8Array | undefined,
): Omit<BirthCertificate, 'writer' | 'frostSig'> {
  const certificate = {
    kind: 'certificate',
    v: 1,
    prev: null,
    cg: kek.cg,
    ver: 1,
    n: 1,
    beat,
    what: 'birth',
    attestations,
  } as const;
  return order === undefined ? certificate : { ...certificate, order };
}

function must<T>(step: string, outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw broken(step, outcome.faults);
}

function there<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new HoldfastError('ARGUMENT_INVALID', 'this step is not due in the ceremony');
}
