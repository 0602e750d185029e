// A view that follows a log: it catches up, applies entries as they come, and opens afterwards what it took on trust.
//
// It never trusts the log: each entry must continue the chain that the view holds. A log that is behind its view, or tells
// another history, has lost or rewritten what it acknowledged: that is an alarm (`diverged`), and such a log is not followed
// until it tells the same history again.

import { setTimeout as delay } from 'node:timers/promises';
import { sameBytes } from '../core/bytes.ts';
import { second } from '../core/clock.ts';
import { groupsOf, servedItsPurpose } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { eventOrAbort } from './bell.ts';
import { falseRecord } from './late.ts';
import type { BeaconLog, LogEntry, LogPosition } from './log.ts';
import type { BeaconQueries, ViewHealth } from './queries.ts';
import type { ViewFold } from './view-fold.ts';
import type { ViewRows } from './view-rows.ts';
import { isBrokenChain } from './view-tail.ts';

export interface FollowOptions {
  /** Longest pause before a lost log is tried again, ms. Default 2 s. */
  readonly retryMsMax?: number;
  /**
   * Whether the records of a log that is followed are opened before they are folded in, or, where the view is
   * behind it, after (late.ts). Default before. Not for a view that decides what a log may take.
   */
  readonly signatures?: 'before' | 'after';
  /** Fewest entries for which a view that begins with nothing asks for a snapshot. Default 4,096; Infinity: never. */
  readonly snapshotFrom?: number;
}

export class ViewFollower {
  readonly #held: ViewRows;
  readonly #fold: ViewFold;
  readonly #queries: Pick<BeaconQueries, 'entriesSince'>;
  readonly #options: Required<FollowOptions>;
  #follow: FollowState = { state: 'idle', reason: '' };
  #logRevision: number | undefined;
  /** What keeps records that were folded in on trust from being opened. */
  #lateTrouble: FollowState | undefined;
  #askedForSnapshot = false;

  constructor(
    held: ViewRows,
    fold: ViewFold,
    queries: Pick<BeaconQueries, 'entriesSince'>,
    options: FollowOptions,
  ) {
    this.#held = held;
    this.#fold = fold;
    this.#queries = queries;
    this.#options = { retryMsMax: 2 * second, signatures: 'before', snapshotFrom: 4096, ...options };
  }

