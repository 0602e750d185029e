// The client that seals and opens: plaintext and keys stay in this process, the door sees ciphertext.
//
// put and get are the flows; this file gives them their ports over HTTP. Memory stays bounded whatever the
// size of an object: the flows keep two uploads of 4 MiB, or three downloads of 2 MiB, under way.

import type { NavigateAnswer, RegisteredAnswer, StoredAnswer } from '../api/types.ts';
import { type Block, CID, supportedCid, verifiedBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { blockBytesMax, treeBytesMax } from '../core/limits.ts';
import { Slabs } from '../core/slabs.ts';
import { BranchKeys } from '../custody/keyring.ts';
import type { KekProvider } from '../custody/provider.ts';
import { random } from '../custody/random.ts';
import type { ContentClass } from '../envelope/aad.ts';
import { loadGcm } from '../envelope/gcm.ts';
import { HighWaterMarks } from '../envelope/high-water.ts';
import { type ByteRange, type GetPorts, type ObjectRecords, openObject } from '../flows/get.ts';
import {
  type Copies,
  type PutPorts,
  type PutResult,
  putObject,
  putSegmentsMax,
  removeObject,
  type VersionRef,
} from '../flows/put.ts';
import { carHeader, carSection, readCar } from '../manifest/car.ts';
import {
  type Citation,
  type ManifestBody,
  parseManifest,
  type ReplicationPolicy,
} from '../manifest/manifest.ts';
import { openRecord, type SignedRecord } from '../manifest/record.ts';
import { decodeTree, encodeTree, type TreeEntry, treeMedia } from '../manifest/tree.ts';
import { canonicalKey, parseAddress, type UcxlAddress, withVersion } from '../ucxl/address.ts';
import type { SourceFile } from './directory.ts';
import { DoorClient } from './door-client.ts';
import type { DoorOptions } from './http.ts';
import { mediaOf } from '../core/media.ts';
import { type DirectoryPut, planDirectory, storeFiles } from './put-directory.ts';

export interface ClientOptions extends DoorOptions {
  /** Signs manifests and key records. */
  readonly signer: Signer;
  /** Makes and unwraps branch keys. Stays the caller's: it is not disposed with the client. */
  readonly provider: KekProvider;
  /** Gives the keys of what is got, object by object, in the place of the provider. Default: the provider does. */
  readonly keyAgent?: KeyAgentPort;
  /** Who is named as the maker of what is put. Default `holdfast/client`. */
  readonly generatedBy?: string;
}

/** Somebody who hands out the key of one object at a time. */
export interface KeyAgentPort {
  /** 32 bytes, which the caller zeroes. Throws FORBIDDEN with the agent's reason, PEER_UNREACHABLE, TIMEOUT. */
  contentKey(object: SignedRecord<ManifestBody>, beat: number, signal: AbortSignal): Promise<Uint8Array>;
}

export interface PutRequest {
  /** Media type. Default application/octet-stream; files of a directory by their names. */
  readonly media?: string;
  /** Default internal. */
  readonly cls?: ContentClass;
  /** What differs from `defaultReplication`. */
  readonly replication?: Partial<ReplicationPolicy>;
  readonly generatedBy?: string;
  readonly tags?: readonly string[];
  readonly cites?: readonly Citation[];
  readonly supersedes?: string;
  /** Write only if this is the newest version now; 0: only if there is none yet. */
  readonly expectedVersion?: number;
  /** Told of plaintext bytes as they are stored. Must not throw. */
  readonly onStored?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface DirectoryPutRequest extends Omit<PutRequest, 'media'> {
  /** Told of each file once its version exists. Must not throw. */
  readonly onFile?: (name: string, result: PutResult) => void;
}

export interface GetRequest {
  /** Part of the plaintext; only what it needs is fetched and opened. */
  readonly range?: ByteRange;
  readonly signal?: AbortSignal | undefined;
}

/** A version that was opened. Everything but `bytes` comes from its signed manifest. */
export interface OpenedVersion {
  /** Immutable, `…/*~N/…`. */
  readonly address: string;
  readonly key: string;
  readonly version: number;
  /** CID of the manifest. */
  readonly cid: CID;
  readonly type: 'object' | 'tree';
  readonly media: string;
  readonly sizeBytes: number;
  readonly manifest: ManifestBody;
  /** Bytes that `bytes` yields. */
  readonly lengthBytes: number;
  /** The plaintext, authenticated piece by piece. Iterate once. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

export interface OpenedTree extends Omit<OpenedVersion, 'bytes' | 'lengthBytes'> {
  /** Sorted by name; the names are relative paths that stay inside. */
  readonly entries: readonly TreeEntry[];
}

/** Three copies at least, five at most, over three zones: the same as a door that seals uses. */
export const defaultReplication: ReplicationPolicy = { min: 3, max: 5, zones: 3 };

/** A beat heard this recently is not asked for again. */
const beatFreshMs = 1000;
const registerAttemptsMax = 4;

export class HoldfastClient extends DoorClient {
  readonly #options: ClientOptions;
  readonly #keys: BranchKeys;
  /** A door that serves an older envelope or branch key than before is not believed. */
  readonly #seen = new HighWaterMarks();
  #beat: { readonly index: number; readonly atMs: number } | undefined;

  constructor(options: ClientOptions) {
    super(options);
    this.#options = options;
    const { provider, signer } = options;
    this.#keys = new BranchKeys({ provider, writer: signer.publicKey, random });
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await this.#keys[Symbol.asyncDispose]();
    await super[Symbol.asyncDispose]();
  }

  /**
   * Seals `source` and stores it as the next version of `address`.
   *
   * @throws ADDRESS_INVALID, ADDRESS_WILDCARD, ARGUMENT_INVALID, VERSION_CONFLICT, QUORUM_UNAVAILABLE,
   *   BEACON_UNAVAILABLE, CLUSTER_NOT_RUNNING, PEER_UNREACHABLE, and what `source` throws: then there is no new version
   */
  async put(
    address: string | UcxlAddress,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    request: PutRequest = {},
  ): Promise<PutResult> {
    return this.#put(readAddress(address), source, { type: 'object', ...request });
  }

  /**
   * Stores every file at an address of its own below `address`, then the tree that lists them at `address`.
   * All names are checked before the first byte leaves; the tree is written last, so it never names a file
   * that is not stored. Throws as `put`, and ADDRESS_INVALID or ARGUMENT_INVALID naming the file.
   */
  async putDirectory(
    address: string | UcxlAddress,
    files: readonly SourceFile[],
    request: DirectoryPutRequest = {},
  ): Promise<DirectoryPut> {
    const root = readAddress(address);
    const plan = planDirectory(root, files);
    const { onFile, expectedVersion, ...shared } = request;
    const done = await storeFiles(plan, async ({ file, address }) => {
      const result = await this.#put(address, file.open(), {
        ...shared,
        type: 'object',
        media: mediaOf(file.name),
      });
      onFile?.(file.name, result);
      return result;
    });
    const tree = await this.#put(root, [encodeTree(done.entries)], {
      ...withoutProgress(shared),
      type: 'tree',
      media: treeMedia,
      ...(expectedVersion === undefined ? {} : { expectedVersion }),
    });
    return { tree, files: done.files };
  }

  /**
   * Opens one version. Its key has been unwrapped when this resolves; bytes come as they are taken.
   *
   * @param address its temporal segment says which version; default the newest
   * @throws NOT_FOUND, GONE, RANGE_INVALID, KEY_UNAVAILABLE, DECRYPT_FAILED, RECORD_INVALID, CLUSTER_NOT_RUNNING,
   *   PEER_UNREACHABLE; and while iterating BLOCK_UNAVAILABLE, GONE (reclaimed after a removal) or DECRYPT_FAILED
   */
  async get(address: string | UcxlAddress, request: GetRequest = {}): Promise<OpenedVersion> {
    const wanted = readAddress(address);
    const signal = request.signal ?? new AbortController().signal;
    const [records] = await Promise.all([this.records(wanted, signal), loadGcm()]);
    const ports = {
      seen: this.#seen,
      load: (cids: readonly CID[]) => this.#load(cids, signal),
      ownsBlocks: true,
      readerKey: async (record: Parameters<BranchKeys['open']>[0]) =>
        this.#keys.open(record, {
          purpose: 'read',
          requester: this.#options.signer.publicKey,
          beat: await this.#currentBeat(signal),
          signal,
        }),
      ...this.#keyAgent(signal),
    };
    const opened = await openObject(ports, records, { range: request.range, signal });
    const facts = describe(opened.manifest);
    return {
      ...facts,
      lengthBytes: opened.lengthBytes,
      bytes: this.#unlessGone(facts, opened.bytes, signal),
    };
  }

  #keyAgent(signal: AbortSignal): Pick<GetPorts, 'contentKey'> {
    const { keyAgent } = this.#options;
    if (keyAgent === undefined) return {};
    return {
      contentKey: async (object) => keyAgent.contentKey(object, await this.#currentBeat(signal), signal),
    };
  }

  /** Blocks that nobody has, of a version that a tombstone let go of, are no outage: they were reclaimed. */
  async *#unlessGone(
    { key, address, version }: Pick<OpenedVersion, 'key' | 'address' | 'version'>,
    bytes: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* bytes;
    } catch (cause) {
      if (!isHoldfastError(cause, 'BLOCK_UNAVAILABLE')) throw cause;
      let tombstone: number | undefined;
      for await (const line of this.log(key, { signal })) {
        if (line.version <= version) break;
        if (line.type === 'tombstone') tombstone = line.version;
      }
      if (tombstone === undefined) throw cause;
      throw new HoldfastError(
        'GONE',
        `the content of ${address} was removed by version ${tombstone} and has been reclaimed`,
        { details: { version: tombstone }, cause },
      );
    }
  }

  /** The list of files of a stored directory. Throws as `get`, and ARGUMENT_INVALID when it is no directory. */
  async getTree(address: string | UcxlAddress, request: Omit<GetRequest, 'range'> = {}): Promise<OpenedTree> {
    const { bytes, lengthBytes, ...facts } = await this.get(address, request);
    if (facts.type !== 'tree')
      throw new HoldfastError('ARGUMENT_INVALID', `${facts.address} is one object, not a directory`);
    if (lengthBytes > treeBytesMax)
      throw new HoldfastError('TOO_LARGE', `${facts.address}: a list of ${lengthBytes} bytes`);
    return { ...facts, entries: decodeTree(await collect(bytes)) };
  }

  /** Opens a file of a tree: exactly the version that the tree names. Throws RECORD_INVALID for another. */
  async getEntry(entry: TreeEntry, request: GetRequest = {}): Promise<OpenedVersion> {
    const exact = withVersion(parseAddress(entry.address, { profile: 'lenient' }), entry.version);
    const opened = await this.get(exact, request);
    if (opened.cid.equals(entry.manifest)) return opened;
    throw new HoldfastError(
      'RECORD_INVALID',
      `${opened.address} is ${String(opened.cid)}, but the tree names ${String(entry.manifest)}`,
    );
  }

  /** Ends an address with a tombstone; its blocks are reclaimed later. Throws NOT_FOUND, GONE, VERSION_CONFLICT. */
  async remove(
    address: string | UcxlAddress,
    request: Pick<PutRequest, 'generatedBy' | 'expectedVersion' | 'signal'> = {},
  ): Promise<Pick<PutResult, 'address' | 'cid' | 'version' | 'revision'>> {
    const { expectedVersion, generatedBy, signal } = request;
    const ports = { registry: this.#registry(signal), signer: this.#options.signer, now: Date.now };
    return removeObject(ports, readAddress(address), {
      generatedBy: generatedBy ?? this.#options.generatedBy ?? 'holdfast/client',
      replication: defaultReplication,
      cls: 'internal',
      ...(expectedVersion === undefined ? {} : { expectedVersion }),
    });
  }

  async #put(
    address: UcxlAddress,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    request: PutRequest & { readonly type: 'object' | 'tree' },
  ): Promise<PutResult> {
    const { signal, tags, cites, supersedes, expectedVersion, onStored } = request;
    const ports = await this.#putPorts(signal);
    return putObject(ports, address, source, {
      type: request.type,
      media: request.media ?? 'application/octet-stream',
      cls: request.cls ?? 'internal',
      replication: completePolicy(request.replication),
      generatedBy: request.generatedBy ?? this.#options.generatedBy ?? 'holdfast/client',
      ...(tags === undefined ? {} : { complianceTags: tags }),
      ...(cites === undefined ? {} : { cites }),
      ...(supersedes === undefined ? {} : { supersedes }),
      ...(expectedVersion === undefined ? {} : { expectedVersion }),
      ...(onStored === undefined ? {} : { onStored }),
    });
  }

  async #putPorts(signal: AbortSignal | undefined): Promise<PutPorts> {
    const { provider, signer } = this.#options;
    await loadGcm();
    return {
      memory: new Slabs(putSegmentsMax),
      registry: this.#registry(signal),
      store: (blocks, policy) => this.#store(blocks, policy, signal),
      writerKey: (scope) => this.#keys.current(scope),
      kekPolicy: provider.id,
      kek: provider.kek(),
      signer,
      random,
      now: Date.now,
      beat: () => this.#currentBeat(signal),
    };
  }

  #registry(signal: AbortSignal | undefined): PutPorts['registry'] {
    return {
      newest: async (key) => newestOf(await this.navigate(key, { signal })),
      register: (records, content) => this.#register(records, content, signal),
    };
  }

  async #store(
    blocks: readonly Block[],
    policy: ReplicationPolicy,
    signal: AbortSignal | undefined,
  ): Promise<Copies> {
    const body = carOf(blocks);
    const call = { method: 'POST', path: '/ucxi/v1/blocks', body, query: { ...policy }, signal } as const;
    // The same blocks stored twice are stored once.
    const { copies, wanted } = await this.http.data<StoredAnswer>({
      ...call,
      headers: carType,
      idempotent: true,
    });
    return { copies, wanted };
  }

  /**
   * Registering twice is not registering once: the second time it is a conflict with oneself. So when an answer
   * was lost, the registry is asked what became of it before anything is sent again.
   */
  async #register(
    records: readonly Block[],
    content: Block | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly revision: number; readonly copies?: Copies }> {
    const body = carOf(content === undefined ? records : [content, ...records]);
    const call = { method: 'POST', path: '/ucxi/v1/register', body, signal } as const;
    for (let attempt = 1; ; attempt++) {
      try {
        const done = await this.http.data<RegisteredAnswer>({ ...call, headers: carType });
        this.wrote(done.revision);
        const { revision, copies, wanted } = done;
        return copies === undefined || wanted === undefined
          ? { revision }
          : { revision, copies: { copies, wanted } };
      } catch (error) {
        signal?.throwIfAborted();
        const doubtful =
          isHoldfastError(error, 'PEER_UNREACHABLE') ||
          isHoldfastError(error, 'TIMEOUT') ||
          isHoldfastError(error, 'BEACON_UNAVAILABLE') ||
          isHoldfastError(error, 'CLUSTER_NOT_RUNNING');
        if (!doubtful && !(attempt > 1 && isHoldfastError(error, 'VERSION_CONFLICT'))) throw error;
        const revision = await this.#registeredAs(records, signal);
        if (revision !== undefined) return { revision };
        if (!doubtful || attempt >= registerAttemptsMax) throw error;
      }
    }
  }

  /** The revision under which exactly these records are registered. */
  async #registeredAs(
    records: readonly Block[],
    signal: AbortSignal | undefined,
  ): Promise<number | undefined> {
    const last = records.at(-1);
    if (last === undefined) return undefined;
    const { body, cid } = parseManifest(openRecord(last.bytes));
    const exact = withVersion(readAddress(body.ucxl_address), body.context_version);
    const { selected } = await this.navigate(exact, { signal });
    if (selected?.cid !== cid.toString()) return undefined;
    this.wrote(selected.revision);
    return selected.revision;
  }

  /** The records of one version, for the caller to verify; they are of the address that was asked for. Throws as `get`. */
  async records(address: UcxlAddress, signal: AbortSignal): Promise<ObjectRecords> {
    const query = { address: spelled(address), ...this.seen() };
    const answer = await this.http.open({ method: 'GET', path: '/ucxi/v1/records', query, signal });
    const found: Record<string, Uint8Array> = {};
    for await (const { bytes } of readCar(answer.bytes)) found[openRecord(bytes).body.kind] = bytes;
    const { manifest, envelope, 'branch-key': branchKey } = found;
    if (manifest === undefined)
      throw new HoldfastError('RECORD_INVALID', `the door sent no manifest for ${address.raw}`);
    checkAsked(address, parseManifest(openRecord(manifest)).body);
    return {
      manifest,
      ...(envelope === undefined ? {} : { envelope }),
      ...(branchKey === undefined ? {} : { branchKey }),
    };
  }

  /**
   * Blocks in the order asked for. A door that can't get one breaks off in the middle; then the first one
   * that is missing is asked for alone, which either gives it or gives the reason.
   */
  async #load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]> {
    const found = new Map<string, Block>();
    for (;;) {
      const missing = cids.filter((cid) => !found.has(cid.toString()));
      const [first] = missing;
      if (first === undefined) break;
      await this.#loadSome(missing, found, signal);
      if (!found.has(first.toString())) found.set(first.toString(), await this.#loadOne(first, signal));
    }
    return cids.flatMap((cid) => found.get(cid.toString()) ?? []);
  }

  async #loadSome(cids: readonly CID[], found: Map<string, Block>, signal: AbortSignal): Promise<void> {
    const wanted = new Set(cids.map((cid) => cid.toString()));
    try {
      const answer = await this.http.open({
        method: 'POST',
        path: '/ucxi/v1/blocks/fetch',
        headers: { 'content-type': 'application/json' },
        body: [utf8(JSON.stringify({ cids: [...wanted] }))],
        idempotent: true,
        signal,
      });
      for await (const block of readCar(answer.bytes))
        if (wanted.has(block.cid.toString())) found.set(block.cid.toString(), block);
    } catch (error) {
      signal.throwIfAborted();
      const brokenOff =
        isHoldfastError(error, 'PEER_UNREACHABLE') || isHoldfastError(error, 'UPLOAD_TRUNCATED');
      if (!brokenOff) throw error;
    }
  }

  async #loadOne(cid: CID, signal: AbortSignal): Promise<Block> {
    const answer = await this.http.open({ method: 'GET', path: `/ucxi/v1/blocks/${cid.toString()}`, signal });
    return verifiedBlock(cid, await collect(answer.bytes, blockBytesMax), this.http.url.origin);
  }

  async #currentBeat(signal: AbortSignal | undefined): Promise<number> {
    const now = performance.now();
    if (this.#beat === undefined || now - this.#beat.atMs > beatFreshMs) {
      const { index } = await this.beat({ signal });
      this.#beat = { index, atMs: now };
    }
    return this.#beat.index;
  }
}

