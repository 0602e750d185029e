// Who claims to have which block, and what this node claims itself. One LevelDB, binary keys.
//
//   p ‖ index(4)                         → provider: peer id, addresses, when last heard          (CBOR)
//   r ‖ digest(32) ‖ index(4)            → time(6): provider `index` announced the block at `time`
//   e ‖ hour(4) ‖ digest(32) ‖ index(4)  → nothing: expiry index, by the hour of `time`
//   o ‖ key(32)                          → digest(32) ‖ codec(1) ‖ time(6): own record, last announced
//   a ‖ time(6) ‖ key(32)                → nothing: own records by age; time 0 = never announced
//   s ‖ peer                             → nothing: `peer` took every own record that is its to hold
//
// `digest` is the SHA-256 inside the multihash, `key` its place in the Kademlia key space (SHA-256 of the
// multihash). Every value ends in a CRC-32 over key and value; one that does not match is dropped when
// read, counted, and comes back with the next refresh.
//
// A record that is older than its validity does not exist, whether or not the sweep has been there: age is
// checked on every read. The addresses of a provider live in its row and therefore exactly as long as its
// records, whatever libp2p's peer store forgets after an hour. The expiry index is coarse and may point to
// a record that was renewed since: the sweep looks before it deletes, and so a renewal need not read.

import { crc32 } from 'node:zlib';
import { CID, codecDagCbor, codecRaw, decodeCbor, encodeCbor } from '../core/block.ts';
import { asBuffer, concat, fromUtf8, uint32, utf8 } from '../core/bytes.ts';
import { type Clock, hour } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { rowsOf } from '../core/row-pages.ts';
import type { PeerName } from '../core/rpc.ts';
import { type OwnAge, regionStart } from './provider-schedule.ts';
import { addrBytesMax, peerAddrsMax } from './provider-wire.ts';
import { type DataDir, type LevelStore, openLevel } from './stores.ts';

export interface ProviderStoreOptions {
  readonly clock: Clock;
  /** How long a record is served after it was announced, ms. Default 48 h. */
  readonly validityMs?: number;
  /** Records that one provider may keep here. Default 4,000,000: about 250 MB on disk. */
  readonly recordsPerProviderMax?: number;
  /** Providers known at once. Default 512: all members and as many standard peers. */
  readonly providersMax?: number;
}

/** A provider as it is told to others. */
export interface Provider {
  readonly peer: PeerName;
  /** Binary multiaddrs, at least one unless the provider announced none. */
  readonly addrs: readonly Uint8Array[];
  /** When it announced this block last, ms since 1970. */
  readonly announcedAt: number;
}

/** An own record: a block that this node has and announces. */
export interface OwnRecord extends OwnAge {
  readonly digest: Uint8Array;
  readonly cid: CID;
}

export interface ProviderCounts {
  readonly own: number;
  readonly records: number;
  readonly providers: number;
  readonly corruptCount: number;
  readonly refusedCount: number;
}

const validityMsDefault = 48 * hour;
const recordsPerProviderMaxDefault = 4_000_000;
const providersMaxDefault = 512;
/** Rows read at once by sweeps and scans: keeps each step short and its memory small. */
const pageCount = 1024;

interface ProviderRow {
  readonly index: number;
  readonly peer: PeerName;
  addrs: readonly Uint8Array[];
  heardAt: number;
  recordsCount: number;
}

type Put = { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array };
type Del = { readonly type: 'del'; readonly key: Uint8Array };

/**
 * Opens the store `providers` of a data directory. It can be rebuilt: own records from the blocks that are
 * there, others' by their next refresh; so a damaged one is moved aside and begun anew.
 * Throws DISK_FULL, FILE_UNREADABLE, DATA_DIR_LOCKED.
 */
export async function openProviderStore(dir: DataDir, options: ProviderStoreOptions): Promise<ProviderStore> {
  const opened = await openLevel(dir, 'providers', { rebuildable: true, writeBufferSize: 16 * 1024 * 1024 });
  const store = new ProviderStore(opened, options);
  await store.load();
  return store;
}

