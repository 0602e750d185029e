// One custodian answering: is it allowed, is the wrap sound; only then does the share touch it. Is it written down; only
// then does an answer leave.
//
//   open the request ─▶ authorise item by item ─▶ verify each granted wrap
//                    ─▶ partials ─▶ one proof for all ─▶ sealed to the request's key, signed,
//                       while the audit leaf goes to the disk; it leaves once that is there
//
// Ceremonies, which change the shares, are not here: they share the store and are reached through orders.

import { sha256, type Signer } from '../core/hash.ts';
import { concat } from '../core/bytes.ts';
import { Gate } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { proveDleq } from '../threshold/dleq.ts';
import type { HashGroup, RandomBytes } from '../threshold/group.ts';
import { partial, verifyWrap } from '../threshold/tdh2.ts';
import { type CustodyAnswer, type ItemAnswer, proofContext, sealAnswer } from './answer.ts';
import type { AuditEntry } from './audit-leaf.ts';
import type { AuditLog } from './audit-log.ts';
import { authorise, type CustodyTerms, type Decision } from './authorise.ts';
import type { CustodyBooks } from './books.ts';
import { Budgets } from './budget.ts';
import type { BeatNow } from './freshness.ts';
import { endedText } from './ended.ts';
import { type Refusal, refusal } from './refusal.ts';
import { ReplaySet } from './replay.ts';
import { type OpenedRequest, openRequest, type RequestItem } from './request.ts';
import type { ShareEntry, ShareRef } from './share-state.ts';
import type { ShareStore } from './share-store.ts';

export interface CustodianPorts {
  readonly shares: ShareStore;
  readonly log: AuditLog;
  readonly books: CustodyBooks;
  /** The custodian's identity: signs answers. */
  readonly signer: Signer;
  /** Loaded at the first request: a custodian without shares does not need it. */
  readonly group: () => Promise<HashGroup>;
  readonly random: RandomBytes;
  readonly beat: () => BeatNow;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
  /** Lets other work of the process run: between two slices of arithmetic. */
  readonly breathe: () => Promise<void>;
  /** Reads on in the registry, for what is asked about and has not been read yet. Must not reject. Default: only beats do. */
  readonly catchUp?: () => Promise<void>;
}

/** Requests under way: their work is arithmetic on one thread, so more would only wait in another place. */
const underwayMax = 2;
/** Requests that wait; each is up to a quarter of a megabyte. */
const waitingMax = 64;
/** Wraps verified, or partials made, between two breaths: about 5 ms. */
const sliceItems = 8;
/** Life of a request, dating ahead, and age of revocations, beats. */
const windowBeats = 2;
/** Refused requests that are written down in one bar: whoever may speak to us must not fill the disk by asking. */
const refusedLeavesPerBarMax = 1024;

export class Custodian {
  readonly #ports: CustodianPorts;
  readonly #gate = new Gate(underwayMax);
  readonly #replay = new ReplaySet();
  readonly #budgets = new Budgets();
  #refused = { bar: -1, leaves: 0 };
  /** Beat of the last key given for somebody's use, by group and version. */
  readonly #used = new Map<string, number>();

  constructor(ports: CustodianPorts) {
    this.#ports = ports;
  }

  /**
   * Answers a signed request (`signRequest`) with a sealed answer (`sealAnswer`), which holds a partial or a
   * refusal for each item.
   *
   * @throws RECORD_INVALID (no such request, or a signature in it is wrong), KEY_UNAVAILABLE (no share of that
   * key, generation or group is here; or the audit log cannot be written), RATE_LIMITED, RECORD_CORRUPT
   */
  async unwrap(message: Uint8Array): Promise<Uint8Array> {
    if (this.#gate.waiting >= waitingMax)
      throw new HoldfastError('RATE_LIMITED', `${waitingMax} requests wait at this custodian; retry later`);
    return this.#gate.run(() => this.#unwrap(openRequest(message)));
  }

  /** Keys given in the present bar. */
  get given(): Budgets['given'] {
    return this.#budgets.given;
  }

  /** How many requests wait. */
  get waiting(): number {
    return this.#gate.waiting;
  }

  /** Beat at which a key of that version was last given, but for canaries; 0 for never since the start. */
  lastUse(cg: string, kekVer: number): number {
    return this.#used.get(`${cg}/${kekVer}`) ?? 0;
  }

  async #unwrap(opened: OpenedRequest): Promise<Uint8Array> {
    const { request } = opened;
    let share = this.#shareFor(request);
    if (share !== undefined && !this.#isUpToDate(request)) {
      await this.#ports.catchUp?.();
      share = this.#shareFor(request); // what is read may say that its day is over
    }
    if (share === undefined) {
      await this.#note(opened, [], 'no share of that key and generation is here');
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `this custodian holds no share of generation ${request.shareGen} of key ${request.kekVer} of group ${request.cg}`,
      );
    }
    const decision = authorise(opened, this.#terms(request));
    const verdicts = await this.#verify(share, request.items, decision);
    const noted = this.#note(opened, verdicts, reasonOf(verdicts), decision);
    // Made while the log is flushed, which begins in a moment; of no use to anybody unless that succeeds.
    const making = this.#ports.breathe().then(() => this.#sealed(opened, share, verdicts));
    making.catch(() => undefined); // awaited below
    await noted;
    if (request.purpose !== 'canary' && verdicts.some(({ granted }) => granted))
      this.#used.set(`${request.cg}/${request.kekVer}`, this.#ports.beat().beat);
    return making;
  }

