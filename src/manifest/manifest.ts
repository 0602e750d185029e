// The manifest: what one version of one address is. Immutable, signed, content-addressed; field names are upstream's
// where upstream has one (docs/formats.md, Manifest). Who holds copies, and who can unwrap the key, changes often and
// stands elsewhere.
//
// Much in it follows from the rest: manifest_id, source_hash, blocks, replica_targets, codec, dek_fingerprint.
// `buildManifest` computes these and `parseManifest` compares them, so a reader can use whichever it needs and no
// writer can make them disagree.

import { CID } from '../core/block.ts';
import { concat, lengthPrefixed, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256, type Signer } from '../core/hash.ts';
import { manifestCitesMax, manifestTagsMax, segmentBytes } from '../core/limits.ts';
import { canonicalKey, parseAddress, type UcxlAddress } from '../ucxl/address.ts';
import { parseInstant } from '../ucxl/temporal.ts';
import { type Fields, isCount, isMap, isText } from './fields.ts';
import { openRecord, type RecordBody, type SignedRecord, signRecord } from './record.ts';
import { blocksOf, isContentLink, isIndexLink, segmentsOf } from './segments.ts';

export type ManifestType = 'object' | 'tree' | 'tombstone';

export interface ReplicationPolicy {
  /** Copies wanted; with fewer the object counts as endangered. A write is taken with two of them (one where only one is wanted, or only one node exists) and said to be short. 1…max. */
  readonly min: number;
  /** Copies above which surplus is trimmed. min…256. */
  readonly max: number;
  /** Distinct zones the minimum must span. 1…min. */
  readonly zones: number;
}

export interface Citation {
  readonly address: string;
  readonly reason: string;
}

/** How to open the content, without any key: the envelope `env/<objId>` holds the wrapped one. */
export interface ManifestEncryption {
  readonly v: 1;
  readonly suite: 'slurp-env-1';
  /** 16 bytes. */
  readonly objId: Uint8Array;
  /** FLOE header: parameters 10, IV 32, header tag 32 bytes. */
  readonly hdr: Uint8Array;
  /** What the content key is bound to: DAG-CBOR, see the envelope room. */
  readonly aad: Uint8Array;
  /** Bytes of ciphertext in all segments. */
  readonly ctLen: number;
  /** The header tag in hex: it commits to the key and tells nothing about it. */
  readonly dek_fingerprint: string;
  readonly kek_policy: string;
}

export interface ManifestBody extends RecordBody {
  readonly kind: 'manifest';
  readonly manifest_id: string;
  /** The canonical key, `ucxl://agent:role@project:task/*^/path`. */
  readonly ucxl_address: string;
  /** 1 for the first, then one more each time. */
  readonly context_version: number;
  readonly type: ManifestType;
  /** SHA-256 of the root block in hex; empty for a tombstone. */
  readonly source_hash: string;
  readonly generated_by: string;
  /** RFC 3339. */
  readonly generated_at: string;
  readonly media: string;
  /** Bytes of plaintext. */
  readonly size: number;
  readonly codec: 'raw';
  /** Root of the content: a segment, or the index over several. Null for a tombstone. */
  readonly cid: CID | null;
  /** Content blocks, index blocks among them. */
  readonly blocks: number;
  readonly replication: ReplicationPolicy;
  readonly replica_targets: number;
  readonly compliance_tags: readonly string[];
  readonly cites: readonly Citation[];
  readonly supersedes: string | null;
  readonly cls: string;
  readonly encryption: ManifestEncryption | null;
}

/** What `buildManifest` cannot compute. */
export interface ManifestInput {
  readonly writer: Uint8Array;
  readonly address: Omit<UcxlAddress, 'raw'>;
  readonly version: number;
  readonly prev: CID | null;
  readonly generatedBy: string;
  /** Milliseconds since 1970. */
  readonly generatedAt: number;
  readonly replication: ReplicationPolicy;
  readonly cls: string;
  /** Absent: a tombstone. */
  readonly content?: ManifestContent;
  readonly complianceTags?: readonly string[];
  readonly cites?: readonly Citation[];
  readonly supersedes?: string | null;
}