  health(): ViewHealth {
    const { problem } = this.#held.late;
    const state = problem === '' ? (this.#lateTrouble ?? this.#follow) : followState(falseRecord(problem));
    const health = { ...state, revision: this.#held.position.revision };
    return this.#logRevision === undefined ? health : { ...health, logRevision: this.#logRevision };
  }

  /**
   * Follows `log` until `signal` aborts, or the view is condemned. Whatever goes wrong is shown by `health` and tried
   * again; nothing is thrown but what is our own mistake.
   */
  async follow(log: BeaconLog, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    void this.#held.condemned.then(() => ended.abort());
    const running = AbortSignal.any([signal, ended.signal]);
    const verifying = this.#verifyLate(running);
    try {
      await this.#followUntil(log, running);
    } finally {
      ended.abort();
      await verifying;
    }
  }

  async #followUntil(log: BeaconLog, signal: AbortSignal): Promise<void> {
    for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(2 * pauseMs, this.#options.retryMsMax)) {
      const before = this.#held.position.revision;
      try {
        await this.#followOnce(log, signal);
      } catch (error) {
        if (signal.aborted) break;
        this.#follow = followState(error);
      }
      if (this.#held.position.revision > before) pauseMs = 100;
      await delay(pauseMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    }
    if (this.#follow.state === 'following') this.#follow = { state: 'idle', reason: '' };
  }

  async #followOnce(log: BeaconLog, signal: AbortSignal): Promise<void> {
    if (this.#follow.state !== 'diverged') this.#follow = { state: 'connecting', reason: '' };
    const head = await log.head();
    this.#logRevision = head.revision;
    const { revision } = this.#held.position;
    if (head.revision < revision) {
      throw diverged(`the log ends at revision ${head.revision}; it had acknowledged ${revision}`);
    }
    if (this.#wantsSnapshot(head)) {
      this.#askedForSnapshot = true;
      await this.#fold.takeSnapshot(log, signal);
      return; // and begin again from where that ends
    }
    // Two empty histories agree; there is no entry to prove it by.
    if (head.revision === 0) this.#follow = { state: 'following', reason: '' };
    // From the entry that the view holds last: seeing it again proves that both tell the same history.
    const failed = new AbortController();
    const entries = log.watch(Math.max(1, revision), { signal: AbortSignal.any([signal, failed.signal]) });
    const goal = revision < head.revision ? head.revision : 0;
    let before: Promise<void> = Promise.resolve();
    try {
      for await (const group of grouped(entries, goal)) {
        await before;
        if (this.#held.late.problem !== '') throw falseRecord(this.#held.late.problem);
        const isBehind = (group.at(-1)?.revision ?? 0) <= goal;
        before = this.#applyFollowed(group, isBehind ? this.#options.signatures : 'before');
        // The next group is read while this one is written. A failure ends the watch, which may have nothing more to
        // say, and is thrown above or below.
        if (isBehind) before.catch(() => failed.abort(servedItsPurpose));
        else await before;
      }
      await before;
    } finally {
      failed.abort(servedItsPurpose);
    }
    if (!signal.aborted) throw new HoldfastError('PEER_UNREACHABLE', 'the log ended its watch');
  }

  /** Once in the life of a process, and not where entries are opened before they are folded in. */
  #wantsSnapshot({ revision }: LogPosition): boolean {
    const { signatures, snapshotFrom } = this.#options;
    const isFirst = this.#held.position.revision === 0 && !this.#askedForSnapshot;
    return (
      isFirst && signatures === 'after' && revision >= snapshotFrom && this.#held.kv.copyable !== undefined
    );
  }

  /**
   * Opens properly what was folded in on trust, whenever there is something: while the view catches up with a small
   * share of the time, and otherwise with half of it, whether the log goes on, stands still or is gone.
   */
  async #verifyLate(signal: AbortSignal): Promise<void> {
    const pauseFactor = (): number => (this.#isCatchingUp() ? catchUpPauseFactor : 1);
    while (!signal.aborted && this.#held.late.problem === '') {
      const changed = this.#held.bell.next();
      const { next } = this.#held.late;
      try {
        if (next === undefined) await eventOrAbort(changed, signal);
        else if (next > this.#held.position.revision) await this.#fold.alone(() => this.#finishLate());
        else await this.#held.late.verify(this.#queries.entriesSince(next, { signal }), pauseFactor, signal);
        this.#lateTrouble = undefined;
      } catch (error) {
        if (signal.aborted || this.#held.late.problem !== '') break;
        this.#lateTrouble = followState(error);
        await delay(this.#options.retryMsMax, undefined, { signal }).catch(() => undefined);
      }
    }
    if (this.#held.late.problem !== '') this.#held.condemn();
  }

  async #finishLate(): Promise<void> {
    if ((this.#held.late.next ?? 0) > this.#held.position.revision) await this.#held.late.finish();
  }

  #isCatchingUp(): boolean {
    const isMoving = performance.now() - this.#fold.appliedAtMs < second;
    return isMoving && this.#held.position.revision < (this.#logRevision ?? 0);
  }

  async #applyFollowed(group: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    const { revision, chain } = this.#held.position;
    const known = group.find((entry) => entry.revision === revision);
    if (known !== undefined && !sameBytes(known.chain, chain)) {
      throw diverged(`the log tells another history up to revision ${revision}`);
    }
    const fresh = group.filter((entry) => entry.revision > revision);
    try {
      if (fresh.length > 0) await this.#applyOnTrust(fresh, signatures);
    } catch (error) {
      if (isBrokenChain(error)) throw diverged(describeError(error));
      throw error;
    }
    this.#logRevision = Math.max(this.#logRevision ?? 0, this.#held.position.revision);
    this.#follow = { state: 'following', reason: '' };
  }

  /** What cannot even be folded without a check is checked: then the fold says what is wrong with it. */
  async #applyOnTrust(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    try {
      await this.#fold.apply(entries, signatures);
    } catch (error) {
      if (signatures === 'before' || isHoldfastError(error)) throw error;
      await this.#fold.apply(entries, 'before');
    }
  }
}

/** Entries folded in one batch while catching up. */
const groupEntriesMax = 512;
const groupBytesMax = 4 * 1024 * 1024;

interface FollowState {
  readonly state: ViewHealth['state'];
  readonly reason: string;
}

function followState(error: unknown): FollowState {
  const reason = describeError(error);
  if (error instanceof HoldfastError && error.details['readOnly'] === true)
    return { state: 'read-only', reason };
  if (isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true) {
    return { state: 'diverged', reason };
  }
  return { state: isHoldfastError(error, 'RECORD_CORRUPT') ? 'damaged' : 'connecting', reason };
}

/** The state in which a view does not follow its log, because that has lost or changed what was acknowledged. */
export function diverged(problem: string): HoldfastError {
  return new HoldfastError('BEACON_UNAVAILABLE', problem, { details: { diverged: true } });
}

/** While a view catches up, opening records afterwards takes one part in so many and one of the time. */
const catchUpPauseFactor = 9;

/** Entries in full groups while far from `goal`; from there on, when somebody waits for them, those that are there. */
async function* grouped(entries: AsyncIterable<LogEntry>, goal: number): AsyncGenerator<LogEntry[]> {
  let sizeBytes = 0;
  const mayGrow = ({ revision, payload }: LogEntry, count: number): boolean | 'if-ready' => {
    sizeBytes = count === 1 ? payload.length : sizeBytes + payload.length;
    if (count >= groupEntriesMax || sizeBytes >= groupBytesMax) return false;
    return revision < goal || 'if-ready';
  };
  yield* groupsOf(entries, mayGrow);
}
