// What can be asked of a view about addresses, versions and chains.

import type { CID } from '../core/block.ts';
import { asBuffer, toHex } from '../core/bytes.ts';
import { wildcard } from '../ucxl/address.ts';
import { type AddressPattern, keyPrefix, matches } from '../ucxl/match.ts';
import { type CatalogueSource, catalogueEntries, noBranchKeysSeen } from './catalogue.ts';
import { addressOfPathKey } from './fold.ts';
import { KeyQueries } from './key-queries.ts';
import { prefixRange } from './kv.ts';
import type { LogEntry } from './log.ts';
import type {
  CatalogueEntry,
  ChainVersion,
  CidUse,
  Page,
  PageOptions,
  RegisteredVersion,
  RegistryChange,
  RejectedEntry,
  VersionLine,
} from './queries.ts';
import { trustedBody } from './records.ts';
import { addressAndVersion, registeredVersion } from './registered.ts';
import {
  decodeEntryRow,
  decodeHead,
  decodeRevision,
  headAddress,
  partNumber,
  rowKey,
  rowPrefix,
} from './rows.ts';
import { corrupt } from './seal.ts';
import { isVersion, type NamedRow } from './view-rows.ts';

/** One version of a chain that there is a record of. */
export interface HeldVersion {
  readonly chainId: string;
  readonly version: number;
  readonly cid: CID;
}

export class ViewQueries extends KeyQueries {
  readonly #source: CatalogueSource = { held: this.held, queries: this };

  async head(address: string): Promise<RegisteredVersion | undefined> {
    this.held.late.check();
    const cached = this.held.heads.get(address);
    if (cached !== undefined) return cached;
    const { revision } = this.held.position;
    const head = await this.held.headOf(`addr/${address}`);
    if (head === undefined) return undefined;
    const found = registeredVersion(address, head, head.bytes, head.keptFrom);
    await this.held.open([[`addr/${address}`, head]]);
    // Not when the view moved on meanwhile: this may be the version before.
    if (revision === this.held.position.revision)
      this.held.heads.set(address, found, 2 * head.bytes.length + 512);
    return found;
  }

  async version(address: string, version: number): Promise<RegisteredVersion | undefined> {
    const head = await this.held.headOf(`addr/${address}`);
    if (head === undefined || !isVersion(version) || version > head.version) return undefined;
    const pointer = await this.held.pointer(`addr/${address}`, version);
    await this.held.open([[`addr/${address}`, pointer]]);
    if (pointer.type === 'missing') return undefined;
    return registeredVersion(address, pointer, await this.held.bytesAt(pointer), head.keptFrom);
  }

