// Signatures verified after the fold.
//
// A blank view that catches up with a log folds what the log's own process opened before it took the append. To
// verify two signatures per entry again takes three times as long as all the rest, and whoever opens an object
// verifies its records anyway (flows/get.ts). So such entries are folded at once, and their records are opened
// properly afterwards, a few at a time, from the view's own copy of the log, whatever the log does meanwhile. A row
// remembers how far that has come. Who asks before that for what such an entry brought has it opened first.
// A record that turns out to be false condemns the view: nothing is answered any more, the row says so, and the next
// open throws.

import { setTimeout as delay } from 'node:timers/promises';
import { type CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { type HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Kv, KvChanges, KvRow } from './kv.ts';
import type { LogEntry } from './log.ts';
import { Lru } from './lru.ts';
import { openRecords, registryRecordOrUndefined } from './records.ts';
import { type Head, rowKey } from './rows.ts';
import { corrupt } from './seal.ts';

/** The row is there only while entries are unverified. */
const lateKey = 'sig';
/** The row is there only while the rows are those of another view, and unproven. */
const copiedKey = 'cop';
/** What is said to be false while the rows of another view are on their way. */
const unfinishedCopy = 'the copy of another view, which was not finished,';

/** True for rows that belong to one view and not to the history it holds. */
export function isOwnRow(key: string): boolean {
  return key === lateKey || key === copiedKey;
}

export class LateSignatures {
  readonly #kv: Kv;
  #next: number | undefined;
  #problem = '';
  #isCopied = false;
  /** Entries behind `next` that a read had opened. */
  readonly #openedAhead = new Lru<true>(openedAheadMax);

  private constructor(kv: Kv, next: number | undefined) {
    this.#kv = kv;
    this.#next = next;
  }

  /** Throws RECORD_CORRUPT when a false record was found before. */
  static async open(kv: Kv): Promise<LateSignatures> {
    const late = new LateSignatures(kv, undefined);
    await late.reload();
    late.check();
    return late;
  }

  /** Goes by the row again, after a write of which nobody knows whether it was kept. What was found stays found. */
  async reload(): Promise<void> {
    const row = await this.#kv.get(lateKey);
    const { next, problem } = row === undefined ? { next: undefined, problem: '' } : readRow(row);
    this.#next = next;
    this.#isCopied = (await this.#kv.get(copiedKey)) !== undefined;
    if (this.#problem === '') this.#problem = problem;
  }

  /** First revision whose records nobody has opened properly; undefined when there is none. */
  get next(): number | undefined {
    return this.#next;
  }

  /** What was found to be false; empty while nothing was. */
  get problem(): string {
    return this.#problem;
  }

  /** Throws RECORD_CORRUPT once a false record was found: what follows from it may be anywhere in the rows. */
  check(): void {
    if (this.#problem !== '') throw falseRecord(this.#problem);
  }

  /** True while the rows are those of another view. */
  get isCopied(): boolean {
    return this.#isCopied;
  }

  /**
   * Rows of another view follow, and the returned changes over them. As long as they hold, whoever opens this view finds it
   * false. What the other one says of its own proofs gets no further than that: `endCopy` writes over it.
   */
  async beginCopy(): Promise<KvChanges> {
    const unfinished = new Map([[lateKey, encodeRow(1, unfinishedCopy)]]);
    await this.#kv.write(unfinished);
    this.#next = 1;
    this.#isCopied = true; // whoever asks meanwhile is told of nothing that is not proven
    return unfinished;
  }

  /** They are complete: all their entries are to be opened, and the rows to be proven. */
  async endCopy(): Promise<void> {
    const none = new Uint8Array();
    await this.#kv.write(
      new Map([
        [lateKey, encodeRow(1, '')],
        [copiedKey, none],
      ]),
    );
  }

  /** The rows were compared with a fold of their own log; `problem`: where they differ, or empty. */
  async settleProof(problem: string): Promise<void> {
    if (problem === '') await this.#kv.write(new Map([[copiedKey, null]]));
    else await this.#condemn(`${this.#isCopied ? 'the copy of another view' : 'the view'} (${problem})`);
    this.#isCopied = false;
  }

  /** The row to write in the batch that folds in `revision` unverified; undefined when it is there already. */
  rowFor(revision: number): KvRow | undefined {
    return this.#next === undefined ? [lateKey, encodeRow(revision, '')] : undefined;
  }

  /** That batch is written. */
  folded(revision: number): void {
    this.#next ??= revision;
  }

  /** True when nobody has opened the records of that entry properly. */
  isUnopened(revision: number): boolean {
    return this.#next !== undefined && revision >= this.#next && !this.#openedAhead.has(String(revision));
  }

  /**
   * Opens the records of one entry ahead of its turn, because somebody is about to be told of them.
   * Throws RECORD_CORRUPT when one is false: that condemns the view.
   */
  async openAhead(entry: LogEntry, isNamed: boolean): Promise<void> {
    await this.#verifyOne(entry, isNamed);
    this.check();
    // Of one that is in the registry, both questions have the same answer.
    if (isNamed) this.#openedAhead.set(String(entry.revision), true);
  }

  /** True while nobody has looked whether a copied row is one that the log gives. */
  isUnproven(chainId: string, { version, cid }: Head): boolean {
    return this.#isCopied && cid !== null && !this.#openedAhead.has(rowName(chainId, version, cid));
  }

  /**
   * Whether a copied row says what the entry that it names brought. Throws RECORD_CORRUPT when it does not: that
   * condemns the view.
   */
  async proveRow(chainId: string, row: Head, entry: LogEntry): Promise<void> {
    const { version, cid, bytes } = row;
    if (cid === null) return; // a gap of a rebuild: there is no record to compare with
    const record = entry.records[row.index];
    const claimed = record === undefined ? undefined : registryRecordOrUndefined(record.bytes);
    const isTrue =
      record !== undefined &&
      claimed?.chainId === chainId &&
      claimed.version === version &&
      claimed.cid.equals(cid) &&
      (bytes.length === 0 || sameBytes(bytes, record.bytes));
    if (!isTrue) await this.#condemn(`the row about version ${version} of ${chainId}`);
    this.check();
    this.#openedAhead.set(rowName(chainId, version, cid), true);
  }

  /**
   * Opens the records of `entries`, which begin at `next`, in slices with a pause of `pauseFactor()` times what each
   * took, so that others get their turn. Stops at the first false one.
   */
  async verify(
    entries: AsyncIterable<LogEntry>,
    pauseFactor: () => number,
    signal: AbortSignal,
  ): Promise<void> {
    let sliceBegan = performance.now();
    let saved = this.#next ?? 0;
    for await (const entry of entries) {
      if (this.isUnopened(entry.revision)) await this.#verifyOne(entry, false);
      if (this.#problem !== '') return;
      this.#next = entry.revision + 1;
      const tookMs = performance.now() - sliceBegan;
      if (tookMs < sliceMs) continue;
      if (this.#next - saved >= savedEvery) {
        await this.#save();
        saved = this.#next;
      }
      await delay(tookMs * pauseFactor(), undefined, { signal });
      sliceBegan = performance.now();
    }
  }

  /** Everything folded in was verified: the row goes. Not while entries are being folded in. */
  async finish(): Promise<void> {
    await this.#kv.write(new Map([[lateKey, null]]));
    this.#next = undefined;
    this.#openedAhead.clear();
  }

  /** An entry that was skipped may hold anything; one that rows name was not skipped, whatever copied rows say. */
  async #verifyOne(entry: LogEntry, isNamed: boolean): Promise<void> {
    const records = openRecords(entry);
    if (typeof records !== 'string') return;
    if (!isNamed && (await this.#kv.get(rowKey('rejt', entry.revision))) !== undefined) return;
    await this.#condemn(`log entry ${entry.revision} (${records})`);
  }

  async #condemn(problem: string): Promise<void> {
    this.#problem = problem;
    await this.#kv.write(new Map([[lateKey, encodeRow(this.#next ?? 1, problem)]]));
  }

  async #save(): Promise<void> {
    if (this.#next !== undefined)
      await this.#kv.write(new Map([[lateKey, encodeRow(this.#next, this.#problem)]]));
  }
}

function rowName(chainId: string, version: number, cid: CID): string {
  return `${chainId} ${version} ${cid.toString()}`;
}

/** Short enough that a request behind it does not notice. */
const sliceMs = 4;
/** Entries that reads opened before their turn, remembered so that asking twice costs nothing. About 100 B each. */
const openedAheadMax = 16_384;
/** After a crash at most so many entries are verified twice. */
const savedEvery = 4096;

function encodeRow(next: number, problem: string): Uint8Array {
  return encodeCbor({ next, problem });
}

function readRow(bytes: Uint8Array): { readonly next: number; readonly problem: string } {
  const row = decodeCbor(bytes, 'the row of late signatures');
  if (typeof row === 'object' && row !== null && 'next' in row && 'problem' in row) {
    const { next, problem } = row;
    if (typeof next === 'number' && typeof problem === 'string') return { next, problem };
  }
  throw corrupt('the row of late signatures', 'has another form');
}

/** True for what says that a view is a copy which broke off: nothing was found to be false. */
export function isUnfinishedCopy(error: unknown): boolean {
  return isHoldfastError(error, 'RECORD_CORRUPT') && error.details['what'] === unfinishedCopy;
}

/** The state in which a view with a false record is. */
export function falseRecord(problem: string): HoldfastError {
  return corrupt(problem, 'was folded in and is false: the view must be folded again');
}
