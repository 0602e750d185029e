// What can be asked of a Beacon view: the types that the door, the steward and the flows are written against.

import type { CID } from '../core/block.ts';
import type { CertificateBody } from '../custody/certificate.ts';
import type { PolicyBody } from '../custody/policy.ts';
import type { RevocationBody } from '../custody/revocation.ts';
import type { BranchKeyBody, DirectEnvelope, EnvelopeBody, KekBody } from '../envelope/records.ts';
import type { ManifestBody, ManifestType } from '../manifest/manifest.ts';
import type { RecordBody, RecordKind, SignedRecord } from '../manifest/record.ts';
import type { AddressPattern } from '../ucxl/match.ts';
import type { LogEntry, LogPosition } from './log.ts';

/** One version of one record, as the registry holds it. Its signature was verified, at the latest when it was asked for. */
export interface Registered<Body extends RecordBody> {
  readonly version: number;
  /** Revision of the log entry that brought it. */
  readonly revision: number;
  readonly record: SignedRecord<Body>;
}

/** One version of an address. */
export interface RegisteredVersion extends Registered<ManifestBody> {
  readonly address: string;
  /**
   * Since when this version is the current one, ms since 1970: its signed `generated_at`, but never before that
   * of the version it follows. A rebuilt registry answers the same.
   */
  readonly at: number;
  /** False when its content may be collected: it is a tombstone or lies before one. */
  readonly retained: boolean;
}

/** A line of an address's history. */
export interface VersionLine {
  readonly version: number;
  readonly revision: number;
  readonly at: number;
  /** `missing`: a rebuild found later versions but not this one. */
  readonly type: ManifestType | 'missing';
  /** CID of the manifest; null when missing. */
  readonly manifestCid: CID | null;
}

/** Where a CID occurs. `id` is the address, objId, bkId (hex) or custody group. */
export interface CidUse {
  readonly as: 'content' | RecordKind;
  readonly id: string;
  readonly version: number;
}

/** An object whose current envelope is under a given branch key. */
export interface WrappedObject {
  readonly objId: Uint8Array;
  /** Addresses and versions whose manifest names the object; usually one. */
  readonly uses: readonly { readonly address: string; readonly version: number }[];
}

/** One version of one address, as the steward cares for it. */
export interface CatalogueEntry {
  readonly address: string;
  readonly version: number;
  readonly type: ManifestType;
  /** True for the current version of its address. */
  readonly head: boolean;
  /** True: the blocks under `manifest.cid` must be kept. False: they are garbage; the records are kept all the same. */
  readonly retained: boolean;
  readonly manifestCid: CID;
  readonly manifest: ManifestBody;
  /** Record blocks to keep: the manifest and, while retained, every version of its envelope and branch key. */
  readonly records: readonly CID[];
}

/** One version of any chain, as the registry holds it: what a walk over everything reads. */
export interface ChainVersion {
  /** See records.ts. */
  readonly chainId: string;
  readonly version: number;
  readonly type: VersionLine['type'];
  /** Null when a rebuild did not find it; so is `prev`. */
  readonly cid: CID | null;
  /** The record before it, as this one says. */
  readonly prev: CID | null;
}

/** What one log entry did to the registry. */
export interface RegistryChange {
  readonly revision: number;
  /** Keys of its records. */
  readonly keys: readonly string[];
  /** Why it was skipped, or undefined. */
  readonly rejected?: string;
}

export interface RegistryCounts {
  /** Log entries folded, rejected ones among them. */
  readonly entries: number;
  readonly rejected: number;
  /** Addresses whose current version is not a tombstone. */
  readonly addresses: number;
  /** Addresses whose current version is one. */
  readonly removed: number;
  /** Manifests of all addresses. */
  readonly versions: number;
  /** Plaintext bytes of the current versions. */
  readonly sizeBytes: number;
  readonly envelopes: number;
  readonly branchKeys: number;
  readonly keks: number;
  /** Policies, revocations and certificates, all versions. */
  readonly custody: number;
  /** Versions that a rebuild could not find. */
  readonly missing: number;
}

/** An entry that is in the log and not in the registry. */
export interface RejectedEntry {
  readonly revision: number;
  readonly subject: string;
  readonly reason: string;
}

export interface PageOptions {
  /** Most items to return: 1…1,000, default 100. */
  readonly limit?: number;
  /** `next` of the page before. */
  readonly after?: string;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  /** Give it as `after` to go on; absent on the last page. */
  readonly next?: string;
}

export interface ViewHealth {
  /**
   * `following`: in step with the log, or catching up. `connecting`: the log cannot be reached. `diverged`: the log
   * lost or rewrote entries that this view holds; it is not followed. `damaged`: own rows fail their checksums, or a
   * record that was folded in on trust is false: then no query is answered.
   * `read-only`: own rows cannot be written; what is there is served, and writing is tried again.
   * `idle`: nobody called `follow`.
   */
  readonly state: 'idle' | 'connecting' | 'following' | 'diverged' | 'damaged' | 'read-only';
  readonly reason: string;
  readonly revision: number;
  /** Head of the log when last heard of; undefined before the first contact. */
  readonly logRevision?: number;
}

/** How far somebody has read custody's records: the entry, and the record in it, read last. `{revision: 0, index: 0}` at first. */
export interface CustodyCursor {
  readonly revision: number;
  readonly index: number;
}

