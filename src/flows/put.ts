// put: from an address and a stream of plaintext to an acknowledged, citable version.
//
// It runs where the plaintext is: in the client, or in a sealing door. What leaves it is ciphertext, signed
// records and CIDs. Numbers in the comments are those of ARCHITECTURE.md.

import { type Block, type CID, rawBlock } from '../core/block.ts';
import { unfilled } from '../core/bytes.ts';
import { chunked, mapInOrder } from '../core/concurrency.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { Slabs } from '../core/slabs.ts';
import type { WriterKey, WriterScope } from '../custody/keyring.ts';
import { type ContentClass, encodeAad, objectIdBytes } from '../envelope/aad.ts';
import {
  floeEncryptor,
  floeHeaderBytes,
  headerTagOf,
  plaintextSegmentBytes,
  segmentHeadBytes,
  segmentOverheadBytes,
} from '../envelope/floe.ts';
import { type EnvelopeBody, type KekBody, type KekFields, policyOfKey } from '../envelope/records.ts';
import { wrapDek } from '../envelope/wrap.ts';
import {
  type Citation,
  type ManifestContent,
  type ManifestInput,
  type ReplicationPolicy,
  signManifest,
} from '../manifest/manifest.ts';
import { signRecord } from '../manifest/record.ts';
import { togetherBytesMax } from '../core/limits.ts';
import { IndexBuilder } from '../manifest/segments.ts';
import { canonicalKey, type UcxlAddress, withVersion } from '../ucxl/address.ts';

/** The newest version under an address. */
export interface VersionRef {
  readonly version: number;
  readonly manifest: CID;
  readonly tombstone: boolean;
}

/** What the Beacon answered to a registration. */
interface Registered {
  /** Log revision: a later read that names it sees this write. */
  readonly revision: number;
  /** How well content that came along was stored. */
  readonly copies?: Copies | undefined;
}

/** How well blocks were stored: the fewest copies any of them got, and how many were wanted. */
export interface Copies {
  readonly copies: number;
  readonly wanted: number;
}

export interface PutPorts {
  readonly registry: {
    /** Newest version under a canonical key, tombstones included; undefined when there is none. */
    newest(key: string): Promise<VersionRef | undefined>;
    /**
     * Enters records that belong together, and stores their content first when it comes along. Throws
     * VERSION_CONFLICT when the address moved on.
     */
    register(records: readonly Block[], content?: Block): Promise<Registered>;
  };
  /** Stores blocks on enough disks before it resolves; `policy` says how many. */
  store(blocks: readonly Block[], policy: ReplicationPolicy): Promise<Copies>;
  /** The branch key to wrap one more content key under, on loan. */
  writerKey(scope: WriterScope): Promise<WriterKey>;
  /** How the records of KEKs call the policy. */
  readonly kekPolicy: string;
  /** What the KEK record says; registered along with each new branch key, until the registry has it. */
  readonly kek?: KekFields;
  readonly signer: Signer;
  random(bytes: number): Uint8Array;
  /** Wall clock, milliseconds since 1970: generated_at. */
  now(): number;
  beat(): Promise<number>;
  /**
   * Where segments are made, given back when `store` has resolved: for who has no use for their bytes after that.
   * Absent: each has memory of its own.
   */
  readonly memory?: Pick<Slabs, 'take' | 'give'>;
}

export interface PutOptions {
  readonly media: string;
  readonly type: 'object' | 'tree';
  readonly cls: ContentClass;
  readonly replication: ReplicationPolicy;
  readonly generatedBy: string;
  readonly complianceTags?: readonly string[];
  readonly cites?: readonly Citation[];
  readonly supersedes?: string | null;
  /** Only write if this is the newest version now (0: nothing yet). Absent: on top of whatever is newest. */
  readonly expectedVersion?: number;
  /** Told of plaintext bytes as they are stored. */
  onStored?(bytes: number): void;
}

export interface PutResult {
  /** Immutable address of exactly this version, `…/*~N/…`. */
  readonly address: string;
  /** CID of the manifest. */
  readonly cid: CID;
  readonly version: number;
  readonly sizeBytes: number;
  readonly copies: number;
  readonly wanted: number;
  /** Fewer copies than wanted exist yet; the steward makes the rest. */
  readonly short: boolean;
  readonly revision: number;
}

/** Segments stored together: 4 MiB of ciphertext, and this many such batches under way. Bounds the memory of a put. */
const batchSegments = 16;
const batchesUnderway = 2;
/** Segments of one put that are in memory at once, with those that are being made. */
export const putSegmentsMax = batchSegments * (batchesUnderway + 1);
/** Another writer may win the race for a version this often before we give up. */
const conflictsMax = 16;

