// The registry as one process sees it: a fold of the log over a Kv, with every index in the same batch.
//
// A view follows a log and never trusts it: each entry must continue the chain that the view holds. A log that is
// behind its view, or tells another history, has lost or rewritten what it acknowledged. That is an alarm
// (`diverged`); such a log is not followed until it tells the same history again, and the view keeps its own copy
// of the entries, from which the log can be made anew (transfer.ts).

import { setTimeout as delay } from 'node:timers/promises';
import { asBuffer, sameBytes, toHex } from '../core/bytes.ts';
import { type Block, type CID, codecDagCbor, cidOf } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { groupsOf, servedItsPurpose } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import {
  type BranchEnvelope,
  type BranchKeyBody,
  type DirectEnvelope,
  type EnvelopeBody,
  type KekBody,
  policyOfKey,
} from '../envelope/records.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import type { SignedRecord } from '../manifest/record.ts';
import { type AddressPattern, keyPrefix, matches } from '../ucxl/match.ts';
import { wildcard } from '../ucxl/address.ts';
import type { CertificateBody } from '../custody/certificate.ts';
import type { PolicyBody } from '../custody/policy.ts';
import type { RevocationBody } from '../custody/revocation.ts';
import { Bell, eventOrAbort } from './bell.ts';
import { custodyPrefixes, keyVersionPart } from './custody-chain.ts';
import { checkEntitled, type Entitled } from './entitled.ts';
import {
  addressOfPathKey,
  emptyState,
  foldEntry,
  type Folded,
  type PreparedEntry,
  prepareEntry,
  stateRow,
} from './fold.ts';
import {
  guarded,
  type KeyRange,
  type Kv,
  type KvReader,
  type KvRow,
  prefixRange,
  startedRows,
} from './kv.ts';
import {
  type Append,
  type BeaconLog,
  encodeAppend,
  expectAny,
  type LogEntry,
  type LogPosition,
  nextChain,
  nextEntry,
  versionConflict,
} from './log.ts';
import { falseRecord, isOwnRow, LateSignatures } from './late.ts';
import { Lru } from './lru.ts';
import type {
  BeaconQueries,
  CatalogueEntry,
  ChainVersion,
  CidUse,
  CustodyCursor,
  CustodyPage,
  CustodyPageOptions,
  CustodyRecord,
  Page,
  PageOptions,
  Registered,
  RegisteredVersion,
  RegistryChange,
  RegistryCounts,
  RejectedEntry,
  VersionLine,
  ViewHealth,
  WrappedObject,
} from './queries.ts';
import { type AnyBody, type OpenedRecord, openRecords, readRegistryRecord, trustedBody } from './records.ts';
import {
  decodeEntryRow,
  decodeHead,
  decodeRevision,
  decodeState,
  type Head,
  partNumber,
  positionKey,
  rowKey,
  rowPrefix,
  type ViewState,
} from './rows.ts';
import { corrupt } from './seal.ts';

export interface ViewOptions {
  /** Bytes of current versions kept decoded in memory. Default 16 MiB; 0 keeps none. */
  readonly cacheBytes?: number;
  /** Longest pause before a lost log is tried again, ms. Default 2 s. */
  readonly retryMsMax?: number;
  /**
   * Whether the records of a log that is followed are opened before they are folded in, or, where the view is
   * behind it, after (late.ts). Default before. Not for a view that decides what a log may take.
   */
  readonly signatures?: 'before' | 'after';
  /** Fewest entries for which a view that begins with nothing asks for a snapshot. Default 4,096; Infinity: never. */
  readonly snapshotFrom?: number;
}

/** A row about a version of a chain: what it says is true when the log has it. */
type NamedRow = readonly [chainId: string, row: Head];

/** Somebody waits for the rows as they are with exactly so many entries. */
interface Moment {
  readonly revision: number;
  readonly found: PromiseWithResolvers<AsyncIterable<KvRow> | undefined>;
}

/** One version of a chain that there is a record of. */
export interface HeldVersion {
  readonly chainId: string;
  readonly version: number;
  readonly cid: CID;
}

export class BeaconView implements BeaconQueries, AsyncDisposable {
  readonly #kv: Kv;
  /** Reads of the rows, none of which is answered once the view is condemned. */
  readonly #rows: KvReader;
  readonly #options: Required<ViewOptions>;
  readonly #heads: Lru<RegisteredVersion>;
  readonly #bell = new Bell();
  readonly #late: LateSignatures;
  readonly #condemned = Promise.withResolvers<void>();
  #state: ViewState;
  #follow: FollowState = { state: 'idle', reason: '' };
  #logRevision: number | undefined;
  /** What keeps records that were folded in on trust from being opened. */
  #lateTrouble: FollowState | undefined;
  #appliedAtMs = -Infinity;
  readonly #moments = new Set<Moment>();
  #askedForSnapshot = false;
  #applying: Promise<unknown> = Promise.resolve();
  /** A write failed: it is unknown whether its rows were kept. */
  #isUncertain = false;

