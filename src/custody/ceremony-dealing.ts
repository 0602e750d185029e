// A custodian's part in a refresh or a reshare of both keys.
//
//   hello    the present records, version, order or none → keys for this session, signed
//   deal     all hellos                                  → dealings of both keys, if we are a member
//   certify  all dealings, complaints, answers           → complaints of ours, if there are any
//   answer   complaints                                  → answers of ours
//   store                                                → shares staged on the disk, our signature under the transcript
//   propose  signatures of a quorum                      → our vote for the next record and the certificate
//   and then what custodians agree on a record by (ceremony-ballot.ts)
//
// A custodian votes only for the record that it has computed itself from the dealings, and only when so many others
// have stored their shares that t true ones are left. What it has stored it keeps until the registry shows what came
// of it, or a quorum has decided that nothing does. Nothing of the present generation is touched before the signed
// record comes back (activation.ts).

import { encodeCbor } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { ceremonyMessageBytesMax, custodyOrderBytesMax } from '../core/limits.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';
import { kekPreimage, type TdecKek, type UnsignedKek } from '../envelope/kek.ts';
import { deal, type Dealing, openDealt, readDealings } from '../threshold/dealing.ts';
import { complete, type Settled, settle } from '../threshold/dealing-agreement.ts';
import { answer, complain } from '../threshold/dealing-complaints.ts';
import { type DealingSession, openDealing } from '../threshold/dealing-session.ts';
import type { Group } from '../threshold/group.ts';
import type { KeySet } from '../threshold/key-set.ts';
import {
  attemptId,
  attestedBy,
  type BaseKek,
  baseKeys,
  type Both,
  broken,
  type CustodyGroups,
  epochPreimage,
  type Hello,
  readHellos,
  sessionNonce,
  signHello,
  unsigned,
} from './ceremony.ts';
import { activateStaged } from './activation.ts';
import { headsMax, headsOf, quorumOf } from './ballot.ts';
import { activeOf, type DealtFor, leftOutBy, Poll } from './ceremony-ballot.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import {
  dealingPlan,
  type DealingPlan,
  kekAfterDealing,
  readDealArgs,
  recipientsOf,
  requireSettled,
} from './ceremony-plan.ts';
import { readAttestations, readByteList, readMessages } from './ceremony-wire.ts';
import type { EpochCertificate } from './certificate.ts';
import { openOrder, type OpenedOrder } from './order.ts';
import { refreshBars } from './policy.ts';

/** Shortest time between two refreshes that nobody ordered: a fast pulse does not wear the disks out. */
const refreshFloorMs = 10 * second;
const keyNames = ['kek', 'frost'] as const;
const noMessages: Both<readonly Uint8Array[]> = { kek: [], frost: [] };

/** The logs of one dealing of both keys. */
export interface DealingLogs {
  readonly dealings: Both<readonly Uint8Array[]>;
  readonly complaints: Both<readonly Uint8Array[]>;
  readonly answers: Both<readonly Uint8Array[]>;
}

/** A dealing of both keys with all that its hellos decide. */
export interface OpenedDealing {
  readonly hellos: ReadonlyMap<number, Hello>;
  readonly base: Both<KeySet>;
  readonly sessions: Both<DealingSession>;
}

/** What the logs come to: the same for all who saw the same. */
export interface Outcome {
  readonly settled: Both<Settled>;
  /** Hash of both transcripts. */
  readonly transcript: Uint8Array;
  readonly next: UnsignedKek;
}

/** Begins our part; the answer is our hello. */
export async function beginDealing(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'hello', ['attempt', 'records', 'ver', 'order']);
  await desk.ports.follow();
  const bytes = fields.any('order') === null ? undefined : fields.bytesUpTo('order', custodyOrderBytesMax);
  const claimed = bytes === undefined ? undefined : readDealArgs(openOrder(bytes).order).frostPk;
  const records = readRecords(desk, fields, claimed);
  const active = activeOf(records.map((record) => record.kek));
  const ver = fields.integer('ver', 1);
  const base = there(records.find((record) => record.kek.ver === ver));
  const { kek } = base;
  const opened = bytes === undefined ? undefined : desk.order(bytes, kek.cg, ['refresh', 'reshare', 'evict']);
  if (opened === undefined) requireDue(desk, kek);
  const plan = dealingPlan({ kek, active }, opened?.order, desk.ports.custodianKey);
  requireSettled(
    plan,
    records.map((record) => record.kek),
    active,
  );
  const place = plan.participants.findIndex(({ peer }) => peer === desk.ports.peer) + 1;
  if (place === 0) throw new HoldfastError('FORBIDDEN', 'this custodian takes no part in the ceremony');
  await activateStaged(desk, kek); // before something else is staged in its place
  const heads = headsOf(records.map((record) => record.kek));
  const terms = { active, own: () => desk.own(active), heads };
  const poll = new Poll(desk, { ...terms, leftOut: leftOutBy(opened, active) });
  const attempt = attemptId(
    plan.kind,
    kek.cg,
    fields.bytes('attempt', 32),
    opened?.hash ?? new Uint8Array(0),
    base.cid,
  );
  return new DealingPart(
    desk,
    { base, plan, place, opened, attempt, poll },
    await desk.ports.groups(),
  ).begin();
}

