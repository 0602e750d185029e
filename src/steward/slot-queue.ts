// Slots that something is still to be done with, each at most once: a list, and a mark for each slot that is in it.

import { grown, slotsAtFirst } from './slot-table.ts';

export class SlotQueue {
  readonly #slots: number[] = [];
  #marks = new Uint8Array(slotsAtFirst);

  get length(): number {
    return this.#slots.length;
  }

  /** Room for `capacity` slots. */
  grow(capacity: number): void {
    this.#marks = grown(this.#marks, new Uint8Array(capacity));
  }

  add(slot: number): void {
    if (this.#marks[slot] === 1) return;
    this.#marks[slot] = 1;
    this.#slots.push(slot);
  }

  /** Up to `max` of those that came last. They stay marked, so that none comes again before it was `release`d. */
  takeNewest(max: number): number[] {
    return this.#slots.splice(Math.max(0, this.#slots.length - max));
  }

  /** Up to `max` of those that came first, marked until they are `release`d. */
  takeOldest(max: number): number[] {
    return this.#slots.splice(0, max);
  }

  /** From now on it may come again. */
  release(slot: number): void {
    this.#marks[slot] = 0;
  }
}
