// What the answers to one request add up to: which branch keys they give, who lied, and what is lacking.
//
// Lazily: partials are combined as soon as t custodians gave one, and the result is held against the record's
// commitment. Only when it does not fit are signatures and proofs looked at, which says whose answers they are and who
// lied: nobody without those partials hits the commitment. Eagerly: every signature and proof first. A refusal has
// nothing that it could be held against, so its signature is always verified.
// A key whose commitment says nothing (a part of a combined key) is only ever made of proven partials.

import { toHex } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { BkLabel } from '../envelope/label.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { matchesCommitment } from '../envelope/wrap.ts';
import type { HashGroup } from '../threshold/group.ts';
import { branchKeyOf, combiner, verifyWrap } from '../threshold/tdh2.ts';
import type { CustodyAnswer, OpenedAnswer } from './answer.ts';
import { refusedKey } from './legs.ts';
import { isProven } from './misconduct.ts';
import type { Unwrapped } from './provider.ts';
import type { Refusal } from './refusal.ts';
import type { RequestItem } from './request.ts';

/** One branch key that is asked for. */
/** What may change when it is tried again. */
export type Again = 'now' | 'soon' | 'reading';

export interface TallyItem extends RequestItem {
  readonly record: BranchKeyBody;
  readonly label: BkLabel;
}

export interface TallyOptions {
  readonly group: HashGroup;
  readonly kek: TdecKek;
  readonly items: readonly TallyItem[];
  /** Hash of the request. */
  readonly hash: Uint8Array;
  /** Verifies every proof before a partial is used. */
  readonly eager: boolean;
  /** Name of a custodian for people. */
  readonly nameOf: (i: number) => string;
  /** Told of each custodian whose proof failed. */
  readonly onLiar: (answer: CustodyAnswer) => void;
  /** Told of each custodian in whose place somebody else answered. */
  readonly onForged: (i: number) => void;
}

interface Heard extends OpenedAnswer {
  proven: boolean;
}

export class Tally {
  readonly #options: TallyOptions;
  readonly #heard = new Map<number, Heard>();
  /** Why a custodian gave nothing usable at all. */
  readonly #silent = new Map<number, string>();
  readonly #done: (Unwrapped | undefined)[];
  readonly #eager: boolean;
  readonly #helped = new Set<number>();

  constructor(options: TallyOptions) {
    this.#options = options;
    this.#done = options.items.map(() => undefined);
    this.#eager = options.eager || options.items.some(({ record }) => record.combiner === 'all');
  }