  private constructor(kv: Kv, state: ViewState, late: LateSignatures, options: ViewOptions) {
    this.#kv = kv;
    this.#rows = guarded(kv, () => late.check());
    this.#state = state;
    this.#late = late;
    this.#options = {
      cacheBytes: 16 * 1024 * 1024,
      retryMsMax: 2 * second,
      signatures: 'before',
      snapshotFrom: 4096,
      ...options,
    };
    this.#heads = new Lru(this.#options.cacheBytes);
  }

  /** Opens the view in `kv`, which it owns from now on. Verifies its newest entries. Throws RECORD_CORRUPT. */
  static async open(kv: Kv, options: ViewOptions = {}): Promise<BeaconView> {
    try {
      const row = await kv.get(positionKey);
      const state = row === undefined ? emptyState : decodeState(row);
      await verifyTail(kv, state.position);
      return new BeaconView(kv, state, await LateSignatures.open(kv), options);
    } catch (error) {
      await kv[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Resolves once a false record was found among those folded in on trust: from then on nothing is answered. */
  get condemned(): Promise<void> {
    return this.#condemned.promise;
  }

  position(): LogPosition {
    return this.#state.position;
  }

  counts(): RegistryCounts {
    return this.#state.counts;
  }

  health(): ViewHealth {
    const { problem } = this.#late;
    const state = problem === '' ? (this.#lateTrouble ?? this.#follow) : followState(falseRecord(problem));
    const health = { ...state, revision: this.#state.position.revision };
    return this.#logRevision === undefined ? health : { ...health, logRevision: this.#logRevision };
  }

  /**
   * Folds entries in, all in one durable batch, or in two where somebody waits for the rows in between (`rowsAt`). They
   * must follow each other and the view.
   * Throws RECORD_CORRUPT when they do not continue the chain: nothing is changed then.
   */
  async apply(entries: readonly LogEntry[]): Promise<void> {
    await this.#apply(entries, 'before');
  }

  async #apply(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    await this.#alone(async () => {
      for (const part of splitBehind(entries, this.#moments)) {
        await this.#applyNow(part, signatures);
        await this.#meetMoments();
      }
    });
  }

  /** One at a time; the failure is the caller's. */
  async #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const run = this.#applying.then(work);
    this.#applying = run.catch(() => undefined);
    return run;
  }

  /**
   * Follows `log` until `signal` aborts: catches up, then applies entries as they come. Whatever goes wrong is
   * shown by `health` and tried again; nothing is thrown but what is our own mistake.
   */
  async follow(log: BeaconLog, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    void this.condemned.then(() => ended.abort());
    const running = AbortSignal.any([signal, ended.signal]);
    const verifying = this.#verifyLate(running);
    try {
      await this.#followUntil(log, running);
    } finally {
      ended.abort();
      await verifying;
    }
  }

  async #followUntil(log: BeaconLog, signal: AbortSignal): Promise<void> {
    for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(2 * pauseMs, this.#options.retryMsMax)) {
      const before = this.position().revision;
      try {
        await this.#followOnce(log, signal);
      } catch (error) {
        if (signal.aborted) break;
        this.#follow = followState(error);
      }
      if (this.position().revision > before) pauseMs = 100;
      await delay(pauseMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    }
    if (this.#follow.state === 'following') this.#follow = { state: 'idle', reason: '' };
  }

  async waitFor(revision: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const changed = this.#bell.next();
      this.#late.check();
      if (this.position().revision >= revision) return;
      await eventOrAbort(changed, signal);
    }
  }

  async head(address: string): Promise<RegisteredVersion | undefined> {
    this.#late.check();
    const cached = this.#heads.get(address);
    if (cached !== undefined) return cached;
    const { revision } = this.position();
    const head = await this.#headOf(`addr/${address}`);
    if (head === undefined) return undefined;
    const found = registeredVersion(address, head, head.bytes, head.keptFrom);
    await this.#open([[`addr/${address}`, head]]);
    // Not when the view moved on meanwhile: this may be the version before.
    if (revision === this.position().revision) this.#heads.set(address, found, 2 * head.bytes.length + 512);
    return found;
  }

  async version(address: string, version: number): Promise<RegisteredVersion | undefined> {
    const head = await this.#headOf(`addr/${address}`);
    if (head === undefined || !isVersion(version) || version > head.version) return undefined;
    const pointer = await this.#pointer(`addr/${address}`, version);
    await this.#open([[`addr/${address}`, pointer]]);
    if (pointer.type === 'missing') return undefined;
    return registeredVersion(address, pointer, await this.#bytesAt(pointer), head.keptFrom);
  }

  /** By bisection: instants never fall from one version to the next. */
  async at(address: string, instant: number): Promise<RegisteredVersion | undefined> {
    const head = await this.#headOf(`addr/${address}`);
    if (head === undefined) return undefined;
    let low = 0; // a version current at `instant` or before, 0 for none
    let high = head.version + 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const { at } = await this.#pointer(`addr/${address}`, middle);
      if (at <= instant) low = middle;
      else high = middle;
    }
    return low === 0 ? undefined : this.version(address, low);
  }

  async versions(
    address: string,
    page: PageOptions & { readonly reverse?: boolean } = {},
  ): Promise<Page<VersionLine>> {
    const prefix = rowPrefix('vers', `addr/${address}`);
    const named: NamedRow[] = [];
    const found = await this.#page(prefix, prefix, page, (_key, value) => {
      const pointer = decodeHead(value);
      named.push([`addr/${address}`, pointer]);
      const { version, revision, at, type, cid } = pointer;
      return { version, revision, at, type, manifestCid: cid };
    });
    await this.#open(named);
    return found;
  }

  async query(
    pattern: AddressPattern,
    page: PageOptions & { readonly removed?: boolean } = {},
  ): Promise<Page<RegisteredVersion>> {
    const isByPath = pattern.agent === wildcard && pattern.project !== wildcard && page.removed !== true;
    return isByPath ? this.#queryByPath(pattern, page) : this.#queryByAddress(pattern, page);
  }

  async tagged(tag: string, page: PageOptions = {}): Promise<Page<RegisteredVersion>> {
    const prefix = rowPrefix('tag', tag);
    const found = await this.#page(prefix, prefix, page, (key) => key.slice(prefix.length));
    return { ...found, items: await this.#heldHeads(found.items) };
  }

  async writtenBy(
    writer: Uint8Array,
    page: PageOptions = {},
  ): Promise<Page<{ readonly address: string; readonly version: number }>> {
    const prefix = rowPrefix('wrtr', toHex(writer));
    const found = await this.#page(prefix, prefix, page, (key) =>
      addressAndVersion(key.slice(prefix.length)),
    );
    await this.#openVersions(found.items.map(({ address, version }) => [`addr/${address}`, version]));
    return found;
  }

  async byCid(cid: CID, page: PageOptions = {}): Promise<Page<CidUse>> {
    const prefix = rowPrefix('cid', cid.toString());
    const found = await this.#page(prefix, prefix, page, (key) => cidUse(key.slice(prefix.length)));
    await this.#openVersions(found.items.map(({ as, id, version }) => [chainOfUse[as] + id, version]));
    return found;
  }

  async objectsOfBranchKey(bkId: Uint8Array, page: PageOptions = {}): Promise<Page<WrappedObject>> {
    const prefix = rowPrefix('bkob', toHex(bkId));
    const found = await this.#page(prefix, prefix, page, (key) => key.slice(prefix.length));
    await this.#openHeads(found.items.map((objId) => `env/${objId}`));
    const items = await Promise.all(found.items.map((objId) => this.#wrappedObject(objId)));
    return { ...found, items };
  }

  async wrappedObject(objId: Uint8Array): Promise<WrappedObject> {
    return this.#wrappedObject(toHex(objId));
  }

  async envelope(objId: Uint8Array, version?: number): Promise<Registered<EnvelopeBody> | undefined> {
    return this.#keyRecord(`env/${toHex(objId)}`, 'envelope', version);
  }

  async branchKey(bkId: Uint8Array, version?: number): Promise<Registered<BranchKeyBody> | undefined> {
    return this.#keyRecord(`bk/${toHex(bkId)}`, 'branch-key', version);
  }

  async wrappedKeys(page: PageOptions = {}): Promise<Page<Registered<BranchKeyBody | DirectEnvelope>>> {
    const base = rowPrefix('head');
    const inEnvelopes = page.after?.startsWith('env/') === true;
    const named: NamedRow[] = [];
    const found = await this.#page(`${base}${inEnvelopes ? 'env/' : 'bk/'}`, base, page, (key, value) => {
      const head = decodeHead(value);
      const body = trustedBody(head.bytes);
      named.push([key.slice(base.length), head]);
      if (body.kind === 'branch-key') return registered<BranchKeyBody>(head, head.bytes, 'branch-key');
      if (body.kind !== 'envelope' || body.mode !== 'direct') return undefined;
      return registered<DirectEnvelope>(head, head.bytes, 'envelope');
    });
    await this.#open(named);
    return found.next === undefined && !inEnvelopes ? { ...found, next: 'env/' } : found;
  }

  async kek(group: string, version?: number): Promise<Registered<KekBody> | undefined> {
    if (version === undefined)
      return (await this.#currentKek(group)) ?? this.#keyRecord(`kek/${group}`, 'kek', version);
    const ofGroup = await this.#keyRecord<KekBody>(`kek/${group}/${version}`, 'kek', undefined);
    return ofGroup ?? this.#keyRecord(`kek/${group}`, 'kek', version);
  }

  async #currentKek(group: string): Promise<Registered<KekBody> | undefined> {
    const versions: Registered<KekBody>[] = [];
    const named: NamedRow[] = [];
    const prefix = rowPrefix('head');
    for await (const [key, value] of this.#rows.range(prefixRange(`${prefix}kek/${group}/`))) {
      const head = decodeHead(value);
      named.push([key.slice(prefix.length), head]);
      versions.push(registered<KekBody>(head, head.bytes, 'kek'));
    }
    await this.#open(named);
    const rising = versions.toSorted((a, b) => a.record.body.ver - b.record.body.ver);
    return rising.findLast(({ record }) => record.body.state === 'active') ?? rising.at(-1);
  }

  async wrappedUnder(
    group: string,
    version: number,
    page: PageOptions = {},
  ): Promise<Page<Registered<BranchKeyBody | EnvelopeBody>>> {
    const prefix = rowPrefix('wrap', keyVersionPart(group, version));
    const found = await this.#page(prefix, prefix, page, (key) => key.slice(prefix.length));
    const items = await Promise.all(
      found.items.map((chainId) =>
        chainId.startsWith('env/')
          ? this.#keyRecord<EnvelopeBody>(chainId, 'envelope', undefined)
          : this.#keyRecord<BranchKeyBody>(chainId, 'branch-key', undefined),
      ),
    );
    return { ...found, items: items.filter((item) => item !== undefined) };
  }

  async policy(family: Uint8Array, version?: number): Promise<Registered<PolicyBody> | undefined> {
    return this.#keyRecord(`pol/${toHex(family)}`, 'policy', version);
  }

  async revocation(group: string, n?: number): Promise<Registered<RevocationBody> | undefined> {
    return this.#keyRecord(`rev/${group}`, 'revocation', n);
  }

  async certificate(
    group: string,
    version: number,
    n?: number,
  ): Promise<Registered<CertificateBody> | undefined> {
    return this.#keyRecord(`cert/${group}/${version}`, 'certificate', n);
  }

  async custodyRecords(since: CustodyCursor, options: CustodyPageOptions = {}): Promise<CustodyPage> {
    const { limit = 256, sizeBytesMax = 512 * 1024 } = options;
    const head = this.position().revision;
    const prefix = rowPrefix('cust');
    const from = `${rowKey('cust', since.revision, since.index)}\0`; // the first key behind it
    const records: CustodyRecord[] = [];
    let sizeBytes = 0;
    for await (const [key] of this.#rows.range({ ...prefixRange(prefix), from })) {
      const [revision, index] = key.slice(prefix.length).split('\0').map(partNumber);
      if (revision === undefined || index === undefined || revision > head) break;
      const record = (await this.#openEntry(revision, true)).records[index];
      if (record === undefined) throw this.#damaged(`record ${index} of log entry ${revision}`);
      sizeBytes += record.bytes.length;
      if (records.length > 0 && (records.length >= limit || sizeBytes > sizeBytesMax))
        return { head, records, done: false };
      records.push({ revision, index, ...record });
    }
    return { head, records, done: true };
  }

  async keks(page: PageOptions = {}): Promise<Page<Registered<KekBody>>> {
    const prefix = rowPrefix('head');
    const named: NamedRow[] = [];
    const found = await this.#page(`${prefix}kek/`, prefix, page, (key, value) => {
      const head = decodeHead(value);
      named.push([key.slice(prefix.length), head]);
      return registered<KekBody>(head, head.bytes, 'kek');
    });
    await this.#open(named);
    return found;
  }

  async subjectRevision(subject: string): Promise<number> {
    const row = await this.#rows.get(rowKey('sub', subject));
    return row === undefined ? 0 : decodeRevision(row);
  }

  async rejected(page: PageOptions = {}): Promise<Page<RejectedEntry>> {
    const prefix = rowPrefix('rejt');
    const found = await this.#page(prefix, prefix, page, (key, value) => ({
      revision: partNumber(key.slice(prefix.length)),
      reason: asBuffer(value).toString(),
    }));
    const items = await Promise.all(
      found.items.map(async (item) => ({ ...item, subject: (await this.#entry(item.revision)).subject })),
    );
    return { ...found, items };
  }

  async *entriesSince(
    revision: number,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<LogEntry> {
    const last = this.position().revision;
    let next = Math.max(1, revision);
    if (next > last) return;
    for await (const [key, value] of this.#kv.range({
      from: rowKey('log', next),
      to: rowKey('log', last + 1),
    })) {
      options.signal?.throwIfAborted();
      if (key !== rowKey('log', next)) break;
      yield decodeEntryRow(next, value);
      next++;
    }
    if (next <= last) throw corrupt(`the view's copy of log entry ${next}`, 'is missing');
  }

  async *changesSince(
    revision: number,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<RegistryChange> {
    for await (const entry of this.entriesSince(revision, options)) {
      await this.#openEntry(entry.revision, false);
      const keys = entry.records.map(({ key }) => key);
      const reason = await this.#rows.get(rowKey('rejt', entry.revision));
      yield reason === undefined
        ? { revision: entry.revision, keys }
        : { revision: entry.revision, keys, rejected: asBuffer(reason).toString() };
    }
  }

  async *catalogue(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<CatalogueEntry> {
    const prefix = rowPrefix('head');
    const branchKeys = new Lru<readonly CID[]>(branchKeysCached);
    for await (const [key, value] of this.#rows.range(prefixRange(`${prefix}addr/`))) {
      options.signal?.throwIfAborted();
      yield* this.#catalogueEntries(key.slice(prefix.length + 'addr/'.length), decodeHead(value), branchKeys);
    }
  }

  async *catalogueOf(address: string): AsyncGenerator<CatalogueEntry> {
    const head = await this.#headOf(`addr/${address}`);
    if (head !== undefined) yield* this.#catalogueEntries(address, head, new Lru(branchKeysCached));
  }

  /** Every version of every chain, chain by chain, versions ascending, in bounded memory. */
  async *chains(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<ChainVersion> {
    for await (const [chainId, pointer] of this.#versionRows()) {
      options.signal?.throwIfAborted();
      await this.#open([[chainId, pointer]]);
      const { version, type, cid } = pointer;
      const prev = cid === null ? null : trustedBody(await this.#bytesAt(pointer)).prev;
      yield { chainId, version, type, cid, prev };
    }
  }

  /** The newest version of a chain, or the given one; undefined when there is none. */
  async chainVersion(chainId: string, version?: number): Promise<Omit<ChainVersion, 'prev'> | undefined> {
    const head = await this.#headOf(chainId);
    if (head === undefined || (version ?? 1) > head.version) return undefined;
    const found = version === undefined ? head : await this.#pointer(chainId, version);
    await this.#open([[chainId, found]]);
    return { chainId, version: found.version, type: found.type, cid: found.cid };
  }

  async *keyBlocks(): AsyncGenerator<CID> {
    yield* this.#blocksOf(['bk/', ...custodyPrefixes]);
  }

  async *custodyBlocks(): AsyncGenerator<CID> {
    yield* this.#blocksOf(custodyPrefixes);
  }

  async *#blocksOf(prefixes: readonly string[]): AsyncGenerator<CID> {
    for (const prefix of prefixes) {
      for await (const row of this.#versionRows(prefix)) {
        await this.#open([row]);
        const [, { cid }] = row;
        if (cid !== null) yield cid;
      }
    }
  }

  /** Every version of every chain that there is a record of, in key order. */
  async *heldVersions(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<HeldVersion> {
    for await (const [chainId, { cid, version }] of this.#versionRows()) {
      options.signal?.throwIfAborted();
      if (cid !== null) yield { chainId, version, cid };
    }
  }

  /** The rows of all versions of the chains whose id begins with `prefix`, in key order. */
  async *#versionRows(prefix = ''): AsyncGenerator<NamedRow> {
    const base = rowPrefix('vers');
    for await (const [key, value] of this.#rows.range(prefixRange(base + prefix))) {
      const [chainId = ''] = key.slice(base.length).split('\0');
      yield [chainId, decodeHead(value)];
    }
  }

  /** The CID of each of these versions here; undefined of one that is not here. */
  async cidsOf(versions: readonly Omit<HeldVersion, 'cid'>[]): Promise<(CID | undefined)[]> {
    const keys = versions.map(({ chainId, version }) => rowKey('vers', chainId, version));
    const rows = await this.#rows.getMany(keys);
    return rows.map((row) => (row === undefined ? undefined : (decodeHead(row).cid ?? undefined)));
  }

  /** All rows in key order, as they are: what `beacon verify` compares. */
  async *rows(): AsyncGenerator<KvRow> {
    for await (const row of this.#kv.range(everything)) if (!isOwnRow(row[0])) yield row;
  }

  /**
   * The rows of the moment in which exactly `revision` entries are folded in, once it has come; undefined when it is
   * past. Whoever takes them reads them to the end, or returns.
   */
  async rowsAt(revision: number, signal: AbortSignal): Promise<AsyncIterable<KvRow> | undefined> {
    signal.throwIfAborted();
    const moment: Moment = { revision, found: Promise.withResolvers() };
    const onAbort = (): void => moment.found.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await this.#alone(async () => {
        this.#moments.add(moment);
        await this.#meetMoments();
      });
      return await moment.found.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#moments.delete(moment);
    }
  }

  /** All rows of one moment in pages, for a newcomer (snapshot.ts). Throws NOT_FOUND where rows are not stored. */
  snapshot(): AsyncIterable<Uint8Array> {
    const { copyable } = this.#kv;
    this.#late.check();
    if (copyable === undefined || this.#late.next !== undefined || this.isCopied)
      throw new HoldfastError('NOT_FOUND', 'this view has no rows to give away that it has proven itself');
    return copyable.pages();
  }

  /** True while its rows are those of another view, and nobody has folded all their entries to compare (copied.ts). */
  get isCopied(): boolean {
    return this.#late.isCopied;
  }

  /** Says how the comparison ended: with `problem` empty the rows are this view's own, else it is condemned. */
  async settleProof(problem: string): Promise<void> {
    await this.#late.settleProof(problem);
    if (problem !== '') this.#condemn();
  }

  /** Runs `work` while nothing is folded in. */
  standingStill<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#alone(work);
  }

  /** What folding `append` right now would do. For `checkAppend`. */
  async tryFold(append: Append): Promise<Folded> {
    const prepared = prepareEntry(nextEntry(this.position(), append, encodeAppend(append)));
    const read = await this.#reader([prepared]);
    return foldEntry(prepared, this.#state, read);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#applying;
    await this.#kv[Symbol.asyncDispose]();
  }

  async #applyNow(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    this.#late.check();
    const fresh = this.#isUncertain ? await this.#takeUp(entries) : entries;
    const [first] = fresh;
    if (first === undefined) return;
    checkContinues(this.position(), fresh);
    const isLate = signatures === 'after';
    const prepared = fresh.map((entry) => (isLate ? prepareOnTrust(entry) : prepareEntry(entry)));
    const fetched = await this.#reader(prepared);
    const staged = new Map<string, Uint8Array | null>();
    const read = (key: string): Uint8Array | undefined => {
      const own = staged.get(key);
      return own === undefined ? fetched(key) : (own ?? undefined);
    };
    let state = this.#state;
    for (const entry of prepared) {
      const folded = foldEntry(entry, state, read);
      for (const [key, value] of folded.rows) staged.set(key, value);
      state = folded.state;
    }
    staged.set(...stateRow(state));
    const late = isLate ? this.#late.rowFor(first.revision) : undefined;
    if (late !== undefined) staged.set(...late);
    try {
      await this.#kv.write(staged);
    } catch (error) {
      this.#isUncertain = true;
      throw error;
    }
    if (isLate) this.#late.folded(first.revision);
    this.#state = state;
    this.#appliedAtMs = performance.now();
    for (const key of staged.keys())
      if (key.startsWith(headAddress)) this.#heads.delete(key.slice(headAddress.length));
    this.#bell.ring();
  }

  /** Begins to read the rows for those who wait for just this many entries. */
  async #meetMoments(): Promise<void> {
    const { revision } = this.position();
    for (const moment of this.#moments) {
      if (moment.revision > revision) continue;
      this.#moments.delete(moment);
      const started = moment.revision === revision ? startedRows(this.rows()) : undefined;
      await started?.first.catch(() => undefined); // whoever reads on meets it
      moment.found.resolve(started?.rows);
    }
  }

  /** Goes on from what the rows on the disk say. Returns which of `entries` they do not hold. */
  async #takeUp(entries: readonly LogEntry[]): Promise<readonly LogEntry[]> {
    await this.#kv.reopen?.();
    const row = await this.#rows.get(positionKey);
    this.#state = row === undefined ? emptyState : decodeState(row);
    await this.#late.reload();
    this.#late.check();
    this.#heads.clear();
    this.#isUncertain = false;
    return entries.filter(({ revision }) => revision > this.position().revision);
  }

  async #reader(prepared: readonly PreparedEntry[]): Promise<(key: string) => Uint8Array | undefined> {
    const keys = [...new Set(prepared.flatMap(({ reads }) => reads))];
    const values = await this.#rows.getMany(keys);
    const rows = new Map(keys.map((key, index) => [key, values[index]]));
    return (key) => rows.get(key);
  }

  async #followOnce(log: BeaconLog, signal: AbortSignal): Promise<void> {
    if (this.#follow.state !== 'diverged') this.#follow = { state: 'connecting', reason: '' };
    const head = await log.head();
    this.#logRevision = head.revision;
    const { revision } = this.position();
    if (head.revision < revision) {
      throw diverged(`the log ends at revision ${head.revision}; it had acknowledged ${revision}`);
    }
    if (this.#wantsSnapshot(head)) {
      await this.#alone(() => this.#takeSnapshot(log, signal));
      return; // and begin again from where that ends
    }
    // Two empty histories agree; there is no entry to prove it by.
    if (head.revision === 0) this.#follow = { state: 'following', reason: '' };
    // From the entry that the view holds last: seeing it again proves that both tell the same history.
    const failed = new AbortController();
    const entries = log.watch(Math.max(1, revision), { signal: AbortSignal.any([signal, failed.signal]) });
    const goal = revision < head.revision ? head.revision : 0;
    let before: Promise<void> = Promise.resolve();
    try {
      for await (const group of grouped(entries, goal)) {
        await before;
        if (this.#late.problem !== '') throw falseRecord(this.#late.problem);
        const isBehind = (group.at(-1)?.revision ?? 0) <= goal;
        before = this.#applyFollowed(group, isBehind ? this.#options.signatures : 'before');
        // The next group is read while this one is written. A failure ends the watch, which may have nothing more to
        // say, and is thrown above or below.
        if (isBehind) before.catch(() => failed.abort(servedItsPurpose));
        else await before;
      }
      await before;
    } finally {
      failed.abort(servedItsPurpose);
    }
    if (!signal.aborted) throw new HoldfastError('PEER_UNREACHABLE', 'the log ended its watch');
  }

  /** Once in the life of a process, and not where entries are opened before they are folded in. */
  #wantsSnapshot({ revision }: LogPosition): boolean {
    const { signatures, snapshotFrom } = this.#options;
    const isFirst = this.position().revision === 0 && !this.#askedForSnapshot;
    return isFirst && signatures === 'after' && revision >= snapshotFrom && this.#kv.copyable !== undefined;
  }

  /** Takes the rows of another view as its own, to be proven. Where that fails, for whatever reason, there are none. */
  async #takeSnapshot(log: BeaconLog, signal: AbortSignal): Promise<void> {
    this.#askedForSnapshot = true;
    const { copyable } = this.#kv;
    if (log.snapshot === undefined || copyable === undefined) return;
    try {
      const unfinished = await this.#late.beginCopy();
      await copyable.replaceAll(log.snapshot({ signal }), unfinished);
      const state = await this.#copiedState(log, signal);
      await this.#late.endCopy();
      this.#state = state;
    } catch (error) {
      await copyable.clear();
      await this.#late.reload();
      // What others do not have, or give wrongly, is folded from the log. Own trouble is for `follow` to tell.
      if (signal.aborted || (error instanceof HoldfastError && error.details['readOnly'] === true))
        throw error;
    }
    this.#bell.ring();
  }

  /** Where the copied rows end: at an entry that the log has too. Throws RECORD_CORRUPT. */
  async #copiedState(log: BeaconLog, signal: AbortSignal): Promise<ViewState> {
    const row = await this.#kv.get(positionKey);
    if (row === undefined) throw corrupt('a snapshot', 'does not say where it ends');
    const state = decodeState(row);
    const { revision, chain } = state.position;
    await verifyTail(this.#kv, state.position);
    for await (const entry of log.read(revision, { signal })) {
      if (entry.revision === revision && sameBytes(entry.chain, chain)) return state;
      break;
    }
    throw corrupt(`a snapshot up to revision ${revision}`, 'tells another history than the log');
  }

  /**
   * Opens properly what was folded in on trust, whenever there is something: while the view catches up with a small
   * share of the time, and otherwise with half of it, whether the log goes on, stands still or is gone.
   */
  async #verifyLate(signal: AbortSignal): Promise<void> {
    const pauseFactor = (): number => (this.#isCatchingUp() ? catchUpPauseFactor : 1);
    while (!signal.aborted && this.#late.problem === '') {
      const changed = this.#bell.next();
      const { next } = this.#late;
      try {
        if (next === undefined) await eventOrAbort(changed, signal);
        else if (next > this.position().revision) await this.#alone(() => this.#finishLate());
        else await this.#late.verify(this.entriesSince(next, { signal }), pauseFactor, signal);
        this.#lateTrouble = undefined;
      } catch (error) {
        if (signal.aborted || this.#late.problem !== '') break;
        this.#lateTrouble = followState(error);
        await delay(this.#options.retryMsMax, undefined, { signal }).catch(() => undefined);
      }
    }
    if (this.#late.problem !== '') this.#condemn();
  }

  async #finishLate(): Promise<void> {
    if ((this.#late.next ?? 0) > this.position().revision) await this.#late.finish();
  }

  #isCatchingUp(): boolean {
    const isMoving = performance.now() - this.#appliedAtMs < second;
    return isMoving && this.position().revision < (this.#logRevision ?? 0);
  }

  async #applyFollowed(group: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    const { revision, chain } = this.position();
    const known = group.find((entry) => entry.revision === revision);
    if (known !== undefined && !sameBytes(known.chain, chain)) {
      throw diverged(`the log tells another history up to revision ${revision}`);
    }
    const fresh = group.filter((entry) => entry.revision > revision);
    try {
      if (fresh.length > 0) await this.#applyOnTrust(fresh, signatures);
    } catch (error) {
      if (isBroken(error)) throw diverged(describeError(error));
      throw error;
    }
    this.#logRevision = Math.max(this.#logRevision ?? 0, this.position().revision);
    this.#follow = { state: 'following', reason: '' };
  }

  /** What cannot even be folded without a check is checked: then the fold says what is wrong with it. */
  async #applyOnTrust(entries: readonly LogEntry[], signatures: 'before' | 'after'): Promise<void> {
    try {
      await this.#apply(entries, signatures);
    } catch (error) {
      if (signatures === 'before' || isHoldfastError(error)) throw error;
      await this.#apply(entries, 'before');
    }
  }

  /** The current version of a chain; when there is none, no version of it may be there either. */
  async #headOf(chainId: string): Promise<Head | undefined> {
    for (;;) {
      const { revision } = this.position();
      const row = await this.#rows.get(rowKey('head', chainId));
      if (row !== undefined) return decodeHead(row);
      const version = await first(this.#rows.range({ ...prefixRange(rowPrefix('vers', chainId)), limit: 1 }));
      if (version === undefined) return undefined;
      if (revision === this.position().revision) throw this.#damaged(`the current version of ${chainId}`);
    }
  }

  async #pointer(chainId: string, version: number): Promise<Head> {
    const row = await this.#rows.get(rowKey('vers', chainId, version));
    if (row === undefined) throw this.#damaged(`version ${version} of ${chainId}`);
    return decodeHead(row);
  }

  async #entry(revision: number): Promise<LogEntry> {
    const row = await this.#rows.get(rowKey('log', revision));
    if (row === undefined) throw this.#damaged(`the view's copy of log entry ${revision}`);
    return decodeEntryRow(revision, row);
  }

  async #bytesAt({ revision, index, version }: Head): Promise<Uint8Array> {
    const record = (await this.#entry(revision)).records[index];
    if (record === undefined)
      throw this.#damaged(`record ${index} of log entry ${revision}, version ${version},`);
    return record.bytes;
  }

  #damaged(what: string): HoldfastError {
    return corrupt(what, 'is missing');
  }

  async #keyRecord<Body extends Exclude<AnyBody, ManifestBody>>(
    chainId: string,
    kind: Body['kind'],
    version: number | undefined,
  ): Promise<Registered<Body> | undefined> {
    const head = await this.#headOf(chainId);
    if (head === undefined) return undefined;
    if (version === undefined || version === head.version) {
      await this.#open([[chainId, head]]);
      return registered<Body>(head, head.bytes, kind);
    }
    if (!isVersion(version) || version > head.version) return undefined;
    const pointer = await this.#pointer(chainId, version);
    await this.#open([[chainId, pointer]]);
    return pointer.type === 'missing'
      ? undefined
      : registered<Body>(pointer, await this.#bytesAt(pointer), kind);
  }

  async #wrappedObject(objId: string): Promise<WrappedObject> {
    const prefix = rowPrefix('objt', objId);
    const uses: { address: string; version: number }[] = [];
    for await (const [key] of this.#rows.range({ ...prefixRange(prefix), limit: usesMax })) {
      uses.push(addressAndVersion(key.slice(prefix.length)));
    }
    await this.#openVersions(uses.map(({ address, version }) => [`addr/${address}`, version]));
    return { objId: Buffer.from(objId, 'hex'), uses };
  }

  async #queryByAddress(
    pattern: AddressPattern,
    page: PageOptions & { readonly removed?: boolean },
  ): Promise<Page<RegisteredVersion>> {
    const named: NamedRow[] = [];
    const found = await this.#page(headAddress + keyPrefix(pattern), headAddress, page, (key, value) => {
      const address = key.slice(headAddress.length);
      if (!matches(pattern, address)) return undefined;
      const head = decodeHead(value);
      if (head.type === 'tombstone' && page.removed !== true) return undefined;
      named.push([`addr/${address}`, head]);
      return registeredVersion(address, head, head.bytes, head.keptFrom);
    });
    await this.#open(named);
    return found;
  }

  async #queryByPath(pattern: AddressPattern, page: PageOptions): Promise<Page<RegisteredVersion>> {
    const base = rowPrefix('path');
    const found = await this.#page(pathPrefix(pattern), base, page, (key) => {
      const address = addressOfPathKey(key);
      return matches(pattern, address) ? address : undefined;
    });
    return { ...found, items: await this.#heldHeads(found.items) };
  }

  /** Index rows and the versions they point at change in one batch; between two reads they may have moved on. */
  async #heldHeads(addresses: readonly string[]): Promise<RegisteredVersion[]> {
    const heads = await Promise.all(addresses.map((address) => this.head(address)));
    return heads.filter((head) => head !== undefined);
  }

  /**
   * Nobody is told of a record before it was opened properly, nor of one that a copied row only claims to be in the log.
   * Throws RECORD_CORRUPT when one turns out to be false.
   */
  async #open(rows: Iterable<NamedRow>): Promise<void> {
    let sliceBegan = performance.now();
    for (const [chainId, row] of rows) {
      if (!this.#late.isUnopened(row.revision) && !this.#late.isUnproven(chainId, row)) continue;
      const entry = await this.#openEntry(row.revision, true);
      if (this.#late.isCopied) await this.#judged(() => this.#late.proveRow(chainId, row, entry));
      if (performance.now() - sliceBegan < sliceMs) continue;
      await yieldToOthers();
      sliceBegan = performance.now();
    }
  }

  /** `isNamed`: rows name its records, so it cannot be one that was skipped. */
  async #openEntry(revision: number, isNamed: boolean): Promise<LogEntry> {
    const entry = await this.#entry(revision);
    if (this.#late.isUnopened(revision)) await this.#judged(() => this.#late.openAhead(entry, isNamed));
    return entry;
  }

  async #judged(judge: () => Promise<void>): Promise<void> {
    try {
      await judge();
    } finally {
      if (this.#late.problem !== '') this.#condemn();
    }
  }

  /** As `#open`, for rows that name versions of chains without saying where these came from. */
  async #openVersions(versions: readonly (readonly [chainId: string, version: number])[]): Promise<void> {
    const chainIds = versions.map(([chainId]) => chainId);
    await this.#openRows(
      chainIds,
      versions.map(([chainId, version]) => rowKey('vers', chainId, version)),
    );
  }

  async #openHeads(chainIds: readonly string[]): Promise<void> {
    await this.#openRows(
      chainIds,
      chainIds.map((chainId) => rowKey('head', chainId)),
    );
  }

  async #openRows(chainIds: readonly string[], keys: readonly string[]): Promise<void> {
    if (this.#late.next === undefined && !this.#late.isCopied) return;
    const rows = await this.#rows.getMany(keys);
    const named = rows.map((row, at): NamedRow | undefined =>
      row === undefined ? undefined : [chainIds[at] ?? '', decodeHead(row)],
    );
    await this.#open(named.filter((row) => row !== undefined));
  }

  #condemn(): void {
    this.#heads.clear();
    this.#condemned.resolve();
    this.#bell.ring();
  }

  /**
   * A page of what `convert` makes of the rows under `prefix`, without those of which it makes undefined.
   * Tokens are keys without `base`, which all keys here begin with. Looks at no more than `rowsPerPageMax` rows,
   * so a page may be short, or empty, and still have a next one.
   */
  async #page<Item>(
    prefix: string,
    base: string,
    { limit = 100, after, reverse = false }: PageOptions & { readonly reverse?: boolean },
    convert: (key: string, value: Uint8Array) => Item | undefined,
  ): Promise<Page<Item>> {
    const items: Item[] = [];
    const itemsMax = pageLimit(limit);
    let looked = 0;
    let last: string | undefined;
    for await (const [key, value] of this.#rows.range(pageRange(prefix, base, after, reverse))) {
      if (items.length >= itemsMax || looked >= rowsPerPageMax)
        return { items, next: (last ?? key).slice(base.length) };
      const item = convert(key, value);
      if (item !== undefined) items.push(item);
      last = key;
      looked++;
    }
    return { items };
  }

  async *#catalogueEntries(
    address: string,
    head: Head,
    branchKeys: Lru<readonly CID[]>,
  ): AsyncGenerator<CatalogueEntry> {
    for (let version = 1; version <= head.version; version++) {
      const isHead = version === head.version;
      const pointer = isHead ? head : await this.#pointer(`addr/${address}`, version);
      if (pointer.cid === null) continue;
      await this.#open([[`addr/${address}`, pointer]]);
      const bytes = isHead ? head.bytes : await this.#bytesAt(pointer);
      const { record, retained } = registeredVersion(address, pointer, bytes, head.keptFrom);
      const { cid: manifestCid, body: manifest } = record;
      const keys = retained ? await this.#keyCids(manifest, branchKeys) : [];
      const { type } = manifest;
      yield {
        address,
        version,
        type,
        head: isHead,
        retained,
        manifestCid,
        manifest,
        records: [manifestCid, ...keys],
      };
    }
  }

  /** Every version of an object's envelope and of the branch key of its current one: a rebuild needs the chains. */
  async #keyCids(manifest: ManifestBody, branchKeys: Lru<readonly CID[]>): Promise<readonly CID[]> {
    if (manifest.encryption === null) return [];
    const { objId } = manifest.encryption;
    const envelope = await this.envelope(objId);
    if (envelope === undefined) return [];
    const keys = await this.#branchKeyCids(envelope.record.body, branchKeys);
    const only = envelope.version === 1 ? [envelope.record.cid] : undefined;
    return [...(only ?? (await this.#chainCids(`env/${toHex(objId)}`))), ...keys];
  }

  /** None where the object has a key of its own: that stands in the envelope. */
  async #branchKeyCids(envelope: EnvelopeBody, branchKeys: Lru<readonly CID[]>): Promise<readonly CID[]> {
    if (envelope.mode === 'direct') return [];
    const bkId = toHex(envelope.bkId);
    const keys = branchKeys.get(bkId) ?? (await this.#chainCids(`bk/${bkId}`));
    branchKeys.set(bkId, keys);
    return keys;
  }

  async #chainCids(chainId: string): Promise<CID[]> {
    const cids: CID[] = [];
    for await (const [, value] of this.#rows.range(prefixRange(rowPrefix('vers', chainId)))) {
      const { cid } = decodeHead(value);
      if (cid !== null) cids.push(cid);
    }
    return cids;
  }
}

