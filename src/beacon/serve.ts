// A Beacon log offered over RPC: the other end of remote.ts.
//
//   beacon.append  {} + payload of the append     → {revision, chain} + payload of the entry
//   beacon.head    {}                             → {revision, chain, lineage when known}
//   beacon.read    {from} → pages of entries: {revision of the first, chain before it, sizes} + payloads in a row
//   beacon.watch   {from} → the same, for ever; a page without entries every few seconds says that we live
//   beacon.snapshot {form} → pages of rows of a view of this log (snapshot.ts)
//
// Chains are not sent with each entry: the reader computes them, and so has checked them.

import { concat, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { rpcBodyBytesMax } from '../core/limits.ts';
import { second } from '../core/clock.ts';
import type { PeerName, RpcMessage, RpcServer } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import {
  type Append,
  type BeaconLog,
  decodeAppend,
  emptyPosition,
  type LogEntry,
  type LogPosition,
  type RecallingLog,
} from './log.ts';
import { snapshotForm } from './snapshot.ts';

export interface ServeOptions {
  /** Refuses an append by throwing, before it reaches the log: see `checkAppend` in view.ts. Default: none is. */
  readonly check?: (append: Append) => Promise<void>;
  /** See `RecallingLog`: where there is a `check`, it knows what is sent again. Default: the log alone does. */
  readonly recall?: RecallingLog['recall'];
  /** The rows of a view of this log (`BeaconView.snapshot`), for newcomers. Default: they fold the log. */
  readonly snapshot?: () => AsyncIterable<Uint8Array>;
  /** Who may append. Reading is for everybody that the transport lets in. Default: everybody. */
  readonly mayAppend?: (peer: PeerName) => boolean;
  /** Longest silence of a watch or a snapshot, ms. Default 2.5 s: a third of the caller's usual time-out. */
  readonly idleMs?: number;
}

/** Registers the five methods. The log stays the caller's to close. */
export function serveBeacon(server: RpcServer, log: BeaconLog, options: ServeOptions = {}): void {
  const { idleMs = 2.5 * second, mayAppend = () => true, snapshot } = options;
  server.handle('beacon.head', async () => {
    const { revision, chain, lineage } = await log.head();
    return { head: { revision, chain, ...(lineage === undefined ? {} : { lineage }) } };
  });
  server.handle('beacon.append', async ({ body }, { peer, signal }) => {
    if (!mayAppend(peer)) throw new HoldfastError('FORBIDDEN', `${peer} may not append to the Beacon`);
    const append = decodeAppend(body);
    const made = await madeBefore(append, options);
    const { revision, chain, payload } = made ?? (await log.append(append, { signal }));
    return { head: { revision, chain }, body: payload };
  });
  let snapshots = 0;
  server.handleStream('beacon.snapshot', async function* ({ head }, { signal }) {
    if (fieldOf(head, 'form') !== snapshotForm)
      throw new HoldfastError('NOT_FOUND', 'rows are given in another form here'); // to another release
    if (snapshot === undefined) throw new HoldfastError('NOT_FOUND', 'there is no view to copy here');
    if (snapshots >= snapshotsMax) throw new HoldfastError('RATE_LIMITED', 'too many copies are under way');
    snapshots++;
    try {
      // Before the first page every table may have to be checked: a page without rows says that we live.
      for await (const body of withIdle(snapshot(), idleMs, signal))
        yield { head: {}, body: body ?? new Uint8Array() };
      signal.throwIfAborted(); // an end here says that these are all rows
    } finally {
      snapshots--;
    }
  });
  server.handleStream('beacon.read', ({ head }, { signal }) => readPages(log, fromOf(head), signal));
  server.handleStream('beacon.watch', ({ head }, { signal }) =>
    watchPages(log, fromOf(head), idleMs, signal),
  );
}

/**
 * Checks an append. One that is sent again, since its first answer was lost, may be refused for nothing but having taken
 * effect: then this is the entry that it made.
 */
async function madeBefore(append: Append, { check, recall }: ServeOptions): Promise<LogEntry | undefined> {
  try {
    await check?.(append);
    return undefined;
  } catch (error) {
    const made = append.id && (await recall?.(append.id));
    if (made === undefined) throw error;
    return made;
  }
}

/** Each keeps what LevelDB would else throw away, and reads all there is. Who gets none folds the log. */
const snapshotsMax = 4;

/** Offers what a view holds of the log, as `NAME.head` and `NAME.read`, to those who may have it. */
export function serveReading(
  server: RpcServer,
  name: string,
  source: Pick<BeaconLog, 'head' | 'read'>,
  mayRead: (peer: PeerName) => boolean,
): void {
  const check = (peer: PeerName): void => {
    if (!mayRead(peer)) throw new HoldfastError('FORBIDDEN', `${name} is not for ${peer}`);
  };
  server.handle(`${name}.head`, async (_, { peer }) => {
    check(peer);
    const { revision, chain } = await source.head();
    return { head: { revision, chain } };
  });
  server.handleStream(`${name}.read`, ({ head }, { peer, signal }) => {
    check(peer);
    return readPages(source, fromOf(head), signal);
  });
}

/** A page of entries as it travels. */
interface PageHead extends LogPosition {
  /** Bytes of each payload in the body. */
  readonly sizes: readonly number[];
}

/** Reads what `serveBeacon` sent as the head of a page. Throws RECORD_INVALID. */
export function parsePageHead(head: unknown): PageHead {
  const { sizes, ...rest } = { ...(typeof head === 'object' ? head : {}) } as Record<string, unknown>;
  const isSizes = Array.isArray(sizes) && sizes.every((size) => Number.isSafeInteger(size) && size > 0);
  if (!isSizes) throw new HoldfastError('RECORD_INVALID', 'a page of log entries names no sizes');
  return { ...parsePosition(rest), sizes };
}

/** Reads {revision, chain}. Throws RECORD_INVALID. */
export function parsePosition(head: unknown): LogPosition {
  const { revision, chain } = { ...(typeof head === 'object' ? head : {}) } as Record<string, unknown>;
  const good =
    Number.isSafeInteger(revision) &&
    Number(revision) >= 0 &&
    chain instanceof Uint8Array &&
    chain.length === 32;
  if (!good) throw new HoldfastError('RECORD_INVALID', 'a log position is {revision, chain of 32 bytes}');
  return { revision: Number(revision), chain };
}

function fromOf(head: unknown): number {
  const from = typeof head === 'object' && head !== null && 'from' in head ? head.from : undefined;
  if (typeof from === 'number' && Number.isSafeInteger(from) && from >= 1) return from;
  throw new HoldfastError('ARGUMENT_INVALID', 'from must be a revision, 1 or more');
}

async function* readPages(
  log: Pick<BeaconLog, 'head' | 'read'>,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<RpcMessage> {
  const page = new PageBuilder(await positionBefore(log, from, signal));
  for await (const entry of log.read(from, { signal })) {
    if (!page.fits(entry)) yield page.take();
    page.add(entry);
  }
  if (!page.empty) yield page.take();
}

/** Everything there is in full pages, then each entry as it comes. */
async function* watchPages(
  log: BeaconLog,
  from: number,
  idleMs: number,
  signal: AbortSignal,
): AsyncGenerator<RpcMessage> {
  let next = from;
  let before = await positionBefore(log, from, signal);
  yield new PageBuilder(before).take(); // tells the reader at once that the watch stands, and on which chain
  const page = new PageBuilder(before);
  for await (const entry of log.read(from, { signal })) {
    if (!page.fits(entry)) yield page.take();
    page.add(entry);
    before = entry;
    next = entry.revision + 1;
  }
  if (!page.empty) yield page.take();
  for await (const entry of watchWithIdle(log, next, idleMs, signal)) {
    const single = new PageBuilder(before);
    if (entry !== undefined) {
      single.add(entry);
      before = entry;
    }
    yield single.take();
  }
}

/** Entries as they come, and an `undefined` whenever none came for `idleMs`. */
async function* watchWithIdle(
  log: BeaconLog,
  from: number,
  idleMs: number,
  signal: AbortSignal,
): AsyncGenerator<LogEntry | undefined> {
  const left = new AbortController(); // the caller may leave the loop while a `next` is under way
  const entries = log.watch(from, { signal: AbortSignal.any([signal, left.signal]) });
  yield* withIdle(entries, idleMs, signal, () => left.abort());
}

/** Items as they come, and an `undefined` whenever none came for `idleMs`. `leave`: has an item under way not come. */
async function* withIdle<Item>(
  items: AsyncIterable<Item>,
  idleMs: number,
  signal: AbortSignal,
  leave: () => void = () => undefined,
): AsyncGenerator<Item | undefined> {
  const iterator = items[Symbol.asyncIterator]();
  let pending: Promise<IteratorResult<Item>> | undefined;
  try {
    while (!signal.aborted) {
      pending ??= iterator.next();
      const result = await firstWithin(pending, idleMs);
      if (result?.done === true) return;
      if (result !== undefined) pending = undefined;
      yield result?.value;
    }
  } finally {
    leave();
    pending?.catch(() => undefined); // nobody waits for its outcome any more
    await iterator.return?.();
  }
}

/** What `promise` resolves to, or undefined when that takes longer than `limitMs`. */
async function firstWithin<Value>(promise: Promise<Value>, limitMs: number): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const idle = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), limitMs);
  });
  try {
    return await Promise.race([promise, idle]);
  } finally {
    clearTimeout(timer);
  }
}

