// A Kv in memory: for tests, for checking an append before it is made, and as the model of the one on disk.

import { asBuffer, utf8 } from '../core/bytes.ts';
import type { KeyRange, Kv, KvChanges, KvRow } from './kv.ts';

export class MemoryKv implements Kv {
  readonly #rows = new Map<string, Uint8Array>();
  #sorted: readonly string[] | undefined;

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.#rows.get(key);
  }

  async getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return keys.map((key) => this.#rows.get(key));
  }

  async *range({ from, to, limit = Infinity, reverse = false }: KeyRange): AsyncGenerator<KvRow> {
    const keys = this.#keys();
    const inside = keys.slice(lowerBound(keys, from), lowerBound(keys, to));
    const rows: KvRow[] = [];
    for (const key of reverse ? inside.toReversed() : inside) {
      const value = this.#rows.get(key);
      if (value !== undefined) rows.push([key, value]);
    }
    yield* rows.slice(0, limit);
  }

  async write(changes: KvChanges): Promise<void> {
    for (const [key, value] of changes) {
      if (value === null) this.#rows.delete(key);
      else this.#rows.set(key, value);
    }
    this.#sorted = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #keys(): readonly string[] {
    this.#sorted ??= [...this.#rows.keys()].sort(compareKeys);
    return this.#sorted;
  }
}

/** Order of UTF-8 bytes, which for text beyond the basic plane is not that of JavaScript strings. */
export function compareKeys(a: string, b: string): number {
  return asBuffer(utf8(a)).compare(utf8(b));
}

function lowerBound(keys: readonly string[], wanted: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const key = keys[middle];
    if (key !== undefined && compareKeys(key, wanted) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
