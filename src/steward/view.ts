// Objects over blocks: which blocks each object needs, and from their classes how each object is.
//
// Fed by the catalogue, it tells the ledger what is wanted; the ledger tells it when a block changes class.
// Every object counts its blocks per class, so its status is the worst class that occurs and a change costs
// the same for an object of one block and of a million. An object of many segments first references its
// root; its other blocks follow when the shell has read the index (`pendingIndexes`, `indexRead`).

import { CID, codecRaw } from '../core/block.ts';
import { asBuffer, concat } from '../core/bytes.ts';
import type { CatalogueObject } from './catalogue.ts';
import { type BlockClass, blockClasses, type Wanted } from './classes.ts';
import { merged } from './demand.ts';
import { Ledger } from './ledger.ts';
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

/** Kept small: there are as many as objects. What can be asked of the ledger is not kept here. */
interface Entry {
  readonly manifest: string;
  address: string;
  version: number;
  type: CatalogueObject['type'];
  policy: CatalogueObject['policy'];
  /** Slot of the root, -1 when there is none. */
  root: number;
  status: ObjectStatus;
  /** Content still to be found by reading the index. */
  indexPending: boolean;
  records: readonly number[];
  content: readonly number[];
}

const noSlots: readonly number[] = [];
const classCount = blockClasses.length;
const classNumber = new Map(blockClasses.map((name, at) => [name, at]));

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
  readonly #policies = new Map<string, CatalogueObject['policy']>();
  /** Blocks per class of every object, one row each. */
  #counts = new Uint32Array(1024 * classCount);

  /** @param options `track`: see Ledger */
  constructor(options: { readonly track?: boolean } = {}) {
    this.ledger = new Ledger({ ...options, onClass: (slot, from, to) => this.#count(slot, from, to) });
  }

  /** Takes one statement of the catalogue; a later one about the same manifest replaces the earlier one. */
  apply(object: CatalogueObject, now: number): void {
    const at = this.#place(object);
    const entry = this.#entry(at);
    const { root } = object;
    const policy = this.#shared(object.policy);
    const samePolicy = entry.policy === policy;
    const sameRoot =
      root === null ? entry.root < 0 : entry.root >= 0 && entry.root === this.ledger.find(root);
    entry.address = object.address;
    entry.version = object.version;
    entry.type = object.type;
    entry.policy = policy;
    const named = sameRoot || root === null ? object.records : [...object.records, root];
    this.#replace(at, sameRoot ? entry.content : noSlots, named, now, samePolicy);
    entry.records = this.#slotsOf(object.records);
    if (!sameRoot) this.#setRoot(at, entry, root);
    this.#restate(at);
  }

  #setRoot(at: number, entry: Entry, root: CID | null): void {
    entry.content = root === null ? noSlots : this.#slotsOf([root]);
    entry.root = entry.content[0] ?? -1;
    entry.indexPending = root !== null && root.code !== codecRaw;
    if (entry.indexPending) this.#pending.add(at);
    else this.#pending.delete(at);
  }

  /** Objects whose index must be read, at most `limit`, in the order they came. */
  pendingIndexes(limit: number): { readonly manifest: CID; readonly root: CID }[] {
    const out: { manifest: CID; root: CID }[] = [];
    for (const at of this.#pending) {
      if (out.length >= limit) break;
      const entry = this.#entry(at);
      out.push({ manifest: cidOfKey(entry.manifest), root: this.ledger.cid(entry.root) });
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
    if (at === undefined || entry === undefined || !entry.indexPending) return;
    if (entry.root !== this.ledger.find(root)) return;
    this.#replace(at, entry.records, blocks, now, true);
    entry.content = this.#slotsOf(blocks);
    entry.indexPending = false;
    this.#pending.delete(at);
    this.#restate(at);
  }

  /** Moves an object to the end of the queue: its index could not be read now. */
  indexFailed(manifest: CID): void {
    const at = this.#byManifest.get(idOf(manifest));
    if (at !== undefined && this.#pending.delete(at)) this.#pending.add(at);
  }

  find(manifest: CID): ViewObject | undefined {
    const at = this.#byManifest.get(idOf(manifest));
    return at === undefined ? undefined : this.#shown(this.#entry(at));
  }

  /** Address of one of the objects that need the block. */
  addressOf(slot: number): string | undefined {
    const owner = this.#owner[slot] ?? 0;
    return owner === 0 ? undefined : this.#entries[owner - 1]?.address;
  }

  get objectCount(): number {
    return this.#byManifest.size;
  }

  countOf(status: ObjectStatus): number {
    return this.#totals.get(status) ?? 0;
  }

  #place(object: CatalogueObject): number {
    const manifest = idOf(object.manifest);
    const known = this.#byManifest.get(manifest);
    if (known !== undefined) return known;
    const at = this.#entries.length;
    this.#byManifest.set(manifest, at);
    this.#entries.push({
      manifest,
      address: object.address,
      version: object.version,
      type: object.type,
      policy: this.#shared(object.policy),
      root: -1,
      status: 'healthy',
      indexPending: false,
      records: noSlots,
      content: noSlots,
    });
    if (this.#entries.length * classCount > this.#counts.length) {
      this.#counts = widened(this.#counts, this.#entries.length * classCount);
    }
    this.#totals.set('healthy', this.countOf('healthy') + 1);
    return at;
  }

  /** One object per distinct policy, so that comparing is cheap. */
  #shared(policy: CatalogueObject['policy']): CatalogueObject['policy'] {
    const key = `${policy.min}/${policy.max}/${policy.zones}`;
    const known = this.#policies.get(key);
    if (known === undefined) this.#policies.set(key, policy);
    return known ?? policy;
  }

  #shown(entry: Entry): ViewObject {
    const { manifest, address, version, type, policy, root, status, indexPending, records, content } = entry;
    return {
      manifest: cidOfKey(manifest),
      address,
      version,
      type,
      policy,
      root: root < 0 ? null : this.ledger.cid(root),
      status,
      indexRead: !indexPending,
      slots: new Set([...records, ...content]),
    };
  }

  #entry(at: number): Entry {
    const entry = this.#entries[at];
    if (entry === undefined) throw new RangeError(`object ${at}`);
    return entry;
  }

  /**
   * Makes the object own the slots `retained` and the blocks `cids`, and nothing else. Adds first, so that
   * what stays is never unreferenced. A block named twice, or as record and as content, is owned once.
   */
  #replace(
    at: number,
    retained: readonly number[],
    cids: readonly CID[],
    now: number,
    samePolicy: boolean,
  ): void {
    const { records, content } = this.#entry(at);
    const before = new Set([...records, ...content]);
    const after = new Set(retained);
    for (const cid of cids) {
      const known = this.ledger.find(cid);
      after.add(known >= 0 && (before.has(known) || after.has(known)) ? known : this.#acquire(at, cid, now));
    }
    if (!samePolicy) for (const slot of after) this.#review(slot);
    for (const slot of before) if (!after.has(slot)) this.#release(at, slot, now);
  }

  #slotsOf(cids: readonly CID[]): readonly number[] {
    return cids.length === 0 ? noSlots : [...new Set(cids.map((cid) => this.ledger.find(cid)))];
  }

  #acquire(at: number, cid: CID, now: number): number {
    const slot = this.ledger.reference(cid, wantedOf(cid.code, this.#entry(at).policy), now);
    if (slot >= this.#owner.length) this.#owner = widened(this.#owner, slot);
    this.#addOwner(slot, at);
    this.#bump(at, this.ledger.class(slot), 1);
    return slot;
  }

  #release(at: number, slot: number, now: number): void {
    this.#bump(at, this.ledger.class(slot), -1);
    this.#removeOwner(slot, at);
    this.ledger.unreference(slot, now);
    if (this.ledger.references(slot) > 0) this.#review(slot);
  }

  /** Sets the block's policy to what its present owners ask for. */
  #review(slot: number): void {
    const owners = this.#owners(slot);
    if (owners.length > ownersReviewedMax) return;
    const asked = owners.map((at) => wantedOf(this.ledger.codec(slot), this.#entry(at).policy));
    const first = asked[0];
    if (first !== undefined) this.ledger.setWanted(slot, asked.reduce(merged, first));
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
    const left = this.#add(at, from, -1);
    const come = this.#add(at, to, 1);
    if (left === 0 || come === 1) this.#restate(at);
  }

  #bump(at: number, name: BlockClass, by: number): void {
    this.#add(at, name, by);
    this.#restate(at);
  }

  #add(at: number, name: BlockClass, by: number): number {
    const place = at * classCount + (classNumber.get(name) ?? 0);
    const value = (this.#counts[place] ?? 0) + by;
    this.#counts[place] = value;
    return value;
  }

  #restate(at: number): void {
    const entry = this.#entry(at);
    const row = this.#counts.subarray(at * classCount, (at + 1) * classCount);
    const status = statusOf(row, entry.indexPending);
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

/** Class number to status number: lower is worse in both tables of names, not in the same order. */
const severity = blockClasses.map((name) => objectStatuses.indexOf(statusOfClass[name]));

function statusOf(counts: Uint32Array, indexPending: boolean): ObjectStatus {
  let worst = indexPending ? objectStatuses.indexOf('unchecked') : objectStatuses.length - 1;
  for (let at = 0; at < classCount; at++) {
    if (counts[at] !== 0) worst = Math.min(worst, severity[at] ?? worst);
  }
  return objectStatuses[worst] ?? 'healthy';
}

/** Manifests by one string of 33 characters, codec and digest: an eighth of a CID object. */
function idOf(manifest: CID): string {
  return asBuffer(concat(Uint8Array.of(manifest.code), manifest.multihash.digest)).toString('latin1');
}

function cidOfKey(key: string): CID {
  const bytes = Buffer.from(key, 'latin1');
  return CID.decode(concat(Uint8Array.of(1, bytes[0] ?? 0, 0x12, 0x20), bytes.subarray(1)));
}

function widened(from: Uint32Array<ArrayBuffer>, index: number): Uint32Array<ArrayBuffer> {
  const to = new Uint32Array(2 ** Math.ceil(Math.log2(index + 2)));
  to.set(from);
  return to;
}
