// A custodian's part in making the next version of its group's key (COCKTAIL-DKG, c2sp.org/cocktail-dkg). The group's
// signing key stays: each custodian puts its share of it by once more beside the share of the new key.
//
//   hello    the active record, an order or none   → who we are, signed
//   deal     all hellos                            → message 1, signed
//   receive  all messages 1                        → share staged on the disk; signature of the transcript
//   conclude all signatures, first beat of use     → the record of the new version, as we compute it, and our vote
//   and then what custodians agree on a record by (ceremony-ballot.ts)
//
// What is staged is used when the signed record comes back (activation.ts), and opens nothing before its first beat.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import {
  ceremonyMessageBytesMax,
  custodiansMax,
  custodyOrderBytesMax,
  recordBytesMax,
} from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { UnsignedKek } from '../envelope/kek.ts';
import { begin, conclude, dkgContext, type DkgCertifying, type DkgDealt, receive } from '../threshold/dkg.ts';
import type { DkgSession } from '../threshold/dkg-message.ts';
import { type DkgSuite, ristrettoSuite } from '../threshold/dkg-suite.ts';
import type { Outcome } from '../threshold/fault.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { collectSteps, signStep } from '../threshold/signed-step.ts';
import {
  attemptId,
  type BaseKek,
  broken,
  type Participant,
  readHellos,
  sessionNonce,
  signHello,
  unsigned,
} from './ceremony.ts';
import { headsOf } from './ballot.ts';
import { Poll } from './ceremony-ballot.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import { keySetOfEntry } from './ceremony-signing.ts';
import { readByteList, readMessages } from './ceremony-wire.ts';
import type { OpenedOrder } from './order.ts';
import { noteOrdered, versionsOf } from './rotation-marks.ts';
import { isRotationDue, orderedVersion } from './rotation-plan.ts';

/** How far ahead of now the first use may lie, bars: time to hear of the new key, and not for ever. */
const noticeBarsMax = 4;
/** How near it may lie, bars: a past one would put the end of the old key into the past too. Half of what is proposed, because our beat may be ahead of the proposer's. */
const noticeBarsMin = 0.5;

/** Begins our part. Throws FORBIDDEN when neither an order nor the policy asks for a new key. */
export async function beginRotate(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'rotate.hello', ['attempt', 'base', 'order']);
  await desk.ports.follow();
  const base = desk.base(fields.bytesUpTo('base', recordBytesMax));
  const given = fields.any('order');
  const order =
    given === null
      ? undefined
      : desk.order(fields.bytesUpTo('order', custodyOrderBytesMax), base.kek.cg, ['rotate']);
  requireAllowed(desk, base, order);
  const own = desk.own(base.kek);
  const seat = desk.seat(base.kek);
  if (own === undefined || seat === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', 'no share of the present generation is here');
  const { kek: group } = await desk.ports.groups();
  const attempt = attemptId(
    'rotate',
    base.kek.cg,
    fields.bytes('attempt', 32),
    order?.hash ?? new Uint8Array(0),
    base.cid,
  );
  const heads = headsOf(versionsOf(desk.ports.books.book(base.kek.cg)));
  const poll = new Poll(desk, { active: base.kek, own: () => desk.own(base.kek), heads, leftOut: 0 });
  return new RotatePart({
    desk,
    suite: ristrettoSuite(group),
    base,
    own,
    index: seat.i,
    attempt,
    order,
    poll,
  }).begin();
}

function requireAllowed(desk: CeremonyDesk, { kek }: BaseKek, order: OpenedOrder | undefined): void {
  const refuse = (why: string): never => {
    throw new HoldfastError('FORBIDDEN', why);
  };
  const now = desk.ports.beat();
  if (now.lost !== undefined) refuse(`time is not known: ${now.lost}`);
  const book = desk.ports.books.book(kek.cg);
  if (kek.state !== 'active') refuse(`version ${kek.ver} is ${kek.state}: there is nothing to follow it`);
  const coming = versionsOf(book).find(({ state, ver }) => ver > kek.ver && state !== 'destroyed');
  if (coming !== undefined) refuse(`version ${coming.ver} of the key is there already`);
  if (order !== undefined) {
    if (orderedVersion(order.order) !== kek.ver) refuse('the order is about another version of the key');
    return;
  }
  const { rotateEveryBars = 0 } = book?.policy(kek.policyRoot) ?? {};
  if (!isRotationDue(kek, rotateEveryBars, now, desk.ports.beatsPerBar()))
    refuse('nobody ordered a new key, and by the policy none is due');
}

