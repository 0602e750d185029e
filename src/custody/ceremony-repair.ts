// A custodian's part in giving one member its shares again: it lost them, or slept through the ceremony that made them.
//
//   hello    the present record, who is in need    → keys for this session, signed; null when it is us and nothing is lost
//   split    all hellos                            → our parts in pieces, if we help
//   pass     all splits                            → sums for the member in need, if we help
//   restore  all splits, all passes                → shares verified and active, if it is us
//
// Nobody has to order it: what is restored is sealed to a key that the member itself has signed for, it is a member
// by a record that the group has signed, and it takes part only when a share of that generation is missing there.

import { HoldfastError } from '../core/errors.ts';
import { ceremonyMessageBytesMax, recordBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { pass, restore, split } from '../threshold/repair.ts';
import { openRepair, type RepairSession } from '../threshold/repair-session.ts';
import { certificateOf } from './activation.ts';
import {
  attemptId,
  type BaseKek,
  baseKeys,
  type Both,
  broken,
  type CustodyGroups,
  readHellos,
  sessionNonce,
  signHello,
} from './ceremony.ts';
import { type CeremonyDesk, factsOf, type OwnShares, type Session } from './ceremony-desk.ts';
import { readByteList, readMessages } from './ceremony-wire.ts';

const keyNames = ['kek', 'frost'] as const;

/** Both repairs with the keys that they are of. */
export interface OpenedRepair {
  readonly sessions: Both<RepairSession>;
  readonly keys: Both<KeySet>;
}

/** Begins our part; the answer is our hello. Throws FORBIDDEN where nothing is to be repaired by us. */
export async function beginRepair(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'hello', ['attempt', 'kek', 'lost', 'birth']);
  const birth = fields.map('birth', ['kek', 'certificate']);
  const anchor = desk.anchor(
    birth.bytesUpTo('kek', recordBytesMax),
    birth.bytesUpTo('certificate', recordBytesMax),
  );
  const base = desk.base(fields.bytesUpTo('kek', recordBytesMax), anchor);
  const { kek } = base;
  const lost = fields.integer('lost', 1, kek.n);
  const index = desk.seat(kek)?.i;
  if (index === undefined) throw new HoldfastError('FORBIDDEN', 'this custodian is no member of the group');
  const own = desk.own(kek);
  if (index === lost && own !== undefined && (await desk.areReadable(own)))
    return { cg: kek.cg, begun: { hello: null }, steps: {}, close: () => undefined };
  const attempt = attemptId('repair', kek.cg, fields.bytes('attempt', 32), Uint8Array.of(lost), base.cid);
  const task = { base, lost, index, attempt, own: index === lost ? undefined : own };
  return new RepairPart(desk, task, await desk.ports.groups()).begin();
}

interface RepairTask {
  readonly base: BaseKek;
  readonly lost: number;
  readonly index: number;
  readonly attempt: Uint8Array;
  readonly own: OwnShares | undefined;
}

class RepairPart {
  readonly #desk: CeremonyDesk;
  readonly #task: RepairTask;
  readonly #groups: CustodyGroups;
  #opened: OpenedRepair | undefined;
  #prekey: Uint8Array = new Uint8Array(0);

  constructor(desk: CeremonyDesk, task: RepairTask, groups: CustodyGroups) {
    this.#desk = desk;
    this.#task = task;
    this.#groups = groups;
  }