export class ProviderStore implements AsyncDisposable {
  readonly validityMs: number;
  readonly #opened: LevelStore;
  readonly #level: LevelStore['level'];
  readonly #clock: Clock;
  readonly #recordsPerProviderMax: number;
  readonly #providersMax: number;
  readonly #byIndex = new Map<number, ProviderRow>();
  readonly #byPeer = new Map<PeerName, ProviderRow>();
  #nextIndex = 1;
  #ownCount = 0;
  #corruptCount = 0;
  #refusedCount = 0;
  // Counting rows and writing them must not interleave: one writer at a time.
  #writer: Promise<unknown> = Promise.resolve();

  /** @param opened closed by this store */
  constructor(opened: LevelStore, options: ProviderStoreOptions) {
    this.#opened = opened;
    this.#level = opened.level;
    this.#clock = options.clock;
    this.validityMs = options.validityMs ?? validityMsDefault;
    this.#recordsPerProviderMax = options.recordsPerProviderMax ?? recordsPerProviderMaxDefault;
    this.#providersMax = options.providersMax ?? providersMaxDefault;
  }

  /** Reads the provider table and counts the rows. Called once, by `openProviderStore`. */
  async load(): Promise<void> {
    for await (const [key, sealed] of rowsOf(this.#level.iterator(under(tags.provider)))) {
      const value = unseal(key, sealed);
      const row = value === undefined ? undefined : parseProvider(key, value);
      this.#nextIndex = Math.max(this.#nextIndex, indexAt(key, 1) + 1);
      if (row === undefined) this.#corruptCount++;
      else this.#remember(row);
    }
    for await (const _ of rowsOf(this.#level.keys(under(tags.own)))) this.#ownCount++;
  }

  counts(): ProviderCounts {
    let records = 0;
    for (const row of this.#byIndex.values()) records += row.recordsCount;
    return {
      own: this.#ownCount,
      records,
      providers: this.#byIndex.size,
      corruptCount: this.#corruptCount,
      refusedCount: this.#refusedCount,
    };
  }

  /**
   * `peer` announces `digests` (32 bytes each), reachable at `addrs`. One batch.
   * @returns how many were taken; the rest is over a quota
   */
  add(peer: PeerName, addrs: readonly Uint8Array[], digests: readonly Uint8Array[]): Promise<number> {
    return this.#exclusive(async () => {
      const row = this.#row(peer);
      if (row === undefined) return this.#refuse(digests.length, 0);
      const now = this.#clock.now();
      const index = uint32(row.index);
      const keys = digests.map((digest) => concat(tags.record, digest, index));
      const known = await this.#level.hasMany(keys);
      let room = this.#recordsPerProviderMax - row.recordsCount;
      const batch: (Put | Del)[] = [];
      const fresh = new Set<string>();
      let taken = 0;
      for (const [i, key] of keys.entries()) {
        const name = asBuffer(key).toString('latin1');
        if (known[i] !== true && !fresh.has(name)) {
          if (room <= 0) continue;
          room--;
          fresh.add(name);
        }
        taken++;
        batch.push(put(key, time6(now)), mark(tags.expiry, uint32(hourOf(now)), key.subarray(1)));
      }
      row.addrs = boundedAddrs(addrs, row.addrs);
      row.heardAt = now;
      row.recordsCount += fresh.size;
      batch.push(putProvider(row));
      await this.#level.batch(batch);
      return this.#refuse(digests.length, taken);
    });
  }

  /** `peer` no longer has `digests`. Resolves to how many records that removed. */
  remove(peer: PeerName, digests: readonly Uint8Array[]): Promise<number> {
    return this.#exclusive(async () => {
      const row = this.#byPeer.get(peer);
      if (row === undefined) return 0;
      const keys = unique(digests).map((digest) => concat(tags.record, digest, uint32(row.index)));
      const known = await this.#level.hasMany(keys);
      const gone = keys.filter((_, i) => known[i] === true);
      row.recordsCount -= gone.length;
      await this.#level.batch([...gone.map(del), putProvider(row)]);
      return gone.length;
    });
  }

