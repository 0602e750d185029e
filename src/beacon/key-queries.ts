// What can be asked of a view about keys: envelopes, branch keys, keys of custody groups and what custodians need of them.

import type { CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { CertificateBody } from '../custody/certificate.ts';
import type { PolicyBody } from '../custody/policy.ts';
import type { RevocationBody } from '../custody/revocation.ts';
import type { BranchKeyBody, DirectEnvelope, EnvelopeBody, KekBody } from '../envelope/records.ts';
import { custodyPrefixes, keyVersionPart } from './custody-chain.ts';
import { prefixRange } from './kv.ts';
import type {
  BeaconQueries,
  CustodyCursor,
  CustodyPage,
  CustodyPageOptions,
  CustodyRecord,
  Page,
  PageOptions,
  Registered,
  WrappedObject,
} from './queries.ts';
import { trustedBody } from './records.ts';
import { addressAndVersion, registered } from './registered.ts';
import { decodeHead, partNumber, rowKey, rowPrefix } from './rows.ts';
import { missing, type NamedRow, type ViewRows } from './view-rows.ts';

type AboutKeys =
  | 'objectsOfBranchKey'
  | 'wrappedObject'
  | 'envelope'
  | 'branchKey'
  | 'wrappedKeys'
  | 'kek'
  | 'wrappedUnder'
  | 'policy'
  | 'revocation'
  | 'certificate'
  | 'custodyRecords'
  | 'keks'
  | 'keyBlocks'
  | 'custodyBlocks';

export class KeyQueries implements Pick<BeaconQueries, AboutKeys> {
  protected readonly held: ViewRows;

  protected constructor(held: ViewRows) {
    this.held = held;
  }

  async objectsOfBranchKey(bkId: Uint8Array, page: PageOptions = {}): Promise<Page<WrappedObject>> {
    const prefix = rowPrefix('bkob', toHex(bkId));
    const found = await this.held.page(prefix, prefix, page, (key) => key.slice(prefix.length));
    await this.held.openHeads(found.items.map((objId) => `env/${objId}`));
    const items = await Promise.all(found.items.map((objId) => this.#wrappedObject(objId)));
    return { ...found, items };
  }

  async wrappedObject(objId: Uint8Array): Promise<WrappedObject> {
    return this.#wrappedObject(toHex(objId));
  }

  async envelope(objId: Uint8Array, version?: number): Promise<Registered<EnvelopeBody> | undefined> {
    return this.held.keyRecord(`env/${toHex(objId)}`, 'envelope', version);
  }

  async branchKey(bkId: Uint8Array, version?: number): Promise<Registered<BranchKeyBody> | undefined> {
    return this.held.keyRecord(`bk/${toHex(bkId)}`, 'branch-key', version);
  }

  async wrappedKeys(page: PageOptions = {}): Promise<Page<Registered<BranchKeyBody | DirectEnvelope>>> {
    const base = rowPrefix('head');
    const inEnvelopes = page.after?.startsWith('env/') === true;
    const named: NamedRow[] = [];
    const found = await this.held.page(`${base}${inEnvelopes ? 'env/' : 'bk/'}`, base, page, (key, value) => {
      const head = decodeHead(value);
      const body = trustedBody(head.bytes);
      named.push([key.slice(base.length), head]);
      if (body.kind === 'branch-key') return registered<BranchKeyBody>(head, head.bytes, 'branch-key');
      if (body.kind !== 'envelope' || body.mode !== 'direct') return undefined;
      return registered<DirectEnvelope>(head, head.bytes, 'envelope');
    });
    await this.held.open(named);
    return found.next === undefined && !inEnvelopes ? { ...found, next: 'env/' } : found;
  }

  async kek(group: string, version?: number): Promise<Registered<KekBody> | undefined> {
    if (version === undefined)
      return (await this.#currentKek(group)) ?? this.held.keyRecord(`kek/${group}`, 'kek', version);
    const ofGroup = await this.held.keyRecord<KekBody>(`kek/${group}/${version}`, 'kek', undefined);
    return ofGroup ?? this.held.keyRecord(`kek/${group}`, 'kek', version);
  }

  async #currentKek(group: string): Promise<Registered<KekBody> | undefined> {
    const versions: Registered<KekBody>[] = [];
    const named: NamedRow[] = [];
    const prefix = rowPrefix('head');
    for await (const [key, value] of this.held.reader.range(prefixRange(`${prefix}kek/${group}/`))) {
      const head = decodeHead(value);
      named.push([key.slice(prefix.length), head]);
      versions.push(registered<KekBody>(head, head.bytes, 'kek'));
    }
    await this.held.open(named);
    const rising = versions.toSorted((a, b) => a.record.body.ver - b.record.body.ver);
    return rising.findLast(({ record }) => record.body.state === 'active') ?? rising.at(-1);
  }

  async wrappedUnder(
    group: string,
    version: number,
    page: PageOptions = {},
  ): Promise<Page<Registered<BranchKeyBody | EnvelopeBody>>> {
    const prefix = rowPrefix('wrap', keyVersionPart(group, version));
    const found = await this.held.page(prefix, prefix, page, (key) => key.slice(prefix.length));
    const items = await Promise.all(
      found.items.map((chainId) =>
        chainId.startsWith('env/')
          ? this.held.keyRecord<EnvelopeBody>(chainId, 'envelope', undefined)
          : this.held.keyRecord<BranchKeyBody>(chainId, 'branch-key', undefined),
      ),
    );
    return { ...found, items: items.filter((item) => item !== undefined) };
  }

  async policy(family: Uint8Array, version?: number): Promise<Registered<PolicyBody> | undefined> {
    return this.held.keyRecord(`pol/${toHex(family)}`, 'policy', version);
  }

  async revocation(group: string, n?: number): Promise<Registered<RevocationBody> | undefined> {
    return this.held.keyRecord(`rev/${group}`, 'revocation', n);
  }

  async certificate(
    group: string,
    version: number,
    n?: number,
  ): Promise<Registered<CertificateBody> | undefined> {
    return this.held.keyRecord(`cert/${group}/${version}`, 'certificate', n);
  }

  async custodyRecords(since: CustodyCursor, options: CustodyPageOptions = {}): Promise<CustodyPage> {
    const { limit = 256, sizeBytesMax = 512 * 1024 } = options;
    const head = this.held.position.revision;
    const prefix = rowPrefix('cust');
    const from = `${rowKey('cust', since.revision, since.index)}\0`; // the first key behind it
    const records: CustodyRecord[] = [];
    let sizeBytes = 0;
    for await (const [key] of this.held.reader.range({ ...prefixRange(prefix), from })) {
      const [revision, index] = key.slice(prefix.length).split('\0').map(partNumber);
      if (revision === undefined || index === undefined || revision > head) break;
      const record = (await this.held.openEntry(revision, true)).records[index];
      if (record === undefined) throw missing(`record ${index} of log entry ${revision}`);
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
    const found = await this.held.page(`${prefix}kek/`, prefix, page, (key, value) => {
      const head = decodeHead(value);
      named.push([key.slice(prefix.length), head]);
      return registered<KekBody>(head, head.bytes, 'kek');
    });
    await this.held.open(named);
    return found;
  }

  async *keyBlocks(): AsyncGenerator<CID> {
    yield* this.#blocksOf(['bk/', ...custodyPrefixes]);
  }

  async *custodyBlocks(): AsyncGenerator<CID> {
    yield* this.#blocksOf(custodyPrefixes);
  }

  async *#blocksOf(prefixes: readonly string[]): AsyncGenerator<CID> {
    for (const prefix of prefixes) {
      for await (const row of this.held.versionRows(prefix)) {
        await this.held.open([row]);
        const [, { cid }] = row;
        if (cid !== null) yield cid;
      }
    }
  }

  async #wrappedObject(objId: string): Promise<WrappedObject> {
    const prefix = rowPrefix('objt', objId);
    const uses: { address: string; version: number }[] = [];
    for await (const [key] of this.held.reader.range({ ...prefixRange(prefix), limit: usesMax })) {
      uses.push(addressAndVersion(key.slice(prefix.length)));
    }
    await this.held.openVersions(uses.map(({ address, version }) => [`addr/${address}`, version]));
    return { objId: Buffer.from(objId, 'hex'), uses };
  }
}

/** Addresses that may share one object; more are a mistake. */
const usesMax = 1000;
