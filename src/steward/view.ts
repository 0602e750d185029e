// Objects over blocks: which blocks each object needs, and from their classes how each object is.
//
// Fed by the catalogue, it tells the ledger what is wanted; the ledger tells it when a block changes class.
// Every object counts its blocks per class, so its status is the worst class that occurs and a change costs
// the same for an object of one block and of a million. An object of many segments first references its
// root; its other blocks follow when the shell has read the index (`pendingIndexes`, `indexRead`).

import { type CID, codecRaw } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { CatalogueObject } from './catalogue.ts';
import { type BlockClass, blockClasses, type Wanted } from './classes.ts';
import { Ledger, merged } from './ledger.ts';
import { type ObjectStatus, objectStatuses } from './status.ts';

export interface ViewObject {
  readonly manifest: CID;
  readonly address: string;
  readonly version: number;
  readonly type: CatalogueObject['type'];
  readonly policy: CatalogueObject['policy'];
  readonly root: CID | null;
  readonly status: ObjectStatus;
  /** False while blocks of it are not known yet. */
  readonly indexRead: boolean;
  /** Slots in the ledger. */
  readonly slots: ReadonlySet<number>;
}

interface Entry {
  object: Pick<CatalogueObject, 'manifest' | 'address' | 'version' | 'type' | 'policy' | 'root'>;
  status: ObjectStatus;
  /** Content still to be found by reading the index. */
  indexPending: boolean;
  records: Set<number>;
  content: Set<number>;
  readonly counts: Uint32Array;
}

/** A block of more objects than this keeps the strictest policy it ever had: looking at all of them would be slow. */
const ownersReviewedMax = 1024;

export class ObjectView {
  readonly ledger: Ledger;
  readonly #entries: (Entry | undefined)[] = [];
  readonly #byManifest = new Map<string, number>();
  /** First owner of each slot (plus one), and the others where there are several. */
  #owner = new Uint32Array(1024);
  readonly #others = new Map<number, Set<number>>();
  readonly #totals = new Map<ObjectStatus, number>(objectStatuses.map((status) => [status, 0]));
  readonly #pending = new Set<number>();