  async #sealed(
    opened: OpenedRequest,
    share: ShareEntry,
    verdicts: readonly (Verdict | Refusal)[],
  ): Promise<Uint8Array> {
    const { signer } = this.#ports;
    return sealAnswer(await this.#answer(opened, share, verdicts), opened.request.epk, signer);
  }

  /**
   * Shares come into use with the record that names them, and who asks may have read that a moment before; so with a
   * page of a rotation, which a custodian that was away is not told of. After a start, or when the registry was away,
   * its revocations are not compared yet.
   */
  #isUpToDate({ cg, kekVer, items }: OpenedRequest['request']): boolean {
    const { books, beat } = this.#ports;
    const book = books.book(cg);
    return (
      book?.kek(kekVer) !== undefined &&
      book.revocations.isFresh(beat().beat, windowBeats) &&
      items.every(({ wrap }) => wrap.t === 'tdec' || book.certificate(wrap.cert) !== undefined)
    );
  }

  #terms({ cg, kekVer }: Pick<ShareRef, 'cg' | 'kekVer'>): CustodyTerms {
    const { shares, books, beat } = this.#ports;
    const book = books.book(cg);
    if (book === undefined) throw new HoldfastError('KEY_UNAVAILABLE', `group ${cg} is not known here`);
    const kek = book.kek(kekVer);
    const policyRoot = kek?.policyRoot ?? null;
    return {
      kek,
      generations: usableShares(shares, { cg, kekVer }).map(({ gen }) => gen),
      policyRoot,
      takenOver: book.takenOver,
      policy: book.policy(policyRoot),
      revocations: book.revocations,
      now: beat(),
      windowBeats,
      sealed: isSealed(shares, cg),
      ended: endedText({ books, shares }, cg),
      replay: this.#replay,
      budgets: this.#budgets,
      certificate: (cid) => book.certificate(cid),
    };
  }

  #shareFor({ cg, kekVer, shareGen }: OpenedRequest['request']): ShareEntry | undefined {
    return usableShares(this.#ports.shares, { cg, kekVer }).find(({ gen }) => gen === shareGen);
  }

  /** What was granted and turns out to be unsound is refused; the share has not been touched yet. */
  async #verify(
    share: ShareEntry,
    items: readonly RequestItem[],
    decision: Decision,
  ): Promise<readonly (Verdict | Refusal)[]> {
    const group = await this.#ports.group();
    const verdicts: (Verdict | Refusal)[] = [];
    for (const [index, { wrap }] of items.entries()) {
      const decided = decision.items[index];
      if (decided?.granted !== true) {
        verdicts.push(decided ?? refusal('wrap', 'not decided'));
        continue;
      }
      if (index % sliceItems === sliceItems - 1) await this.#ports.breathe();
      // A switched wrap has no proof of its own: its certificate was checked, and its point must be one.
      const isSound =
        wrap.t === 'tdec'
          ? verifyWrap(group, share.publicKey, wrap.label, wrap)
          : group.isPoint(wrap.U) && group.isPoint(wrap.V);
      verdicts.push(
        isSound ? { granted: true, U: wrap.U } : refusal('wrap', 'the proof of the wrap does not verify'),
      );
    }
    return verdicts;
  }

  async #answer(
    { hash }: OpenedRequest,
    share: ShareEntry,
    verdicts: readonly (Verdict | Refusal)[],
  ): Promise<CustodyAnswer> {
    const head = { v: 1, reqHash: hash, i: share.index, shareGen: share.gen } as const;
    const granted = verdicts.filter((verdict): verdict is Verdict => verdict.granted);
    if (granted.length === 0)
      return { ...head, results: verdicts.filter((verdict) => !verdict.granted), proof: null };
    const { random, shares, group: load } = this.#ports;
    const { secret } = await shares.openShare(refOf(share), 'kek');
    try {
      const group = await load();
      const results: ItemAnswer[] = [];
      for (const [index, verdict] of verdicts.entries()) {
        if (index % sliceItems === sliceItems - 1) await this.#ports.breathe();
        results.push(verdict.granted ? { granted: true, D: partial(group, secret, verdict.U) } : verdict);
      }
      const D = results.flatMap((result) => (result.granted ? [result.D] : []));
      const B = share.verificationShares[share.index - 1] ?? new Uint8Array(0);
      const context = proofContext(hash);
      const proof = proveDleq(group, secret, { context, B, C: granted.map(({ U }) => U), D }, random);
      return { ...head, results, proof };
    } finally {
      secret.fill(0);
    }
  }

  /** Writes down what will be answered. Throws when it cannot be: then nothing is answered. */
  async #note(
    { request, hash, labels }: OpenedRequest,
    verdicts: readonly (Verdict | Refusal)[],
    reason: string,
    decision?: Decision,
  ): Promise<void> {
    const given = verdicts.filter(({ granted }) => granted).length;
    const now = this.#ports.beat();
    if (given === 0 && !this.#mayNoteRefusal(now.bar))
      throw new HoldfastError('RATE_LIMITED', 'too many requests were refused in this bar');
    const entry: AuditEntry = {
      op: 'unwrap',
      beat: now.beat,
      at: this.#ports.now(),
      cg: request.cg,
      kekVer: request.kekVer,
      shareGen: request.shareGen,
      reqHash: hash,
      requester: request.by,
      capRoot: decision?.grant?.root ?? new Uint8Array(0),
      labels: sha256(concat(...request.items.map(({ wrap }) => wrap.label))),
      purpose: request.purpose,
      items: labels.map(({ bkId }, index) => ({ bkId, granted: verdicts[index]?.granted === true })),
      decision: given === 0 ? 'refused' : given === request.items.length ? 'granted' : 'partly',
      reason,
    };
    try {
      await this.#ports.log.append(entry);
    } catch (cause) {
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `nothing is opened that is not written down: ${describeError(cause)}`,
        {
          cause,
        },
      );
    }
  }

  #mayNoteRefusal(bar: number): boolean {
    if (bar !== this.#refused.bar) this.#refused = { bar, leaves: 0 };
    return this.#refused.leaves++ < refusedLeavesPerBarMax;
  }
}

