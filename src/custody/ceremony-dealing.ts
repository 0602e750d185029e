// A custodian's part in a refresh or a reshare of both keys.
//
//   hello    the present record, an order or none        → keys for this session, signed
//   deal     all hellos                                  → dealings of both keys, if we are a member
//   certify  all dealings, complaints, answers           → complaints of ours, or: shares staged on the disk, signature
//   answer   complaints                                  → answers of ours
//   commit   signatures of a quorum                      → nonces for the next record and the certificate
//   sign     all commitments                             → shares of the group's signatures
//
// A custodian signs only the record that it has computed itself from the dealings, and only when so many others
// have stored their shares that t true ones are left. It signs with the share of the present generation. Nothing of
// the present generation is touched before the signed record comes back (activation.ts).

import { encodeCbor } from '../core/block.ts';

import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { custodyOrderBytesMax, recordBytesMax } from '../core/limits.ts';
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
  certificateQuorum,
  type CustodyGroups,
  epochPreimage,
  type Hello,
  readHellos,
  sessionNonce,
  signHello,
  unsigned,
} from './ceremony.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import {
  dealingPlan,
  type DealingPlan,
  kekAfterDealing,
  readDealArgs,
  recipientsOf,
} from './ceremony-plan.ts';
import { Signing } from './ceremony-signing.ts';
import { readAttestations, readByteList, readMessages } from './ceremony-wire.ts';
import { certificatePreimage, type EpochCertificate } from './certificate.ts';
import { openOrder, type OpenedOrder } from './order.ts';

const messageBytesMax = 65_536;
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
  const fields = fieldsOf(payload, 'hello', ['attempt', 'kek', 'order']);
  const bytes = fields.any('order') === null ? undefined : fields.bytesUpTo('order', custodyOrderBytesMax);
  const claimed = bytes === undefined ? undefined : readDealArgs(openOrder(bytes).order).frostPk;
  const base = desk.base(fields.bytesUpTo('kek', recordBytesMax), claimed);
  const { kek } = base;
  const opened = bytes === undefined ? undefined : desk.order(bytes, kek.cg, ['refresh', 'reshare', 'evict']);
  if (opened === undefined) requireDue(desk, kek);
  const plan = dealingPlan(kek, opened?.order, desk.ports.custodianKey);
  const place = plan.participants.findIndex(({ peer }) => peer === desk.ports.peer) + 1;
  if (place === 0) throw new HoldfastError('FORBIDDEN', 'this custodian takes no part in the ceremony');
  await desk.dropStaged(kek.cg, kek.ver);
  const attempt = attemptId(
    plan.kind,
    kek.cg,
    fields.bytes('attempt', 32),
    opened?.hash ?? new Uint8Array(0),
    base.cid,
  );
  return new DealingPart(desk, { base, plan, place, opened, attempt }, await desk.ports.groups()).begin();
}

/** Without an order shares are refreshed only on the group's own schedule, while time is known. */
function requireDue(desk: CeremonyDesk, kek: TdecKek): void {
  const { beat, shares, beatsPerBar, now } = desk.ports;
  const refuse = (why: string): never => {
    throw new HoldfastError('FORBIDDEN', why);
  };
  const { beat: present, lost } = beat();
  if (lost !== undefined) refuse(lost);
  if (kek.refreshEveryBars === 0) refuse('this group is refreshed by order only');
  const own = shares
    .shares()
    .find((each) => each.cg === kek.cg && each.kekVer === kek.ver && each.status === 'active');
  // Half of the time: custodians became active, and began to count bars, at different beats.
  const due = (own?.since ?? 0) + Math.floor((kek.refreshEveryBars * beatsPerBar()) / 2);
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
}

