// Who holds which block, in a few typed arrays: about 100 bytes per block, so a million blocks fit in one process.
//
// A block has a slot (slot-table.ts): a row across the arrays of those who hold it (holdings.ts), of what is wanted of it
// (demand.ts), and of how endangered it is (class-lists.ts). Here is what happens to blocks, and when they are judged
// again (`settle`): those that something happened to, all after a node changed, and a rotating slice in every round in
// any case: the ledger may be told late or wrongly, but never for long.
//
// Everything here can be rebuilt from the inventories of the nodes.

import type { CID } from '../core/block.ts';
import type { PeerName } from '../core/rpc.ts';
import type { ClassListener } from './class-lists.ts';
import { classify, type Sight, type Wanted } from './classes.ts';
import { LedgerQueries } from './ledger-queries.ts';
import { SlotQueue } from './slot-queue.ts';

/** Blocks too young or too uncertain to judge, looked at again in one round. */
const uncheckedMax = 50_000;
/** One part in so many is judged in every round, whatever happened. */
const slicesCount = 256;

export class Ledger extends LedgerQueries {
  /** To be judged. */
  readonly #dirty: SlotQueue;
  /** To be saved, undefined when nobody will: the slots, and keys of what was removed. */
  readonly #touched: SlotQueue | undefined;
  readonly #removed: Uint8Array[] = [];
  /** Until when (ms) an upload uses a block, by slot, the earliest end first. */
  readonly #staged = new Map<number, number>();
  /** Where a pass over everything goes on, -1 when there is none. */
  #sweep = -1;
  #slice = 0;

  /** @param track whether `takeTouched` will be called: only then are changes remembered for it */
  constructor(options: { readonly onClass?: ClassListener; readonly track?: boolean } = {}) {
    const dirty = new SlotQueue();
    const touched = options.track === true ? new SlotQueue() : undefined;
    super(options.onClass ?? ((): void => {}), (capacity) => {
      dirty.grow(capacity);
      touched?.grow(capacity);
    });
    this.#dirty = dirty;
    this.#touched = touched;
  }

  // Events.

  /** The number of a node, given at first mention and kept. Throws TOO_LARGE beyond the members a cluster may have. */
  node(peer: PeerName): number {
    return this.holdings.node(peer);
  }

  /** The node says that it holds the block. Returns the slot. */
  hold(cid: CID, node: number, sizeBytes: number, now: number): number {
    const slot = this.#ensure(cid, now);
    this.table.learnSize(slot, sizeBytes);
    if (this.holdings.hold(slot, node)) this.#touch(slot);
    return slot;
  }

  /** The node no longer holds it: deleted, quarantined or never there. */
  unhold(slot: number, node: number): void {
    if (this.holdings.unhold(slot, node)) this.#touch(slot);
  }

  /** A possession proof at `at` (ms): the copy is good. */
  prove(slot: number, node: number, at: number): void {
    if (this.holdings.prove(slot, node, at)) this.#touch(slot);
  }

  /** What the node proved no longer counts: it was given up, and what it lists when it returns is a claim. */
  doubt(node: number): void {
    for (let slot = 0; slot < this.slotsEnd; slot++)
      if (this.inUse(slot) && this.holdings.doubt(slot, node)) this.#touch(slot);
  }

  /** A proof has failed against the CID: the copy no longer counts. */
  markBad(slot: number, node: number): void {
    if (this.holdings.markBad(slot, node)) this.#touch(slot);
  }

  /** A live object needs the block. Call once per object. Returns the slot. */
  reference(cid: CID, wanted: Wanted, now: number): number {
    const slot = this.#ensure(cid, now);
    const first = this.demand.reference(slot, wanted);
    this.#dirty.add(slot);
    if (first) this.classes.move(slot, 'unchecked', now, 0);
    return slot;
  }

  /** An object no longer needs it. When it was the last one the block becomes unreferenced. Throws RangeError when none did. */
  unreference(slot: number, now: number): void {
    if (this.demand.unreference(slot)) this.classes.move(slot, 'unreferenced', now, 0);
    this.#dirty.add(slot);
  }

  setWanted(slot: number, wanted: Wanted): void {
    this.demand.setWanted(slot, wanted);
    this.#dirty.add(slot);
  }

  /** An upload in progress uses it: it is not garbage before `until` (ms), whoever may hold it. */
  stage(cid: CID, until: number, now: number): void {
    const slot = this.#ensure(cid, now);
    const last = Math.max(until, this.stagedUntil(slot));
    this.#staged.delete(slot); // to the end: `#endLeases` looks from the start
    this.#staged.set(slot, last);
  }