/**
 * Refuses an append that the fold would skip, before it is made: RECORD_INVALID for records that are no good,
 * VERSION_CONFLICT for a version that is not the next one; and what the fold would take but nobody could read:
 * a manifest without its envelope, an envelope without its branch key (RECORD_INVALID).
 * The view may be behind its log; the log's compare-and-set and the fold have the last word. With `entitled` also what
 * takes a place that belongs to a custody group (FORBIDDEN, entitled.ts).
 */
export async function checkAppend(view: BeaconView, append: Append, entitled?: Entitled): Promise<void> {
  const current = await view.subjectRevision(append.subject);
  if (append.expected !== expectAny && current > append.expected) {
    throw versionConflict(append.subject, append.expected, current);
  }
  const { rejection } = await view.tryFold(append);
  if (rejection?.cause === 'record') throw new HoldfastError('RECORD_INVALID', rejection.reason);
  if (rejection !== undefined) {
    throw new HoldfastError('VERSION_CONFLICT', rejection.reason, {
      details: { subject: append.subject, expected: append.expected, current: rejection.current ?? 0 },
    });
  }
  await checkReferences(view, append);
  if (entitled !== undefined) await checkEntitled(view, append, entitled);
}

async function checkReferences(view: BeaconView, append: Append): Promise<void> {
  const records = openRecords(append);
  if (typeof records === 'string') throw new HoldfastError('RECORD_INVALID', records);
  const brought = new Set(records.map(({ chainId }) => chainId));
  for (const { body } of records) {
    if (body.kind === 'manifest' && body.encryption !== null) {
      const { objId } = body.encryption;
      if (!brought.has(`env/${toHex(objId)}`) && (await view.envelope(objId)) === undefined) {
        throw new HoldfastError('RECORD_INVALID', `${body.ucxl_address}: its envelope is not registered`);
      }
    }
    if (body.kind === 'envelope' && body.mode === 'branch') await checkBranchKey(view, body, records);
  }
}