/**
 * Seals `source` and registers it as the next version of `address`.
 *
 * @param address its temporal segment must be latest: versions that exist are immutable
 * @throws ADDRESS_WILDCARD, ARGUMENT_INVALID, VERSION_CONFLICT, QUORUM_UNAVAILABLE, and whatever `source` throws;
 *   then nothing is registered, and blocks already stored are collected later
 */
export async function putObject(
  ports: PutPorts,
  address: UcxlAddress,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: PutOptions,
): Promise<PutResult> {
  // 1. The address, and the version this will follow.
  const key = writableKey(address);
  checkDescribable(ports, address, options);
  const before = await ports.registry.newest(key);
  checkExpected(key, before, options.expectedVersion);

  // 2. A fresh key for the content, bound to what the content is.
  const beat = await ports.beat();
  const dek = ports.random(32);
  try {
    // 3. Seal, cut into blocks, store them on enough disks. A single small one waits for its records.
    const objId = ports.random(objectIdBytes);
    const sealed = await sealContent(ports, { key, objId, dek, beat }, source, options);

    // 4. Wrap the content key under the branch key of this window, or under a key of its own.
    // By the beat of now: the upload may have outlasted the window in which it began.
    const wrapBeat = await ports.beat();
    using writerKey = await ports.writerKey(keyScope(ports, address, options.cls, objId, wrapBeat));
    const keyRecords = wrapKey(ports, writerKey, dek, sealed.content, wrapBeat, options.cls);

    // 5. Describe and register: only now does the version exist.
    const input = { address, replication: options.replication, options, content: sealed.content };
    const { stored, ...done } = await registerVersion(ports, key, before, input, keyRecords, sealed.small);
    writerKey.registered();
    if (sealed.small !== undefined) options.onStored?.(sealed.content.size);
    // An answer that was lost is asked for, but not how many copies it told of: one there is for sure.
    const { copies, wanted } = sealed.copies ?? stored ?? { copies: 1, wanted: options.replication.min };
    return { ...done, sizeBytes: sealed.content.size, copies, wanted, short: copies < wanted };
  } finally {
    dek.fill(0);
  }
}

/**
 * Ends an address: its newest version becomes a tombstone, the blocks of the others are reclaimed later.
 *
 * @throws NOT_FOUND when nothing was ever stored there, GONE when it is removed already, VERSION_CONFLICT
 */
export async function removeObject(
  ports: Pick<PutPorts, 'registry' | 'signer' | 'now'>,
  address: UcxlAddress,
  options: Pick<PutOptions, 'generatedBy' | 'expectedVersion' | 'replication' | 'cls'>,
): Promise<Pick<PutResult, 'address' | 'cid' | 'version' | 'revision'>> {
  const key = writableKey(address);
  const before = await ports.registry.newest(key);
  if (before === undefined) throw new HoldfastError('NOT_FOUND', `nothing is stored under ${key}`);
  if (before.tombstone)
    throw new HoldfastError('GONE', `${key} was removed already by version ${before.version}`);
  checkExpected(key, before, options.expectedVersion);
  const input = { address, replication: options.replication, options };
  const { stored: _, ...done } = await registerVersion(ports, key, before, input, []);
  return done;
}

interface SealInput {
  readonly key: string;
  readonly objId: Uint8Array;
  readonly dek: Uint8Array;
  readonly beat: number;
}

interface Sealed {
  readonly content: ManifestContent;
  /** Absent when nothing was stored yet. */
  readonly copies?: Copies;
  /** All of the content, still to be stored. */
  readonly small?: Block;
}