/** An item that is answered with a partial. */
interface Verdict {
  readonly granted: true;
  readonly U: Uint8Array;
}

function reasonOf(verdicts: readonly (Verdict | Refusal)[]): string {
  const refused = verdicts.find((verdict): verdict is Refusal => !verdict.granted);
  return refused === undefined ? '-' : `${refused.code}: ${refused.reason}`;
}

function refOf({ cg, kekVer, gen }: ShareEntry): ShareRef {
  return { cg, kekVer, gen };
}

/** Shares of the key itself that may be used: the active one, and the previous while both overlap. */
function usableShares(shares: ShareStore, { cg, kekVer }: Pick<ShareRef, 'cg' | 'kekVer'>): ShareEntry[] {
  return shares
    .shares()
    .filter(
      (each) => each.cg === cg && each.kekVer === kekVer && each.key === 'kek' && each.status !== 'staged',
    );
}

/** Odd while the group is sealed here: a number that only rises cannot be set back with a file of yesterday. */
function sealMark(cg: string): string {
  return `sealed/${cg}`;
}

/** True from a seal order to an unseal order, over restarts. */
export function isSealed(shares: ShareStore, cg: string): boolean {
  return shares.mark(sealMark(cg)) % 2 === 1;
}

/** Seals or unseals a group here; durable when it resolves. Nothing changes when it is so already. */
export async function setSealed(shares: ShareStore, cg: string, sealed: boolean): Promise<void> {
  if (isSealed(shares, cg) !== sealed) await shares.raise(sealMark(cg), shares.mark(sealMark(cg)) + 1);
}
