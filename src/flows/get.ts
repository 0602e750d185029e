// get: from an address to plaintext, of which not one byte leaves unauthenticated.
//
// It runs where the plaintext is wanted: in the client, or in a sealing door. Every block was checked against
// its CID on arrival, every record against its signature, the key against the header, the segments against
// the key, their place and the end of the stream.

import type { Block, CID } from '../core/block.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { grouped, mapInOrder } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import type { BranchKey } from '../custody/keyring.ts';
import { parseAad } from '../envelope/aad.ts';
import {
  type FloeDecryptor,
  floeDecryptor,
  headerTagOf,
  plaintextSegmentBytes,
  segmentsOf,
} from '../envelope/floe.ts';
import {
  type BranchKeyBody,
  type EnvelopeBody,
  keyOfEnvelope,
  objectKeyBody,
  parseBranchKey,
  parseEnvelope,
} from '../envelope/records.ts';
import type { HighWaterMarks } from '../envelope/high-water.ts';
import { unwrapDek } from '../envelope/wrap.ts';
import { type ManifestBody, openManifest } from '../manifest/manifest.ts';
import { openRecord, type SignedRecord } from '../manifest/record.ts';
import { walkIndex } from '../manifest/segments.ts';

/** The record blocks of one version, as the Beacon holds them. Key records are absent for a tombstone. */
export interface ObjectRecords {
  readonly manifest: Uint8Array;
  readonly envelope?: Uint8Array;
  /** Absent where the object has a key of its own, which its envelope describes. */
  readonly branchKey?: Uint8Array;
}

export interface GetPorts {
  /** Blocks in the order asked for, each verified against its CID. */
  load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]>;
  /** The key of a branch key record, on loan. */
  readerKey(record: BranchKeyBody, signal: AbortSignal): Promise<BranchKey>;
  /**
   * The key of this one object from somebody who hands out single keys, instead of `readerKey`: 32 bytes, which are
   * zeroed here. The header proves that it is the right one.
   */
  readonly contentKey?: (object: SignedRecord<ManifestBody>, signal: AbortSignal) => Promise<Uint8Array>;
  /** Versions seen before, where records come from somebody who may serve old ones. Absent: out of an own registry. */
  readonly seen?: HighWaterMarks;
  /** The bytes that `load` gives are nobody else's: the plaintext takes their place. Default false: it has memory of its own. */
  readonly ownsBlocks?: boolean;
}

/** Plaintext bytes `first` to `last`, both inclusive, from 0. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

export interface OpenedObject {
  readonly manifest: SignedRecord<ManifestBody>;
  /** Bytes that `bytes` will yield. */
  readonly lengthBytes: number;
  /** The plaintext, in order. Iterate once; leaving early stops the fetching. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** Segments fetched together: 2 MiB of ciphertext, and this many such batches under way. Bounds the memory of a get. */
const batchSegments = 8;
const batchesUnderway = 3;

/**
 * Opens one version. The key is unwrapped before this resolves, so a caller knows whether it may read.
 *
 * @param records of the version wanted
 * @param range part of the plaintext; only its segments are fetched and opened. Absent: all of it.
 * @throws GONE for a tombstone, RECORD_INVALID, DECRYPT_FAILED, KEY_UNAVAILABLE, RANGE_INVALID; and while
 *   iterating BLOCK_UNAVAILABLE or DECRYPT_FAILED
 */
export async function openObject(
  ports: GetPorts,
  records: ObjectRecords,
  options: { readonly range?: ByteRange | undefined; readonly signal: AbortSignal },
): Promise<OpenedObject> {
  // 1. The manifest says what the object is, the envelope and the branch key how to open it.
  const manifest = openManifest(records.manifest);
  const keys = keyRecords(manifest.body, records);
  noteVersions(ports.seen, keys.envelope, keys.branchKey);

  // 2. The content key, proven to be the right one by the header.
  const range = checkedRange(manifest.body, options.range);
  const decryptor = await openKey(ports, manifest, keys, options.signal);

  // 3. Blocks in order, each opened at its place.
  const bytes = plaintext(ports, manifest.body, decryptor, range, options.signal);
  return { manifest, lengthBytes: range === undefined ? 0 : range.last - range.first + 1, bytes };
}

/** What describes the key of an object. */
export interface KeyRecords {
  readonly envelope: EnvelopeBody;
  readonly branchKey: BranchKeyBody;
}

/** The key records of a manifest, their signatures proven. Throws GONE, KEY_UNAVAILABLE, RECORD_INVALID. */
export function keyRecords(body: ManifestBody, records: ObjectRecords): KeyRecords {
  if (body.type === 'tombstone')
    throw new HoldfastError('GONE', `${body.ucxl_address} was removed by version ${body.context_version}`, {
      details: { version: body.context_version },
    });
  const envelope = records.envelope && parseEnvelope(openRecord(records.envelope).body);
  if (envelope?.mode === 'direct') return { envelope, branchKey: objectKeyBody(envelope) };
  if (envelope === undefined || records.branchKey === undefined)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `the key records of ${body.ucxl_address} are missing in the Beacon`,
    );
  return { envelope, branchKey: parseBranchKey(openRecord(records.branchKey).body) };
}

/** Throws RECORD_INVALID for an older record than one that was served before. */
function noteVersions(
  seen: HighWaterMarks | undefined,
  envelope: EnvelopeBody,
  branchKey: BranchKeyBody,
): void {
  seen?.observe(`env/${toHex(envelope.objId)}`, envelope.envVer);
  if (envelope.mode === 'branch') seen?.observe(`bk/${toHex(branchKey.bkId)}`, branchKey.bkVer);
}

