// The port under the view: an ordered map of text keys to bytes, changed by atomic batches.
//
// Keys are ordered by their UTF-8 bytes. What implements it on a disk answers for the bytes: it returns what
// was written or throws RECORD_CORRUPT.

import type { CopyableKv } from './snapshot.ts';

export interface Kv extends AsyncDisposable {
  get(key: string): Promise<Uint8Array | undefined>;
  getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]>;
  /** Rows with from ≤ key < to, ascending, as of the moment the iteration begins. */
  range(range: KeyRange): AsyncIterable<KvRow>;
  /** All or nothing; durable when it resolves. A `null` deletes. */
  write(changes: KvChanges): Promise<void>;
  /** Gives its rows away, and takes those of another, as they are stored. Absent where rows are not stored. */
  readonly copyable?: CopyableKv;
  /** After a write that failed: takes up what was kept, all of that write or nothing, and can write again. */
  reopen?(): Promise<void>;
}

export interface KeyRange {
  readonly from: string;
  /** Exclusive. */
  readonly to: string;
  /** Most rows to return; default all. */
  readonly limit?: number;
  /** Descending instead. */
  readonly reverse?: boolean;
}

export type KvRow = readonly [key: string, value: Uint8Array];
export type KvChanges = ReadonlyMap<string, Uint8Array | null>;

/** What only reads. */
export type KvReader = Pick<Kv, 'get' | 'getMany' | 'range'>;

/** Reads of `kv`, each of which ends with what `check` throws. */
export function guarded(kv: Kv, check: () => void): KvReader {
  const checked = <Value>(value: Value): Value => {
    check();
    return value;
  };
  return {
    get: async (key) => checked(await checked(kv).get(key)),
    getMany: async (keys) => checked(await checked(kv).getMany(keys)),
    async *range(range) {
      for await (const row of checked(kv).range(range)) yield checked(row);
    },
  };
}

/** The range of all keys that start with `prefix`, which must end in an ASCII character below DEL. */
export function prefixRange(prefix: string): { readonly from: string; readonly to: string } {
  const last = prefix.codePointAt(prefix.length - 1) ?? 0;
  return { from: prefix, to: prefix.slice(0, -1) + String.fromCodePoint(last + 1) };
}

/** Rows whose reading has begun once `first` resolves: those of that moment. */
export function startedRows(rows: AsyncIterable<KvRow>): {
  readonly first: Promise<unknown>;
  readonly rows: AsyncIterable<KvRow>;
} {
  const iterator = rows[Symbol.asyncIterator]();
  const first = iterator.next();
  first.catch(() => undefined); // whoever reads on meets it
  return {
    first,
    rows: {
      async *[Symbol.asyncIterator]() {
        try {
          for (let result = await first; result.done !== true; result = await iterator.next())
            yield result.value;
        } finally {
          await iterator.return?.();
        }
      },
    },
  };
}
