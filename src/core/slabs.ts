// Memory for blocks on their way through, used again and again.
//
// A block of content lives for a moment, but long enough that V8 takes it for something that stays: only a whole
// collection frees it, and at a hundred blocks a second those cost a third of a process's time. So where it is known
// when the last reader is done, the bytes go into a slab and the slab goes back. Who forgets to give one back
// loses nothing: it is then an array like any other.

import { segmentBytes } from './limits.ts';

/** One block of content, with its CID before it as in a CAR. */
const slabBytes = segmentBytes + 64;
/** Smaller ones are cheap for V8, and would each waste most of a slab. */
const lentBytesMin = 65_536;

export class Slabs {
  readonly #keptMax: number;
  readonly #newSlab: (sizeBytes: number) => ArrayBufferLike;
  readonly #free: ArrayBufferLike[] = [];
  readonly #lent = new WeakSet<ArrayBufferLike>();

  /**
   * @param keptMax slabs kept while nobody uses them
   * @param newSlab default an ArrayBuffer; a SharedArrayBuffer for what another thread is to read
   */
  constructor(keptMax: number, newSlab = (sizeBytes: number): ArrayBufferLike => new ArrayBuffer(sizeBytes)) {
    this.#keptMax = keptMax;
    this.#newSlab = newSlab;
  }

  /** `length` bytes of any content: in a slab when that fits, else in an array of their own. */
  take(length: number): Uint8Array {
    if (length < lentBytesMin || length > slabBytes) return new Uint8Array(length);
    const slab = this.#free.pop() ?? this.#newSlab(slabBytes);
    this.#lent.add(slab);
    return new Uint8Array(slab, 0, length);
  }

  /** Keeps none of those that nobody uses now. */
  clear(): void {
    this.#free.length = 0;
  }

  /** Whoever took these bytes, or a part of them, will not look at them again. Nothing for bytes of other origin. */
  give(bytes: Uint8Array): void {
    const { buffer } = bytes;
    if (this.#lent.delete(buffer) && this.#free.length < this.#keptMax) this.#free.push(buffer);
  }
}