const carType = { 'content-type': 'application/vnd.ipld.car' } as const;

function carOf(blocks: readonly Block[]): Uint8Array[] {
  return [carHeader([]), ...blocks.flatMap((block) => carSection(block))];
}

function newestOf(answer: NavigateAnswer): VersionRef | undefined {
  const { newest, newestCid, tombstone } = answer;
  if (newestCid === null) return undefined;
  return { version: newest, manifest: supportedCid(CID.parse(newestCid)), tombstone };
}

/** A signature says who wrote a record, not that it is the one asked for. */
function checkAsked(address: UcxlAddress, body: ManifestBody): void {
  const key = canonicalKey(address);
  const temporal = address.temporal_segment;
  const wrongVersion = temporal.type === 'specific' && temporal.count !== body.context_version;
  if (body.ucxl_address === key && !wrongVersion) return;
  throw new HoldfastError(
    'RECORD_INVALID',
    `the door answered ${body.ucxl_address} version ${body.context_version} to ${address.raw}`,
  );
}

function describe({ body, cid }: SignedRecord<ManifestBody>): Omit<OpenedVersion, 'bytes' | 'lengthBytes'> {
  return {
    address: withVersion(readAddress(body.ucxl_address), body.context_version),
    key: body.ucxl_address,
    version: body.context_version,
    cid,
    type: body.type === 'tree' ? 'tree' : 'object', // a tombstone does not open
    media: body.media,
    sizeBytes: body.size,
    manifest: body,
  };
}