async function positionBefore(
  log: Pick<BeaconLog, 'head' | 'read'>,
  from: number,
  signal: AbortSignal,
): Promise<LogPosition> {
  if (from === 1) return emptyPosition;
  for await (const { revision, chain } of log.read(from - 1, { signal })) return { revision, chain };
  const { revision, chain } = await log.head();
  throw new HoldfastError('NOT_FOUND', `the log ends at revision ${revision}, before ${from}`, {
    details: { revision, chain: toHex(chain) },
  });
}

/** Small enough to be quick, large enough that a frame costs nothing beside it. One entry always fits. */
const pageBytesMax = rpcBodyBytesMax / 4;

class PageBuilder {
  #payloads: Uint8Array[] = [];
  #sizeBytes = 0;
  #before: LogPosition;
  #last: LogPosition;

  constructor(before: LogPosition) {
    this.#before = before;
    this.#last = before;
  }

  get empty(): boolean {
    return this.#payloads.length === 0;
  }

  fits(entry: LogEntry): boolean {
    return this.empty || this.#sizeBytes + entry.payload.length <= pageBytesMax;
  }

  add(entry: LogEntry): void {
    this.#payloads.push(entry.payload);
    this.#sizeBytes += entry.payload.length;
    this.#last = entry;
  }

  take(): RpcMessage {
    const { revision, chain } = this.#before;
    const head = { revision, chain, sizes: this.#payloads.map((payload) => payload.length) };
    const body = concat(...this.#payloads);
    this.#payloads = [];
    this.#sizeBytes = 0;
    this.#before = this.#last;
    return { head, body };
  }
}