async function sealContent(
  ports: PutPorts,
  { key, objId, dek, beat }: SealInput,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: PutOptions,
): Promise<Sealed> {
  const { media, type, cls } = options;
  const aad = encodeAad({ objId, ucxl: key, media, kind: type, cls, beat, writer: ports.signer.publicKey });
  using encryptor = floeEncryptor(dek, aad, (bytes) => ports.random(bytes));
  const index = new IndexBuilder();
  const frames = new Frames(ports.memory);
  let ctLen = 0;
  let size = 0;
  let fewest: Copies | undefined;

  async function* batches(): AsyncGenerator<{ blocks: Block[]; plainBytes: number }> {
    let blocks: Block[] = [];
    let plainBytes = 0;
    let position = 0;
    const pieces = chunked(source, plaintextSegmentBytes(), (parts) => frames.gather(parts));
    for await (const { bytes, last } of pieces) {
      const block = rawBlock(encryptor.encryptSegment(position++, bytes, last, frames.of(bytes)));
      ctLen += block.bytes.length;
      size += bytes.length;
      plainBytes += bytes.length;
      blocks.push(block, ...index.add({ cid: block.cid, size: block.bytes.length }));
      if (blocks.length >= batchSegments) {
        yield { blocks, plainBytes };
        blocks = [];
        plainBytes = 0;
      }
    }
    const { root, blocks: rest } = index.finish();
    rootCid = root;
    blocks.push(...rest);
    const [only] = blocks;
    if (ctLen <= togetherBytesMax && only !== undefined && blocks.length === 1) {
      small = only;
      return;
    }
    if (blocks.length > 0) yield { blocks, plainBytes };
  }

  let rootCid: CID | undefined;
  let small: Block | undefined;
  const stored = mapInOrder(batches(), batchesUnderway, async ({ blocks, plainBytes }) => {
    const copies = await ports.store(blocks, options.replication);
    for (const { bytes } of blocks) ports.memory?.give(bytes);
    return { copies, plainBytes };
  });
  for await (const { copies, plainBytes } of stored) {
    if (fewest === undefined || copies.copies < fewest.copies) fewest = copies;
    options.onStored?.(plainBytes);
  }
  if (rootCid === undefined || (fewest ?? small) === undefined)
    throw new RangeError('sealContent: no segment was made');
  const content: ManifestContent = {
    type,
    root: rootCid,
    size,
    media,
    objId,
    hdr: encryptor.header,
    aad,
    ctLen,
    kekPolicy: ports.kekPolicy,
  };
  return {
    content,
    ...(fewest === undefined ? {} : { copies: fewest }),
    ...(small === undefined ? {} : { small }),
  };
}

/** Memory for segments. Plaintext that comes in parts is put together where its ciphertext will lie. */
class Frames {
  readonly #memory: PutPorts['memory'];
  #gathered: Uint8Array | undefined;

  constructor(memory: PutPorts['memory']) {
    this.#memory = memory;
  }

  gather(parts: readonly Uint8Array[]): Uint8Array {
    const size = parts.reduce((sum, { length }) => sum + length, 0);
    const frame = this.#take(size);
    let at = segmentHeadBytes;
    for (const part of parts) {
      frame.set(part, at);
      at += part.length;
    }
    this.#gathered = frame;
    return frame.subarray(segmentHeadBytes, at);
  }

  /** Where the segment of `plaintext` is made. */
  of(plaintext: Uint8Array): Uint8Array {
    const gathered = this.#gathered;
    this.#gathered = undefined;
    return gathered?.buffer === plaintext.buffer ? gathered : this.#take(plaintext.length);
  }

  #take(plainBytes: number): Uint8Array {
    const size = plainBytes + segmentOverheadBytes;
    return this.#memory?.take(size) ?? unfilled(size);
  }
}

/** What is restricted gets a key of its own: each read of it is a question to the custodians. */
function keyScope(
  ports: PutPorts,
  { project }: UcxlAddress,
  cls: ContentClass,
  objId: Uint8Array,
  beat: number,
): WriterScope {
  const scope = { project, cls, policy: policyOf(ports), beat };
  return cls === 'restricted' ? { ...scope, objId } : scope;
}

/** Custodians decide by a policy; the other providers know none. */
function policyOf({ kek }: PutPorts): CID | null {
  return kek?.provider === 'tdec' ? kek.policyRoot : null;
}

function wrapKey(
  ports: PutPorts,
  writerKey: WriterKey,
  dek: Uint8Array,
  content: ManifestContent,
  beat: number,
  cls: ContentClass,
): Block[] {
  const { bkId, bkVer, body } = writerKey;
  const policy = policyOfKey(body);
  const binding = { objId: content.objId, headerTag: headerTagOf(content.hdr), bkId, bkVer, policy };
  const wrap = wrapDek(writerKey.key, dek, binding, (bytes) => ports.random(bytes));
  const common = {
    kind: 'envelope',
    v: 1,
    writer: ports.signer.publicKey,
    prev: null,
    objId: content.objId,
    envVer: 1,
    wrap,
    policy,
    cls,
    beat,
  } as const;
  const { scope, commit, combiner, wraps } = body;
  const envelope: EnvelopeBody =
    cls === 'restricted'
      ? { ...common, mode: 'direct', key: { bkVer, scope, commit, combiner, wraps } }
      : { ...common, mode: 'branch', bkId, bkVer };
  const records = [signRecord(envelope, ports.signer).block];
  const { unregistered } = writerKey;
  if (unregistered !== undefined) {
    if (envelope.mode === 'branch') records.unshift(signRecord(unregistered, ports.signer).block);
    records.unshift(...kekRecord(ports));
  }
  return records;
}