/** An envelope under the branch key of a lower class, or of another policy, would be opened by the rules of that one. */
async function checkBranchKey(
  view: BeaconView,
  envelope: BranchEnvelope,
  records: readonly OpenedRecord[],
): Promise<void> {
  const { objId, bkId, bkVer, cls, policy } = envelope;
  const chainId = `bk/${toHex(bkId)}`;
  const brought = records.map(({ body }) => body).findLast((body) => body.kind === 'branch-key');
  const isBrought = brought !== undefined && sameBytes(brought.bkId, bkId);
  const key = isBrought ? brought : (await view.branchKey(bkId, bkVer))?.record.body;
  const refuse = (problem: string): never => {
    throw new HoldfastError('RECORD_INVALID', `envelope ${toHex(objId)}: its branch key ${problem}`);
  };
  if (key === undefined) return refuse('is not registered');
  if (key.scope.cls !== cls) refuse(`is for ${key.scope.cls} content, not for ${cls} (${chainId})`);
  const bound = policyOfKey(key);
  if (String(bound) !== String(policy)) refuse(`is bound to policy ${String(bound)}, not ${String(policy)}`);
}

const headAddress = `${rowPrefix('head')}addr/`;
/** Every key: all are ASCII-led text. */
const everything: KeyRange = { from: '', to: '\u{10ffff}' };
const pageItemsMax = 1000;
/** Rows that one page may look at, so that a query that matches little returns in time. */
const rowsPerPageMax = 20_000;
/** Addresses that may share one object; more are a mistake. */
const usesMax = 1000;
/** Branch keys remembered during one walk of the catalogue. */
const branchKeysCached = 1024;
/** Newest entries that are verified at the start: LevelDB may have replayed that much of its log. */
const tailBytes = 16 * 1024 * 1024;
/** Read at a time: a trip to LevelDB's threads costs more than a look. */
const tailRowsMax = 64;
/** Entries folded in one batch while catching up. */
const groupEntriesMax = 512;
const groupBytesMax = 4 * 1024 * 1024;