/** The newest record of every version, newest version first, each signed by the group. */
function readRecords(desk: CeremonyDesk, fields: Fields, claimed: Uint8Array | undefined): BaseKek[] {
  const list = readByteList(fields, 'records', ceremonyMessageBytesMax);
  const records = list.map((record) => desk.base(record, claimed));
  const [newest] = records;
  const isWhole =
    records.every(({ kek }, at) => kek.ver === (newest?.kek.ver ?? 0) - at && kek.cg === newest?.kek.cg) &&
    records.length === Math.min(headsMax, newest?.kek.ver ?? 0);
  return isWhole ? records : fields.refuse('records', 'the newest record of every version expected');
}

/** Without an order shares are refreshed only on the group's own schedule, while time is known. */
function requireDue(desk: CeremonyDesk, kek: TdecKek): void {
  const { beat, books, shares, beatsPerBar, now } = desk.ports;
  const refuse = (why: string): never => {
    throw new HoldfastError('FORBIDDEN', why);
  };
  const { beat: present, lost } = beat();
  if (lost !== undefined) refuse(lost);
  const bars = refreshBars(kek, books.book(kek.cg)?.policy(kek.policyRoot));
  if (bars === 0) refuse('this group is refreshed by order only');
  const own = shares
    .shares()
    .find((each) => each.cg === kek.cg && each.kekVer === kek.ver && each.status === 'active');
  // A new version came in use lately, and its shares of the signing key are older.
  const copied = kek.shareGen === 1 ? books.book(kek.cg)?.dealtBeat(kek.ver) : undefined;
  const since = Math.min(own?.since ?? 0, copied ?? Number.POSITIVE_INFINITY);
  // Half of the time: custodians became active, and began to count bars, at different beats.
  const due = since + Math.floor((bars * beatsPerBar()) / 2);
  if (present < due) refuse(`not before beat ${due}, now is ${present}`);
  if (now() < desk.refreshedAtMs + refreshFloorMs) refuse('shares were refreshed a moment ago');
}

interface DealingTask {
  readonly base: BaseKek;
  readonly plan: DealingPlan;
  /** Our place among the participants, from 1. */
  readonly place: number;
  readonly opened: OpenedOrder | undefined;
  readonly attempt: Uint8Array;
  readonly poll: Poll;
}

class DealingPart {
  readonly #desk: CeremonyDesk;
  readonly #task: DealingTask;
  readonly #groups: CustodyGroups;
  readonly #own: OwnShares | undefined;
  #dealing: OpenedDealing | undefined;
  #seeds: Both<Uint8Array> | undefined;
  #logs: DealingLogs | undefined;
  #outcome: Outcome | undefined;

  constructor(desk: CeremonyDesk, task: DealingTask, groups: CustodyGroups) {
    this.#desk = desk;
    this.#task = task;
    this.#groups = groups;
    this.#own = desk.own(task.base.kek);
  }

