// Do the views of a cluster say the same? Each tells the stewards the root of its rows (rows-root.ts) at a revision that
// they name; a steward compares, and has those that differ fold their log again.
//
//   beacon.copy.root   {revision} → {root, kinds}, once the view stands at it. NOT_FOUND when it is past it, or does not
//                      come there in time
//   beacon.copy.prove  {} → {}: fold the log again and compare, in the background
//
// Rows change while they are read, so the revision is one that all views have yet to come to, or, in a log that stands
// still, the one where they all are.

import { setTimeout as delay } from 'node:timers/promises';
import { judgeViews, parseRoot, rootOf, type RowsRoot, type ViewRoot } from '../beacon/rows-root.ts';
import type { BeaconView } from '../beacon/view.ts';
import {
  done,
  due,
  type Job,
  type JobFacts,
  type JobNow,
  moveClock,
  startBeatClock,
} from '../backbeat/job-schedule.ts';
import type { Tempo } from '../backbeat/tempo.ts';
import { type Clock, day, minute, second } from '../core/clock.ts';
import { unlessAborted } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient, RpcServer } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import type { ViewsReport } from '../steward/status.ts';

/** Somebody whose view is compared. */
export interface ViewPeer {
  readonly name: string;
  readonly peer: PeerName;
}

export interface ComparerPorts {
  readonly rpc: RpcClient;
  /** This member, which answers for itself by `own`. */
  readonly name: string;
  readonly own: ViewRoots;
  /** The other stewards and the doors. */
  readonly others: () => readonly ViewPeer[];
  readonly clock: Clock;
  /** The log is watched for so long to see how fast it grows, ms. Default 2 s. */
  readonly paceMs?: number;
}

const methods = { root: 'beacon.copy.root', prove: 'beacon.copy.prove' } as const;
/** A view may take so long to come to the revision. */
const comeMs = 20 * second;
/** Reading all rows takes one part in ten of a processor, and at most so long. */
const readMs = 60 * minute;
const pauseFactor = 9;
/** In a log that begins or ceases to grow, the first revision that is named may be missed. */
const attemptsMax = 5;
/** Between them where another steward is reading a view. */
const busyMs = minute;
const orderMs = 5 * second;
const compareJob: Job = { name: 'compare-views', every: { bars: 30 }, floorMs: day };
/** While views differ or are empty, or comparing fails. */
const againJob: Job = { name: 'compare-views', every: { bars: 1 }, floorMs: 10 * minute };

/** The roots of one view, one at a time. */
export class ViewRoots {
  readonly #view: BeaconView;
  readonly #prove: () => void;
  readonly #stop: AbortSignal;
  #reading: { readonly revision: number; readonly root: Promise<RowsRoot> } | undefined;

  /** `prove` folds the log of the view again in the background, and condemns the view where it differs. */
  constructor(view: BeaconView, prove: () => void, stop: AbortSignal) {
    this.#view = view;
    this.#prove = prove;
    this.#stop = stop;
  }

  get revision(): number {
    return this.#view.position().revision;
  }

  /** Answers those for whom `mayAsk` holds. */
  serve(server: RpcServer, mayAsk: (peer: PeerName) => boolean): void {
    const check = (peer: PeerName): void => {
      if (!mayAsk(peer)) throw new HoldfastError('FORBIDDEN', `comparing views is not for ${peer}`);
    };
    server.handle(methods.root, async ({ head }, { peer }) => {
      check(peer);
      const revision = fieldOf(head, 'revision');
      if (typeof revision !== 'number' || !Number.isSafeInteger(revision) || revision < 0)
        throw new HoldfastError('ARGUMENT_INVALID', 'revision must be a number');
      const { root, kinds } = await this.at(revision);
      return { head: { root, kinds } };
    });
    server.handle(methods.prove, async (_, { peer }) => {
      check(peer);
      this.prove();
      return { head: {} };
    });
  }

  prove(): void {
    this.#prove();
  }

  /**
   * Reads the rows anew, unless somebody else has them read at the same revision just now. Throws NOT_FOUND when the view
   * is past `revision` or does not come there in time, RATE_LIMITED while it is read at another.
   */
  async at(revision: number): Promise<RowsRoot> {
    if (this.#reading?.revision === revision) return this.#reading.root;
    if (this.#reading !== undefined)
      throw new HoldfastError('RATE_LIMITED', 'the view is being read at another revision');
    const root = this.#read(revision);
    this.#reading = { revision, root };
    try {
      return await root;
    } finally {
      this.#reading = undefined;
    }
  }

  async #read(revision: number): Promise<RowsRoot> {
    const rows = await this.#rowsAt(revision);
    if (rows === undefined) throw this.#notThere(revision);
    return rootOf(rows, pauseFactor, this.#stop);
  }

  async #rowsAt(revision: number): ReturnType<BeaconView['rowsAt']> {
    const coming = AbortSignal.timeout(comeMs);
    try {
      return await this.#view.rowsAt(revision, AbortSignal.any([this.#stop, coming]));
    } catch (error) {
      if (coming.aborted) throw this.#notThere(revision);
      throw error;
    }
  }

  #notThere(revision: number): HoldfastError {
    return new HoldfastError('NOT_FOUND', `the view stands at revision ${this.revision}, not at ${revision}`);
  }
}