function completePolicy(given: Partial<ReplicationPolicy> = {}): ReplicationPolicy {
  const min = given.min ?? Math.min(defaultReplication.min, given.max ?? defaultReplication.max);
  const max = given.max ?? Math.max(min, defaultReplication.max);
  const zones = given.zones ?? Math.min(min, defaultReplication.zones);
  if (zones >= 1 && zones <= min && min <= max && max <= 256) return { min, max, zones };
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `copies: 1 ≤ zones ${zones} ≤ min ${min} ≤ max ${max} ≤ 256 must hold`,
    { details: { field: 'replication' } },
  );
}

function withoutProgress<T extends { readonly onStored?: unknown }>(request: T): Omit<T, 'onStored'> {
  const { onStored: _, ...rest } = request;
  return rest;
}

function readAddress(address: string | UcxlAddress): UcxlAddress {
  return typeof address === 'string' ? parseAddress(address, { profile: 'lenient' }) : address;
}

/** Query and fragment select nothing here. */
function spelled(address: UcxlAddress): string {
  return address.raw.replace(/[?].*$/su, '');
}

async function collect(bytes: AsyncIterable<Uint8Array>, sizeBytesMax = treeBytesMax): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of bytes) {
    sizeBytes += part.length;
    if (sizeBytes > sizeBytesMax)
      throw new HoldfastError('TOO_LARGE', `more than ${sizeBytesMax} bytes where fewer were announced`);
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}