  /** @param options `track`: see Ledger */
  constructor(options: { readonly track?: boolean } = {}) {
    this.ledger = new Ledger({ ...options, onClass: (slot, from, to) => this.#count(slot, from, to) });
  }

  /** Takes one statement of the catalogue; a later one about the same manifest replaces the earlier one. */
  apply(object: CatalogueObject, now: number): void {
    const at = this.#place(object);
    const entry = this.#entry(at);
    const sameRoot = (entry.object.root?.toString() ?? '') === (object.root?.toString() ?? '');
    const samePolicy = samePolicies(entry.object.policy, object.policy);
    entry.object = pick(object);
    const { root } = object;
    entry.records = this.#replace(at, entry.records, object.records, now, samePolicy);
    if (sameRoot && samePolicy && (entry.indexPending || entry.content.size > 0)) return;
    entry.indexPending = root !== null && root.code !== codecRaw;
    if (entry.indexPending) this.#pending.add(at);
    else this.#pending.delete(at);
    entry.content = this.#replace(at, entry.content, root === null ? [] : [root], now, samePolicy);
    this.#restate(entry);
  }

  /** Objects whose index must be read, at most `limit`, in the order they came. */
  pendingIndexes(limit: number): { readonly manifest: CID; readonly root: CID }[] {
    const out: { manifest: CID; root: CID }[] = [];
    for (const at of this.#pending) {
      if (out.length >= limit) break;
      const { manifest, root } = this.#entry(at).object;
      if (root !== null) out.push({ manifest, root });
    }
    return out;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** All content blocks of an object, index blocks included. Ignored when the object has changed its root meanwhile. */
  indexRead(manifest: CID, root: CID, blocks: readonly CID[], now: number): void {
    const at = this.#byManifest.get(idOf(manifest));
    const entry = at === undefined ? undefined : this.#entries[at];
    if (at === undefined || entry?.object.root?.equals(root) !== true || !entry.indexPending) return;
    entry.content = this.#replace(at, entry.content, blocks, now, true);
    entry.indexPending = false;
    this.#pending.delete(at);
    this.#restate(entry);
  }

  /** Moves an object to the end of the queue: its index could not be read now. */
  indexFailed(manifest: CID): void {
    const at = this.#byManifest.get(idOf(manifest));
    if (at !== undefined && this.#pending.delete(at)) this.#pending.add(at);
  }

  find(manifest: CID): ViewObject | undefined {
    const at = this.#byManifest.get(idOf(manifest));
    return at === undefined ? undefined : shown(this.#entry(at));
  }

  /** Address of one of the objects that need the block. */
  addressOf(slot: number): string | undefined {
    const owner = this.#owner[slot] ?? 0;
    return owner === 0 ? undefined : this.#entries[owner - 1]?.object.address;
  }

  get objectCount(): number {
    return this.#byManifest.size;
  }

  countOf(status: ObjectStatus): number {
    return this.#totals.get(status) ?? 0;
  }

  #place(object: CatalogueObject): number {
    const id = idOf(object.manifest);
    const known = this.#byManifest.get(id);
    if (known !== undefined) return known;
    this.#byManifest.set(id, this.#entries.length);
    this.#entries.push({
      object: { ...pick(object), root: null },
      status: 'healthy',
      indexPending: false,
      records: new Set(),
      content: new Set(),
      counts: new Uint32Array(blockClasses.length),
    });
    this.#totals.set('healthy', this.countOf('healthy') + 1);
    return this.#entries.length - 1;
  }

  #entry(at: number): Entry {
    const entry = this.#entries[at];
    if (entry === undefined) throw new RangeError(`object ${at}`);
    return entry;
  }

  /** References `cids` for the object in place of `before`. Adds first, so that what stays is never unreferenced. */
  #replace(
    at: number,
    before: Set<number>,
    cids: readonly CID[],
    now: number,
    samePolicy: boolean,
  ): Set<number> {
    const after = new Set<number>();
    for (const cid of cids) {
      const known = this.ledger.find(cid);
      if (known >= 0 && before.has(known)) {
        after.add(known);
        if (!samePolicy) this.#review(known);
      } else if (known < 0 || !this.#owns(at, known)) {
        after.add(this.#acquire(at, cid, now));
      }
    }
    for (const slot of before) if (!after.has(slot)) this.#release(at, slot, now);
    return after;
  }

  #acquire(at: number, cid: CID, now: number): number {
    const slot = this.ledger.reference(cid, wantedOf(cid.code, this.#entry(at).object.policy), now);
    if (slot >= this.#owner.length) this.#owner = widened(this.#owner, slot);
    this.#addOwner(slot, at);
    this.#bump(this.#entry(at), this.ledger.class(slot), 1);
    return slot;
  }

  #release(at: number, slot: number, now: number): void {
    this.#bump(this.#entry(at), this.ledger.class(slot), -1);
    this.#removeOwner(slot, at);
    this.ledger.unreference(slot, now);
    if (this.ledger.references(slot) > 0) this.#review(slot);
  }

  /** Sets the block's policy to what its present owners ask for. */
  #review(slot: number): void {
    const owners = this.#owners(slot);
    if (owners.length > ownersReviewedMax) return;
    const asked = owners.map((at) => wantedOf(this.ledger.codec(slot), this.#entry(at).object.policy));
    const first = asked[0];
    if (first !== undefined) this.ledger.setWanted(slot, asked.reduce(merged, first));
  }

  #owns(at: number, slot: number): boolean {
    return this.#owner[slot] === at + 1 || (this.#others.get(slot)?.has(at) ?? false);
  }

  #owners(slot: number): number[] {
    const first = this.#owner[slot] ?? 0;
    return first === 0 ? [] : [first - 1, ...(this.#others.get(slot) ?? [])];
  }

  #addOwner(slot: number, at: number): void {
    if (this.#owner[slot] === 0) {
      this.#owner[slot] = at + 1;
      return;
    }
    const others = this.#others.get(slot) ?? new Set();
    this.#others.set(slot, others.add(at));
  }

  #removeOwner(slot: number, at: number): void {
    const others = this.#others.get(slot);
    if (this.#owner[slot] !== at + 1) {
      others?.delete(at);
    } else {
      const next = others?.values().next().value;
      this.#owner[slot] = next === undefined ? 0 : next + 1;
      if (next !== undefined) others?.delete(next);
    }
    if (others?.size === 0) this.#others.delete(slot);
  }

  /** Called by the ledger: a block moved from one class to another. */
  #count(slot: number, from: BlockClass, to: BlockClass): void {
    const first = this.#owner[slot] ?? 0;
    if (first === 0) return;
    this.#shift(first - 1, from, to);
    for (const at of this.#others.get(slot) ?? []) this.#shift(at, from, to);
  }

  #shift(at: number, from: BlockClass, to: BlockClass): void {
    const entry = this.#entry(at);
    add(entry.counts, from, -1);
    add(entry.counts, to, 1);
    this.#restate(entry);
  }

