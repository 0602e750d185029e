// The registry as one process sees it: a fold of the log over a Kv, with every index in the same batch.
//
// What it is made of: the rows as they are now and who may be told of them (view-rows.ts), how they change (view-fold.ts),
// the log that is followed (view-follower.ts), and what can be asked (view-queries.ts). It keeps its own copy of the
// entries, from which the log can be made anew (transfer.ts).

import { HoldfastError } from '../core/errors.ts';
import type { Folded } from './fold.ts';
import type { Kv, KvRow } from './kv.ts';
import { eventOrAbort } from './bell.ts';
import { LateSignatures } from './late.ts';
import type { Append, BeaconLog, LogEntry, LogPosition } from './log.ts';
import type { BeaconQueries, RegistryCounts, ViewHealth } from './queries.ts';
import { ViewFold } from './view-fold.ts';
import { type FollowOptions, ViewFollower } from './view-follower.ts';
import { ViewQueries } from './view-queries.ts';
import { storedState, ViewRows } from './view-rows.ts';
import { verifyTail } from './view-tail.ts';

export interface ViewOptions extends FollowOptions {
  /** Bytes of current versions kept decoded in memory. Default 16 MiB; 0 keeps none. */
  readonly cacheBytes?: number;
}

export class BeaconView extends ViewQueries implements BeaconQueries, AsyncDisposable {
  readonly #fold: ViewFold;
  readonly #follower: ViewFollower;

  private constructor(held: ViewRows, options: FollowOptions) {
    super(held);
    this.#fold = new ViewFold(held);
    this.#follower = new ViewFollower(held, this.#fold, this, options);
  }

  /** Opens the view in `kv`, which it owns from now on. Verifies its newest entries. Throws RECORD_CORRUPT. */
  static async open(
    kv: Kv,
    { cacheBytes = 16 * 1024 * 1024, ...options }: ViewOptions = {},
  ): Promise<BeaconView> {
    try {
      const state = await storedState(kv);
      await verifyTail(kv, state.position);
      return new BeaconView(new ViewRows(kv, state, await LateSignatures.open(kv), cacheBytes), options);
    } catch (error) {
      await kv[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Resolves once a false record was found among those folded in on trust: from then on nothing is answered. */
  get condemned(): Promise<void> {
    return this.held.condemned;
  }

  position(): LogPosition {
    return this.held.position;
  }

  counts(): RegistryCounts {
    return this.held.state.counts;
  }

  health(): ViewHealth {
    return this.#follower.health();
  }

  /**
   * Folds entries in, all in one durable batch, or in two where somebody waits for the rows in between (`rowsAt`). They
   * must follow each other and the view.
   * Throws RECORD_CORRUPT when they do not continue the chain: nothing is changed then.
   */
  async apply(entries: readonly LogEntry[]): Promise<void> {
    await this.#fold.apply(entries, 'before');
  }

  /**
   * Follows `log` until `signal` aborts: catches up, then applies entries as they come. Whatever goes wrong is
   * shown by `health` and tried again; nothing is thrown but what is our own mistake.
   */
  async follow(log: BeaconLog, signal: AbortSignal): Promise<void> {
    await this.#follower.follow(log, signal);
  }

  async waitFor(revision: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const changed = this.held.bell.next();
      this.held.late.check();
      if (this.held.position.revision >= revision) return;
      await eventOrAbort(changed, signal);
    }
  }

  /** All rows in key order, as they are: what `beacon verify` compares. */
  rows(): AsyncIterable<KvRow> {
    return this.#fold.rows();
  }

  /**
   * The rows of the moment in which exactly `revision` entries are folded in, once it has come; undefined when it is
   * past. Whoever takes them reads them to the end, or returns.
   */
  async rowsAt(revision: number, signal: AbortSignal): Promise<AsyncIterable<KvRow> | undefined> {
    return this.#fold.rowsAt(revision, signal);
  }

  /** All rows of one moment in pages, for a newcomer (snapshot.ts). Throws NOT_FOUND where rows are not stored. */
  snapshot(): AsyncIterable<Uint8Array> {
    const { copyable } = this.held.kv;
    this.held.late.check();
    if (copyable === undefined || this.held.late.next !== undefined || this.isCopied)
      throw new HoldfastError('NOT_FOUND', 'this view has no rows to give away that it has proven itself');
    return copyable.pages();
  }

  /** True while its rows are those of another view, and nobody has folded all their entries to compare (copied.ts). */
  get isCopied(): boolean {
    return this.held.late.isCopied;
  }

  /** Says how the comparison ended: with `problem` empty the rows are this view's own, else it is condemned. */
  async settleProof(problem: string): Promise<void> {
    await this.held.late.settleProof(problem);
    if (problem !== '') this.held.condemn();
  }

  /** Runs `work` while nothing is folded in. */
  standingStill<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#fold.alone(work);
  }

  /** What folding `append` right now would do. For `checkAppend`. */
  async tryFold(append: Append): Promise<Folded> {
    return this.#fold.tryFold(append);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fold.settled();
    await this.held.kv[Symbol.asyncDispose]();
  }
}