export interface CustodyPageOptions {
  /** Default 256. */
  readonly limit?: number;
  /** Default 512 KiB. */
  readonly sizeBytesMax?: number;
}

export interface CustodyRecord extends CustodyCursor {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export interface CustodyPage {
  /** Where the view stands: with `done`, all there is up to here has been read. */
  readonly head: number;
  readonly records: readonly CustodyRecord[];
  readonly done: boolean;
}

/** Every query throws RECORD_CORRUPT rather than serve bytes, or an absence, that stored checksums contradict. */
export interface BeaconQueries {
  position(): LogPosition;
  counts(): RegistryCounts;
  health(): ViewHealth;
  /** The current version of a canonical address, a tombstone included; undefined when it has none. */
  head(address: string): Promise<RegisteredVersion | undefined>;
  version(address: string, version: number): Promise<RegisteredVersion | undefined>;
  /** The version current at `instant` (ms since 1970); undefined before the first. */
  at(address: string, instant: number): Promise<RegisteredVersion | undefined>;
  /** History, oldest first, or newest first with `reverse`. */
  versions(address: string, page?: PageOptions & { readonly reverse?: boolean }): Promise<Page<VersionLine>>;
  /** Current versions of the addresses that match; tombstones only with `removed`. The order follows from the pattern. */
  query(
    pattern: AddressPattern,
    page?: PageOptions & { readonly removed?: boolean },
  ): Promise<Page<RegisteredVersion>>;
  tagged(tag: string, page?: PageOptions): Promise<Page<RegisteredVersion>>;
  /** Versions signed by this key. */
  writtenBy(
    writer: Uint8Array,
    page?: PageOptions,
  ): Promise<Page<{ readonly address: string; readonly version: number }>>;
  byCid(cid: CID, page?: PageOptions): Promise<Page<CidUse>>;
  objectsOfBranchKey(bkId: Uint8Array, page?: PageOptions): Promise<Page<WrappedObject>>;
  /** The addresses and versions that name an object. */
  wrappedObject(objId: Uint8Array): Promise<WrappedObject>;
  /** The current envelope, or the given version of it. */
  envelope(objId: Uint8Array, version?: number): Promise<Registered<EnvelopeBody> | undefined>;
  branchKey(bkId: Uint8Array, version?: number): Promise<Registered<BranchKeyBody> | undefined>;
  /**
   * The newest record of everything that holds a wrapped key: branch keys, then the envelopes of objects with a key
   * of their own. The order stays while others write.
   */
  wrappedKeys(page?: PageOptions): Promise<Page<Registered<BranchKeyBody | DirectEnvelope>>>;
  /**
   * The newest record of that version of a group's key. Without `version`: of the version that is wrapped under
   * now, the highest active one; where none is active, the highest.
   */
  kek(group: string, version?: number): Promise<Registered<KekBody> | undefined>;
  /** Current records of branch keys, and envelopes with a key of their own, that have a wrap under a version of a threshold key. */
  wrappedUnder(
    group: string,
    version: number,
    page?: PageOptions,
  ): Promise<Page<Registered<BranchKeyBody | EnvelopeBody>>>;
  /** The newest version of a policy family, or the given one. */
  policy(family: Uint8Array, version?: number): Promise<Registered<PolicyBody> | undefined>;
  /** The newest revocation record of a group, or the given one. */
  revocation(group: string, n?: number): Promise<Registered<RevocationBody> | undefined>;
  /** The newest certificate about that version of a group's key, or the given one. */
  certificate(group: string, version: number, n?: number): Promise<Registered<CertificateBody> | undefined>;
  /**
   * Records that custodians need, in the order of the log, from behind `since`; a page of at most `limit` records
   * and, but for the first, `sizeBytesMax` bytes.
   */
  custodyRecords(since: CustodyCursor, options?: CustodyPageOptions): Promise<CustodyPage>;
  /** The newest record of every KEK: of a threshold group one for each version of its key, of others the current one. */
  keks(page?: PageOptions): Promise<Page<Registered<KekBody>>>;
  /** Revision of the last append with this subject, skipped ones too: the `expected` of the next one. */
  subjectRevision(subject: string): Promise<number>;
  rejected(page?: PageOptions): Promise<Page<RejectedEntry>>;
  /** Log entries from `revision` (inclusive), out of this view's own copy, as the log gave them. */
  entriesSince(revision: number, options?: { readonly signal?: AbortSignal }): AsyncIterable<LogEntry>;
  /** What happened from `revision` (inclusive) on, so that nobody need scan the catalogue twice. */
  changesSince(revision: number, options?: { readonly signal?: AbortSignal }): AsyncIterable<RegistryChange>;
  /** Every version of every address, in address order, in bounded memory. */
  catalogue(options?: { readonly signal?: AbortSignal }): AsyncIterable<CatalogueEntry>;
  /** The catalogue entries of one address, oldest first: to apply a change without a scan. */
  catalogueOf(address: string): AsyncIterable<CatalogueEntry>;
  /** Record blocks of all KEKs and branch keys, used by an object yet or not, and of custody's other records. */
  keyBlocks(): AsyncIterable<CID>;
  /** Of these, the ones that no object brings along: of KEKs, policies, revocations and certificates. */
  custodyBlocks(): AsyncIterable<CID>;
  /** Resolves once the entry at `revision` is folded in. Throws the reason of `signal`. */
  waitFor(revision: number, signal: AbortSignal): Promise<void>;
}
