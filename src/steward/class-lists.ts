// Which class each block is in, since when, and what it lacks. Every block is in exactly one, and each class but
// `healthy` keeps the list of its slots, so counting and finding what is endangered costs nothing.

import { type BlockClass, blockClasses } from './classes.ts';
import { grown, slotsAtFirst, type SlotTable } from './slot-table.ts';

/** What changed class: the objects that the block belongs to count it. */
export type ClassListener = (slot: number, from: BlockClass, to: BlockClass) => void;

const none = blockClasses.indexOf('none');
const healthy = blockClasses.indexOf('healthy');

export class ClassLists {
  readonly #table: Pick<SlotTable, 'sizeBytes'>;
  readonly #onClass: ClassListener;
  readonly #lists: SlotList[] = blockClasses.map(() => new SlotList());
  #pendingBytes = 0;
  #class = new Uint8Array(slotsAtFirst);
  #missing = new Uint8Array(slotsAtFirst);
  #since = new Float64Array(slotsAtFirst);
  /** Its place in the list of its class. */
  #position = new Uint32Array(slotsAtFirst);

  constructor(table: Pick<SlotTable, 'sizeBytes'>, onClass: ClassListener) {
    this.#table = table;
    this.#onClass = onClass;
  }

  /** Room for `capacity` slots. */
  grow(capacity: number): void {
    this.#class = grown(this.#class, new Uint8Array(capacity));
    this.#missing = grown(this.#missing, new Uint8Array(capacity));
    this.#since = grown(this.#since, new Float64Array(capacity));
    this.#position = grown(this.#position, new Uint32Array(capacity));
  }

  class(slot: number): BlockClass {
    return blockClasses[this.#class[slot] ?? none] ?? 'none';
  }

  /** Wall clock ms when the block came into its class. */
  since(slot: number): number {
    return this.#since[slot] ?? 0;
  }

  /** Copies (or, when misplaced, zones) that are missing by the last decision. */
  missing(slot: number): number {
    return this.#missing[slot] ?? 0;
  }

  /** Bytes that copies still to be made will move. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Blocks in all classes but `healthy` and `none`. */
  get listedCount(): number {
    return this.#lists.reduce((sum, list) => sum + list.length, 0);
  }

  /** Blocks in a class; 0 for `healthy` and `none`, which keep no list. */
  countOf(name: BlockClass): number {
    return this.#listOf(name).length;
  }

  /** Up to `count` slots of a class, going round from `start` (any integer). */
  sample(name: BlockClass, start: number, count: number): number[] {
    const list = this.#listOf(name);
    const out: number[] = [];
    for (let at = 0; at < Math.min(count, list.length); at++) out.push(list.at((start + at) % list.length));
    return out;
  }

  /** Puts a block into a class (`none`: it is forgotten) and tells of it when that is another one. `now` in wall clock ms. */
  move(slot: number, to: BlockClass, now: number, missing: number): void {
    this.#pendingBytes += (missing - this.missing(slot)) * Math.max(1, this.#table.sizeBytes(slot));
    this.#missing[slot] = missing;
    const from = this.#class[slot] ?? none;
    const target = blockClasses.indexOf(to);
    if (from === target) return;
    if (isListed(from)) this.#lists[from]?.remove(slot, this.#position);
    if (isListed(target)) this.#lists[target]?.add(slot, this.#position);
    this.#class[slot] = target;
    this.#since[slot] = now;
    this.#onClass(slot, blockClasses[from] ?? 'none', to);
  }

  #listOf(name: BlockClass): SlotList {
    const list = this.#lists[blockClasses.indexOf(name)];
    if (list === undefined) throw new RangeError(name);
    return list;
  }
}

function isListed(at: number): boolean {
  return at !== none && at !== healthy;
}

/** Slots of one class; each slot's place is kept in one array shared by all lists, so removal is immediate. */
class SlotList {
  #slots = new Uint32Array(64);
  length = 0;

  at(index: number): number {
    return this.#slots[index] ?? 0;
  }

  add(slot: number, position: Uint32Array): void {
    if (this.length === this.#slots.length)
      this.#slots = grown(this.#slots, new Uint32Array(2 * this.length));
    position[slot] = this.length;
    this.#slots[this.length++] = slot;
  }

  remove(slot: number, position: Uint32Array): void {
    const at = position[slot] ?? 0;
    const last = this.at(--this.length);
    this.#slots[at] = last;
    position[last] = at;
  }
}