  async begin(): Promise<Session> {
    const { base, attempt, index, own } = this.#task;
    const hello = await this.#desk.hello(base.kek, own, null);
    this.#prekey = hello.prekey;
    return {
      cg: base.kek.cg,
      begun: { hello: signHello(this.#desk.ports.signer, attempt, index, hello) },
      steps: {
        split: (payload) => this.#split(payload),
        pass: (payload) => this.#pass(payload),
        restore: (payload) => this.#restore(payload),
      },
      close: () => undefined,
    };
  }

  async #split(payload: unknown): Promise<unknown> {
    const { base, lost, attempt, own, index } = this.#task;
    const messages = readMessages(payload, 'hellos', ceremonyMessageBytesMax);
    this.#opened = openRepairs(this.#groups, base.kek, lost, attempt, messages);
    if (own === undefined || !this.#helps) return { kek: null, frost: null };
    const { cg, ver: kekVer, shareGen } = base.kek;
    await this.#desk.note('repair', { cg, kekVer, shareGen }, `helping custodian ${lost}`);
    const { signer, random, shares } = this.#desk.ports;
    const one = async (key: 'kek' | 'frost'): Promise<Uint8Array> => {
      const { secret } = await shares.openShare({ cg, kekVer, gen: shareGen }, key);
      try {
        const helper = { index, share: secret, signer };
        return split(this.#groups[key], this.#session(key), helper, random);
      } finally {
        secret.fill(0);
      }
    };
    return { kek: await one('kek'), frost: await one('frost') };
  }

  async #pass(payload: unknown): Promise<unknown> {
    if (!this.#helps) return { kek: null, frost: null };
    const fields = fieldsOf(payload, 'pass', ['kek', 'frost']);
    const { signer, random } = this.#desk.ports;
    const prekey = await this.#desk.openPrekey(this.#prekey);
    try {
      const one = (key: 'kek' | 'frost'): Uint8Array => {
        const own = { index: this.#task.index, signer, prekey };
        const log = readByteList(fields, key, ceremonyMessageBytesMax);
        const done = pass(this.#groups[key], this.#session(key), own, log, random);
        if (done.ok) return done.value;
        throw broken('pass', done.faults);
      };
      return { kek: one('kek'), frost: one('frost') };
    } finally {
      prekey.fill(0);
    }
  }

  async #restore(payload: unknown): Promise<unknown> {
    const { base, lost, index } = this.#task;
    if (index !== lost) return {};
    const fields = fieldsOf(payload, 'restore', ['splits', 'passes']);
    const splits = fields.map('splits', keyNames);
    const passes = fields.map('passes', keyNames);
    const { cg, ver: kekVer, shareGen: gen } = base.kek;
    await this.#desk.note('repair', { cg, kekVer, shareGen: gen }, 'our own share');
    const prekey = await this.#desk.openPrekey(this.#prekey);
    try {
      for (const key of keyNames) {
        const [first, second] = [splits, passes].map((each) =>
          readByteList(each, key, ceremonyMessageBytesMax),
        );
        const done = restore(this.#groups[key], this.#session(key), prekey, first ?? [], second ?? []);
        if (!done.ok) throw broken('restore', done.faults);
        const facts = factsOf(index, there(this.#opened).keys[key]);
        // Beat 0: it has not to wait for the next refresh longer than the others.
        const put = { facts, secret: done.value, beat: 0, certificate: certificateOf(base.kek) };
        await this.#desk.ports.shares.repair({ cg, kekVer, gen }, key, put);
        done.value.fill(0);
      }
    } finally {
      prekey.fill(0);
    }
    return {};
  }

  /** More say hello than are needed. */
  get #helps(): boolean {
    return this.#session('kek').helpers.includes(this.#task.index);
  }

  #session(key: 'kek' | 'frost'): RepairSession {
    return there(this.#opened).sessions[key];
  }
}

/** Both repairs, with the first t custodians that said hello and have the generation as helpers. */
function openRepairs(
  groups: CustodyGroups,
  kek: TdecKek,
  lost: number,
  attempt: Uint8Array,
  messages: readonly Uint8Array[],
): OpenedRepair {
  const participants = kek.custodians.map(({ peer, sigPk }) => ({ peer, sigPk }));
  const hellos = readHellos(participants, attempt, messages);
  const keys = baseKeys(groups, kek, hellos);
  const helpers = helpersOf(kek, lost, hellos);
  const nonce = sessionNonce(attempt, messages);
  const sigPks = kek.custodians.map(({ sigPk }) => sigPk);
  const prekeys = kek.custodians.map(({ i, prekey }) => hellos.get(i)?.prekey ?? prekey);
  const { cg, ver, shareGen: gen } = kek;
  const of = (key: 'kek' | 'frost'): RepairSession =>
    openRepair(groups[key], { cg, ver, gen, nonce, keys: keys[key], helpers, lost, sigPks, prekeys });
  return { sessions: { kek: of('kek'), frost: of('frost') }, keys };
}

function helpersOf(
  kek: TdecKek,
  lost: number,
  hellos: ReadonlyMap<number, { readonly gen: number }>,
): number[] {
  const helpers = [...hellos]
    .filter(([i, { gen }]) => i !== lost && gen === kek.shareGen)
    .map(([i]) => i)
    .toSorted((a, b) => a - b)
    .slice(0, kek.t);
  if (helpers.length === kek.t) return helpers;
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `${helpers.length} custodians can help custodian ${lost}; ${kek.t} are needed`,
  );
}

function there<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new HoldfastError('ARGUMENT_INVALID', 'this step is not due in the ceremony');
}