interface RotateTask {
  readonly desk: CeremonyDesk;
  readonly suite: DkgSuite;
  readonly base: BaseKek;
  readonly own: OwnShares;
  readonly index: number;
  readonly attempt: Uint8Array;
  readonly order: OpenedOrder | undefined;
  readonly poll: Poll;
}

class RotatePart {
  readonly #desk: CeremonyDesk;
  readonly #suite: DkgSuite;
  readonly #base: BaseKek;
  readonly #own: OwnShares;
  readonly #index: number;
  readonly #attempt: Uint8Array;
  readonly #order: OpenedOrder | undefined;
  readonly #poll: Poll;
  readonly #participants: readonly Participant[];
  /** The version that is made: behind the highest there ever was. */
  readonly #ver: number;
  #dkg: DkgSession | undefined;
  #sid: Uint8Array = new Uint8Array(0);
  #dealt: DkgDealt | undefined;
  #certifying: DkgCertifying | undefined;

  constructor({ desk, suite, base, own, index, attempt, order, poll }: RotateTask) {
    this.#desk = desk;
    this.#suite = suite;
    this.#base = base;
    this.#own = own;
    this.#index = index;
    this.#attempt = attempt;
    this.#order = order;
    this.#poll = poll;
    this.#ver = 1 + (versionsOf(desk.ports.books.book(base.kek.cg)).at(-1)?.ver ?? base.kek.ver);
    this.#participants = base.kek.custodians.map(({ peer, sigPk }) => ({ peer, sigPk }));
  }