  /** By bisection: instants never fall from one version to the next. */
  async at(address: string, instant: number): Promise<RegisteredVersion | undefined> {
    const head = await this.held.headOf(`addr/${address}`);
    if (head === undefined) return undefined;
    let low = 0; // a version current at `instant` or before, 0 for none
    let high = head.version + 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const { at } = await this.held.pointer(`addr/${address}`, middle);
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
    const found = await this.held.page(prefix, prefix, page, (_key, value) => {
      const pointer = decodeHead(value);
      named.push([`addr/${address}`, pointer]);
      const { version, revision, at, type, cid } = pointer;
      return { version, revision, at, type, manifestCid: cid };
    });
    await this.held.open(named);
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
    const found = await this.held.page(prefix, prefix, page, (key) => key.slice(prefix.length));
    return { ...found, items: await this.#heldHeads(found.items) };
  }

  async writtenBy(
    writer: Uint8Array,
    page: PageOptions = {},
  ): Promise<Page<{ readonly address: string; readonly version: number }>> {
    const prefix = rowPrefix('wrtr', toHex(writer));
    const found = await this.held.page(prefix, prefix, page, (key) =>
      addressAndVersion(key.slice(prefix.length)),
    );
    await this.held.openVersions(found.items.map(({ address, version }) => [`addr/${address}`, version]));
    return found;
  }

  async byCid(cid: CID, page: PageOptions = {}): Promise<Page<CidUse>> {
    const prefix = rowPrefix('cid', cid.toString());
    const found = await this.held.page(prefix, prefix, page, (key) => cidUse(key.slice(prefix.length)));
    await this.held.openVersions(found.items.map(({ as, id, version }) => [chainOfUse[as] + id, version]));
    return found;
  }

  async subjectRevision(subject: string): Promise<number> {
    const row = await this.held.reader.get(rowKey('sub', subject));
    return row === undefined ? 0 : decodeRevision(row);
  }

  async rejected(page: PageOptions = {}): Promise<Page<RejectedEntry>> {
    const prefix = rowPrefix('rejt');
    const found = await this.held.page(prefix, prefix, page, (key, value) => ({
      revision: partNumber(key.slice(prefix.length)),
      reason: asBuffer(value).toString(),
    }));
    const items = await Promise.all(
      found.items.map(async (item) => ({ ...item, subject: (await this.held.entry(item.revision)).subject })),
    );
    return { ...found, items };
  }

  async *entriesSince(
    revision: number,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<LogEntry> {
    const last = this.held.position.revision;
    let next = Math.max(1, revision);
    if (next > last) return;
    for await (const [key, value] of this.held.kv.range({
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
      await this.held.openEntry(entry.revision, false);
      const keys = entry.records.map(({ key }) => key);
      const reason = await this.held.reader.get(rowKey('rejt', entry.revision));
      yield reason === undefined
        ? { revision: entry.revision, keys }
        : { revision: entry.revision, keys, rejected: asBuffer(reason).toString() };
    }
  }

  async *catalogue(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<CatalogueEntry> {
    const prefix = rowPrefix('head');
    const branchKeys = noBranchKeysSeen();
    for await (const [key, value] of this.held.reader.range(prefixRange(`${prefix}addr/`))) {
      options.signal?.throwIfAborted();
      yield* catalogueEntries(
        this.#source,
        key.slice(prefix.length + 'addr/'.length),
        decodeHead(value),
        branchKeys,
      );
    }
  }

  async *catalogueOf(address: string): AsyncGenerator<CatalogueEntry> {
    const head = await this.held.headOf(`addr/${address}`);
    if (head !== undefined) yield* catalogueEntries(this.#source, address, head, noBranchKeysSeen());
  }

  /** Every version of every chain, chain by chain, versions ascending, in bounded memory. */
  async *chains(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<ChainVersion> {
    for await (const [chainId, pointer] of this.held.versionRows()) {
      options.signal?.throwIfAborted();
      await this.held.open([[chainId, pointer]]);
      const { version, type, cid } = pointer;
      const prev = cid === null ? null : trustedBody(await this.held.bytesAt(pointer)).prev;
      yield { chainId, version, type, cid, prev };
    }
  }

  /** The newest version of a chain, or the given one; undefined when there is none. */
  async chainVersion(chainId: string, version?: number): Promise<Omit<ChainVersion, 'prev'> | undefined> {
    const head = await this.held.headOf(chainId);
    if (head === undefined || (version ?? 1) > head.version) return undefined;
    const found = version === undefined ? head : await this.held.pointer(chainId, version);
    await this.held.open([[chainId, found]]);
    return { chainId, version: found.version, type: found.type, cid: found.cid };
  }

  /** Every version of every chain that there is a record of, in key order. */
  async *heldVersions(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<HeldVersion> {
    for await (const [chainId, { cid, version }] of this.held.versionRows()) {
      options.signal?.throwIfAborted();
      if (cid !== null) yield { chainId, version, cid };
    }
  }

  /** The CID of each of these versions here; undefined of one that is not here. */
  async cidsOf(versions: readonly Omit<HeldVersion, 'cid'>[]): Promise<(CID | undefined)[]> {
    const keys = versions.map(({ chainId, version }) => rowKey('vers', chainId, version));
    const rows = await this.held.reader.getMany(keys);
    return rows.map((row) => (row === undefined ? undefined : (decodeHead(row).cid ?? undefined)));
  }

  async #queryByAddress(
    pattern: AddressPattern,
    page: PageOptions & { readonly removed?: boolean },
  ): Promise<Page<RegisteredVersion>> {
    const named: NamedRow[] = [];
    const found = await this.held.page(headAddress + keyPrefix(pattern), headAddress, page, (key, value) => {
      const address = key.slice(headAddress.length);
      if (!matches(pattern, address)) return undefined;
      const head = decodeHead(value);
      if (head.type === 'tombstone' && page.removed !== true) return undefined;
      named.push([`addr/${address}`, head]);
      return registeredVersion(address, head, head.bytes, head.keptFrom);
    });
    await this.held.open(named);
    return found;
  }

  async #queryByPath(pattern: AddressPattern, page: PageOptions): Promise<Page<RegisteredVersion>> {
    const base = rowPrefix('path');
    const found = await this.held.page(pathPrefix(pattern), base, page, (key) => {
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

function isUse(text: string): text is CidUse['as'] {
  return Object.hasOwn(chainOfUse, text);
}

/** The start of all path keys that may match: as far as the pattern is exact. */
function pathPrefix({ project, task, path }: AddressPattern): string {
  if (task === wildcard) return rowPrefix('path', project);
  const star = path.indexOf('*');
  return rowPrefix('path', project, task) + (star === -1 ? path : path.slice(0, star));
}
