// register: the last steps of put, run at the door, which trusts nobody's word.
//
// The records are opened and checked, every content block must be known to lie on enough disks, the records
// are stored as blocks themselves (on more disks than content: without them content is noise), and only then
// the Beacon takes the entry. Written last, read first: a crash before the append leaves blocks that nobody
// names, which are collected, and never an address without bytes.

import type { Block, CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { grouped, mapInOrder } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { type EnvelopeBody, parseKek, parseKeyRecord } from '../envelope/records.ts';
import { type ManifestBody, parseManifest, type ReplicationPolicy } from '../manifest/manifest.ts';
import { openRecord, type RecordBody, type SignedRecord } from '../manifest/record.ts';
import { indexBlocks } from '../manifest/segments.ts';
import { aadProblem } from './get.ts';
import type { Copies } from './put.ts';

/** A record under the key that the registry files it by. */
export interface KeyedRecord {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export interface RegisterPorts {
  readonly beacon: {
    /** Newest version under a canonical key, tombstones included, 0 for none; and the revision of its last append. */
    current(key: string): Promise<{ readonly version: number; readonly subjectRevision: number }>;
    /** True when the branch key is registered. */
    knowsBranchKey(bkId: Uint8Array, bkVer: number): Promise<boolean>;
    /** True when that version of a custody group's key is registered. Absent: KEK records are not taken. */
    knowsKek?(group: string, version: number): Promise<boolean>;
    /** Appends with compare-and-set; resolves with the revision once it is durable and visible to reads here. */
    append(subject: string, expected: number, records: readonly KeyedRecord[]): Promise<number>;
  };
  /** For each CID, how many nodes are known to hold it: remembered from the upload, else asked of the nodes. */
  copiesOf(cids: readonly CID[]): Promise<readonly number[]>;
  /** Fewest copies that may be acknowledged: 2, or 1 where only one storage node exists. */
  copiesFloor(): number;
  /** Fetches an index block. */
  load(cid: CID): Promise<Uint8Array>;
  /** Stores content on `policy.min` nodes, as an upload does. */
  storeContent(block: Block, policy: ReplicationPolicy): Promise<Copies>;
  /** Stores a record block on `policy.max` nodes, or as many as there are; not fewer than `policy.min` without need. */
  storeRecord(block: Block, policy: ReplicationPolicy): Promise<Copies>;
}

export interface RegisteredObject {
  readonly address: string;
  readonly version: number;
  readonly manifest: CID;
  readonly revision: number;
  /** How well the content was stored that came along. */
  readonly copies?: Copies;
}

/** CIDs checked for copies at a time. */
const checkBatch = 512;

/**
 * Registers the version that `blocks` describe: one manifest and, unless it is a tombstone, its envelope and
 * the branch key record if that is new.
 *
 * @param content all of the version's content, when that is one block and not stored yet
 * @throws RECORD_INVALID, VERSION_CONFLICT (details: current), BLOCKS_MISSING (details: missing, first of them),
 *   QUORUM_UNAVAILABLE, BEACON_UNAVAILABLE
 */
export async function registerObject(
  ports: RegisterPorts,
  blocks: readonly Uint8Array[],
  content?: Block,
): Promise<RegisteredObject> {
  // 1. What is it?
  const bundle = await withoutKnownKek(ports, openBundle(blocks));
  const { manifest } = bundle;
  const address = manifest.body.ucxl_address;

  // 2. Is it the next version?
  const { version, subjectRevision } = await ports.beacon.current(address);
  if (manifest.body.context_version !== version + 1)
    throw conflict(address, version, manifest.body.context_version);

  // 3. Can it be opened, and is every block of it on enough disks?
  await checkKeys(ports, bundle);
  if (content === undefined) await checkContent(ports, manifest.body);
  else checkNamed(content, manifest.body);

  // 4. The records become blocks, on as many disks as the policy allows at most; content that came along with them,
  // in the same calls to the nodes. A copy of it that was there already may be about to be collected: then it is
  // asked for, as the copies of an upload are.
  const { replication } = manifest.body;
  const [copies] = await Promise.all([
    content === undefined ? undefined : ports.storeContent(content, replication),
    ...bundle.records.map(({ block }) => ports.storeRecord(block, replication)),
  ]);
  if (content !== undefined) await checkContent(ports, manifest.body);

  // 5. The Beacon takes it: now it exists.
  const keyed = bundle.records.map((record) => ({
    key: registryKey(record.body, manifest.body),
    bytes: record.block.bytes,
  }));
  const revision = await ports.beacon.append(`addr/${address}`, subjectRevision, keyed);
  const done = { address, version: manifest.body.context_version, manifest: manifest.cid, revision };
  return copies === undefined ? done : { ...done, copies };
}

interface Bundle {
  readonly manifest: SignedRecord<ManifestBody>;
  /** All records, keys before what is locked by them, the manifest last. */
  readonly records: readonly SignedRecord<RecordBody>[];
}

function openBundle(blocks: readonly Uint8Array[]): Bundle {
  const order = ['kek', 'branch-key', 'envelope', 'manifest'] as const;
  const records = blocks.map((bytes) => openRecord(bytes));
  const sorted = order.flatMap((kind) => {
    const ofKind = records.filter(({ body }) => body.kind === kind);
    if (ofKind.length > 1) throw invalid(`${ofKind.length} records of kind ${kind}, at most one expected`);
    return ofKind;
  });
  if (sorted.length !== records.length) throw invalid('a record of a kind that belongs to no object');
  const last = sorted.at(-1);
  if (last?.body.kind !== 'manifest') throw invalid('no manifest among the records');
  for (const { body } of sorted) if (body.kind !== 'manifest') parseKeyRecord(body);
  return { manifest: parseManifest(last), records: sorted };
}

/**
 * Every writer brings the KEK record along with a new branch key, signed by himself; the registry keeps the
 * first. A second one for the same version would be refused by the fold, and the whole entry with it.
 */
async function withoutKnownKek(ports: RegisterPorts, bundle: Bundle): Promise<Bundle> {
  const kek = bundle.records.map(({ body }) => body).find((body) => body.kind === 'kek');
  if (kek === undefined) return bundle;
  const { cg, ver, provider } = parseKek(kek);
  if (provider === 'tdec') throw invalid('the record of a custody group beside an object');
  const wanted = ports.beacon.knowsKek !== undefined && ver === 1 && !(await ports.beacon.knowsKek(cg, ver));
  return wanted ? bundle : { ...bundle, records: bundle.records.filter(({ body }) => body !== kek) };
}

/** The key under which a record is filed in the registry. */
function registryKey(body: RecordBody, manifest: ManifestBody): string {
  if (body.kind === 'manifest') return `addr/${manifest.ucxl_address}`;
  const parsed = parseKeyRecord(body);
  if (parsed.kind === 'envelope') return `env/${toHex(parsed.objId)}`;
  if (parsed.kind === 'branch-key') return `bk/${toHex(parsed.bkId)}`;
  return `kek/${parsed.cg}/${parsed.ver}`;
}

/** The records must be those of this manifest, all of them and no others: what is filed can be read, and nothing comes in by the way. */
async function checkKeys(ports: RegisterPorts, { manifest, records }: Bundle): Promise<void> {
  const { encryption, ucxl_address: address } = manifest.body;
  const parsed = records
    .map(({ body }) => body)
    .filter((body) => body.kind !== 'manifest')
    .map((body) => parseKeyRecord(body));
  if (encryption === null) {
    if (parsed.length > 0) throw invalid('key records beside a tombstone');
    return;
  }
  checkAad(manifest.body);
  const envelope = parsed.find((body) => body.kind === 'envelope');
  if (envelope === undefined || toHex(envelope.objId) !== toHex(encryption.objId))
    throw invalid(`no envelope for the content of this manifest of ${address}`);
  // Newer versions are filed by whoever wrote the ones before (rewrap.ts), not beside somebody's object.
  if (envelope.envVer !== 1) throw invalid('a newer envelope beside an object: only its first is filed here');
  checkClass(envelope, manifest.body);
  const branchKey = parsed.find((body) => body.kind === 'branch-key');
  if (envelope.mode === 'direct') {
    if (branchKey !== undefined) throw invalid('a branch key beside an envelope with a key of its own');
    return;
  }
  const isNamed =
    branchKey !== undefined &&
    toHex(branchKey.bkId) === toHex(envelope.bkId) &&
    branchKey.bkVer === envelope.bkVer;
  if (branchKey !== undefined && !isNamed) throw invalid('a branch key that the envelope does not name');
  if (branchKey !== undefined && branchKey.bkVer !== 1)
    throw invalid('a newer branch key beside an object: only its first record is filed here');
  if (!isNamed && !(await ports.beacon.knowsBranchKey(envelope.bkId, envelope.bkVer)))
    throw invalid('the envelope names a branch key that is neither registered nor among the records');
}

/** What is restricted has a key of its own; an envelope of another class would let others read it. */
function checkClass(envelope: EnvelopeBody, { cls, ucxl_address: address }: ManifestBody): void {
  if (envelope.cls !== cls) throw invalid(`the envelope of ${address} says ${envelope.cls}, not ${cls}`);
  if (cls === 'restricted' && envelope.mode !== 'direct')
    throw invalid(`${address} is restricted: its content key must be wrapped under a key of its own`);
}

/** Content sealed for another address, class or kind would never open: it is not registered. */
function checkAad(body: ManifestBody): void {
  const problem = aadProblem(body);
  if (problem !== undefined) throw invalid(`the content of ${body.ucxl_address} ${problem}`);
}

/** Nothing is stored that the manifest does not name as all of its content. */
function checkNamed({ cid }: Block, body: ManifestBody): void {
  if (body.blocks !== 1 || body.cid?.equals(cid) !== true)
    throw invalid(`block ${cid.toString()} is not the content of ${body.ucxl_address}`);
}

async function checkContent(ports: RegisterPorts, body: ManifestBody): Promise<void> {
  if (body.cid === null) return;
  const cids = body.blocks === 1 ? [body.cid] : indexBlocks(body.cid, (cid) => ports.load(cid));
  const missing: string[] = [];
  for await (const bad of mapInOrder(grouped(cids, checkBatch), 2, (group) =>
    missingOf(ports, group, body.replication),
  ))
    missing.push(...bad.slice(0, 16 - missing.length));
  if (missing.length > 0)
    throw new HoldfastError(
      'BLOCKS_MISSING',
      `${body.ucxl_address}: blocks of the manifest are not stored: ${missing.slice(0, 3).join(', ')}; upload them first`,
      { details: { missing } },
    );
}

async function missingOf(
  ports: RegisterPorts,
  cids: readonly CID[],
  { min }: ReplicationPolicy,
): Promise<string[]> {
  const copies = await ports.copiesOf(cids);
  const floor = Math.min(ports.copiesFloor(), min);
  return cids.filter((_, index) => (copies[index] ?? 0) < floor).map((cid) => cid.toString());
}

function conflict(address: string, current: number, given: number): HoldfastError {
  return new HoldfastError(
    'VERSION_CONFLICT',
    `${address} is at version ${current}; ${given} does not follow it`,
    {
      details: { current, given },
    },
  );
}

function invalid(message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', message);
}
