// How many copies are wanted of each block, and by how many objects. Most blocks share one of a few policies: a slot holds
// the number of its own.

import type { Wanted } from './classes.ts';
import { grown, slotsAtFirst } from './slot-table.ts';

const nothingWanted: Wanted = { min: 0, target: 0, max: 0, zones: 0 };

export class Demand {
  readonly #policies: Wanted[] = [];
  readonly #policyIndex = new Map<string, number>();
  #references = new Uint32Array(slotsAtFirst);
  #policy = new Uint32Array(slotsAtFirst);

  /** Room for `capacity` slots. */
  grow(capacity: number): void {
    this.#references = grown(this.#references, new Uint32Array(capacity));
    this.#policy = grown(this.#policy, new Uint32Array(capacity));
  }

  /** Live objects that need the block. */
  references(slot: number): number {
    return this.#references[slot] ?? 0;
  }

  wanted(slot: number): Wanted {
    const wanted = this.#policies[this.#policy[slot] ?? 0];
    if (wanted === undefined) throw new RangeError(`slot ${slot} has no policy`);
    return wanted;
  }

  /** A block of which nothing is wanted yet. */
  begin(slot: number): void {
    this.setWanted(slot, nothingWanted);
  }

  /** One more object needs the block. True when it is the first. */
  reference(slot: number, wanted: Wanted): boolean {
    const first = this.references(slot) === 0;
    this.#references[slot] = this.references(slot) + 1;
    this.setWanted(slot, first ? wanted : merged(this.wanted(slot), wanted));
    return first;
  }

  /** One object less needs it. True when it was the last. Throws RangeError when none did. */
  unreference(slot: number): boolean {
    const references = this.references(slot);
    if (references === 0) throw new RangeError(`slot ${slot} is not referenced`);
    this.#references[slot] = references - 1;
    return references === 1;
  }

  setWanted(slot: number, wanted: Wanted): void {
    this.#policy[slot] = this.#intern(wanted);
  }

  #intern(wanted: Wanted): number {
    const key = `${wanted.min}/${wanted.target}/${wanted.max}/${wanted.zones}`;
    const known = this.#policyIndex.get(key);
    if (known !== undefined) return known;
    this.#policies.push(wanted);
    this.#policyIndex.set(key, this.#policies.length - 1);
    return this.#policies.length - 1;
  }
}

/** The stricter of both in every respect: a block shared by two objects satisfies either. */
export function merged(a: Wanted, b: Wanted): Wanted {
  return {
    min: Math.max(a.min, b.min),
    target: Math.max(a.target, b.target),
    max: Math.max(a.max, b.max),
    zones: Math.max(a.zones, b.zones),
  };
}
