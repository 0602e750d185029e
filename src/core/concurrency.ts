// Doing several things at once, a bounded number of them, in order, and stopping cleanly.

import { concat } from './bytes.ts';
import { HoldfastError } from './errors.ts';

/**
 * What is aborted because it has served its purpose, is aborted with this. One for all of them: an error of its own
 * costs, with its stack, ten times as much as the abort, and small objects are stored with a dozen.
 */
export const servedItsPurpose: Error = new HoldfastError('TIMEOUT', 'not waited for any more');

/**
 * Applies `work` to each item with at most `width` under way, yielding results in the order of the items.
 * At most `width` results wait to be taken. The first failure is thrown in its place; work already begun
 * is waited for, so that nothing goes on behind the caller's back.
 */
export async function* mapInOrder<In, Out>(
  items: AsyncIterable<In> | Iterable<In>,
  width: number,
  work: (item: In) => Promise<Out>,
): AsyncGenerator<Out, void, undefined> {
  const underway: Promise<Out>[] = [];
  try {
    for await (const item of items) {
      const promise = work(item);
      promise.catch(() => undefined); // reported when its turn comes
      underway.push(promise);
      if (underway.length >= width) yield await takeFirst(underway);
    }
    while (underway.length > 0) yield await takeFirst(underway);
  } finally {
    await Promise.allSettled(underway);
  }
}

async function takeFirst<T>(queue: Promise<T>[]): Promise<T> {
  const first = queue.shift();
  if (first === undefined) throw new RangeError('takeFirst: empty queue');
  return first;
}

/** Lets at most `width` holders in; the others wait in the order they came. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  /** Runs `work` when there is room. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }

  /** How many wait to get in. */
  get waiting(): number {
    return this.#waiting.length;
  }
}

/** Bytes that many hold together. Nobody waits for it: who finds it full makes do with less at a time. */
export class HeldBytes {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  take(bytes: number): void {
    this.#bytes += bytes;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
  }

  get isFull(): boolean {
    return this.#bytes >= this.#bytesMax;
  }
}

/** Collects items into lists of `size`, the last one shorter; nothing for no items. */
export async function* grouped<T>(
  items: AsyncIterable<T> | Iterable<T>,
  size: number,
): AsyncGenerator<T[], void, undefined> {
  let group: T[] = [];
  for await (const item of items) {
    group.push(item);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

/**
 * Collects items into lists that end where `mayGrow`, asked of each item and how many are then in its list, says
 * so: `if-ready` adds the next one only if that is there already. Leaving does not wait for an item under way.
 */
export async function* groupsOf<T>(
  items: AsyncIterable<T>,
  mayGrow: (item: T, count: number) => boolean | 'if-ready',
): AsyncGenerator<T[], void, undefined> {
  const iterator = items[Symbol.asyncIterator]();
  let next: Promise<IteratorResult<T>> | undefined;
  let group: T[] = [];
  try {
    for (;;) {
      next ??= iterator.next();
      const result = await next;
      next = undefined;
      if (result.done === true) break;
      group.push(result.value);
      const more = mayGrow(result.value, group.length);
      if (more === true) continue;
      if (more === 'if-ready') {
        next = iterator.next();
        next.catch(() => undefined); // thrown when its turn comes
        if (await settlesThisTurn(next)) continue;
      }
      yield group;
      group = [];
    }
    if (group.length > 0) yield group;
  } finally {
    // While an item is waited for, the source could only end after it: whoever leaves then must stop it himself.
    const ended = iterator.return?.();
    if (next === undefined) await ended;
    else ended?.catch(() => undefined);
  }
}

/** True when `promise` settles without waiting for anything outside this process. */
async function settlesThisTurn(promise: Promise<unknown>): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true,
  );
  return Promise.race([settled, new Promise<false>((resolve) => setImmediate(resolve, false))]);
}

/**
 * Cuts a byte stream into pieces of exactly `sizeBytes`, the last one shorter or empty, and says of each
 * whether it is the last. An empty stream is one empty last piece. A piece may share memory with its input.
 *
 * @param join puts the parts of a piece together, when they are not one; that piece is taken before it is called again
 */
export async function* chunked(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  sizeBytes: number,
  join: (parts: readonly Uint8Array[]) => Uint8Array = (parts) => concat(...parts),
): AsyncGenerator<{ bytes: Uint8Array; last: boolean }, void, undefined> {
  const joined = (parts: readonly Uint8Array[]): Uint8Array =>
    (parts.length === 1 ? parts[0] : undefined) ?? join(parts);
  let full: Uint8Array | undefined; // a whole piece, held back until we know whether more follows
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  for await (let bytes of source) {
    while (bytes.length > 0) {
      if (full !== undefined) {
        yield { bytes: full, last: false };
        full = undefined;
      }
      const part = bytes.subarray(0, sizeBytes - pendingBytes);
      bytes = bytes.subarray(part.length);
      pending.push(part);
      pendingBytes += part.length;
      if (pendingBytes === sizeBytes) {
        full = joined(pending);
        pending = [];
        pendingBytes = 0;
      }
    }
  }
  if (full === undefined) yield { bytes: joined(pending), last: true };
  else yield { bytes: full, last: true };
}

/** The outcome of `work`, or the reason of `signal`; the work itself goes on. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([aborted.promise, work]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** What comes of each, in the order in which it comes. Rejects with the first that rejects. */
export async function* asTheyCome<T>(work: readonly Promise<T>[]): AsyncGenerator<T, void, undefined> {
  const pending = new Map(work.map((each, at) => [at, each.then((value) => ({ at, value }))]));
  while (pending.size > 0) {
    const { at, value } = await Promise.race(pending.values());
    pending.delete(at);
    yield value;
  }
}