/** Undefined when there is nothing to read: an empty object. */
function checkedRange(body: ManifestBody, range: ByteRange | undefined): ByteRange | undefined {
  if (range === undefined) return body.size === 0 ? undefined : { first: 0, last: body.size - 1 };
  if (range.first < 0 || range.first > range.last || range.first >= body.size)
    throw new HoldfastError(
      'RANGE_INVALID',
      `bytes ${range.first}-${range.last} of an object of ${body.size} bytes`,
      {
        details: { sizeBytes: body.size },
      },
    );
  return { first: range.first, last: Math.min(range.last, body.size - 1) };
}

async function openKey(
  ports: GetPorts,
  manifest: SignedRecord<ManifestBody>,
  keys: KeyRecords,
  signal: AbortSignal,
): Promise<FloeDecryptor> {
  if (ports.contentKey !== undefined)
    return provenKey(manifest.body, await ports.contentKey(manifest, signal));
  using loan = await ports.readerKey(keys.branchKey, signal);
  return provenKey(manifest.body, contentKeyOf(manifest.body, keys.envelope, loan));
}

/** The content key of an object under its branch key; the caller zeroes it. Throws RECORD_INVALID, DECRYPT_FAILED. */
export function contentKeyOf(body: ManifestBody, envelope: EnvelopeBody, branchKey: BranchKey): Uint8Array {
  const { objId, hdr } = sealedPart(body);
  const { bkId, bkVer } = keyOfEnvelope(envelope);
  const { policy } = envelope;
  return unwrapDek(branchKey.key, envelope.wrap, { objId, headerTag: headerTagOf(hdr), bkId, bkVer, policy });
}

/** Opens the header with `dek`, which is zeroed. Throws DECRYPT_FAILED when it is another object's, or the content another one. */
export function provenKey(body: ManifestBody, dek: Uint8Array): FloeDecryptor {
  try {
    const { aad, hdr } = sealedPart(body);
    return floeDecryptor(dek, aad, hdr);
  } finally {
    dek.fill(0);
  }
}

function sealedPart(body: ManifestBody): NonNullable<ManifestBody['encryption']> {
  const sealed = body.encryption;
  if (sealed === null)
    throw new HoldfastError('RECORD_INVALID', `${body.ucxl_address}: content without encryption`);
  const problem = aadProblem(body);
  if (problem === undefined) return sealed;
  throw new HoldfastError('DECRYPT_FAILED', `the content of ${body.ucxl_address} ${problem}`);
}

/** Why the content of this manifest cannot be what the manifest says, or undefined. Throws RECORD_INVALID for AAD that does not parse. */
export function aadProblem(body: ManifestBody): string | undefined {
  const sealed = body.encryption;
  if (sealed === null) return undefined;
  const aad = parseAad(sealed.aad);
  if (aad.ucxl !== body.ucxl_address) return `was sealed for ${aad.ucxl}`;
  if (aad.cls !== body.cls) return `was sealed as ${aad.cls}, not ${body.cls}`;
  if (aad.kind !== body.type) return `was sealed as ${aad.kind}, not ${body.type}`;
  if (aad.media !== body.media) return `was sealed as ${aad.media}, not ${body.media}`;
  if (!sameBytes(aad.objId, sealed.objId)) return 'was sealed under another object id';
  return undefined;
}

async function* plaintext(
  ports: GetPorts,
  body: ManifestBody,
  decryptor: FloeDecryptor,
  range: ByteRange | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  using open = decryptor;
  const segmentBytes = plaintextSegmentBytes();
  const segments = segmentsOf(body.size);
  const from = range === undefined ? 0 : Math.floor(range.first / segmentBytes);
  const to = range === undefined ? 1 : Math.floor(range.last / segmentBytes) + 1;
  let position = from;
  for await (const block of segmentBlocks(ports, body, from, to, signal)) {
    const plain = open.decryptSegment(position, block.bytes, position === segments - 1, ports.ownsBlocks);
    const startsAt = position * segmentBytes;
    position++;
    const first = range === undefined ? 0 : Math.max(0, range.first - startsAt);
    const end = range === undefined ? 0 : Math.min(plain.length, range.last - startsAt + 1);
    if (end > first) yield plain.subarray(first, end);
  }
  if (position !== to)
    throw new HoldfastError(
      'DECRYPT_FAILED',
      `${body.ucxl_address} ends after segment ${position}, ${to} expected`,
    );
}

async function* segmentBlocks(
  ports: GetPorts,
  body: ManifestBody,
  from: number,
  to: number,
  signal: AbortSignal,
): AsyncGenerator<Block, void, undefined> {
  const { cid: root } = body;
  if (root === null) return;
  const loadOne = async (cid: CID): Promise<Uint8Array> => {
    const [block] = await ports.load([cid], signal);
    if (block === undefined)
      throw new HoldfastError('BLOCK_UNAVAILABLE', `index block ${cid.toString()} was not delivered`);
    return block.bytes;
  };
  const cids = segmentsOf(body.size) === 1 ? [root] : walkIndex(root, loadOne, { from, to });
  for await (const blocks of mapInOrder(grouped(cids, batchSegments), batchesUnderway, (group) =>
    ports.load(group, signal),
  ))
    yield* blocks;
}