function kekRecord({ kek, signer }: PutPorts): Block[] {
  // A custody group files its own records: only those that the group signed count.
  if (kek === undefined || kek.provider === 'tdec') return [];
  const body: KekBody = { kind: 'kek', v: 1, writer: signer.publicKey, prev: null, ...kek };
  return [signRecord(body, signer).block];
}

interface VersionInput {
  readonly address: UcxlAddress;
  readonly replication: ReplicationPolicy;
  readonly options: Pick<
    PutOptions,
    'cls' | 'generatedBy' | 'complianceTags' | 'cites' | 'supersedes' | 'expectedVersion'
  >;
  readonly content?: ManifestContent;
}

/** Signs and registers the version after `before`; when another writer was faster, the version after theirs. */
async function registerVersion(
  ports: Pick<PutPorts, 'registry' | 'signer' | 'now'>,
  key: string,
  before: VersionRef | undefined,
  input: VersionInput,
  keyRecords: readonly Block[],
  content?: Block,
): Promise<
  Pick<PutResult, 'address' | 'cid' | 'version' | 'revision'> & { readonly stored?: Copies | undefined }
> {
  const { address, options } = input;
  let previous = before;
  for (let attempt = 1; ; attempt++) {
    const version = (previous?.version ?? 0) + 1;
    const described = manifestInput(input, version, previous?.manifest ?? null, ports.now());
    const manifest = signManifest(described, ports.signer);
    try {
      const { revision, copies } = await ports.registry.register([...keyRecords, manifest.block], content);
      return { address: withVersion(address, version), cid: manifest.cid, version, revision, stored: copies };
    } catch (error) {
      const mayRetry = options.expectedVersion === undefined && attempt < conflictsMax;
      if (!isHoldfastError(error, 'VERSION_CONFLICT') || !mayRetry) throw error;
      previous = await ports.registry.newest(key);
    }
  }
}

/** Refuses now, before a byte is read, what no manifest could say of the content later. */
function checkDescribable(ports: PutPorts, address: UcxlAddress, options: PutOptions): void {
  const { media, type } = options;
  const empty = new Uint8Array(0);
  const content = {
    type,
    media,
    root: rawBlock(empty).cid,
    size: 0,
    objId: new Uint8Array(objectIdBytes),
    hdr: new Uint8Array(floeHeaderBytes),
    aad: empty,
    ctLen: segmentOverheadBytes,
    kekPolicy: ports.kekPolicy,
  };
  const input = { address, replication: options.replication, options, content };
  try {
    signManifest(manifestInput(input, 1, null, ports.now()), ports.signer);
  } catch (cause) {
    if (!isHoldfastError(cause, 'RECORD_INVALID')) throw cause;
    const { field = 'manifest' } = cause.details;
    throw new HoldfastError('ARGUMENT_INVALID', cause.message, { details: { field }, cause });
  }
}

function manifestInput(
  input: VersionInput,
  version: number,
  prev: CID | null,
  now: number,
): Omit<ManifestInput, 'writer'> {
  const { address, replication, options, content } = input;
  return {
    address,
    version,
    prev,
    generatedBy: options.generatedBy,
    generatedAt: now,
    replication,
    cls: options.cls,
    ...(content === undefined ? {} : { content }),
    ...(options.complianceTags === undefined ? {} : { complianceTags: options.complianceTags }),
    ...(options.cites === undefined ? {} : { cites: options.cites }),
    ...(options.supersedes === undefined ? {} : { supersedes: options.supersedes }),
  };
}

function writableKey(address: UcxlAddress): string {
  const { type } = address.temporal_segment;
  if (type !== 'latest')
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${address.raw} names a version; a write makes a new one: leave the temporal segment out or write *^`,
      { details: { field: 'temporal', raw: address.raw.slice(0, 256) } },
    );
  return canonicalKey(address);
}

function checkExpected(key: string, before: VersionRef | undefined, expected: number | undefined): void {
  const current = before?.version ?? 0;
  if (expected === undefined || expected === current) return;
  throw new HoldfastError('VERSION_CONFLICT', `${key} is at version ${current}, not ${expected}`, {
    details: { expected, current },
  });
}