  /**
   * Drops every record of `peer` and its addresses: for a member that left or is proven dead. Bounded
   * memory; takes as long as a scan of the whole store.
   */
  forget(peer: PeerName): Promise<number> {
    return this.#exclusive(async () => {
      const row = this.#byPeer.get(peer);
      if (row === undefined) return 0;
      let removed = 0;
      let batch: Del[] = [];
      for await (const key of rowsOf(this.#level.keys(under(tags.record)))) {
        if (indexAt(key, 33) !== row.index) continue;
        batch.push(del(key));
        removed++;
        if (batch.length >= pageCount) {
          await this.#level.batch(batch);
          batch = [];
        }
      }
      await this.#level.batch([...batch, del(concat(tags.provider, uint32(row.index)))]);
      this.#byIndex.delete(row.index);
      this.#byPeer.delete(row.peer);
      return removed;
    });
  }

  /** Who else announced the block within the validity, the newest first, at most `limit`. Not this node itself. */
  async find(digest: Uint8Array, limit = 256): Promise<Provider[]> {
    const now = this.#clock.now();
    const found: Provider[] = [];
    const prefix = concat(tags.record, digest);
    for await (const [key, sealed] of rowsOf(this.#level.iterator(under(prefix)))) {
      const value = unseal(key, sealed);
      const row = this.#byIndex.get(indexAt(key, 33));
      if (value === undefined) this.#corruptCount++;
      else if (row !== undefined && this.#valid(timeAt(value, 0), now)) {
        found.push({ peer: row.peer, addrs: row.addrs, announcedAt: timeAt(value, 0) });
      }
    }
    return found.sort((a, b) => b.announcedAt - a.announcedAt).slice(0, limit);
  }

  /** The addresses of a provider, while it has any record that may still be valid. */
  addrsOf(peer: PeerName): readonly Uint8Array[] | undefined {
    const row = this.#byPeer.get(peer);
    return row !== undefined && this.#valid(row.heardAt, this.#clock.now()) ? row.addrs : undefined;
  }

  /**
   * One step of the sweep: looks at no more than `limitCount` entries of the expiry index and deletes the
   * records that have expired, then the providers that have none left.
   * @returns how many records were deleted, and whether the end was reached
   */
  sweepStep(limitCount = pageCount): Promise<{ removed: number; done: boolean }> {
    return this.#exclusive(async () => {
      const now = this.#clock.now();
      // Only hours that are over as a whole: nothing in them can still be valid, so no step finds only
      // records that it must keep. What remains for up to an hour is not served.
      const end = concat(tags.expiry, uint32(hourOf(Math.max(0, now - this.validityMs))));
      const marks = await Array.fromAsync(
        rowsOf(this.#level.keys({ gte: tags.expiry, lt: end }), limitCount),
      );
      const keys = marks.map((each) => concat(tags.record, each.subarray(5)));
      const values = await this.#level.getMany(keys);
      const batch: (Put | Del)[] = [];
      const touched = new Set<ProviderRow>();
      let removed = 0;
      for (const [i, each] of marks.entries()) {
        const key = keys[i];
        batch.push(del(each));
        if (key === undefined || !this.#expired(key, values[i], now)) continue;
        batch.push(del(key));
        const row = this.#byIndex.get(indexAt(key, 33));
        if (row !== undefined) touched.add(row);
        if (row !== undefined) row.recordsCount--;
        removed++;
      }
      for (const row of touched) batch.push(putProvider(row));
      batch.push(...this.#dropEmptyProviders(now));
      await this.#level.batch(batch);
      return { removed, done: marks.length < limitCount };
    });
  }

  // ---- own records

  /** This node has `cids` now. Known ones keep their time. Resolves to how many are new. */
  addOwn(cids: readonly CID[]): Promise<number> {
    return this.#exclusive(async () => {
      const owns = uniqueOwns(cids);
      const keys = owns.map((own) => concat(tags.own, own.key));
      const known = await this.#level.getMany(keys);
      const fresh = owns.filter((_, i) => !this.#intact(keys[i], known[i]));
      await this.#level.batch(
        fresh.flatMap((own) => [putOwn({ ...own, announcedAt: 0 }), mark(tags.age, time6(0), own.key)]),
      );
      this.#ownCount += known.filter((each) => each === undefined).length;
      return fresh.length;
    });
  }

  /** This node has `cids` no longer. Resolves to how many were own records. */
  removeOwn(cids: readonly CID[]): Promise<number> {
    return this.#exclusive(async () => {
      const keys = uniqueOwns(cids).map((own) => concat(tags.own, own.key));
      const values = await this.#level.getMany(keys);
      const batch: Del[] = [];
      let removed = 0;
      for (const [i, key] of keys.entries()) {
        const sealed = values[i];
        if (sealed === undefined) continue;
        const own = parseOwn(key, unseal(key, sealed));
        if (own !== undefined) batch.push(del(concat(tags.age, time6(own.announcedAt), own.key)));
        batch.push(del(key));
        removed++;
      }
      await this.#level.batch(batch);
      this.#ownCount -= removed;
      return removed;
    });
  }

  /** True when this node announces the block itself. */
  async hasOwn(digest: Uint8Array): Promise<boolean> {
    return this.#level.has(concat(tags.own, kadKey(digest)));
  }

  /** `records` were announced at `now`: their lease begins anew. Records removed meanwhile stay removed. */
  announced(records: readonly OwnRecord[]): Promise<void> {
    return this.#exclusive(async () => {
      const now = this.#clock.now();
      const keys = records.map((own) => concat(tags.own, own.key));
      const values = await this.#level.getMany(keys);
      const batch: (Put | Del)[] = [];
      for (const [i, key] of keys.entries()) {
        const sealed = values[i];
        const own = sealed === undefined ? undefined : parseOwn(key, unseal(key, sealed));
        if (own === undefined) continue;
        batch.push(
          del(concat(tags.age, time6(own.announcedAt), own.key)),
          mark(tags.age, time6(now), own.key),
          putOwn({ ...own, announcedAt: now }),
        );
      }
      await this.#level.batch(batch);
    });
  }

  /** Own records last announced at `from` or later and before `before` (ms; 0 = never announced), the oldest first. */
  async ownByAge(from: number, before: number, limit: number): Promise<OwnRecord[]> {
    const lt = before === Number.POSITIVE_INFINITY ? next(tags.age) : concat(tags.age, time6(before));
    return this.#exclusive(() => this.#ownsByAge({ gte: concat(tags.age, time6(from)), lt, limit }));
  }

  /** Own records of one region of the key space, in the order of their keys, in pages. */
  async *ownInRegion(region: number): AsyncGenerator<OwnRecord[]> {
    const range = {
      gte: concat(tags.own, regionStart(region)),
      lt: next(concat(tags.own, regionStart(region)), 6),
    };
    for await (const page of this.#pages(range)) yield page;
  }

  /** All own records in the order of their keys, in pages. */
  async *allOwn(): AsyncGenerator<OwnRecord[]> {
    for await (const page of this.#pages(under(tags.own))) yield page;
  }

  /** Peers that took everything that was theirs: one that missed something, or is new, is not among them. */
  async syncedPeers(): Promise<PeerName[]> {
    const keys = await Array.fromAsync(rowsOf(this.#level.keys(under(tags.synced))));
    return keys.map((key) => fromUtf8(key.subarray(1)));
  }

  async setSynced(peer: PeerName, synced: boolean): Promise<void> {
    const key = concat(tags.synced, utf8(peer));
    await this.#level.batch([synced ? mark(key) : del(key)]);
  }

  /** Names of all providers that have a row here. */
  providers(): PeerName[] {
    return [...this.#byPeer.keys()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.catch(() => undefined);
    await this.#opened[Symbol.asyncDispose]();
  }

  async *#pages(range: { gte: Uint8Array; lt: Uint8Array }): AsyncGenerator<OwnRecord[]> {
    let from = range.gte;
    for (;;) {
      const rows = await Array.fromAsync(
        rowsOf(this.#level.iterator({ gte: from, lt: range.lt }), pageCount),
      );
      const lastKey = rows.at(-1)?.[0];
      if (lastKey === undefined) return;
      yield rows.flatMap(([key, sealed]) => this.#own(key, sealed) ?? []);
      if (rows.length < pageCount) return;
      from = concat(lastKey, Uint8Array.of(0));
    }
  }

  // An index entry without its record (a damaged one) would stand at the front for ever: it is dropped.
  async #ownsByAge(range: {
    gt?: Uint8Array;
    gte?: Uint8Array;
    lt: Uint8Array;
    limit: number;
  }): Promise<OwnRecord[]> {
    const marks = await Array.fromAsync(rowsOf(this.#level.keys(range)));
    const keys = marks.map((each) => concat(tags.own, each.subarray(7)));
    const values = await this.#level.getMany(keys);
    const orphans: Del[] = [];
    const owns = marks.flatMap((each, i) => {
      const [key, sealed] = [keys[i], values[i]];
      const own = key === undefined || sealed === undefined ? undefined : this.#own(key, sealed);
      if (own !== undefined && own.announcedAt === timeAt(each, 1)) return own;
      orphans.push(del(each));
      return [];
    });
    if (orphans.length > 0) await this.#level.batch(orphans);
    return owns;
  }

  #intact(key: Uint8Array | undefined, sealed: Uint8Array | undefined): boolean {
    return key !== undefined && sealed !== undefined && this.#own(key, sealed) !== undefined;
  }

  #own(key: Uint8Array, sealed: Uint8Array): OwnRecord | undefined {
    const own = parseOwn(key, unseal(key, sealed));
    if (own === undefined) this.#corruptCount++;
    return own;
  }

  #valid(announcedAt: number, now: number): boolean {
    // A time far ahead is a clock that was wrong; it must not make a record immortal.
    return Math.abs(now - announcedAt) < this.validityMs;
  }

  /** False for a record that is gone or was renewed: then only its old index entry goes. */
  #expired(key: Uint8Array, sealed: Uint8Array | undefined, now: number): boolean {
    if (sealed === undefined) return false;
    const value = unseal(key, sealed);
    if (value === undefined) this.#corruptCount++;
    return value === undefined || !this.#valid(timeAt(value, 0), now);
  }

  #dropEmptyProviders(now: number): Del[] {
    const gone: Del[] = [];
    for (const row of this.#byIndex.values()) {
      if (row.recordsCount > 0 || this.#valid(row.heardAt, now)) continue;
      this.#byIndex.delete(row.index);
      this.#byPeer.delete(row.peer);
      gone.push(del(concat(tags.provider, uint32(row.index))));
    }
    return gone;
  }

  #row(peer: PeerName): ProviderRow | undefined {
    const known = this.#byPeer.get(peer);
    if (known !== undefined) return known;
    if (this.#byIndex.size >= this.#providersMax) return undefined;
    const row = { index: this.#nextIndex++, peer, addrs: [], heardAt: 0, recordsCount: 0 };
    this.#remember(row);
    return row;
  }

  #remember(row: ProviderRow): void {
    this.#byIndex.set(row.index, row);
    this.#byPeer.set(row.peer, row);
  }

  #refuse(asked: number, taken: number): number {
    this.#refusedCount += asked - taken;
    return taken;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#writer.then(work);
    this.#writer = result.catch(() => undefined);
    return result;
  }
}

