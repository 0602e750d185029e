// Ids that were used, each remembered until the message that carried it has ended. Bounded: when it is full of
// ids that are still good, the next message is refused rather than an id forgotten.
//
// It is in memory only. After a restart a request may come a second time within its beats: it is answered again,
// sealed to the same key, counted again and written down again, so nobody learns anything new by it. Orders are
// not safe to repeat; their nonces are kept by whoever executes them.

import { toHex } from '../core/bytes.ts';
import { replayIdsMax } from '../core/limits.ts';

export class ReplaySet {
  readonly #ends = new Map<string, number>();
  readonly #countMax: number;

  /** @param countMax ids remembered, at least 1 */
  constructor(countMax: number = replayIdsMax) {
    this.#countMax = countMax;
  }

  get size(): number {
    return this.#ends.size;
  }

  /** What is known of an id at beat `now`; `full` for a new one that there is no room for. */
  look(id: Uint8Array, now: number): 'new' | 'seen' | 'full' {
    if ((this.#ends.get(toHex(id)) ?? -1) >= now) return 'seen';
    if (this.#ends.size >= this.#countMax) this.#sweep(now);
    return this.#ends.size >= this.#countMax ? 'full' : 'new';
  }

  /** Remembers an id through beat `end`. */
  remember(id: Uint8Array, end: number): void {
    this.#ends.set(toHex(id), end);
  }

  /** Every id with the beat that it is remembered through, for who keeps them over a restart. */
  *entries(): Generator<readonly [id: string, end: number]> {
    yield* this.#ends;
  }

  #sweep(now: number): void {
    for (const [id, end] of this.#ends) if (end < now) this.#ends.delete(id);
  }
}
