// What was made of some bytes, kept by those bytes, where the same few come again and again.

import { asBuffer } from './bytes.ts';

/** Of at most `max` different bytes: when there are more, all are forgotten. A value must not be changed by who gets it. */
export class Memo<Value> {
  readonly #max: number;
  readonly #values = new Map<string, Value>();

  constructor(max: number) {
    this.#max = max;
  }

  /** What `make` gave for these bytes before, or gives now. What it throws is not kept. */
  of(bytes: Uint8Array, make: () => Value): Value {
    const key = asBuffer(bytes).toString('latin1');
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const made = make();
    if (this.#values.size >= this.#max) this.#values.clear();
    this.#values.set(key, made);
    return made;
  }
}