export interface ManifestContent {
  readonly type: 'object' | 'tree';
  readonly root: CID;
  readonly size: number;
  readonly media: string;
  readonly objId: Uint8Array;
  readonly hdr: Uint8Array;
  readonly aad: Uint8Array;
  readonly ctLen: number;
  readonly kekPolicy: string;
}

/**
 * The body for one version of an address, ready to be signed.
 * Throws ADDRESS_WILDCARD for a wildcard address and RECORD_INVALID naming the field for anything else out of bounds.
 */
export function buildManifest(input: ManifestInput): ManifestBody {
  const { address, version, content } = input;
  const key = canonicalKey(address);
  const body: ManifestBody = {
    kind: 'manifest',
    v: 1,
    writer: input.writer,
    prev: input.prev,
    manifest_id: manifestId(address, key, version),
    ucxl_address: key,
    context_version: version,
    type: content?.type ?? 'tombstone',
    source_hash: content === undefined ? '' : toHex(content.root.multihash.digest),
    generated_by: input.generatedBy,
    generated_at: new Date(input.generatedAt).toISOString(),
    media: content?.media ?? '',
    size: content?.size ?? 0,
    codec: 'raw',
    cid: content?.root ?? null,
    blocks: content === undefined ? 0 : blocksOf(content.ctLen),
    replication: input.replication,
    replica_targets: input.replication.min,
    compliance_tags: input.complianceTags ?? [],
    cites: input.cites ?? [],
    supersedes: input.supersedes ?? null,
    cls: input.cls,
    encryption: content === undefined ? null : encryptionOf(content),
  };
  checkManifest(body);
  return body;
}

/** Builds and signs in one step. Throws as `buildManifest` and `signRecord`. */
export function signManifest(
  input: Omit<ManifestInput, 'writer'>,
  signer: Signer,
): SignedRecord<ManifestBody> {
  return signRecord(buildManifest({ ...input, writer: signer.publicKey }), signer);
}

/** Checks every field of an opened record. Throws RECORD_INVALID with the field in the details. */
export function parseManifest(record: SignedRecord<RecordBody>): SignedRecord<ManifestBody> {
  const { body } = record;
  checkManifest(body);
  return { ...record, body };
}

/** Opens and checks a manifest block. Throws RECORD_INVALID. */
export function openManifest(bytes: Uint8Array): SignedRecord<ManifestBody> {
  return parseManifest(openRecord(bytes));
}

/** Hex SHA-256 over project, task, canonical key and version in decimal, each with its length in front (4 bytes). */
export function manifestId(
  address: Pick<UcxlAddress, 'project' | 'task'>,
  key: string,
  version: number,
): string {
  const parts = [address.project, address.task, key, String(version)];
  return toHex(sha256(concat(...parts.map((part) => lengthPrefixed(utf8(part))))));
}

function encryptionOf(content: ManifestContent): ManifestEncryption {
  const { objId, hdr, aad, ctLen } = content;
  return {
    v: 1,
    suite: 'slurp-env-1',
    objId,
    hdr,
    aad,
    ctLen,
    dek_fingerprint: fingerprint(hdr),
    kek_policy: content.kekPolicy,
  };
}

function fingerprint(hdr: Uint8Array): string {
  return toHex(hdr.subarray(headerBytes - headerTagBytes));
}

const headerBytes = 74;
const headerTagBytes = 32;
const aadBytesMax = 8192;
const copiesMax = 256;
const textBytesMax = 256;
const reasonBytesMax = 1024;
/** What FLOE adds to each segment. */
const segmentOverheadBytes = 32;

const bodyFields =
  `kind v writer prev manifest_id ucxl_address context_version type source_hash generated_by generated_at media size
  codec cid blocks replication replica_targets compliance_tags cites supersedes cls encryption`.split(/\s+/);
const encryptionFields = ['v', 'suite', 'objId', 'hdr', 'aad', 'ctLen', 'dek_fingerprint', 'kek_policy'];

/** In two steps: each field by itself, then what follows from what. */
function checkManifest(body: RecordBody): asserts body is ManifestBody {
  if (!hasManifestFields(body)) return;
  checkIdentity(body);
  if (body.type === 'tombstone') checkTombstone(body);
  else checkContent(body);
}