  /** Counts an answer that was opened, and opens what can be opened with it. */
  add({ answer, isSigned }: OpenedAnswer): void {
    const heard = { answer, isSigned, proven: false };
    this.#heard.set(answer.i, heard);
    const isGiving = answer.results.every(({ granted }) => granted);
    if (!this.#eager && isGiving) return this.#open();
    if (this.#isOwn(heard) && this.#eager) this.#prove(heard);
    this.#open();
  }

  /** Notes that a custodian gave nothing, and why, in a few words. */
  fail(i: number, why: string): void {
    this.#silent.set(i, why);
  }

  /** How many more answers are needed, at least; 0 when everything is decided. */
  get wanted(): number {
    const lacking = this.#options.items.map((_, at) =>
      this.#done[at] === undefined && !this.#isHopeless(at)
        ? Math.max(1, this.#options.kek.t - this.#granting(at).length)
        : 0,
    );
    return Math.max(0, ...lacking);
  }

  /**
   * What another try may change, when something is still closed: `now`, because newer records of the group or a
   * newer beat will do; `soon`, because custodians have not read yet what we have, have not heard a beat since their
   * start, or have much to do; `reading`, because they have not read the registry since their start.
   */
  get again(): Again | undefined {
    if (this.#done.every((answer) => answer?.ok === true)) return undefined;
    const codes = new Set(
      [...this.#heard.values()].flatMap(({ answer }) =>
        answer.results.flatMap((result) => (result.granted ? [] : [result.code])),
      ),
    );
    if (codes.has('unread')) return 'reading';
    if (codes.has('group') || codes.has('clock') || codes.has('overloaded')) return 'soon';
    const moved = [...this.#silent.values()].some((why) => why.startsWith(otherGeneration));
    return moved || codes.has('generation') || codes.has('stale') ? 'now' : undefined;
  }

  /** Indices of the custodians whose partials made all the keys that were opened. */
  get helped(): readonly number[] {
    return [...this.#helped].toSorted((a, b) => a - b);
  }

  /** One answer for each item. Call once. Zeroes the partials. */
  results(): readonly Unwrapped[] {
    // What is said of who gave what must not be the words of who carried the answers.
    if (this.#done.includes(undefined)) for (const heard of this.#heard.values()) this.#isOwn(heard);
    const results = this.#options.items.map((item, at) => this.#done[at] ?? this.#refused(item, at));
    for (const { answer } of this.#heard.values())
      for (const result of answer.results) if (result.granted) result.D.fill(0);
    return results;
  }

  #open(): void {
    const { kek, items } = this.#options;
    for (const [at, item] of items.entries()) {
      while (this.#done[at] === undefined) {
        const from = this.#granting(at).slice(0, kek.t);
        if (from.length < kek.t) break;
        const branchKey = this.#combined(item, at, from);
        if (branchKey !== undefined) {
          this.#done[at] = { ok: true, branchKey };
          for (const { answer } of from) this.#noteHelp(answer);
        } else if (!from.map((heard) => this.#prove(heard)).includes(false))
          this.#done[at] = refusedKey(
            item.record,
            'DECRYPT_FAILED',
            'the custodians gave another key than its record commits to',
          );
      }
    }
  }

  /** Only of who gave every item: a receipt says of each key that all of these helped. */
  #noteHelp({ i, results }: CustodyAnswer): void {
    if (results.every(({ granted }) => granted)) this.#helped.add(i);
  }

  /** The branch key, or undefined when it is not what the record commits to. */
  #combined({ record, wrap, label }: TallyItem, at: number, from: readonly Heard[]): Uint8Array | undefined {
    const partials = from.flatMap(({ answer }) => {
      const result = answer.results[at];
      return result?.granted === true ? [result.D] : [];
    });
    let element: Uint8Array;
    try {
      element = this.#combinerOf(from.map(({ answer }) => answer.i))(wrap.V, partials);
    } catch (error) {
      if (isHoldfastError(error)) return undefined; // a partial that is no point: its proof fails too
      throw error;
    }
    const branchKey = branchKeyOf(element, label.bkId, label.bkVer);
    element.fill(0);
    if (record.combiner === 'all' || matchesCommitment(branchKey, record.commit)) return branchKey;
    branchKey.fill(0);
    return undefined;
  }

  /** Most items of a request are answered by the same custodians: their weights are computed once. */
  #combinerOf(indices: readonly number[]): ReturnType<typeof combiner> {
    const id = indices.join();
    const known = this.#combiners.get(id);
    if (known !== undefined) return known;
    const made = combiner(this.#options.group, indices);
    this.#combiners.set(id, made);
    return made;
  }

  readonly #combiners = new Map<string, ReturnType<typeof combiner>>();

  /** Those whose partial for an item may be used, in the order in which they answered. */
  #granting(at: number): Heard[] {
    return [...this.#heard.values()].filter(({ answer }) => answer.results[at]?.granted === true);
  }

  /** False when the custodian did not sign it, but somebody on the way made it: then it is forgotten. */
  #isOwn({ answer: { i }, isSigned }: Heard): boolean {
    if (isSigned()) return true;
    this.#heard.delete(i);
    this.#silent.set(i, 'failed (its answer is not signed by it)');
    this.#options.onForged(i);
    return false;
  }

  /** False when the custodian lied, or it is not its answer: then it is forgotten. */
  #prove(heard: Heard): boolean {
    const { group, kek, items, hash, onLiar } = this.#options;
    if (!heard.proven && !this.#isOwn(heard)) return false;
    if (heard.proven || isProven(group, kek, { items, hash }, heard.answer)) {
      heard.proven = true;
      return true;
    }
    const { i } = heard.answer;
    this.#heard.delete(i);
    this.#silent.set(i, 'gave a partial decryption whose proof fails');
    onLiar(heard.answer);
    return false;
  }

  #refusals(at: number): { readonly i: number; readonly refusal: Refusal }[] {
    return [...this.#heard.values()].flatMap(({ answer }) => {
      const result = answer.results[at];
      return result?.granted === false ? [{ i: answer.i, refusal: result }] : [];
    });
  }

  /** So many refused it that those who are left are fewer than t. */
  #isHopeless(at: number): boolean {
    const { t, n } = this.#options.kek;
    return this.#refusals(at).length > n - t;
  }

  #refused(item: TallyItem, at: number): Unwrapped {
    const { kek, group, nameOf } = this.#options;
    const refusals = this.#refusals(at);
    const { wrap } = item;
    const isUnsound = refusals.some(({ refusal }) => refusal.code === 'wrap') && wrap.t === 'tdec';
    if (isUnsound && !verifyWrap(group, kek.Y, wrap.label, wrap))
      return refusedKey(item.record, 'DECRYPT_FAILED', 'the proof of its wrap does not verify');
    const decided = refusals.filter(({ refusal }) => decisions.has(refusal.code));
    if (decided.length > kek.n - kek.t) {
      const reasons = new Set(decided.map(({ refusal }) => refusal.reason));
      return refusedKey(
        item.record,
        'FORBIDDEN',
        `${decided.length} of ${kek.n} custodians refuse: ${[...reasons].join('; ')}`,
      );
    }
    const missing = [
      ...[...this.#silent].map(([i, why]) => ({ i, text: `${nameOf(i)} ${why}` })),
      ...refusals.map(({ i, refusal }) => ({ i, text: `${nameOf(i)} ${wordsOf(refusal)}` })),
    ].toSorted((a, b) => a.i - b.i);
    const bkId = toHex(item.bkId);
    const have = this.#granting(at).length;
    const list = missing.map(({ text }) => text);
    const why = list.length === 0 ? 'no custodian was asked' : list.join(', ');
    return {
      ok: false,
      error: new HoldfastError(
        'KEY_UNAVAILABLE',
        `branch key ${bkId}: ${have} of ${kek.t} partial decryptions: ${why}`,
        { details: { bkId, cg: kek.cg, have, needed: kek.t, missing: list } },
      ),
    };
  }
}

/** How a custodian's complaint about a share generation begins. */
export const otherGeneration = 'holds shares of another generation';

/** Refusals that are a decision about who asks or for what; the others are about the custodian or the moment. */
const decisions: ReadonlySet<Refusal['code']> = new Set([
  'capability',
  'revoked',
  'policy',
  'approval',
  'budget',
]);

function wordsOf({ code, reason }: Refusal): string {
  if (code === 'sealed') return 'is sealed';
  if (code === 'generation') return otherGeneration;
  return `refuses (${reason})`;
}
