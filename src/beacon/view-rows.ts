// The rows of a view as they are now, and who may be told of them.
//
// Nobody is told of a record before it was opened properly (late.ts), nor of one that a copied row only claims to be in
// the log (copied.ts). Whatever is read for an answer goes through `open`, and nothing is answered once the view is
// condemned.

import { HoldfastError } from '../core/errors.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import { Bell } from './bell.ts';
import { emptyState } from './fold.ts';
import { guarded, type KeyRange, type Kv, type KvReader, prefixRange } from './kv.ts';
import type { LateSignatures } from './late.ts';
import type { LogEntry, LogPosition } from './log.ts';
import { Lru } from './lru.ts';
import type { Page, PageOptions, Registered, RegisteredVersion } from './queries.ts';
import type { AnyBody } from './records.ts';
import { registered } from './registered.ts';
import {
  decodeEntryRow,
  decodeHead,
  decodeState,
  type Head,
  positionKey,
  rowKey,
  rowPrefix,
  type ViewState,
} from './rows.ts';
import { corrupt } from './seal.ts';

/** A row about a version of a chain: what it says is true when the log has it. */
export type NamedRow = readonly [chainId: string, row: Head];

export class ViewRows {
  /** The rows, as `BeaconView` owns them: for what writes, and for what is true whatever was found to be false. */
  readonly kv: Kv;
  /** Reads of the rows, none of which is answered once the view is condemned. */
  readonly reader: KvReader;
  readonly late: LateSignatures;
  /** Current versions, decoded, by address. */
  readonly heads: Lru<RegisteredVersion>;
  /** Rings when the view has moved on, or is condemned. */
  readonly bell = new Bell();
  readonly #condemned = Promise.withResolvers<void>();
  #state: ViewState;

  constructor(kv: Kv, state: ViewState, late: LateSignatures, cacheBytes: number) {
    this.kv = kv;
    this.reader = guarded(kv, () => late.check());
    this.late = late;
    this.heads = new Lru(cacheBytes);
    this.#state = state;
  }

  get state(): ViewState {
    return this.#state;
  }

  get position(): LogPosition {
    return this.#state.position;
  }

  /** The rows say so now. */
  movedTo(state: ViewState): void {
    this.#state = state;
  }

  /** Resolves when the view is condemned. */
  get condemned(): Promise<void> {
    return this.#condemned.promise;
  }

  /** From now on nothing is answered: `late` says why. */
  condemn(): void {
    this.heads.clear();
    this.#condemned.resolve();
    this.bell.ring();
  }

  /** Every version of every chain whose id begins with `prefix`, in key order. */
  async *versionRows(prefix = ''): AsyncGenerator<NamedRow> {
    const base = rowPrefix('vers');
    for await (const [key, value] of this.reader.range(prefixRange(base + prefix))) {
      const [chainId = ''] = key.slice(base.length).split('\0');
      yield [chainId, decodeHead(value)];
    }
  }

  /** The current version of a chain; when there is none, no version of it may be there either. */
  async headOf(chainId: string): Promise<Head | undefined> {
    for (;;) {
      const { revision } = this.position;
      const row = await this.reader.get(rowKey('head', chainId));
      if (row !== undefined) return decodeHead(row);
      const version = await first(
        this.reader.range({ ...prefixRange(rowPrefix('vers', chainId)), limit: 1 }),
      );
      if (version === undefined) return undefined;
      if (revision === this.position.revision) throw missing(`the current version of ${chainId}`);
    }
  }

  /** A version that must be there. Throws RECORD_CORRUPT where it is not. */
  async pointer(chainId: string, version: number): Promise<Head> {
    const row = await this.reader.get(rowKey('vers', chainId, version));
    if (row === undefined) throw missing(`version ${version} of ${chainId}`);
    return decodeHead(row);
  }

  /** The view's own copy of a log entry that must be there. Throws RECORD_CORRUPT where it is not. */
  async entry(revision: number): Promise<LogEntry> {
    const row = await this.reader.get(rowKey('log', revision));
    if (row === undefined) throw missing(`the view's copy of log entry ${revision}`);
    return decodeEntryRow(revision, row);
  }

  /** The record that a version row points at. Throws RECORD_CORRUPT where it is not. */
  async bytesAt({ revision, index, version }: Head): Promise<Uint8Array> {
    const record = (await this.entry(revision)).records[index];
    if (record === undefined) throw missing(`record ${index} of log entry ${revision}, version ${version},`);
    return record.bytes;
  }

  /** A record of a key, the current version or the given one; undefined when there is none. Throws as `open`. */
  async keyRecord<Body extends Exclude<AnyBody, ManifestBody>>(
    chainId: string,
    kind: Body['kind'],
    version: number | undefined,
  ): Promise<Registered<Body> | undefined> {
    const head = await this.headOf(chainId);
    if (head === undefined) return undefined;
    if (version === undefined || version === head.version) {
      await this.open([[chainId, head]]);
      return registered<Body>(head, head.bytes, kind);
    }
    if (!isVersion(version) || version > head.version) return undefined;
    const pointer = await this.pointer(chainId, version);
    await this.open([[chainId, pointer]]);
    return pointer.type === 'missing'
      ? undefined
      : registered<Body>(pointer, await this.bytesAt(pointer), kind);
  }