  /** 0 when no upload has asked for it. */
  stagedUntil(slot: number): number {
    return this.#staged.get(slot) ?? 0;
  }

  // Judgement.

  /** Decides every block again, over the next calls of `settle`. After a node changed. */
  doubtAll(): void {
    this.#sweep = 0;
  }

  /**
   * Decides classes: of what was touched, of what is `unchecked`, of the next slice, or of the next blocks of
   * a pass begun by `doubtAll`. Looks at about `blocksMax` blocks; returns false while more are waiting.
   */
  settle(sight: Sight, now: number, blocksMax = 100_000): boolean {
    const dirty = this.#dirty.takeNewest(blocksMax);
    for (const slot of dirty) {
      this.#dirty.release(slot);
      this.#decide(slot, sight, now);
    }
    if (this.#dirty.length > 0) return false;
    if (this.#sweep >= 0) this.#sweepOn(sight, now, blocksMax - dirty.length);
    else this.#goRound(sight, now);
    return this.#sweep < 0 && this.#dirty.length === 0;
  }

  // Persistence.

  /** Slots changed and keys (`codec ‖ digest`) removed since they were last taken, at most `max` slots. */
  takeTouched(max: number): { slots: number[]; removed: Uint8Array[] } {
    const slots = this.#touched?.takeOldest(max) ?? [];
    for (const slot of slots) this.#touched?.release(slot);
    return { slots: slots.filter((slot) => this.inUse(slot)), removed: this.#removed.splice(0) };
  }

  get touchedCount(): number {
    return (this.#touched?.length ?? 0) + this.#removed.length;
  }

  // Inside.

  #ensure(cid: CID, now: number): number {
    const known = this.find(cid);
    if (known >= 0) return known;
    const slot = this.table.add(cid.multihash.digest, cid.code);
    this.demand.begin(slot);
    this.classes.move(slot, 'unreferenced', now, 0);
    this.#dirty.add(slot);
    return slot;
  }

  /** Forgets a block that nobody holds, wants or stages. */
  #drop(slot: number, now: number): void {
    if (this.#touched !== undefined) this.#removed.push(this.key(slot));
    this.classes.move(slot, 'none', now, 0);
    this.table.remove(slot);
  }

  /** Something is known of its copies that was not. */
  #touch(slot: number): void {
    this.#dirty.add(slot);
    this.#touched?.add(slot);
  }

  #decide(slot: number, sight: Sight, now: number): void {
    if (!this.inUse(slot)) return;
    if (this.references(slot) === 0) {
      if (!this.holdings.isHeld(slot) && !this.#staged.has(slot)) this.#drop(slot, now);
      return;
    }
    const holders = this.holderNodes(slot);
    const verdict = classify(
      holders,
      this.holdings.badNodes(slot),
      this.#claimsAmong(slot, holders),
      this.wanted(slot),
      sight,
      this.class(slot) === 'unchecked' && now - this.since(slot) < sight.settleMs,
    );
    this.classes.move(slot, verdict.class, now, verdict.missing);
  }

  #claimsAmong(slot: number, holders: readonly number[]): ReadonlySet<number> | undefined {
    let claims: Set<number> | undefined;
    for (const node of holders) if (this.provenAt(slot, node) === 0) (claims ??= new Set()).add(node);
    return claims;
  }

  #sweepOn(sight: Sight, now: number, blocksMax: number): void {
    const end = Math.min(this.slotsEnd, this.#sweep + blocksMax);
    for (let slot = this.#sweep; slot < end; slot++) this.#decide(slot, sight, now);
    this.#sweep = end < this.slotsEnd ? end : -1;
  }

  /** What is looked at in every round: the uncertain, a slice of all, uploads that have ended. */
  #goRound(sight: Sight, now: number): void {
    for (const slot of this.sample('unchecked', this.#slice * uncheckedMax, uncheckedMax)) {
      this.#decide(slot, sight, now);
    }
    const width = Math.ceil(this.slotsEnd / slicesCount);
    const start = this.#slice * width;
    for (let slot = start; slot < Math.min(start + width, this.slotsEnd); slot++)
      this.#decide(slot, sight, now);
    this.#slice = (this.#slice + 1) % slicesCount;
    this.#endLeases(now);
  }

  #endLeases(now: number): void {
    for (const [slot, until] of this.#staged) {
      if (until > now) return; // those behind it end later; after a clock was set back a few, with it
      this.#staged.delete(slot);
      this.#dirty.add(slot);
    }
  }
}