interface FollowState {
  readonly state: ViewHealth['state'];
  readonly reason: string;
}

function followState(error: unknown): FollowState {
  const reason = describeError(error);
  if (error instanceof HoldfastError && error.details['readOnly'] === true)
    return { state: 'read-only', reason };
  if (isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true) {
    return { state: 'diverged', reason };
  }
  return { state: isHoldfastError(error, 'RECORD_CORRUPT') ? 'damaged' : 'connecting', reason };
}

/** The state in which a view does not follow its log, because that has lost or changed what was acknowledged. */
export function diverged(problem: string): HoldfastError {
  return new HoldfastError('BEACON_UNAVAILABLE', problem, { details: { diverged: true } });
}

/** `entries` in parts that end where a moment is; one part where there are none. */
function splitBehind(entries: readonly LogEntry[], moments: ReadonlySet<Moment>): (readonly LogEntry[])[] {
  const ends = [...moments].map(
    ({ revision }) => entries.findIndex((entry) => entry.revision === revision) + 1,
  );
  const cuts = [...new Set([0, ...ends, entries.length])].toSorted((a, b) => a - b);
  if (cuts.length <= 2) return [entries];
  return cuts.slice(1).map((end, index) => entries.slice(cuts[index], end));
}

function isBroken(error: unknown): boolean {
  return isHoldfastError(error, 'RECORD_CORRUPT') && error.details['problem'] === discontinuity;
}