  async begin(): Promise<Session> {
    const hello = await this.#desk.hello(this.#base.kek, this.#own, null);
    const { signer } = this.#desk.ports;
    return {
      cg: this.#base.kek.cg,
      begun: { hello: signHello(signer, this.#attempt, this.#index, hello) },
      steps: {
        deal: (payload) => this.#deal(payload),
        receive: (payload) => this.#receive(payload),
        conclude: (payload) => this.#conclude(payload),
        ...this.#poll.steps(),
      },
      close: () => this.#poll.close(),
    };
  }

  async #deal(payload: unknown): Promise<unknown> {
    const messages = readMessages(payload, 'hellos', ceremonyMessageBytesMax);
    const { t, n, cg, frostPk } = this.#base.kek;
    const hellos = readHellos(this.#participants, this.#attempt, messages);
    const statics = this.#participants.flatMap((_, at) => hellos.get(at + 1)?.dkgPk ?? []);
    if (statics.length !== n) throw broken('hello', [{ culprit: 0, reason: 'missing' }]);
    this.#sid = sessionNonce(this.#attempt, messages);
    const members = this.#participants.map(({ peer }) => peer);
    const ext = sha512(
      preimage(
        'CHORUS-SLURP-DKG-EXT-v1',
        encodeCbor({ cg, ver: this.#ver, t, n, frostPk, members, ...this.#poll.dealFor() }),
      ),
    );
    const context = dkgContext(this.#suite, preimage('CHORUS-SLURP-DKG-kek-v1', this.#sid), statics);
    this.#dkg = { t, n, statics, context, ext };
    const { random, signer, shares } = this.#desk.ports;
    const secret = await shares.openKeyPair('dkg');
    try {
      const { message, state } = begin(this.#suite, this.#dkg, this.#index, secret, random);
      this.#dealt = state;
      return { message: signStep(signer, this.#sid, 'dkg', this.#index, message) };
    } finally {
      secret.fill(0);
    }
  }

  async #receive(payload: unknown): Promise<unknown> {
    const messages = readMessages(payload, 'messages', ceremonyMessageBytesMax);
    const keys = this.#participants.map(({ sigPk }) => sigPk);
    const { steps, faults } = collectSteps(keys, this.#sid, 'dkg', messages);
    if (faults.length > 0) throw broken('dkg', faults);
    if (steps.length !== keys.length) throw broken('dkg', [{ culprit: 0, reason: 'missing' }]);
    const { shares } = this.#desk.ports;
    const secret = await shares.openKeyPair('dkg');
    try {
      const bodies = steps.map(({ body }) => body);
      this.#poll.requireRoom(this.#sid);
      const mine = must(receive(this.#suite, there(this.#dkg), there(this.#dealt), secret, bodies));
      this.#certifying = mine.state;
      await this.#putBy(mine.state.keys, mine.share);
      await this.#poll.store(this.#sid);
      return { sig: mine.state.signature };
    } finally {
      secret.fill(0);
    }
  }

  /** Both shares on the disk, before anybody is told that ours is there. */
  async #putBy(keys: KeySet, share: Uint8Array): Promise<void> {
    const { cg, ver, shareGen } = this.#base.kek;
    const ref = { cg, kekVer: this.#ver, gen: 1 };
    if (this.#order !== undefined) await noteOrdered(this.#desk, cg, ver);
    const frost = await this.#desk.ports.shares.openShare({ cg, kekVer: ver, gen: shareGen }, 'frost');
    try {
      await this.#desk.note(
        'rotate',
        { cg, kekVer: this.#ver, shareGen: 1 },
        'a share of a new key',
        this.#order,
      );
      const signingKeys = keySetOfEntry(this.#own.frost);
      const secrets = { kek: share, frost: frost.secret };
      await this.#desk.stage(ref, this.#index, { kek: keys, frost: signingKeys }, secrets);
    } finally {
      share.fill(0);
      frost.secret.fill(0);
    }
  }

  async #conclude(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'rotate.conclude', ['sigs', 'createdAt', 'activateBeat']);
    const sigs = readByteList(fields, 'sigs', 64);
    const { keys, transcriptHash } = must(
      conclude(this.#suite, there(this.#dkg), there(this.#certifying), sigs),
    );
    const activateBeat = fields.integer('activateBeat', 0);
    const { beat } = this.#desk.ports.beat();
    const bar = this.#desk.ports.beatsPerBar();
    const [earliest, latest] = [beat + Math.floor(noticeBarsMin * bar), beat + noticeBarsMax * bar];
    if (activateBeat < earliest || activateBeat > latest)
      throw new HoldfastError(
        'FORBIDDEN',
        `first used at beat ${activateBeat}: ${earliest} to ${latest} expected`,
      );
    const createdAt = fields.text('createdAt', 40);
    const dkgCert = sha512(preimage('CHORUS-SLURP-DKG-CERT-v1', transcriptHash));
    const kek = nextVersion(this.#base, keys, { ver: this.#ver, createdAt, activateBeat, dkgCert });
    return { kek: encodeCbor(kek), vote: await this.#poll.propose({ keks: [kek], certificates: [] }) };
  }
}

/** The first record of the new version. */
function nextVersion(
  { kek: base }: BaseKek,
  keys: KeySet,
  made: Pick<UnsignedKek, 'ver' | 'createdAt' | 'activateBeat' | 'dkgCert'>,
): UnsignedKek {
  const { Y, C, Yi } = keys;
  return {
    ...unsigned(base),
    ...made,
    seq: 1,
    state: 'pre-active',
    Y,
    C,
    Yi,
    shareGen: 1,
    retireBeat: null,
  };
}

/** Reads an answer to `commit`. Throws RECORD_INVALID. */
export function readCommitted(answer: unknown, messagesCount: number) {
  const fields = fieldsOf(answer, 'commit', ['i', 'commitments', 'C']);
  return {
    i: fields.integer('i', 1, custodiansMax),
    commitments: fields.bytesList('commitments', 64, messagesCount, messagesCount),
    C: fields.bytesList('C', 32, 2, custodiansMax),
  };
}

/** Reads an answer to `conclude`: the record without its signature, and the vote for it. */
export function readConcluded(answer: unknown): {
  readonly kek: Readonly<Record<string, unknown>>;
  readonly vote: unknown;
} {
  const fields = fieldsOf(answer, 'conclude', ['kek', 'vote']);
  const kek = Object(decodeCbor(fields.bytesUpTo('kek', recordBytesMax), 'conclude'));
  return { kek, vote: fields.any('vote') };
}

function must<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw broken('rotate', outcome.faults);
}

function there<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new HoldfastError('ARGUMENT_INVALID', 'this step is not due in the ceremony');
}