  #bump(entry: Entry, name: BlockClass, by: number): void {
    add(entry.counts, name, by);
    this.#restate(entry);
  }

  #restate(entry: Entry): void {
    const status = statusOf(entry.counts, entry.indexPending);
    if (status === entry.status) return;
    this.#totals.set(entry.status, this.countOf(entry.status) - 1);
    this.#totals.set(status, this.countOf(status) + 1);
    entry.status = status;
  }
}

/** Raw blocks are content: as many copies as the minimum. Records and indexes keep the rest readable: the maximum. */
function wantedOf(codec: number, policy: CatalogueObject['policy']): Wanted {
  return { ...policy, target: codec === codecRaw ? policy.min : policy.max };
}

const statusOfClass: Readonly<Record<BlockClass, ObjectStatus>> = {
  none: 'healthy',
  lost: 'lost',
  lastCopy: 'lastCopy',
  belowMin: 'belowMin',
  short: 'short',
  corrupt: 'healing',
  belowTarget: 'healing',
  misplaced: 'healing',
  surplus: 'healthy',
  unreferenced: 'unchecked',
  unchecked: 'unchecked',
  healthy: 'healthy',
};

function statusOf(counts: Uint32Array, indexPending: boolean): ObjectStatus {
  let worst = indexPending ? objectStatuses.indexOf('unchecked') : objectStatuses.length - 1;
  for (const [at, name] of blockClasses.entries()) {
    if (counts[at] !== 0) worst = Math.min(worst, objectStatuses.indexOf(statusOfClass[name]));
  }
  return objectStatuses[worst] ?? 'healthy';
}

function add(counts: Uint32Array, name: BlockClass, by: number): void {
  const at = blockClasses.indexOf(name);
  counts[at] = (counts[at] ?? 0) + by;
}

function shown(entry: Entry): ViewObject {
  return {
    ...entry.object,
    status: entry.status,
    indexRead: !entry.indexPending,
    slots: new Set([...entry.records, ...entry.content]),
  };
}

function pick(object: CatalogueObject): Entry['object'] {
  const { manifest, address, version, type, policy, root } = object;
  return { manifest, address, version, type, policy, root };
}

function samePolicies(a: CatalogueObject['policy'], b: CatalogueObject['policy']): boolean {
  return a.min === b.min && a.max === b.max && a.zones === b.zones;
}

function idOf(manifest: CID): string {
  return toHex(manifest.multihash.digest);
}

function widened(from: Uint32Array<ArrayBuffer>, slot: number): Uint32Array<ArrayBuffer> {
  const to = new Uint32Array(2 ** Math.ceil(Math.log2(slot + 2)));
  to.set(from);
  return to;
}
