// All runs of a store that another machine made, met together in key order.
//
// LevelDB looks for a key from the newest run to the oldest and stops where it finds one; who lists rows takes the one with
// the highest sequence number. Whoever chooses both could have a look-up say something else than a list, and only lists
// are compared with the log (copied.ts). So of each key the rows of a newer run must have the higher numbers. Blocks come
// in the order of their first keys: when one comes, all rows in front of it are there.

import { asBuffer } from '../core/bytes.ts';
import { BlockOpener, RunRows, type WalkedBlock } from './level-rows.ts';

/** Whoever writes to the store counts on from the highest number. */
const sequenceLimit = 2 ** 47;

export class Sweep {
  readonly #runs: readonly RunRows[];
  readonly #opener = new BlockOpener();
  /** The first key of the last block. */
  #reached: Uint8Array = new Uint8Array();

  /** Begins with `count` runs without rows. */
  constructor(count: number) {
    this.#runs = Array.from({ length: count }, () => new RunRows());
  }

  /** Highest sequence number of all rows. */
  get sequenceMax(): number {
    return Math.max(0, ...this.#runs.map(({ sequenceMax }) => sequenceMax));
  }

  /**
   * The next block, of run `index`; 0 is the newest one. Throws RangeError when it is none that LevelDB would have made, or
   * not the next one.
   */
  add(index: number, bytes: Uint8Array): WalkedBlock {
    const run = this.#runs[index];
    if (run === undefined) throw new RangeError('has a block of no run');
    const { plain, firstKey } = this.#opener.open(bytes);
    if (asBuffer(firstKey).compare(this.#reached) < 0)
      throw new RangeError('has blocks that are not in order');
    this.#meet(firstKey);
    this.#reached = new Uint8Array(firstKey);
    const block = run.add(plain);
    if (run.sequenceMax >= sequenceLimit) throw new RangeError('has a sequence number that none can follow');
    return block;
  }

  /** There are no more blocks. */
  finish(): void {
    this.#meet(undefined);
  }

  /** Meets all rows in front of `bound`; undefined: all. */
  #meet(bound: Uint8Array | undefined): void {
    for (;;) {
      const [first, second] = this.#firstTwo();
      if (first === undefined) return;
      if (bound !== undefined && first.compare(bound) >= 0) return;
      const order = second === undefined ? -1 : first.compareWith(second);
      if (order === 0) this.#meetSame(first.key);
      else {
        const isBoundFirst = bound !== undefined && (second === undefined || second.compare(bound) > 0);
        const end = isBoundFirst ? bound : second?.key;
        if (end === undefined) first.meetAll();
        else first.meetUpTo(end);
      }
    }
  }

  #meetSame(key: Uint8Array): void {
    let oldest = Infinity;
    for (const run of this.#runs) {
      if (run.isMet || run.compare(key) !== 0) continue;
      if (run.newest >= oldest) throw new RangeError('has an older row in front of a newer one');
      oldest = run.oldest;
      run.meet();
    }
  }

  /** The run whose key comes first, and the one that is first without it. */
  #firstTwo(): readonly [first?: RunRows, second?: RunRows] {
    let first: RunRows | undefined;
    let second: RunRows | undefined;
    for (const run of this.#runs) {
      if (run.isMet) continue;
      if (first === undefined || run.compareWith(first) < 0) {
        second = first;
        first = run;
      } else if (second === undefined || run.compareWith(second) < 0) second = run;
    }
    return first === undefined ? [] : second === undefined ? [first] : [first, second];
  }
}