/** Where a digest lies in the Kademlia key space: SHA-256 of its multihash. */
export function kadKey(digest: Uint8Array): Uint8Array {
  return sha256(multihash(digest));
}

/** The multihash of a SHA-256 digest. */
export function multihash(digest: Uint8Array): Uint8Array {
  return concat(multihashHead, digest);
}

const multihashHead = Uint8Array.of(0x12, 0x20);

const tags = {
  provider: Uint8Array.of(0x70),
  record: Uint8Array.of(0x72),
  expiry: Uint8Array.of(0x65),
  own: Uint8Array.of(0x6f),
  age: Uint8Array.of(0x61),
  synced: Uint8Array.of(0x73),
} as const;

const empty = new Uint8Array(0);

function put(key: Uint8Array, value: Uint8Array): Put {
  return { type: 'put', key, value: concat(value, uint32(crc32(value, crc32(key)))) };
}

function del(key: Uint8Array): Del {
  return { type: 'del', key };
}

// Index entries say everything in their key.
function mark(...parts: readonly Uint8Array[]): Put {
  return { type: 'put', key: concat(...parts), value: empty };
}

function unseal(key: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
  if (sealed.length < 4) return undefined;
  const value = sealed.subarray(0, -4);
  return indexAt(sealed, sealed.length - 4) === crc32(value, crc32(key)) ? value : undefined;
}