  async begin(): Promise<Session> {
    const { base, attempt, place } = this.#task;
    const hello = await this.#desk.hello(base.kek, this.#own, null);
    return {
      cg: base.kek.cg,
      begun: { hello: signHello(this.#desk.ports.signer, attempt, place, hello) },
      steps: {
        deal: (payload) => this.#deal(payload),
        certify: (payload) => this.#certify(payload),
        answer: (payload) => this.#answer(payload),
        store: () => this.#store(),
        propose: (payload) => this.#propose(payload),
        ...this.#task.poll.steps(),
      },
      close: () => {
        this.#task.poll.close();
        this.#forgetSeeds();
      },
    };
  }

  /** With a share of ours and what it dealt, somebody would have the share of the next generation too. */
  #forgetSeeds(): void {
    if (this.#seeds !== undefined) for (const key of keyNames) this.#seeds[key].fill(0);
    this.#seeds = undefined;
  }

  async #deal(payload: unknown): Promise<unknown> {
    const messages = readMessages(payload, 'hellos', ceremonyMessageBytesMax);
    const { base, plan, attempt } = this.#task;
    const dealing = openBoth(this.#groups, base.kek, plan, attempt, messages);
    this.#dealing = dealing;
    if (this.#own === undefined) return { kek: null, frost: null };
    const dealt = {
      kek: await this.#dealOne('kek', this.#own, dealing),
      frost: await this.#dealOne('frost', this.#own, dealing),
    };
    this.#seeds = { kek: dealt.kek.seed, frost: dealt.frost.seed };
    return { kek: dealt.kek.message, frost: dealt.frost.message };
  }

  async #dealOne(key: 'kek' | 'frost', own: OwnShares, dealing: OpenedDealing) {
    const { signer, random } = this.#desk.ports;
    const share = await this.#open(key, own);
    try {
      const dealer = { index: own.kek.index, share, signer };
      return deal(this.#groups[key], dealing.sessions[key], dealer, random);
    } finally {
      share.fill(0);
    }
  }

  /** Our complaints, if there are any that the log does not answer. Nothing is stored yet: dealers may still fall. */
  async #certify(payload: unknown): Promise<unknown> {
    const logs = readLogs(payload);
    const dealing = there(this.#dealing);
    const { base, plan, poll } = this.#task;
    this.#logs = logs;
    this.#outcome = settleBoth(this.#groups, base.kek, plan, dealing, logs, poll.dealFor());
    const index = this.#newIndex();
    if (index === undefined) return { complaint: null };
    const shares = await this.#receive(index);
    if ('complaint' in shares) return { complaint: shares.complaint };
    for (const key of keyNames) shares[key].fill(0);
    return { complaint: null };
  }

  /** One generation in an attempt, and from then on no other: who counts on it must find it. */
  async #store(): Promise<unknown> {
    const { base, plan, poll, opened } = this.#task;
    const { next, settled, transcript } = there(this.#outcome);
    const index = this.#newIndex();
    if (index === undefined) return { sig: null };
    poll.requireRoom(transcript);
    const shares = await this.#receive(index);
    if ('complaint' in shares) throw broken('store', [{ culprit: index, as: 'member', reason: 'complaint' }]);
    const about = { cg: base.kek.cg, kekVer: base.kek.ver, shareGen: next.shareGen };
    try {
      await this.#desk.note(plan.kind, about, 'a share of the next generation', opened);
      const keys = { kek: settled.kek.keys, frost: settled.frost.keys };
      const ref = { cg: about.cg, kekVer: about.kekVer, gen: about.shareGen };
      await this.#desk.stage(ref, index, keys, shares);
    } finally {
      for (const key of keyNames) shares[key].fill(0);
    }
    await poll.store(transcript);
    this.#forgetSeeds(); // nobody complains any more
    return { sig: this.#desk.ports.signer.sign(epochPreimage(base.kek, next.shareGen, transcript)) };
  }

  async #receive(index: number): Promise<Both<Uint8Array> | { readonly complaint: Both<Uint8Array | null> }> {
    const dealing = there(this.#dealing);
    const outcome = there(this.#outcome);
    const logs = there(this.#logs);
    const read = readBoth(this.#groups, dealing, logs);
    const recipient = there(dealing.sessions.kek.to.recipients[index - 1]);
    const prekey = await this.#desk.openPrekey(recipient.prekey);
    try {
      const dealt = {
        kek: openDealt(this.#groups.kek, dealing.sessions.kek, index, prekey, read.kek),
        frost: openDealt(this.#groups.frost, dealing.sessions.frost, index, prekey, read.frost),
      };
      const complaint = this.#complaint(index, dealing, dealt, outcome, logs);
      if (complaint !== undefined) {
        for (const key of keyNames) for (const { share } of dealt[key].shares) share.fill(0);
        return { complaint };
      }
      return {
        kek: await this.#complete('kek', index, dealing, outcome, dealt.kek.shares),
        frost: await this.#complete('frost', index, dealing, outcome, dealt.frost.shares),
      };
    } finally {
      prekey.fill(0);
    }
  }

  /** About dealers that still count. */
  #complaint(
    index: number,
    dealing: OpenedDealing,
    dealt: Both<{ readonly complaints: readonly number[] }>,
    outcome: Outcome,
    logs: DealingLogs,
  ): Both<Uint8Array | null> | undefined {
    const about = (key: 'kek' | 'frost'): number[] =>
      dealt[key].complaints.filter((dealer) => outcome.settled[key].qual.includes(dealer));
    if (about('kek').length + about('frost').length === 0) return undefined;
    if (logs.complaints.kek.length + logs.complaints.frost.length > 0)
      throw broken('certify', [{ culprit: index, as: 'member', reason: 'complaint' }]);
    const { signer } = this.#desk.ports;
    const one = (key: 'kek' | 'frost'): Uint8Array | null =>
      about(key).length === 0 ? null : complain(dealing.sessions[key], index, signer, about(key));
    return { kek: one('kek'), frost: one('frost') };
  }

  async #complete(
    key: 'kek' | 'frost',
    index: number,
    dealing: OpenedDealing,
    outcome: Outcome,
    shares: Parameters<typeof complete>[3]['shares'],
  ): Promise<Uint8Array> {
    const present = this.#task.plan.kind === 'refresh' ? await this.#open(key, there(this.#own)) : undefined;
    try {
      const own = { index, shares, ...(present === undefined ? {} : { present }) };
      const done = complete(this.#groups[key], dealing.sessions[key], outcome.settled[key], own);
      if (done.ok) return done.value;
      throw broken('certify', done.faults);
    } finally {
      present?.fill(0);
    }
  }

  async #answer(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'answer', ['kek', 'frost']);
    const own = this.#own;
    if (own === undefined) return { kek: null, frost: null };
    const { signer } = this.#desk.ports;
    const one = async (key: 'kek' | 'frost'): Promise<Uint8Array | null> => {
      const share = await this.#open(key, own);
      try {
        const dealer = { index: own.kek.index, share, signer };
        const log = readByteList(fields, key, ceremonyMessageBytesMax);
        const session = there(this.#dealing).sessions[key];
        return answer(this.#groups[key], session, dealer, there(this.#seeds)[key], log) ?? null;
      } finally {
        share.fill(0);
      }
    };
    return { kek: await one('kek'), frost: await one('frost') };
  }

  async #propose(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'propose', ['attestations', 'beat', 'n', 'prev']);
    const { base, plan, poll } = this.#task;
    const outcome = there(this.#outcome);
    const attestations = readAttestations(fields, 'attestations');
    requireQuorum(base.kek, outcome, attestations);
    const place = {
      beat: fields.integer('beat', 0),
      n: fields.integer('n', 1),
      prev: fields.cidOrNull('prev'),
    };
    this.#requireNext(base.kek, place);
    this.#requireNow(place.beat);
    const certificate = epochCertificate(base.kek, plan, outcome, attestations, place);
    return poll.propose({ keks: [outcome.next], certificates: [certificate] });
  }

  /** What is decided and cannot be filed would stand in the way of everything else. */
  #requireNext({ cg, ver }: TdecKek, { n, prev }: Pick<EpochCertificate, 'n' | 'prev'>): void {
    const last = this.#desk.ports.books.book(cg)?.lastCertificate(ver);
    const isNext =
      n === (last?.n ?? 0) + 1 &&
      (last === undefined || prev === null ? last === undefined && prev === null : prev.equals(last.cid));
    if (!isNext) throw new HoldfastError('VERSION_CONFLICT', 'another certificate is next here');
  }

  /** By the beat of the certificate it is decided when the next refresh is due. */
  #requireNow(dealt: number): void {
    const { beat, beatsPerBar } = this.#desk.ports;
    const now = beat().beat;
    if (Math.abs(dealt - now) > beatsPerBar())
      throw new HoldfastError('FORBIDDEN', `a certificate dated beat ${dealt}, now is ${now}`);
  }

  async #open(key: 'kek' | 'frost', own: OwnShares): Promise<Uint8Array> {
    const { cg, kekVer, gen } = own[key];
    return (await this.#desk.ports.shares.openShare({ cg, kekVer, gen }, key)).secret;
  }

  #newIndex(): number | undefined {
    const at = this.#task.plan.seats.findIndex(({ peer }) => peer === this.#desk.ports.peer);
    if (at < 0) return undefined;
    // Without a present share there is nothing to refresh: such a member is repaired afterwards.
    return this.#task.plan.kind === 'refresh' && this.#own === undefined ? undefined : at + 1;
  }
}

/** Both dealings as the hellos make them. Throws RECORD_INVALID, KEY_UNAVAILABLE. */
export function openBoth(
  groups: CustodyGroups,
  kek: TdecKek,
  plan: DealingPlan,
  attempt: Uint8Array,
  messages: readonly Uint8Array[],
): OpenedDealing {
  const hellos = readHellos(plan.participants, attempt, messages);
  const base = baseKeys(groups, kek, hellos);
  const nonce = sessionNonce(attempt, messages);
  const to = { t: plan.t, recipients: recipientsOf(kek, plan, hellos) };
  const sigPks = kek.custodians.map(({ sigPk }) => sigPk);
  const { cg, ver, shareGen: gen } = kek;
  const of = (key: 'kek' | 'frost'): DealingSession =>
    openDealing(groups[key], {
      kind: plan.kind,
      cg,
      ver,
      nonce,
      from: { gen, keys: base[key], sigPks },
      to,
    });
  return { hellos, base, sessions: { kek: of('kek'), frost: of('frost') } };
}

function readBoth(
  groups: CustodyGroups,
  { sessions }: OpenedDealing,
  { dealings }: DealingLogs,
): Both<readonly Dealing[]> {
  const of = (key: 'kek' | 'frost', group: Group) =>
    readDealings(group, sessions[key], dealings[key]).dealings;
  return { kek: of('kek', groups.kek), frost: of('frost', groups.frost) };
}

/** What the logs of both dealings come to. Throws RECORD_INVALID naming who is in the way. */
export function settleBoth(
  groups: CustodyGroups,
  kek: TdecKek,
  plan: DealingPlan,
  dealing: OpenedDealing,
  logs: DealingLogs,
  { place, attempt }: DealtFor,
): Outcome {
  const read = readBoth(groups, dealing, logs);
  const of = (key: 'kek' | 'frost', group: Group): Settled => {
    const { complaints, answers } = logs;
    const done = settle(group, dealing.sessions[key], read[key], complaints[key], answers[key]);
    if (done.ok) return done.value;
    throw broken('deal', done.faults);
  };
  const settled = { kek: of('kek', groups.kek), frost: of('frost', groups.frost) };
  const next = kekAfterDealing(unsigned(kek), plan, dealing.hellos, {
    kek: settled.kek.keys,
    frost: settled.frost.keys,
  });
  const both = [settled.kek.transcript, settled.frost.transcript, kekPreimage(next), place, attempt];
  return { settled, next, transcript: sha512(preimage('CHORUS-SLURP-DEALT-v1', encodeCbor(both))) };
}

function requireQuorum(
  kek: TdecKek,
  { next, transcript }: Outcome,
  attestations: EpochCertificate['attestations'],
): void {
  const signed = epochPreimage(kek, next.shareGen, transcript);
  const good = attestedBy(attestations, next.custodians, signed);
  const needed = quorumOf(next.t, next.n);
  if (good.length >= needed && good.length === attestations.length) return;
  throw new HoldfastError(
    'RECORD_INVALID',
    `${good.length} custodians have stored shares of generation ${next.shareGen}; ${needed} are needed`,
  );
}

/** What the group says about how its shares moved on. */
export function epochCertificate(
  kek: TdecKek,
  plan: DealingPlan,
  { settled, transcript }: Outcome,
  attestations: EpochCertificate['attestations'],
  { beat, n, prev }: Pick<EpochCertificate, 'beat' | 'n' | 'prev'>,
): Omit<EpochCertificate, 'writer' | 'frostSig'> {
  return {
    kind: 'certificate',
    v: 1,
    prev,
    cg: kek.cg,
    ver: kek.ver,
    n,
    beat,
    what: 'epoch',
    op: plan.kind,
    fromGen: kek.shareGen,
    toGen: kek.shareGen + 1,
    transcript,
    qual: settled.kek.qual,
    attestations,
  };
}

function readLogs(payload: unknown): DealingLogs {
  const fields = fieldsOf(payload, 'certify', ['dealings', 'complaints', 'answers']);
  const both = (of: Fields): Both<readonly Uint8Array[]> => ({
    kek: readByteList(of, 'kek', ceremonyMessageBytesMax),
    frost: readByteList(of, 'frost', ceremonyMessageBytesMax),
  });
  return {
    dealings: both(fields.map('dealings', keyNames)),
    complaints: both(fields.map('complaints', keyNames)),
    answers: both(fields.map('answers', keyNames)),
  };
}

/** The logs of a dealing that nobody complained about. */
export function logsOf(dealings: Both<readonly Uint8Array[]>): DealingLogs {
  return { dealings, complaints: noMessages, answers: noMessages };
}

function there<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new HoldfastError('ARGUMENT_INVALID', 'this step is not due in the ceremony, or no share is here');
}
