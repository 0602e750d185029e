// The highest version seen of each record, for a reader that is handed records and keeps no registry of its own.
//
// Signatures say who wrote a record, not that it is the newest: an older envelope or branch key is as valid as
// ever. Who has seen a newer one refuses it. Bounded: the marks unused for longest are forgotten first.

import { HoldfastError } from '../core/errors.ts';
import { highWaterMarksMax } from '../core/limits.ts';

export class HighWaterMarks {
  readonly #marks = new Map<string, number>();
  readonly #countMax: number;

  constructor(countMax: number = highWaterMarksMax) {
    this.#countMax = countMax;
  }

  /** Notes that `key` (`env/…`, `bk/…`) was seen in `version`. Throws RECORD_INVALID when a higher one was seen before. */
  observe(key: string, version: number): void {
    const highest = this.#marks.get(key) ?? 0;
    if (version < highest)
      throw new HoldfastError(
        'RECORD_INVALID',
        `${key}: version ${version} was served after version ${highest}`,
        {
          details: { key, version, highest },
        },
      );
    this.#marks.delete(key);
    this.#marks.set(key, version);
    const oldest = this.#marks.keys().next().value;
    if (this.#marks.size > this.#countMax && oldest !== undefined) this.#marks.delete(oldest);
  }
}
