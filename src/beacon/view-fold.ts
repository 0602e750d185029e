// How a view changes: entries are folded in, one batch after the other, or the rows of another view taken as they are.
//
// The entries must continue the chain that the view holds. What a failed write has left is found out before the next one.

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { foldEntry, type Folded, type PreparedEntry, prepareEntry, stateRow } from './fold.ts';
import { type KeyRange, type KvRow, startedRows } from './kv.ts';
import { isOwnRow } from './late.ts';
import { type Append, type BeaconLog, encodeAppend, type LogEntry, nextEntry } from './log.ts';
import { readRegistryRecord } from './records.ts';
import { headAddress, type ViewState } from './rows.ts';
import { corrupt } from './seal.ts';
import { storedState, type ViewRows } from './view-rows.ts';
import { checkContinues, verifyTail } from './view-tail.ts';

/** Somebody waits for the rows as they are with exactly so many entries. */
interface Moment {
  readonly revision: number;
  readonly found: PromiseWithResolvers<AsyncIterable<KvRow> | undefined>;
}

export class ViewFold {
  readonly #held: ViewRows;
  readonly #moments = new Set<Moment>();
  #applying: Promise<unknown> = Promise.resolve();
  /** A write failed: it is unknown whether its rows were kept. */
  #isUncertain = false;
  #appliedAtMs = -Infinity;

  constructor(held: ViewRows) {
    this.#held = held;
  }

  /** When entries were folded in last, monotonic ms. */
  get appliedAtMs(): number {
    return this.#appliedAtMs;
  }

  /**
   * Folds entries in, all in one durable batch, or in two where somebody waits for the rows in between (`rowsAt`). They
   * must follow each other and the view. Their records are opened before, or, as `signatures` says, after (late.ts).
   * Throws RECORD_CORRUPT when they do not continue the chain: nothing is changed then.
   */
  async apply(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    await this.alone(async () => {
      for (const part of splitBehind(entries, this.#moments)) {
        await this.#applyNow(part, signatures);
        await this.#meetMoments();
      }
    });
  }

  /** Runs `work` while nothing else changes the rows; its failure is the caller's. */
  async alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const run = this.#applying.then(work);
    this.#applying = run.catch(() => undefined);
    return run;
  }

  /** All rows in key order, as they are, without those that say something of this view only. */
  async *rows(): AsyncGenerator<KvRow> {
    for await (const row of this.#held.kv.range(everything)) if (!isOwnRow(row[0])) yield row;
  }

  /**
   * The rows of the moment in which exactly `revision` entries are folded in, once it has come; undefined when it is
   * past. Whoever takes them reads them to the end, or returns.
   */
  async rowsAt(revision: number, signal: AbortSignal): Promise<AsyncIterable<KvRow> | undefined> {
    signal.throwIfAborted();
    const moment: Moment = { revision, found: Promise.withResolvers() };
    const onAbort = (): void => moment.found.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await this.alone(async () => {
        this.#moments.add(moment);
        await this.#meetMoments();
      });
      return await moment.found.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#moments.delete(moment);
    }
  }