  /**
   * Nobody is told of a record before it was opened properly, nor of one that a copied row only claims to be in the log.
   * Throws RECORD_CORRUPT when one turns out to be false.
   */
  async open(rows: Iterable<NamedRow>): Promise<void> {
    let sliceBegan = performance.now();
    for (const [chainId, row] of rows) {
      if (!this.late.isUnopened(row.revision) && !this.late.isUnproven(chainId, row)) continue;
      const entry = await this.openEntry(row.revision, true);
      if (this.late.isCopied) await this.#judged(() => this.late.proveRow(chainId, row, entry));
      if (performance.now() - sliceBegan < sliceMs) continue;
      await yieldToOthers();
      sliceBegan = performance.now();
    }
  }

  /** A log entry, opened properly. `isNamed`: rows name its records, so it cannot be one that was skipped. */
  async openEntry(revision: number, isNamed: boolean): Promise<LogEntry> {
    const entry = await this.entry(revision);
    if (this.late.isUnopened(revision)) await this.#judged(() => this.late.openAhead(entry, isNamed));
    return entry;
  }

  async #judged(judge: () => Promise<void>): Promise<void> {
    try {
      await judge();
    } finally {
      if (this.late.problem !== '') this.condemn();
    }
  }

  /** As `open`, for rows that name versions of chains without saying where these came from. */
  async openVersions(versions: readonly (readonly [chainId: string, version: number])[]): Promise<void> {
    const chainIds = versions.map(([chainId]) => chainId);
    await this.#openRows(
      chainIds,
      versions.map(([chainId, version]) => rowKey('vers', chainId, version)),
    );
  }

  /** As `open`, for the current versions of these chains. */
  async openHeads(chainIds: readonly string[]): Promise<void> {
    await this.#openRows(
      chainIds,
      chainIds.map((chainId) => rowKey('head', chainId)),
    );
  }

  async #openRows(chainIds: readonly string[], keys: readonly string[]): Promise<void> {
    if (this.late.next === undefined && !this.late.isCopied) return;
    const rows = await this.reader.getMany(keys);
    const named = rows.map((row, at): NamedRow | undefined =>
      row === undefined ? undefined : [chainIds[at] ?? '', decodeHead(row)],
    );
    await this.open(named.filter((row) => row !== undefined));
  }

  /**
   * A page of what `convert` makes of the rows under `prefix`, without those of which it makes undefined.
   * Tokens are keys without `base`, which all keys here begin with. Looks at no more than `rowsPerPageMax` rows,
   * so a page may be short, or empty, and still have a next one. Throws ARGUMENT_INVALID for a limit or a token that is none.
   */
  async page<Item>(
    prefix: string,
    base: string,
    { limit = 100, after, reverse = false }: PageOptions & { readonly reverse?: boolean },
    convert: (key: string, value: Uint8Array) => Item | undefined,
  ): Promise<Page<Item>> {
    const items: Item[] = [];
    const itemsMax = pageLimit(limit);
    let looked = 0;
    let last: string | undefined;
    for await (const [key, value] of this.reader.range(pageRange(prefix, base, after, reverse))) {
      if (items.length >= itemsMax || looked >= rowsPerPageMax)
        return { items, next: (last ?? key).slice(base.length) };
      const item = convert(key, value);
      if (item !== undefined) items.push(item);
      last = key;
      looked++;
    }
    return { items };
  }
}

/** How far the rows say that they have come. */
export async function storedState(rows: Pick<KvReader, 'get'>): Promise<ViewState> {
  const row = await rows.get(positionKey);
  return row === undefined ? emptyState : decodeState(row);
}

/** Most items of a page. */
const pageItemsMax = 1000;
/** Rows that one page may look at, so that a query that matches little returns in time. */
const rowsPerPageMax = 20_000;
/** Longest work on signatures in one turn, ms. */
const sliceMs = 4;

/** Throws it where a row must be and is not. */
export function missing(what: string): HoldfastError {
  return corrupt(what, 'is missing');
}

/** True for what can be the number of a version. */
export function isVersion(version: number): boolean {
  return Number.isSafeInteger(version) && version >= 1;
}

/** Lets whatever waits have its turn. */
function yieldToOthers(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function pageRange(prefix: string, base: string, after: string | undefined, reverse: boolean): KeyRange {
  const range = { from: prefix, to: `${prefix}\u{10ffff}` };
  if (after === undefined) return { ...range, reverse };
  const key = base + after;
  if (!key.startsWith(prefix))
    throw new HoldfastError('ARGUMENT_INVALID', 'that page token belongs to another query');
  return reverse ? { ...range, to: key, reverse } : { ...range, from: `${key}\0`, reverse };
}

function pageLimit(limit: number): number {
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= pageItemsMax) return limit;
  throw new HoldfastError('ARGUMENT_INVALID', `limit ${limit}: 1…${pageItemsMax} expected`);
}

async function first<Item>(items: AsyncIterable<Item>): Promise<Item | undefined> {
  for await (const item of items) return item;
  return undefined;
}
