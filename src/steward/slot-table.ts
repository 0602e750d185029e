// Blocks by their digest, each in a slot: a number that is a row across typed arrays.
//
//   slot │ digest │ codec │ size │ next of the same bucket
//
// A slot is given when a block is first named and given again after the block was forgotten. Others keep arrays over the
// same slots (holdings.ts, class-lists.ts, demand.ts): they are told when there is room for more. A Map of objects was
// refused: about 600 bytes per block, and a pause of the collector that is longer than a beat.

import { asBuffer } from '../core/bytes.ts';

/** Slots for which there is room at first; doubled when they are used up. */
export const slotsAtFirst = 1024;
const digestBytes = 32;

export class SlotTable {
  readonly #onGrow: (capacity: number) => void;
  readonly #free: number[] = [];
  #capacity = slotsAtFirst;
  #used = 0;
  #count = 0;
  #digests = new Uint8Array(digestBytes * slotsAtFirst);
  /** 0 = the slot is free. */
  #codecs = new Uint8Array(slotsAtFirst);
  #sizes = new Uint32Array(slotsAtFirst);
  #next = new Int32Array(slotsAtFirst);
  #heads = new Int32Array(slotsAtFirst).fill(-1);

  /** @param onGrow told how many slots there is room for from now on, before the first of them is given */
  constructor(onGrow: (capacity: number) => void) {
    this.#onGrow = onGrow;
  }

  /** Blocks known. */
  get count(): number {
    return this.#count;
  }

  /** Slots are below this; some of them may be free (`inUse`). */
  get slotsEnd(): number {
    return this.#used;
  }

  inUse(slot: number): boolean {
    return this.#codecs[slot] !== 0;
  }

  /** A view of the 32 bytes; valid until the slot is freed or the table grows. */
  digest(slot: number): Uint8Array {
    return this.#digests.subarray(digestBytes * slot, digestBytes * (slot + 1));
  }

  codec(slot: number): number {
    return this.#codecs[slot] ?? 0;
  }

  /** 0 while nobody has said it. */
  sizeBytes(slot: number): number {
    return this.#sizes[slot] ?? 0;
  }

  /** The first size said stands. */
  learnSize(slot: number, sizeBytes: number): void {
    if (this.#sizes[slot] === 0) this.#sizes[slot] = sizeBytes;
  }

  /** Its slot, or -1 when nothing is known of it. */
  find(digest: Uint8Array, codec: number): number {
    let slot = this.#heads[bucketOf(digest, this.#capacity)] ?? -1;
    while (slot >= 0 && !(this.#codecs[slot] === codec && this.#sameDigest(slot, digest))) {
      slot = this.#next[slot] ?? -1;
    }
    return slot;
  }

  /** Gives a slot to a block that has none (`find`). */
  add(digest: Uint8Array, codec: number): number {
    const slot = this.#free.pop() ?? this.#append();
    this.#digests.set(digest, digestBytes * slot);
    this.#codecs[slot] = codec;
    this.#chain(slot);
    this.#count++;
    return slot;
  }

  /** Forgets the block; its slot is given to another one. */
  remove(slot: number): void {
    this.#unchain(slot);
    this.#codecs[slot] = 0;
    this.#sizes[slot] = 0;
    this.#free.push(slot);
    this.#count--;
  }

  #sameDigest(slot: number, digest: Uint8Array): boolean {
    const from = digestBytes * slot;
    for (let at = 0; at < digestBytes; at++) if (this.#digests[from + at] !== digest[at]) return false;
    return true;
  }

  #append(): number {
    if (this.#used === this.#capacity) this.#grow();
    return this.#used++;
  }

  #chain(slot: number): void {
    const bucket = bucketOf(this.digest(slot), this.#capacity);
    this.#next[slot] = this.#heads[bucket] ?? -1;
    this.#heads[bucket] = slot;
  }

  #unchain(slot: number): void {
    const bucket = bucketOf(this.digest(slot), this.#capacity);
    let at = this.#heads[bucket] ?? -1;
    if (at === slot) {
      this.#heads[bucket] = this.#next[slot] ?? -1;
      return;
    }
    while (at >= 0 && this.#next[at] !== slot) at = this.#next[at] ?? -1;
    if (at >= 0) this.#next[at] = this.#next[slot] ?? -1;
  }

  #grow(): void {
    this.#capacity *= 2;
    this.#digests = grown(this.#digests, new Uint8Array(digestBytes * this.#capacity));
    this.#codecs = grown(this.#codecs, new Uint8Array(this.#capacity));
    this.#sizes = grown(this.#sizes, new Uint32Array(this.#capacity));
    this.#next = new Int32Array(this.#capacity);
    this.#heads = new Int32Array(this.#capacity).fill(-1);
    for (let slot = 0; slot < this.#used; slot++) if (this.inUse(slot)) this.#chain(slot);
    this.#onGrow(this.#capacity);
  }
}

/** The longer array `to`, with what is in `from`. */
export function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

function bucketOf(digest: Uint8Array, capacity: number): number {
  return asBuffer(digest).readUInt32LE(28) & (capacity - 1);
}
