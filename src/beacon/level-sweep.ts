// All runs of a store that another machine made, met together in key order.
//
// LevelDB looks for a key from the newest run to the oldest and stops where it finds one; who lists rows takes the one with
// the highest sequence number. Whoever chooses both could have a look-up say something else than a list, and only lists
// are compared with the log (copied.ts). So of each key the rows of a newer run must have the higher numbers. Blocks come
// in the order of their first keys: when one comes, all rows in front of it are there.

import { compareKeys, KeptKey, type KeyPlace } from './level-keys.ts';
import { openBlockOf, RunRows, type WalkedBlock } from './level-rows.ts';

/** Whoever writes to the store counts on from the highest number. */
const sequenceLimit = 2 ** 47;

interface Run {
  /** 0 is the newest one. */
  readonly index: number;
  readonly rows: RunRows;
}

export class Sweep {
  readonly #runs: readonly Run[];
  /** Runs that have rows to be met, in the order of those; of one key, the newer run first. */
  readonly #waiting: Run[] = [];
  /** The first key of the last block. */
  readonly #reached = new KeptKey();

  /** Begins with `count` runs without rows. */
  constructor(count: number) {
    this.#runs = Array.from({ length: count }, (_, index) => ({ index, rows: new RunRows() }));
  }

  /** Highest sequence number of all rows. */
  get sequenceMax(): number {
    return Math.max(0, ...this.#runs.map(({ rows }) => rows.sequenceMax));
  }

  /**
   * The next block, of run `index`; 0 is the newest one. Throws RangeError when it is none that LevelDB would have made, or
   * not the next one.
   */
  add(index: number, bytes: Uint8Array): WalkedBlock {
    const run = this.#runs[index];
    if (run === undefined) throw new RangeError('has a block of no run');
    const { plain, firstKey } = openBlockOf(bytes);
    if (compareKeys(firstKey, this.#reached) < 0) throw new RangeError('has blocks that are not in order');
    this.#meet(firstKey);
    this.#reached.keep(firstKey);
    const { rows } = run;
    const isNew = rows.isMet;
    const block = rows.add(plain);
    if (isNew) this.#wait(run);
    if (rows.sequenceMax >= sequenceLimit) throw new RangeError('has a sequence number that none can follow');
    return block;
  }

  /** There are no more blocks. */
  finish(): void {
    this.#meet(undefined);
  }

  /** Meets all rows in front of `bound`; undefined: all. */
  #meet(bound: KeyPlace | undefined): void {
    for (;;) {
      const [first, second] = this.#waiting;
      if (first === undefined) return;
      const { rows } = first;
      if (bound !== undefined && rows.compare(bound) >= 0) return;
      if (second !== undefined && rows.compareWith(second.rows) === 0) {
        this.#meetSame(rows);
        continue;
      }
      if (second !== undefined && (bound === undefined || second.rows.compare(bound) < 0))
        rows.meetUpToThatOf(second.rows);
      else if (bound === undefined) rows.meetAll();
      else rows.meetUpTo(bound);
      this.#waiting.shift();
      if (!rows.isMet) this.#wait(first);
    }
  }

  /** Of the key that `first` is to meet next, in all runs that have it. */
  #meetSame(first: RunRows): void {
    const others = this.#waiting.findIndex(({ rows }) => rows.compareWith(first) !== 0);
    const same = this.#waiting.splice(0, others === -1 ? this.#waiting.length : others);
    let oldest = Infinity;
    for (const { rows } of same) {
      if (rows.newest >= oldest) throw new RangeError('has an older row in front of a newer one');
      oldest = rows.oldest;
    }
    for (const run of same) {
      run.rows.meet();
      if (!run.rows.isMet) this.#wait(run);
    }
  }

  /** Puts a run in its place among those that wait. */
  #wait(run: Run): void {
    let at = 0;
    for (let other = this.#waiting[at]; other !== undefined; other = this.#waiting[++at]) {
      const order = run.rows.compareWith(other.rows);
      if (order < 0 || (order === 0 && run.index < other.index)) break;
    }
    this.#waiting.splice(at, 0, run);
  }
}
