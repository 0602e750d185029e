// What was made of some bytes or a text, kept by it, where the same few come again and again.

import { asBuffer } from './bytes.ts';

/** Of at most `max` different ones: when there are more, all are forgotten. A value must not be changed by who gets it. */
export class Memo<Value> {
  readonly #max: number;
  readonly #values = new Map<string, Value>();

  constructor(max: number) {
    this.#max = max;
  }

  /** What `make` gave for this before, or gives now. What it throws is not kept. One memo is for bytes, or for texts. */
  of(what: Uint8Array | string, make: () => Value): Value {
    const key = typeof what === 'string' ? what : asBuffer(what).toString('latin1');
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const made = make();
    if (this.#values.size >= this.#max) this.#values.clear();
    this.#values.set(key, made);
    return made;
  }
}
