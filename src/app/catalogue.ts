// What ought to exist, told to the steward out of the Beacon view.

import type { BeaconQueries, CatalogueEntry, CustodyRecord } from '../beacon/queries.ts';
import { type CID, cidOf, codecDagCbor } from '../core/block.ts';
import type { Clock } from '../core/clock.ts';
import { second } from '../core/clock.ts';
import type { Catalogue, CatalogueObject, CataloguePage } from '../steward/catalogue.ts';

/** A view that has not heard from its log for this long is not fresh: nothing is collected on its word. */
const staleMs = 30 * second;

/** Addresses that are remembered so; of more than these versions are said again. */
const saidMax = 100_000;

export class ViewCatalogue implements Catalogue {
  readonly #view: BeaconQueries;
  readonly #clock: Clock;
  #followingAt = Number.NEGATIVE_INFINITY;
  /** Addresses of which every version was said, and up to which entry that holds: until everything was read once. */
  readonly #saidUpTo = new Map<string, number>();
  /** Where the last page ended. */
  #readUpTo: number | undefined;

  constructor(view: BeaconQueries, clock: Clock) {
    this.#view = view;
    this.#clock = clock;
  }

  state(): { readonly revision: number; readonly fresh: boolean; readonly reason: string } {
    const { state, reason, revision, logRevision } = this.#view.health();
    const now = this.#clock.monotonic();
    if (state === 'following' && revision === logRevision) this.#followingAt = now;
    if (now - this.#followingAt < staleMs) return { revision, fresh: true, reason: '' };
    return {
      revision,
      fresh: false,
      reason: `the Beacon view is ${state}${reason === '' ? '' : `: ${reason}`}`,
    };
  }

  async changes(after: number, limit: number): Promise<CataloguePage> {
    // What was said in a page that nobody got, or is asked for again, was not said.
    if (after !== this.#readUpTo) this.#saidUpTo.clear();
    this.#readUpTo = undefined;
    const page = await this.#page(after, limit);
    if (page.done) this.#saidUpTo.clear();
    this.#readUpTo = page.revision;
    return page;
  }

  async #page(after: number, limit: number): Promise<CataloguePage> {
    const objects: CatalogueObject[] = [];
    let revision = after;
    for await (const change of this.#view.changesSince(after + 1)) {
      if (objects.length >= limit) return { objects, revision, done: false };
      if (change.rejected === undefined) await this.#restate(change.keys, change.revision, objects);
      revision = change.revision;
    }
    return { objects, revision, done: true };
  }

  /** Says again what a change of these keys may have altered. */
  async #restate(keys: readonly string[], revision: number, objects: CatalogueObject[]): Promise<void> {
    const addresses = new Set(
      keys.filter((key) => key.startsWith('addr/')).map((key) => key.slice('addr/'.length)),
    );
    if (addresses.size === 0)
      for (const key of keys) for (const address of await this.#addressesOf(key)) addresses.add(address);
    for (const address of addresses) await this.#restateAddress(address, revision, objects);
    for (const record of await this.#custodyRecords(revision)) objects.push(custodyStatement(record));
  }

  /** Those of one entry: no object brings them along, so each is looked after for itself. */
  async #custodyRecords(revision: number): Promise<readonly CustodyRecord[]> {
    const page = await this.#view.custodyRecords({ revision: revision - 1, index: Number.MAX_SAFE_INTEGER });
    return page.records.filter((record) => record.revision === revision);
  }

  /** Without the record of its KEK no branch key opens: every object needs it kept. */
  async #kekBlocks(): Promise<CID[]> {
    const found: CID[] = [];
    let after: string | undefined;
    do {
      const page = await this.#view.keks({ limit: 1000, ...(after === undefined ? {} : { after }) });
      // Those of threshold groups are looked after for themselves: there is one for each change of shares.
      const single = page.items.filter(({ record }) => record.body.provider !== 'tdec');
      found.push(...single.map(({ record }) => record.cid));
      after = page.next;
    } while (after !== undefined);
    return found;
  }

  /**
   * A new version alters nothing of the others, unless it is a tombstone, which lets go of their content. Behind the view
   * all versions are said at once, and not again for each of the entries that brought them.
   */
  async #restateAddress(address: string, revision: number, objects: CatalogueObject[]): Promise<void> {
    if (revision <= (this.#saidUpTo.get(address) ?? 0)) return;
    const seen = this.#view.health().revision;
    const head = await this.#view.head(address);
    if (head === undefined) return;
    const keks = await this.#kekBlocks();
    const everything = head.record.body.type === 'tombstone' || head.revision !== revision;
    for await (const entry of this.#view.catalogueOf(address))
      if (everything || entry.version === head.version) objects.push(statement(entry, keks));
    if (everything && this.#saidUpTo.size < saidMax) this.#saidUpTo.set(address, seen);
  }

  /** Addresses whose objects an envelope or a branch key opens. */
  async #addressesOf(key: string): Promise<string[]> {
    const [kind, id = ''] = key.split('/');
    const bytes = new Uint8Array(Buffer.from(id, 'hex'));
    if (kind === 'bk') return this.#usesOf(bytes, undefined);
    const envelope = kind === 'env' ? (await this.#view.envelope(bytes))?.record.body : undefined;
    if (envelope?.mode === 'direct') return this.#usesOfObject(bytes);
    return envelope === undefined ? [] : this.#usesOf(envelope.bkId, bytes);
  }

  async #usesOfObject(objId: Uint8Array): Promise<string[]> {
    const { uses } = await this.#view.wrappedObject(objId);
    return uses.map(({ address }) => address);
  }

  async #usesOf(bkId: Uint8Array, objId: Uint8Array | undefined): Promise<string[]> {
    const found: string[] = [];
    let after: string | undefined;
    do {
      const page = await this.#view.objectsOfBranchKey(bkId, {
        limit: 1000,
        ...(after === undefined ? {} : { after }),
      });
      for (const object of page.items)
        if (objId === undefined || Buffer.from(object.objId).equals(objId))
          found.push(...object.uses.map(({ address }) => address));
      after = page.next;
    } while (after !== undefined);
    return found;
  }
}

/** As many copies as there may be: without them nothing of a group's can be opened, or trusted, after a rebuild. */
const custodyCopies = { min: 3, max: 5, zones: 3 } as const;

function custodyStatement({ key, bytes }: CustodyRecord): CatalogueObject {
  const cid = cidOf(bytes, codecDagCbor);
  return {
    manifest: cid,
    address: key,
    version: 1,
    type: 'object',
    policy: custodyCopies,
    root: null,
    records: [cid],
    sizeBytes: 0,
  };
}

function statement(entry: CatalogueEntry, keks: readonly CID[]): CatalogueObject {
  return {
    manifest: entry.manifestCid,
    address: entry.address,
    version: entry.version,
    type: entry.type,
    policy: entry.manifest.replication,
    root: entry.retained ? entry.manifest.cid : null,
    records: [...entry.records, ...keks],
    sizeBytes: entry.manifest.size,
  };
}