function under(prefix: Uint8Array): { gte: Uint8Array; lt: Uint8Array } {
  return { gte: prefix, lt: next(prefix) };
}

// The first key after all that begin with `prefix`; `shift` ignores that many low bits of it.
function next(prefix: Uint8Array, shift = 0): Uint8Array {
  const out = Uint8Array.from(prefix);
  let carry = 1 << shift;
  for (let i = out.length - 1; i >= 0 && carry > 0; i--) {
    const sum = (out[i] ?? 0) + carry;
    out[i] = sum & 0xff;
    carry = sum >> 8;
  }
  return out;
}

function time6(ms: number): Uint8Array {
  const out = Buffer.alloc(6);
  out.writeUIntBE(Math.max(0, Math.floor(ms)), 0, 6);
  return out;
}

function timeAt(bytes: Uint8Array, offset: number): number {
  return asBuffer(bytes).readUIntBE(offset, 6);
}

function indexAt(bytes: Uint8Array, offset: number): number {
  return asBuffer(bytes).readUInt32BE(offset);
}

function hourOf(ms: number): number {
  return Math.floor(ms / hour);
}

function putProvider(row: ProviderRow): Put {
  const value = encodeCbor({ ...row, addrs: [...row.addrs] });
  return put(concat(tags.provider, uint32(row.index)), value);
}