/** What cannot be read without a check is checked, so that the fold says of it what it says everywhere. */
function prepareOnTrust(entry: LogEntry): PreparedEntry {
  const prepared = prepareEntry(entry, readRegistryRecord);
  return typeof prepared.records === 'string' ? prepareEntry(entry) : prepared;
}

/** Lets whatever waits have its turn. */
function yieldToOthers(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Longest work on signatures in one turn, ms. */
const sliceMs = 4;
/** While a view catches up, opening records afterwards takes one part in so many and one of the time. */
const catchUpPauseFactor = 9;

const discontinuity = 'does not continue the chain';

function checkContinues(position: LogPosition, entries: readonly LogEntry[]): void {
  let before = position;
  for (const entry of entries) {
    const follows = entry.revision === before.revision + 1;
    if (!follows || !sameBytes(entry.chain, nextChain(before, entry.payload))) {
      throw corrupt(`log entry ${entry.revision} after ${before.revision}`, discontinuity);
    }
    before = entry;
  }
}

/** Entries in full groups while far from `goal`; from there on, when somebody waits for them, those that are there. */
async function* grouped(entries: AsyncIterable<LogEntry>, goal: number): AsyncGenerator<LogEntry[]> {
  let sizeBytes = 0;
  const mayGrow = ({ revision, payload }: LogEntry, count: number): boolean | 'if-ready' => {
    sizeBytes = count === 1 ? payload.length : sizeBytes + payload.length;
    if (count >= groupEntriesMax || sizeBytes >= groupBytesMax) return false;
    return revision < goal || 'if-ready';
  };
  yield* groupsOf(entries, mayGrow);
}

/** The chain alone: it covers every byte of an entry, so none has to be decoded. */
async function verifyTail(kv: Kv, position: LogPosition): Promise<void> {
  let later: LogPosition & { readonly payload?: Uint8Array } = position;
  let sizeBytes = 0;
  for (let last = position.revision; last > 0 && sizeBytes < tailBytes; last -= tailRowsMax) {
    const revisions = Array.from({ length: Math.min(last, tailRowsMax) }, (_, index) => last - index);
    const rows = await kv.getMany(revisions.map((revision) => rowKey('log', revision)));
    for (const [index, revision] of revisions.entries()) {
      const row = rows[index];
      if (row === undefined) throw corrupt(`the view's copy of log entry ${revision}`, 'is missing');
      const entry = { revision, chain: row.subarray(0, 32), payload: row.subarray(32) };
      const claimed = later.payload === undefined ? entry.chain : nextChain(entry, later.payload);
      if (!sameBytes(claimed, later.chain))
        throw corrupt(`the view's copy of log entry ${revision}`, discontinuity);
      later = entry;
      sizeBytes += row.length;
    }
  }
}

function registeredVersion(
  address: string,
  pointer: Head,
  bytes: Uint8Array,
  keptFrom: number,
): RegisteredVersion {
  const { version, at } = pointer;
  return {
    ...registered<ManifestBody>(pointer, bytes, 'manifest'),
    address,
    at,
    retained: version >= keptFrom,
  };
}

function registered<Body extends AnyBody>(
  { version, revision, cid }: Head,
  bytes: Uint8Array,
  kind: Body['kind'],
): Registered<Body> {
  return {
    version,
    revision,
    record: new StoredRecord<Body>(cid ?? cidOf(bytes, codecDagCbor), bytes, kind),
  };
}

/** A record out of a verified row. Its body is decoded when somebody looks at it: many want only the CID. */
class StoredRecord<Body extends AnyBody> implements SignedRecord<Body> {
  readonly block: Block;
  readonly cid: CID;
  readonly #kind: Body['kind'];
  #body: Body | undefined;

  constructor(cid: CID, bytes: Uint8Array, kind: Body['kind']) {
    this.block = { cid, bytes };
    this.cid = cid;
    this.#kind = kind;
  }

  get body(): Body {
    this.#body ??= bodyOfKind<Body>(this.block.bytes, this.#kind);
    return this.#body;
  }
}

function bodyOfKind<Body extends AnyBody>(bytes: Uint8Array, kind: Body['kind']): Body {
  const body = trustedBody(bytes);
  if (isOfKind<Body>(body, kind)) return body;
  throw corrupt(`a ${kind} record`, `is a ${body.kind}`);
}

/** The kind decides the type. */
function isOfKind<Body extends AnyBody>(body: AnyBody, kind: Body['kind']): body is Body {
  return body.kind === kind;
}

function addressAndVersion(text: string): { readonly address: string; readonly version: number } {
  const [address = '', version] = text.split('\0');
  return { address, version: partNumber(version) };
}

function cidUse(text: string): CidUse {
  const [as = '', id = '', version] = text.split('\0');
  if (!isUse(as)) throw corrupt('a CID row', `names the use ${as}`);
  return { as, id, version: partNumber(version) };
}

/** What stands before the id in the chain id of a use. */
const chainOfUse: Readonly<Record<CidUse['as'], string>> = {
  content: 'addr/',
  manifest: 'addr/',
  envelope: 'env/',
  'branch-key': 'bk/',
  kek: 'kek/',
  policy: 'pol/',
  revocation: 'rev/',
  certificate: 'cert/',
};

const uses = [
  'content',
  'manifest',
  'envelope',
  'branch-key',
  'kek',
  'policy',
  'revocation',
  'certificate',
] as const satisfies readonly CidUse['as'][];

function isUse(text: string): text is CidUse['as'] {
  return uses.some((use) => use === text);
}

/** The start of all path keys that may match: as far as the pattern is exact. */
function pathPrefix({ project, task, path }: AddressPattern): string {
  if (task === wildcard) return rowPrefix('path', project);
  const star = path.indexOf('*');
  return rowPrefix('path', project, task) + (star === -1 ? path : path.slice(0, star));
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

function isVersion(version: number): boolean {
  return Number.isSafeInteger(version) && version >= 1;
}

async function first<Item>(items: AsyncIterable<Item>): Promise<Item | undefined> {
  for await (const item of items) return item;
  return undefined;
}
