// What can be asked of the ledger: about a block by its slot, about nodes, about classes. Nothing here changes anything.

import { CID } from '../core/block.ts';
import { concat } from '../core/bytes.ts';
import type { PeerName } from '../core/rpc.ts';
import { type ClassListener, ClassLists } from './class-lists.ts';
import type { BlockClass, Wanted } from './classes.ts';
import { Demand } from './demand.ts';
import { type Holder, Holdings, type NodeTotals } from './holdings.ts';
import { SlotTable } from './slot-table.ts';

/** Tries of `pick`. */
const picksMax = 256;

export class LedgerQueries {
  protected readonly table: SlotTable;
  protected readonly holdings: Holdings;
  protected readonly demand = new Demand();
  protected readonly classes: ClassLists;

  /** @param onGrow told, like the parts here, for how many slots there must be room */
  constructor(onClass: ClassListener, onGrow: (capacity: number) => void) {
    this.table = new SlotTable((capacity) => {
      this.holdings.grow(capacity);
      this.demand.grow(capacity);
      this.classes.grow(capacity);
      onGrow(capacity);
    });
    this.holdings = new Holdings(this.table);
    this.classes = new ClassLists(this.table, onClass);
  }

  // Nodes.

  /** The name of a node. Throws RangeError for a number that was not given (`Ledger.node`). */
  peer(node: number): PeerName {
    const peer = this.holdings.nodes[node];
    if (peer === undefined) throw new RangeError(`node ${node}`);
    return peer;
  }

  get nodes(): readonly PeerName[] {
    return this.holdings.nodes;
  }

  /** What a node holds by its own word. Throws RangeError for a number that was not given. */
  totals(node: number): NodeTotals {
    return this.holdings.totals(node);
  }

  // Blocks.

  /** Blocks known, held or only wanted. */
  get size(): number {
    return this.table.count;
  }

  /** Slots are below this; some of them may be free (`inUse`). */
  get slotsEnd(): number {
    return this.table.slotsEnd;
  }

  inUse(slot: number): boolean {
    return this.table.inUse(slot);
  }

  /** Its slot, or -1 when nothing is known of it. */
  find(cid: CID): number {
    return this.table.find(cid.multihash.digest, cid.code);
  }

  cid(slot: number): CID {
    return CID.decode(concat(Uint8Array.of(1, this.codec(slot), 0x12, 0x20), this.digest(slot)));
  }

  /** `codec ‖ digest`: the key of a block in any store. */
  key(slot: number): Uint8Array {
    return concat(Uint8Array.of(this.codec(slot)), this.digest(slot));
  }

  /** A view of the 32 bytes; valid until the slot is freed or the table grows. */
  digest(slot: number): Uint8Array {
    return this.table.digest(slot);
  }

  codec(slot: number): number {
    return this.table.codec(slot);
  }

  sizeBytes(slot: number): number {
    return this.table.sizeBytes(slot);
  }

  references(slot: number): number {
    return this.demand.references(slot);
  }

  wanted(slot: number): Wanted {
    return this.demand.wanted(slot);
  }

  // Copies.

  holds(slot: number, node: number): boolean {
    return this.holdings.holds(slot, node);
  }

  isBad(slot: number, node: number): boolean {
    return this.holdings.badNodes(slot)?.has(node) ?? false;
  }

  hasBad(slot: number): boolean {
    return this.holdings.badNodes(slot) !== undefined;
  }

  /** Node numbers that list the block, ascending, bad copies included. */
  holderNodes(slot: number): number[] {
    return this.holdings.holderNodes(slot);
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
    return this.holdings.provenAt(slot, node);
  }

  /** True when every holder has proven its copy at `at` (wall clock ms) or later. */
  isProvenSince(slot: number, at: number): boolean {
    return this.holdings.isProvenSince(slot, at);
  }

  /** A slot at or after a pseudo-random place (`fraction` 0…1) that `node` holds with bytes believed good, or -1 after 256 tries. */
  pick(node: number, fraction: number): number {
    const start = Math.floor(fraction * this.slotsEnd);
    for (let at = 0; at < Math.min(picksMax, this.slotsEnd); at++) {
      const slot = (start + at) % this.slotsEnd;
      if (this.holds(slot, node) && !this.isBad(slot, node)) return slot;
    }
    return -1;
  }

  // Classes.

  class(slot: number): BlockClass {
    return this.classes.class(slot);
  }

  /** Wall clock ms when the block came into its class. */
  since(slot: number): number {
    return this.classes.since(slot);
  }

  /** Copies (or, when misplaced, zones) that are missing by the last decision. */
  missing(slot: number): number {
    return this.classes.missing(slot);
  }

  /** Blocks in a class (any but `none`). */
  countOf(name: BlockClass): number {
    return name === 'healthy' ? this.size - this.classes.listedCount : this.classes.countOf(name);
  }

  /** Up to `count` slots of a class (any but `healthy` and `none`), going round from `start` (any integer). */
  sample(name: BlockClass, start: number, count: number): number[] {
    return this.classes.sample(name, start, count);
  }

  /** Bytes that copies still to be made will move. */
  get pendingBytes(): number {
    return this.classes.pendingBytes;
  }
}