/** Throws for a wrong field: it never returns false. A type guard because that is how TypeScript narrows. */
function hasManifestFields(body: RecordBody): body is ManifestBody {
  const fields = mapOf(body, bodyFields, 'manifest');
  must(fields['kind'] === 'manifest', 'kind', 'is not manifest');
  must(fields['v'] === 1, 'v', 'is not 1');
  must(oneOf(fields['type'], ['object', 'tree', 'tombstone']), 'type', 'is none of object, tree, tombstone');
  must(isCount(fields['context_version'], 1), 'context_version', 'is not an integer from 1');
  must(isCount(fields['size'], 0), 'size', 'is not an integer from 0');
  must(isCount(fields['blocks'], 0), 'blocks', 'is not an integer from 0');
  must(fields['codec'] === 'raw', 'codec', 'is not raw');
  must(isText(fields['generated_by'], 1, textBytesMax), 'generated_by', 'is not text of 1 to 256 bytes');
  must(isInstant(fields['generated_at']), 'generated_at', 'is not an RFC 3339 instant');
  must(isMatch(fields['cls'], /^[a-z][a-z0-9-]{0,63}$/), 'cls', 'is not a word of a-z, 0-9 and -');
  checkReplication(fields['replication'], fields['replica_targets']);
  checkTags(fields['compliance_tags']);
  checkCites(fields['cites']);
  must(
    fields['supersedes'] === null || isAddress(fields['supersedes']),
    'supersedes',
    'is not a UCXL address',
  );
  checkEncryptionFields(fields['encryption']);
  return true;
}

function checkReplication(value: unknown, targets: unknown): void {
  const { min, max, zones } = mapOf(value, ['min', 'max', 'zones'], 'replication');
  must(isCount(max, 1, copiesMax), 'replication.max', `is not an integer from 1 to ${copiesMax}`);
  must(isCount(min, 1, max), 'replication.min', 'is not an integer from 1 to max');
  must(isCount(zones, 1, min), 'replication.zones', 'is not an integer from 1 to min');
  must(targets === min, 'replica_targets', 'differs from replication.min');
}

function checkTags(value: unknown): void {
  must(
    Array.isArray(value) && value.length <= manifestTagsMax,
    'compliance_tags',
    `is no list of ≤ ${manifestTagsMax}`,
  );
  const good = value.every((tag) => isMatch(tag, /^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,63}$/));
  must(good, 'compliance_tags', 'holds something else than words of letters, digits, . _ : and -');
  must(new Set(value).size === value.length, 'compliance_tags', 'holds a tag twice');
}

function checkCites(value: unknown): void {
  must(
    Array.isArray(value) && value.length <= manifestCitesMax,
    'cites',
    `is no list of ≤ ${manifestCitesMax}`,
  );
  for (const cite of value) {
    const { address, reason } = mapOf(cite, ['address', 'reason'], 'cites');
    must(isAddress(address), 'cites.address', 'is not a UCXL address');
    must(isText(reason, 0, reasonBytesMax), 'cites.reason', `is not text of at most ${reasonBytesMax} bytes`);
  }
}

function checkEncryptionFields(value: unknown): void {
  if (value === null) return;
  const { v, suite, objId, hdr, aad, ctLen, dek_fingerprint, kek_policy } = mapOf(
    value,
    encryptionFields,
    'encryption',
  );
  must(v === 1, 'encryption.v', 'is not 1');
  must(suite === 'slurp-env-1', 'encryption.suite', 'is not slurp-env-1');
  must(isBytes(objId, 16, 16), 'encryption.objId', 'is not 16 bytes');
  must(isBytes(hdr, headerBytes, headerBytes), 'encryption.hdr', `is not ${headerBytes} bytes`);
  must(isBytes(aad, 0, aadBytesMax), 'encryption.aad', `is not at most ${aadBytesMax} bytes`);
  must(
    isCount(ctLen, segmentOverheadBytes),
    'encryption.ctLen',
    `is not an integer from ${segmentOverheadBytes}`,
  );
  must(dek_fingerprint === fingerprint(hdr), 'encryption.dek_fingerprint', 'is not the header tag of hdr');
  must(isText(kek_policy, 1, textBytesMax), 'encryption.kek_policy', 'is not text of 1 to 256 bytes');
}

