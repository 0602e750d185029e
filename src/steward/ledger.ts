// Who holds which block, in a few typed arrays: about 100 bytes per block, so a million blocks fit in one process.
//
// A block has a slot: a row across the arrays below. Holders are a bit mask over interned node numbers.
// Every block is in exactly one class, and each class but `healthy` keeps the list of its slots, so
// counting and finding what is endangered costs nothing. Classes are decided again (`settle`) for blocks
// that something happened to, for all blocks after a node changed, and for a rotating slice in every
// round in any case: the ledger may be told late or wrongly, but never for long.
//
//   slot │ digest │ codec │ size │ held mask │ references │ policy │ class │ since │ missing │ chain │ place in list
//
// Everything here can be rebuilt from the inventories of the nodes. A Map of objects was refused: about
// 600 bytes per block, and a pause of the collector that is longer than a beat.

import { CID } from '../core/block.ts';
import { asBuffer, concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { membersMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import { type BlockClass, blockClasses, classify, type Sight, type Wanted } from './classes.ts';
import { DigestSum } from './digest-sum.ts';

/** What changed class: the objects that the block belongs to count it. */
export type ClassListener = (slot: number, from: BlockClass, to: BlockClass) => void;

/** A copy as the ledger knows it. */
export interface Holder {
  readonly node: number;
  /** Wall clock ms of the last possession proof, whole seconds; 0 = only listed by the node. */
  readonly provenAt: number;
  /** A challenge has shown that its bytes are wrong. */
  readonly bad: boolean;
}

export interface NodeTotals {
  readonly blocks: number;
  readonly bytes: number;
  /** Sum of the digests it holds, modulo 2^256, 32 bytes big-endian. */
  readonly sum: Uint8Array;
}

const healthy = blockClasses.indexOf('healthy');
const unreferenced = blockClasses.indexOf('unreferenced');
const unchecked = blockClasses.indexOf('unchecked');
/** Blocks too young or too uncertain to judge, looked at again in one round. */
const uncheckedMax = 50_000;
/** Slots of one page of proof times; a page exists once something on it was proven. */
const proofPage = 4096;

export class Ledger {
  readonly #nodes: PeerName[] = [];
  readonly #nodeIndex = new Map<PeerName, number>();
  readonly #totals: { blocks: number; bytes: number; sum: DigestSum }[] = [];
  readonly #proofs: Map<number, Uint32Array>[] = [];
  readonly #policies: Wanted[] = [];
  readonly #policyIndex = new Map<string, number>();
  readonly #bad = new Map<number, Set<number>>();
  readonly #staged = new Map<number, number>();
  readonly #lists: SlotList[] = blockClasses.map(() => new SlotList());
  readonly #touched: number[] = [];
  readonly #removed: Uint8Array[] = [];
  #dirty: number[] = [];
  #free: number[] = [];
  #capacity = 1024;
  #used = 0;
  #count = 0;
  #words = 1;
  #sweep = -1;
  #slice = 0;
  #pendingBytes = 0;
  #digests = new Uint8Array(32 * this.#capacity);
  #codecs = new Uint8Array(this.#capacity);
  #sizes = new Uint32Array(this.#capacity);
  #held = new Uint32Array(this.#capacity);
  #refs = new Uint32Array(this.#capacity);
  #policy = new Uint32Array(this.#capacity);
  #class = new Uint8Array(this.#capacity);
  #missing = new Uint8Array(this.#capacity);
  #since = new Float64Array(this.#capacity);
  #position = new Uint32Array(this.#capacity);
  #flags = new Uint8Array(this.#capacity);
  #next = new Int32Array(this.#capacity);
  #heads = new Int32Array(this.#capacity).fill(-1);
  readonly #onClass: ClassListener;
  readonly #track: boolean;

  /** @param track whether `takeTouched` will be called: only then are changes remembered for it */
  constructor(options: { readonly onClass?: ClassListener; readonly track?: boolean } = {}) {
    this.#onClass = options.onClass ?? ((): void => {});
    this.#track = options.track ?? false;
  }

  // Nodes.

  /** The number of a node, given at first mention and kept. Throws TOO_LARGE beyond the members a cluster may have. */
  node(peer: PeerName): number {
    const known = this.#nodeIndex.get(peer);
    if (known !== undefined) return known;
    const index = this.#nodes.length;
    if (index >= membersMax) {
      throw new HoldfastError('TOO_LARGE', `the ledger has numbers for ${membersMax} nodes, not for ${peer}`);
    }
    this.#nodes.push(peer);
    this.#nodeIndex.set(peer, index);
    this.#totals.push({ blocks: 0, bytes: 0, sum: new DigestSum() });
    this.#proofs.push(new Map());
    while (this.#nodes.length > 32 * this.#words) this.#widen();
    return index;
  }

  peer(node: number): PeerName {
    const peer = this.#nodes[node];
    if (peer === undefined) throw new RangeError(`node ${node}`);
    return peer;
  }

  get nodes(): readonly PeerName[] {
    return this.#nodes;
  }

  totals(node: number): NodeTotals {
    const totals = this.#totals[node];
    if (totals === undefined) throw new RangeError(`node ${node}`);
    return { blocks: totals.blocks, bytes: totals.bytes, sum: totals.sum.bytes() };
  }

  // Blocks.

  /** Blocks known, held or only wanted. */
  get size(): number {
    return this.#count;
  }

  /** Slots are below this; some of them may be free (`inUse`). */
  get slotsEnd(): number {
    return this.#used;
  }

  inUse(slot: number): boolean {
    return this.#codecs[slot] !== 0;
  }

  /** Its slot, or -1 when nothing is known of it. */
  find(cid: CID): number {
    return this.#find(cid.multihash.digest, cid.code);
  }

  cid(slot: number): CID {
    return CID.decode(concat(Uint8Array.of(1, this.codec(slot), 0x12, 0x20), this.digest(slot)));
  }

  /** A view of the 32 bytes; valid until the slot is freed or the table grows. */
  digest(slot: number): Uint8Array {
    return this.#digests.subarray(32 * slot, 32 * slot + 32);
  }

  codec(slot: number): number {
    return this.#codecs[slot] ?? 0;
  }

  sizeBytes(slot: number): number {
    return this.#sizes[slot] ?? 0;
  }

  class(slot: number): BlockClass {
    return blockClasses[this.#class[slot] ?? 0] ?? 'none';
  }

  /** Wall clock ms when the block came into its class. */
  since(slot: number): number {
    return this.#since[slot] ?? 0;
  }

  /** Copies (or, when misplaced, zones) that are missing by the last decision. */
  missing(slot: number): number {
    return this.#missing[slot] ?? 0;
  }

  references(slot: number): number {
    return this.#refs[slot] ?? 0;
  }

  wanted(slot: number): Wanted {
    const wanted = this.#policies[this.#policy[slot] ?? 0];
    if (wanted === undefined) throw new RangeError(`slot ${slot} has no policy`);
    return wanted;
  }

  holds(slot: number, node: number): boolean {
    return ((this.#held[slot * this.#words + (node >>> 5)] ?? 0) & (1 << (node & 31))) !== 0;
  }

  isBad(slot: number, node: number): boolean {
    return this.#bad.get(slot)?.has(node) ?? false;
  }

  hasBad(slot: number): boolean {
    return this.#bad.has(slot);
  }

  /** Node numbers that list the block, ascending, bad copies included. */
  holderNodes(slot: number): number[] {
    const out: number[] = [];
    for (let word = 0; word < this.#words; word++) {
      let mask = this.#held[slot * this.#words + word] ?? 0;
      while (mask !== 0) {
        out.push(32 * word + 31 - Math.clz32(mask & -mask));
        mask &= mask - 1;
      }
    }
    return out;
  }

  holders(slot: number): Holder[] {
    return this.holderNodes(slot).map((node) => ({
      node,
      provenAt: this.provenAt(slot, node),
      bad: this.isBad(slot, node),
    }));
  }

  /** Wall clock ms of the last proof, 0 when there is none. */
  provenAt(slot: number, node: number): number {
    const page = this.#proofs[node]?.get(Math.floor(slot / proofPage));
    return (page?.[slot % proofPage] ?? 0) * 1000;
  }

  /** True when every holder has proven its copy at `at` (wall clock ms) or later. */
  isProvenSince(slot: number, at: number): boolean {
    for (let word = 0; word < this.#words; word++) {
      let mask = this.#held[slot * this.#words + word] ?? 0;
      while (mask !== 0) {
        if (this.provenAt(slot, 32 * word + 31 - Math.clz32(mask & -mask)) < at) return false;
        mask &= mask - 1;
      }
    }
    return true;
  }

  // Events.

  /** The node says that it holds the block. Returns the slot. */
  hold(cid: CID, node: number, sizeBytes: number, now: number): number {
    const slot = this.#ensure(cid, now);
    if (this.#sizes[slot] === 0) this.#sizes[slot] = sizeBytes;
    if (this.holds(slot, node)) return slot;
    this.#setHeld(slot, node, true);
    this.#touch(slot);
    return slot;
  }

  /** The node no longer holds it: deleted, quarantined or never there. */
  unhold(slot: number, node: number): void {
    if (!this.holds(slot, node)) return;
    this.#setHeld(slot, node, false);
    this.#setProven(slot, node, 0);
    this.#clearBad(slot, node);
    this.#touch(slot);
  }

  /** A possession proof at `at` (ms): the copy is good. */
  prove(slot: number, node: number, at: number): void {
    if (!this.holds(slot, node)) return;
    this.#setProven(slot, node, Math.floor(at / 1000));
    if (this.isBad(slot, node)) this.#clearBad(slot, node);
    this.#touch(slot);
  }

  /** What the node proved no longer counts: it was given up, and what it lists when it returns is a claim. */
  doubt(node: number): void {
    for (let slot = 0; slot < this.#used; slot++) {
      if (!this.inUse(slot) || this.provenAt(slot, node) === 0) continue;
      this.#setProven(slot, node, 0);
      this.#touch(slot);
    }
  }

  /** A proof has failed against the CID: the copy no longer counts. */
  markBad(slot: number, node: number): void {
    if (!this.holds(slot, node)) return;
    this.#setProven(slot, node, 0);
    const bad = this.#bad.get(slot) ?? new Set();
    this.#bad.set(slot, bad.add(node));
    this.#touch(slot);
  }

  /** A live object needs the block. Call once per object. Returns the slot. */
  reference(cid: CID, wanted: Wanted, now: number): number {
    const slot = this.#ensure(cid, now);
    const first = this.#refs[slot] === 0;
    this.#refs[slot] = this.references(slot) + 1;
    this.setWanted(slot, first ? wanted : merged(this.wanted(slot), wanted));
    if (first) this.#move(slot, unchecked, now, 0);
    return slot;
  }

  /** An object no longer needs it. When it was the last one the block becomes unreferenced. */
  unreference(slot: number, now: number): void {
    const refs = this.references(slot);
    if (refs === 0) throw new RangeError(`slot ${slot} is not referenced`);
    this.#refs[slot] = refs - 1;
    if (refs === 1) this.#move(slot, unreferenced, now, 0);
    this.#markDirty(slot);
  }

  setWanted(slot: number, wanted: Wanted): void {
    this.#policy[slot] = this.#internPolicy(wanted);
    this.#markDirty(slot);
  }

  /** An upload in progress uses it: it is not garbage before `until` (ms), whoever may hold it. */
  stage(cid: CID, until: number, now: number): void {
    const slot = this.#ensure(cid, now);
    const last = Math.max(until, this.#staged.get(slot) ?? 0);
    this.#staged.delete(slot); // to the end: `#endLeases` looks from the start
    this.#staged.set(slot, last);
  }

  /** 0 when no upload has asked for it. */
  stagedUntil(slot: number): number {
    return this.#staged.get(slot) ?? 0;
  }

  // Classes.

  /** Decides every block again, over the next calls of `settle`. After a node changed. */
  doubtAll(): void {
    this.#sweep = 0;
  }

  /**
   * Decides classes: of what was touched, of what is `unchecked`, of the next slice, or of the next blocks of
   * a pass begun by `doubtAll`. Looks at about `blocksMax` blocks; returns false while more are waiting.
   */
  settle(sight: Sight, now: number, blocksMax = 100_000): boolean {
    const dirty = this.#dirty.splice(Math.max(0, this.#dirty.length - blocksMax));
    for (const slot of dirty) {
      this.#flags[slot] = (this.#flags[slot] ?? 0) & ~1;
      this.#decide(slot, sight, now);
    }
    if (this.#dirty.length > 0) return false;
    if (this.#sweep >= 0) {
      this.#sweepOn(sight, now, blocksMax - dirty.length);
    } else {
      for (const slot of this.sample('unchecked', this.#slice * uncheckedMax, uncheckedMax)) {
        this.#decide(slot, sight, now);
      }
      this.#rotate(sight, now);
      this.#endLeases(now);
    }
    return this.#sweep < 0 && this.#dirty.length === 0;
  }

  /** Blocks in a class (any but `healthy` and `none`). */
  countOf(name: BlockClass): number {
    if (name === 'healthy') return this.#count - this.#lists.reduce((sum, list) => sum + list.length, 0);
    return this.#listOf(name).length;
  }

  /** Up to `count` slots of a class, going round from `start` (any integer). */
  sample(name: BlockClass, start: number, count: number): number[] {
    const list = this.#listOf(name);
    const out: number[] = [];
    for (let at = 0; at < Math.min(count, list.length); at++) out.push(list.at((start + at) % list.length));
    return out;
  }

  /** Bytes that copies still to be made will move. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** A slot at or after a pseudo-random place (`fraction` 0…1) that `node` holds with bytes believed good, or -1 after 256 tries. */
  pick(node: number, fraction: number): number {
    const start = Math.floor(fraction * this.#used);
    for (let at = 0; at < Math.min(256, this.#used); at++) {
      const slot = (start + at) % this.#used;
      if (this.holds(slot, node) && !this.isBad(slot, node)) return slot;
    }
    return -1;
  }

  // Persistence.

  /** Slots changed and keys (`codec ‖ digest`) removed since they were last taken, at most `max` slots. */
  takeTouched(max: number): { slots: number[]; removed: Uint8Array[] } {
    const slots = this.#touched.splice(0, max);
    for (const slot of slots) this.#flags[slot] = (this.#flags[slot] ?? 0) & ~2;
    return { slots: slots.filter((slot) => this.inUse(slot)), removed: this.#removed.splice(0) };
  }

  get touchedCount(): number {
    return this.#touched.length + this.#removed.length;
  }

  /** `codec ‖ digest`: the key of a block in any store. */
  key(slot: number): Uint8Array {
    return concat(Uint8Array.of(this.codec(slot)), this.digest(slot));
  }

  // Inside.

  #find(digest: Uint8Array, codec: number): number {
    let slot = this.#heads[bucketOf(digest, this.#capacity)] ?? -1;
    while (slot >= 0 && !(this.#codecs[slot] === codec && this.#sameDigest(slot, digest))) {
      slot = this.#next[slot] ?? -1;
    }
    return slot;
  }

  #sameDigest(slot: number, digest: Uint8Array): boolean {
    for (let at = 0; at < 32; at++) if (this.#digests[32 * slot + at] !== digest[at]) return false;
    return true;
  }

  #ensure(cid: CID, now: number): number {
    const { digest } = cid.multihash;
    const known = this.#find(digest, cid.code);
    if (known >= 0) return known;
    const slot = this.#free.pop() ?? this.#append();
    this.#digests.set(digest, 32 * slot);
    this.#codecs[slot] = cid.code;
    const bucket = bucketOf(digest, this.#capacity);
    this.#next[slot] = this.#heads[bucket] ?? -1;
    this.#heads[bucket] = slot;
    this.#count++;
    this.#policy[slot] = this.#internPolicy(nothingWanted);
    this.#move(slot, unreferenced, now, 0);
    this.#markDirty(slot);
    return slot;
  }

  #append(): number {
    if (this.#used === this.#capacity) this.#grow();
    return this.#used++;
  }

  /** Forgets a block that nobody holds, wants or stages. */
  #drop(slot: number, now: number): void {
    if (this.#track) this.#removed.push(this.key(slot));
    this.#move(slot, 0, now, 0);
    this.#unchain(slot);
    this.#codecs[slot] = 0;
    this.#sizes[slot] = 0;
    this.#free.push(slot);
    this.#count--;
  }

  #unchain(slot: number): void {
    const bucket = bucketOf(this.digest(slot), this.#capacity);
    let at = this.#heads[bucket] ?? -1;
    if (at === slot) {
      this.#heads[bucket] = this.#next[slot] ?? -1;
      return;
    }
    while (at >= 0 && this.#next[at] !== slot) at = this.#next[at] ?? -1;
    if (at >= 0) this.#next[at] = this.#next[slot] ?? -1;
  }

  #decide(slot: number, sight: Sight, now: number): void {
    if (!this.inUse(slot)) return;
    if (this.references(slot) === 0) {
      if (!this.#isHeld(slot) && !this.#staged.has(slot)) this.#drop(slot, now);
      return;
    }
    const before = this.class(slot);
    const holders = this.holderNodes(slot);
    const verdict = classify(
      holders,
      this.#bad.get(slot),
      this.#claimsAmong(slot, holders),
      this.wanted(slot),
      sight,
      before === 'unchecked' && now - this.since(slot) < sight.settleMs,
    );
    this.#move(slot, blockClasses.indexOf(verdict.class), now, verdict.missing);
  }

  #claimsAmong(slot: number, holders: readonly number[]): ReadonlySet<number> | undefined {
    let claims: Set<number> | undefined;
    for (const node of holders) if (this.provenAt(slot, node) === 0) (claims ??= new Set()).add(node);
    return claims;
  }

  #isHeld(slot: number): boolean {
    for (let word = 0; word < this.#words; word++)
      if (this.#held[slot * this.#words + word] !== 0) return true;
    return false;
  }

  /** Puts a slot into another class, keeps lists, sums and the objects' counters right. */
  #move(slot: number, to: number, now: number, missing: number): void {
    const from = this.#class[slot] ?? 0;
    this.#pendingBytes += (missing - this.missing(slot)) * Math.max(1, this.sizeBytes(slot));
    this.#missing[slot] = missing;
    if (from === to) return;
    if (isListed(from)) this.#lists[from]?.remove(slot, this.#position);
    if (isListed(to)) this.#lists[to]?.add(slot, this.#position);
    this.#class[slot] = to;
    this.#since[slot] = now;
    this.#onClass(slot, blockClasses[from] ?? 'none', blockClasses[to] ?? 'none');
  }

  #listOf(name: BlockClass): SlotList {
    const list = this.#lists[blockClasses.indexOf(name)];
    if (list === undefined) throw new RangeError(name);
    return list;
  }

  /** One 256th of the table in every round, whatever happened. */
  #rotate(sight: Sight, now: number): void {
    const width = Math.ceil(this.#used / 256);
    const start = this.#slice * width;
    for (let slot = start; slot < Math.min(start + width, this.#used); slot++) this.#decide(slot, sight, now);
    this.#slice = (this.#slice + 1) % 256;
  }

  #sweepOn(sight: Sight, now: number, blocksMax: number): void {
    const end = Math.min(this.#used, this.#sweep + blocksMax);
    for (let slot = this.#sweep; slot < end; slot++) this.#decide(slot, sight, now);
    this.#sweep = end < this.#used ? end : -1;
  }

  #endLeases(now: number): void {
    for (const [slot, until] of this.#staged) {
      if (until > now) return; // those behind it end later; after a clock was set back a few, with it
      this.#staged.delete(slot);
      this.#markDirty(slot);
    }
  }

  #setHeld(slot: number, node: number, value: boolean): void {
    const at = slot * this.#words + (node >>> 5);
    this.#held[at] = (this.#held[at] ?? 0) ^ (1 << (node & 31));
    const totals = this.#totals[node];
    if (totals === undefined) throw new RangeError(`node ${node}`);
    const sign = value ? 1 : -1;
    totals.blocks += sign;
    totals.bytes += sign * this.sizeBytes(slot);
    if (value) totals.sum.add(this.digest(slot));
    else totals.sum.subtract(this.digest(slot));
  }

  #setProven(slot: number, node: number, seconds: number): void {
    const pages = this.#proofs[node];
    const number = Math.floor(slot / proofPage);
    let page = pages?.get(number);
    if (page === undefined) {
      if (seconds === 0) return;
      page = new Uint32Array(proofPage);
      pages?.set(number, page);
    }
    page[slot % proofPage] = seconds;
  }

  #clearBad(slot: number, node: number): void {
    const bad = this.#bad.get(slot);
    bad?.delete(node);
    if (bad?.size === 0) this.#bad.delete(slot);
  }

  #markDirty(slot: number): void {
    const flags = this.#flags[slot] ?? 0;
    if ((flags & 1) !== 0) return;
    this.#flags[slot] = flags | 1;
    this.#dirty.push(slot);
  }

  #touch(slot: number): void {
    this.#markDirty(slot);
    const flags = this.#flags[slot] ?? 0;
    if (!this.#track || (flags & 2) !== 0) return;
    this.#flags[slot] = flags | 2;
    this.#touched.push(slot);
  }

  #internPolicy(wanted: Wanted): number {
    const key = `${wanted.min}/${wanted.target}/${wanted.max}/${wanted.zones}`;
    const known = this.#policyIndex.get(key);
    if (known !== undefined) return known;
    this.#policies.push(wanted);
    this.#policyIndex.set(key, this.#policies.length - 1);
    return this.#policies.length - 1;
  }

  #grow(): void {
    this.#capacity *= 2;
    const to = this.#capacity;
    this.#digests = grown(this.#digests, new Uint8Array(32 * to));
    this.#codecs = grown(this.#codecs, new Uint8Array(to));
    this.#sizes = grown(this.#sizes, new Uint32Array(to));
    this.#held = grown(this.#held, new Uint32Array(to * this.#words));
    this.#refs = grown(this.#refs, new Uint32Array(to));
    this.#policy = grown(this.#policy, new Uint32Array(to));
    this.#class = grown(this.#class, new Uint8Array(to));
    this.#missing = grown(this.#missing, new Uint8Array(to));
    this.#since = grown(this.#since, new Float64Array(to));
    this.#position = grown(this.#position, new Uint32Array(to));
    this.#flags = grown(this.#flags, new Uint8Array(to));
    this.#rehash();
  }

  #rehash(): void {
    this.#next = new Int32Array(this.#capacity);
    this.#heads = new Int32Array(this.#capacity).fill(-1);
    for (let slot = 0; slot < this.#used; slot++) {
      if (!this.inUse(slot)) continue;
      const bucket = bucketOf(this.digest(slot), this.#capacity);
      this.#next[slot] = this.#heads[bucket] ?? -1;
      this.#heads[bucket] = slot;
    }
  }

  /** Room for 32 more nodes in every mask. */
  #widen(): void {
    const words = this.#words + 1;
    const held = new Uint32Array(this.#capacity * words);
    for (let slot = 0; slot < this.#used; slot++) {
      for (let word = 0; word < this.#words; word++) {
        held[slot * words + word] = this.#held[slot * this.#words + word] ?? 0;
      }
    }
    this.#held = held;
    this.#words = words;
  }
}

const nothingWanted: Wanted = { min: 0, target: 0, max: 0, zones: 0 };

/** The stricter of both in every respect: a block shared by two objects satisfies either. */
export function merged(a: Wanted, b: Wanted): Wanted {
  return {
    min: Math.max(a.min, b.min),
    target: Math.max(a.target, b.target),
    max: Math.max(a.max, b.max),
    zones: Math.max(a.zones, b.zones),
  };
}

function isListed(at: number): boolean {
  return at !== 0 && at !== healthy;
}

function bucketOf(digest: Uint8Array, capacity: number): number {
  return asBuffer(digest).readUInt32LE(28) & (capacity - 1);
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** Slots of one class; each slot's place is kept in one array shared by all lists, so removal is immediate. */
class SlotList {
  #slots = new Uint32Array(64);
  length = 0;

  at(index: number): number {
    return this.#slots[index] ?? 0;
  }

  add(slot: number, position: Uint32Array): void {
    if (this.length === this.#slots.length)
      this.#slots = grown(this.#slots, new Uint32Array(2 * this.length));
    position[slot] = this.length;
    this.#slots[this.length++] = slot;
  }

  remove(slot: number, position: Uint32Array): void {
    const at = position[slot] ?? 0;
    const last = this.at(--this.length);
    this.#slots[at] = last;
    position[last] = at;
  }
}