  /** What folding `append` right now would do. For `checkAppend`. */
  async tryFold(append: Append): Promise<Folded> {
    const prepared = prepareEntry(nextEntry(this.#held.position, append, encodeAppend(append)));
    const read = await this.#reader([prepared]);
    return foldEntry(prepared, this.#held.state, read);
  }

  /** Resolves when what changes the rows now has ended. */
  async settled(): Promise<void> {
    await this.#applying;
  }

  /** Takes the rows of another view as its own, to be proven. Where that fails, for whatever reason, there are none. */
  async takeSnapshot(log: BeaconLog, signal: AbortSignal): Promise<void> {
    await this.alone(() => this.#takeRows(log, signal));
  }

  async #takeRows(log: BeaconLog, signal: AbortSignal): Promise<void> {
    const { copyable } = this.#held.kv;
    if (log.snapshot === undefined || copyable === undefined) return;
    try {
      const unfinished = await this.#held.late.beginCopy();
      await copyable.replaceAll(log.snapshot({ signal }), unfinished);
      const state = await this.#copiedState(log, signal);
      await this.#held.late.endCopy();
      this.#held.movedTo(state);
    } catch (error) {
      await copyable.clear();
      await this.#held.late.reload();
      // What others do not have, or give wrongly, is folded from the log. Own trouble is for `follow` to tell.
      if (signal.aborted || (error instanceof HoldfastError && error.details['readOnly'] === true))
        throw error;
    }
    this.#held.bell.ring();
  }

  /** Where the copied rows end: at an entry that the log has too. Throws RECORD_CORRUPT. */
  async #copiedState(log: BeaconLog, signal: AbortSignal): Promise<ViewState> {
    const state = await storedState(this.#held.kv);
    if (state.position.revision === 0) throw corrupt('a snapshot', 'does not say where it ends');
    const { revision, chain } = state.position;
    await verifyTail(this.#held.kv, state.position);
    for await (const entry of log.read(revision, { signal })) {
      if (entry.revision === revision && sameBytes(entry.chain, chain)) return state;
      break;
    }
    throw corrupt(`a snapshot up to revision ${revision}`, 'tells another history than the log');
  }

  async #applyNow(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    this.#held.late.check();
    const fresh = this.#isUncertain ? await this.#takeUp(entries) : entries;
    const [first] = fresh;
    if (first === undefined) return;
    checkContinues(this.#held.position, fresh);
    const isLate = signatures === 'after';
    const prepared = fresh.map((entry) => (isLate ? prepareOnTrust(entry) : prepareEntry(entry)));
    const { staged, state } = foldAll(prepared, this.#held.state, await this.#reader(prepared));
    const late = isLate ? this.#held.late.rowFor(first.revision) : undefined;
    if (late !== undefined) staged.set(...late);
    try {
      await this.#held.kv.write(staged);
    } catch (error) {
      this.#isUncertain = true;
      throw error;
    }
    if (isLate) this.#held.late.folded(first.revision);
    this.#held.movedTo(state);
    this.#appliedAtMs = performance.now();
    for (const key of staged.keys())
      if (key.startsWith(headAddress)) this.#held.heads.delete(key.slice(headAddress.length));
    this.#held.bell.ring();
  }

  /** Begins to read the rows for those who wait for just this many entries. */
  async #meetMoments(): Promise<void> {
    const { revision } = this.#held.position;
    for (const moment of this.#moments) {
      if (moment.revision > revision) continue;
      this.#moments.delete(moment);
      const started = moment.revision === revision ? startedRows(this.rows()) : undefined;
      await started?.first.catch(() => undefined); // whoever reads on meets it
      moment.found.resolve(started?.rows);
    }
  }

  /** Goes on from what the rows on the disk say. Returns which of `entries` they do not hold. */
  async #takeUp(entries: readonly LogEntry[]): Promise<readonly LogEntry[]> {
    await this.#held.kv.reopen?.();
    this.#held.movedTo(await storedState(this.#held.reader));
    await this.#held.late.reload();
    this.#held.late.check();
    this.#held.heads.clear();
    this.#isUncertain = false;
    return entries.filter(({ revision }) => revision > this.#held.position.revision);
  }

  async #reader(prepared: readonly PreparedEntry[]): Promise<(key: string) => Uint8Array | undefined> {
    const keys = [...new Set(prepared.flatMap(({ reads }) => reads))];
    const values = await this.#held.reader.getMany(keys);
    const rows = new Map(keys.map((key, index) => [key, values[index]]));
    return (key) => rows.get(key);
  }
}

/** Rows that change when `entries` are folded in one after the other, on what `fetched` says of the rows before. */
function foldAll(
  entries: readonly PreparedEntry[],
  before: ViewState,
  fetched: (key: string) => Uint8Array | undefined,
): { readonly staged: Map<string, Uint8Array | null>; readonly state: ViewState } {
  const staged = new Map<string, Uint8Array | null>();
  const read = (key: string): Uint8Array | undefined => {
    const own = staged.get(key);
    return own === undefined ? fetched(key) : (own ?? undefined);
  };
  let state = before;
  for (const entry of entries) {
    const folded = foldEntry(entry, state, read);
    for (const [key, value] of folded.rows) staged.set(key, value);
    state = folded.state;
  }
  staged.set(...stateRow(state));
  return { staged, state };
}

/** Every key: all are ASCII-led text. */
const everything: KeyRange = { from: '', to: '\u{10ffff}' };

/** `entries` in parts that end where a moment is; one part where there are none. */
function splitBehind(entries: readonly LogEntry[], moments: ReadonlySet<Moment>): (readonly LogEntry[])[] {
  const ends = [...moments].map(
    ({ revision }) => entries.findIndex((entry) => entry.revision === revision) + 1,
  );
  const cuts = [...new Set([0, ...ends, entries.length])].toSorted((a, b) => a - b);
  if (cuts.length <= 2) return [entries];
  return cuts.slice(1).map((end, index) => entries.slice(cuts[index], end));
}

/** What cannot be read without a check is checked, so that the fold says of it what it says everywhere. */
function prepareOnTrust(entry: LogEntry): PreparedEntry {
  const prepared = prepareEntry(entry, readRegistryRecord);
  return typeof prepared.records === 'string' ? prepareEntry(entry) : prepared;
}