function checkIdentity(body: ManifestBody): void {
  const address = canonicalAddress(body.ucxl_address);
  const id = manifestId(address, body.ucxl_address, body.context_version);
  must(body.manifest_id === id, 'manifest_id', 'does not follow from address and version');
  must(
    (body.context_version === 1) === (body.prev === null),
    'prev',
    'is null for version 1 and only for it',
  );
}

function canonicalAddress(text: unknown): UcxlAddress {
  must(typeof text === 'string', 'ucxl_address', 'is not text');
  const address = orInvalid('ucxl_address', () => parseAddress(text, { profile: 'lenient' }));
  const key = orInvalid('ucxl_address', () => canonicalKey(address));
  must(key === text, 'ucxl_address', 'is not the canonical key of the address');
  return address;
}

function checkTombstone(body: ManifestBody): void {
  must(body.cid === null, 'cid', 'is not null in a tombstone');
  must(body.source_hash === '', 'source_hash', 'is not empty in a tombstone');
  must(body.size === 0, 'size', 'is not 0 in a tombstone');
  must(body.blocks === 0, 'blocks', 'is not 0 in a tombstone');
  must(body.media === '', 'media', 'is not empty in a tombstone');
  must(body.encryption === null, 'encryption', 'is not null in a tombstone');
}

function checkContent(body: ManifestBody): void {
  const { cid, encryption } = body;
  must(encryption !== null, 'encryption', 'is null: content is always sealed');
  must(isMatch(body.media, mediaPattern), 'media', 'is not a media type of at most 256 characters');
  const segments = segmentsOf(encryption.ctLen);
  const sealed = body.size + segments * segmentOverheadBytes;
  must(
    encryption.ctLen === sealed,
    'encryption.ctLen',
    'does not follow from size: 32 bytes more per segment',
  );
  must(
    body.blocks === blocksOf(encryption.ctLen),
    'blocks',
    `does not follow from ctLen: ${segmentBytes} B a segment`,
  );
  const link = segments === 1 ? isContentLink(cid) : isIndexLink(cid);
  must(link, 'cid', segments === 1 ? 'is not the CID of a raw block' : 'is not the CID of an index block');
  must(
    cid !== null && body.source_hash === toHex(cid.multihash.digest),
    'source_hash',
    'is not the digest of cid',
  );
}

const mediaPattern = /^(?=.{1,256}$)[\w!#$&^.+-]+\/[\w!#$&^.+-]+(?: *;[ -~]*)?$/;

/** `value` as a map with exactly these fields, so that nothing signed goes unread. */
function mapOf(value: unknown, names: readonly string[], what: string): Fields {
  must(isMap(value), what, 'is not a map');
  for (const name of Object.keys(value)) must(names.includes(name), name, `is no field of ${what}`);
  for (const name of names) must(value[name] !== undefined, name, `is missing in ${what}`);
  return value;
}

function must(condition: boolean, field: string, message: string): asserts condition {
  if (condition) return;
  throw new HoldfastError('RECORD_INVALID', `manifest: ${field} ${message}`, { details: { field, message } });
}

function orInvalid<T>(field: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    const message = 'is not an address that can be stored';
    throw new HoldfastError('RECORD_INVALID', `manifest: ${field} ${message}`, {
      details: { field, message },
      cause,
    });
  }
}

function oneOf(value: unknown, words: readonly string[]): boolean {
  return words.some((word) => word === value);
}

function isBytes(value: unknown, min: number, max: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length >= min && value.length <= max;
}

function isMatch(value: unknown, pattern: RegExp): value is string {
  return typeof value === 'string' && pattern.test(value);
}

/** Only Z or an offset makes an ISO instant an RFC 3339 one. */
function isInstant(value: unknown): boolean {
  return isMatch(value, /^.{19}(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/) && parseInstant(value) !== undefined;
}

function isAddress(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  try {
    parseAddress(value, { profile: 'lenient' });
    return true;
  } catch {
    return false;
  }
}