/** Compares now and then, from the first bar on. */
export class ViewComparer implements AsyncDisposable {
  readonly #ports: ComparerPorts;
  readonly #stop = new AbortController();
  #report: ViewsReport | undefined;
  #facts: JobFacts = { isRunning: false, doneAt: undefined, doneBeats: 0, doneBars: 0 };
  /** The last comparison came to its end and found no difference in what there was. */
  #isSettled = false;
  #work: Promise<void> = Promise.resolve();
  #unsubscribe: () => void = () => undefined;

  constructor(ports: ComparerPorts) {
    this.#ports = ports;
  }

  /** Compares with the bars, and at least once in a day. */
  static start(ports: ComparerPorts, tempo: Tempo): ViewComparer {
    const comparer = new ViewComparer(ports);
    comparer.#keepTime(tempo);
    return comparer;
  }

  /** What was found last; undefined before the first time. */
  report(): ViewsReport | undefined {
    return this.#report;
  }

  /** Never throws: what keeps it from comparing stands in the report. */
  async compare(): Promise<void> {
    const { revision, roots } = await this.#roots();
    if (this.#stop.signal.aborted) return;
    this.#report = { revision, at: this.#ports.clock.now(), ...judgeViews(roots) };
    if (this.#report.differing.length === 0) return;
    console.error(
      `views differ at revision ${this.#report.revision}: ${JSON.stringify(this.#report.differing)}`,
    );
    await this.#haveProven();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe();
    this.#stop.abort();
    await this.#work;
  }

  #keepTime(tempo: Tempo): void {
    const { clock } = this.#ports;
    let beats = startBeatClock(clock.monotonic());
    this.#unsubscribe = tempo.onBeat((beat) => {
      beats = moveClock(beats, beat, clock.monotonic());
      const now = { beats: beats.beats, bars: beats.bars, at: clock.now() };
      const job = this.#isSettled ? compareJob : againJob;
      // Not at the very start: views are catching up.
      if (beats.bars > 0 && due(job, this.#facts, now) !== undefined) this.#work = this.#runDue(now);
    });
  }

  async #runDue(now: JobNow): Promise<void> {
    this.#facts = { ...this.#facts, isRunning: true };
    this.#isSettled = false;
    try {
      await this.compare();
      // That empty views are alike says nothing for a day.
      this.#isSettled = this.#report?.differing.length === 0 && this.#report.revision > 0;
    } catch (error) {
      if (!this.#stop.signal.aborted) console.error('the views could not be compared:', error);
    }
    this.#facts = done(this.#facts, now);
  }

  /** Of one revision, which is named anew while somebody misses it or is being read by another steward. */
  async #roots(): Promise<{ readonly revision: number; readonly roots: readonly Answer[] }> {
    for (let attempt = 1; ; attempt++) {
      const revision = await this.#revisionToCome();
      const roots = await this.#rootsAt(revision);
      const isBusy = roots.some(({ failure }) => failure === 'RATE_LIMITED');
      const isMissed = isBusy || roots.some(({ failure }) => failure === 'NOT_FOUND');
      if (!isMissed || attempt >= attemptsMax) return { revision, roots };
      if (isBusy) await delay(busyMs, undefined, { signal: this.#stop.signal });
    }
  }

  /** Where the log will be in a moment; where it stands, when it stands still. */
  async #revisionToCome(): Promise<number> {
    const { own, paceMs = 2 * second } = this.#ports;
    const before = own.revision;
    await delay(paceMs, undefined, { signal: this.#stop.signal });
    const grown = own.revision - before;
    return before + 2 * grown;
  }

  async #rootsAt(revision: number): Promise<Answer[]> {
    const { own, name, rpc, others } = this.#ports;
    const ask = async ({ peer }: ViewPeer): Promise<RowsRoot> => {
      const options = { signal: this.#stop.signal, timeoutMs: comeMs + readMs };
      const { head } = await rpc.call(peer, methods.root, { head: { revision } }, options);
      return parseRoot(head);
    };
    return Promise.all([
      outcome(name, unlessAborted(own.at(revision), this.#stop.signal)),
      ...others().map((other) => outcome(other.name, ask(other))),
    ]);
  }

  /** Who is right no root can say, so each of them finds out by itself. */
  async #haveProven(): Promise<void> {
    const { own, rpc, others } = this.#ports;
    const options = { signal: this.#stop.signal, timeoutMs: orderMs };
    const orders = others().map(({ peer }) => rpc.call(peer, methods.prove, { head: {} }, options));
    own.prove();
    for (const order of await Promise.allSettled(orders))
      if (order.status === 'rejected')
        console.error('a view could not be told:', describeError(order.reason));
  }
}

/** `failure`: the code of what kept a view from answering. */
type Answer = ViewRoot & { readonly failure: string };

async function outcome(name: string, asked: Promise<RowsRoot>): Promise<Answer> {
  try {
    return { name, root: await asked, reason: '', failure: '' };
  } catch (error) {
    const failure = error instanceof HoldfastError ? error.code : 'unknown';
    return { name, root: undefined, reason: describeError(error), failure };
  }
}