function parseProvider(key: Uint8Array, value: Uint8Array): ProviderRow | undefined {
  const row = decodeCbor(value, 'provider row');
  if (typeof row !== 'object' || row === null) return undefined;
  const peer: unknown = Reflect.get(row, 'peer');
  const addrs: unknown = Reflect.get(row, 'addrs');
  const heardAt: unknown = Reflect.get(row, 'heardAt');
  const recordsCount: unknown = Reflect.get(row, 'recordsCount');
  if (typeof peer !== 'string' || !Array.isArray(addrs)) return undefined;
  if (typeof heardAt !== 'number' || typeof recordsCount !== 'number') return undefined;
  const binary = addrs.filter((addr) => addr instanceof Uint8Array);
  return { index: indexAt(key, 1), peer, addrs: binary, heardAt, recordsCount };
}

function putOwn(own: Omit<OwnRecord, 'cid'> & { readonly cid: CID }): Put {
  return put(
    concat(tags.own, own.key),
    concat(own.digest, Uint8Array.of(own.cid.code), time6(own.announcedAt)),
  );
}

function parseOwn(key: Uint8Array, value: Uint8Array | undefined): OwnRecord | undefined {
  if (value === undefined || value.length !== 39) return undefined;
  const digest = Uint8Array.from(value.subarray(0, 32));
  const codec = value[32] === codecDagCbor ? codecDagCbor : codecRaw;
  return {
    key: Uint8Array.from(key.subarray(1)),
    digest,
    cid: CID.decode(concat(Uint8Array.of(1, codec), multihash(digest))),
    announcedAt: timeAt(value, 33),
  };
}

function uniqueOwns(cids: readonly CID[]): Omit<OwnRecord, 'announcedAt'>[] {
  const owns = new Map<string, Omit<OwnRecord, 'announcedAt'>>();
  for (const cid of cids) {
    const digest = cid.multihash.digest;
    owns.set(asBuffer(digest).toString('latin1'), { key: kadKey(digest), digest, cid });
  }
  return [...owns.values()];
}

function unique(digests: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(digests.map((digest) => [asBuffer(digest).toString('latin1'), digest])).values()];
}

/** New addresses if there are any usable ones, else those known: a message without addresses takes none away. */
function boundedAddrs(addrs: readonly Uint8Array[], known: readonly Uint8Array[]): readonly Uint8Array[] {
  const usable = addrs
    .filter((addr) => addr.length > 0 && addr.length <= addrBytesMax)
    .slice(0, peerAddrsMax);
  return usable.length > 0 ? usable.map((addr) => Uint8Array.from(addr)) : known;
}

/** The 32-byte digest of `bytes` given as a field named `what`. Throws ARGUMENT_INVALID. */
export function checkedDigest(bytes: unknown, what: string): Uint8Array {
  if (bytes instanceof Uint8Array && bytes.length === 32) return bytes;
  throw new HoldfastError('ARGUMENT_INVALID', `${what}: a SHA-256 digest of 32 bytes expected`);
}