class DealingPart {
  readonly #desk: CeremonyDesk;
  readonly #task: DealingTask;
  readonly #groups: CustodyGroups;
  readonly #own: OwnShares | undefined;
  #dealing: OpenedDealing | undefined;
  #seeds: Both<Uint8Array> | undefined;
  #outcome: Outcome | undefined;
  #signing: Signing | undefined;

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
        commit: (payload) => this.#commit(payload),
        sign: (payload) => there(this.#signing).sign(payload),
      },
      close: () => {
        this.#signing?.close();
        if (this.#seeds !== undefined) for (const key of keyNames) this.#seeds[key].fill(0);
      },
    };
  }

  async #deal(payload: unknown): Promise<unknown> {
    const messages = readMessages(payload, 'hellos', messageBytesMax);
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

  /** First our complaints, if there are any that the log does not answer; else what we stored, signed. */
  async #certify(payload: unknown): Promise<unknown> {
    const logs = readLogs(payload);
    const dealing = there(this.#dealing);
    const { base, plan } = this.#task;
    const read = readBoth(this.#groups, dealing, logs);
    const outcome = settleBoth(this.#groups, base.kek, plan, dealing, logs);
    this.#outcome = outcome;
    const index = this.#newIndex();
    if (index === undefined) return { complaint: null, sig: null };
    const shares = await this.#receive(index, dealing, read, outcome, logs);
    if ('complaint' in shares) return { complaint: shares.complaint, sig: null };
    const about = { cg: base.kek.cg, kekVer: base.kek.ver, shareGen: outcome.next.shareGen };
    try {
      await this.#desk.note(plan.kind, about, 'a share of the next generation', this.#task.opened);
      const keys = { kek: outcome.settled.kek.keys, frost: outcome.settled.frost.keys };
      await this.#desk.stage(
        { cg: about.cg, kekVer: about.kekVer, gen: about.shareGen },
        index,
        keys,
        shares,
      );
    } finally {
      for (const key of keyNames) shares[key].fill(0);
    }
    const signed = epochPreimage(base.kek, outcome.next.shareGen, outcome.transcript);
    return { complaint: null, sig: this.#desk.ports.signer.sign(signed) };
  }

  async #receive(
    index: number,
    dealing: OpenedDealing,
    read: Both<readonly Dealing[]>,
    outcome: Outcome,
    logs: DealingLogs,
  ): Promise<Both<Uint8Array> | { readonly complaint: Both<Uint8Array | null> }> {
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
        const log = readByteList(fields, key, messageBytesMax);
        const session = there(this.#dealing).sessions[key];
        return answer(this.#groups[key], session, dealer, there(this.#seeds)[key], log) ?? null;
      } finally {
        share.fill(0);
      }
    };
    return { kek: await one('kek'), frost: await one('frost') };
  }

  async #commit(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'commit', ['attestations', 'beat', 'n', 'prev']);
    const own = there(this.#own);
    const { base, plan } = this.#task;
    const outcome = there(this.#outcome);
    const attestations = readAttestations(fields, 'attestations');
    requireQuorum(base.kek, outcome, attestations);
    const place = {
      beat: fields.integer('beat', 0),
      n: fields.integer('n', 1),
      prev: fields.cidOrNull('prev'),
    };
    const certificate = epochCertificate(base.kek, plan, outcome, attestations, place);
    const about = { cg: base.kek.cg, kekVer: base.kek.ver, shareGen: outcome.next.shareGen };
    await this.#desk.note('sign', about, `the record of generation ${about.shareGen}`, this.#task.opened);
    const messages = [kekPreimage(outcome.next), certificatePreimage(certificate)];
    const ref = { cg: base.kek.cg, kekVer: base.kek.ver, gen: base.kek.shareGen };
    this.#signing = new Signing(this.#desk, ref, own.frost.index, there(this.#dealing).base.frost, messages);
    this.#desk.refreshedAtMs = this.#desk.ports.now();
    return this.#signing.commit();
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
  const both = [settled.kek.transcript, settled.frost.transcript, kekPreimage(next)];
  return { settled, next, transcript: sha512(preimage('CHORUS-SLURP-DEALT-v1', encodeCbor(both))) };
}

function requireQuorum(
  kek: TdecKek,
  { next, transcript }: Outcome,
  attestations: EpochCertificate['attestations'],
): void {
  const signed = epochPreimage(kek, next.shareGen, transcript);
  const good = attestedBy(attestations, next.custodians, signed);
  const needed = certificateQuorum(next.t, next.n);
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
    kek: readByteList(of, 'kek', messageBytesMax),
    frost: readByteList(of, 'frost', messageBytesMax),
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
