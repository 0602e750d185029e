// Who says that it holds which block, what of it was proven, and what turned out to be wrong.
//
// The nodes that hold a block are a bit mask over node numbers, as many words of it per slot as the nodes need. Times of
// proofs are kept per node in pages, and a page exists once something on it was proven: most nodes hold few of all blocks.

import { HoldfastError } from '../core/errors.ts';
import { membersMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import { DigestSum } from './digest-sum.ts';
import { grown, slotsAtFirst, type SlotTable } from './slot-table.ts';

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

/** Slots of one page of proof times. */
const proofPage = 4096;

export class Holdings {
  readonly #table: Pick<SlotTable, 'digest' | 'sizeBytes'>;
  readonly #nodes: PeerName[] = [];
  readonly #nodeIndex = new Map<PeerName, number>();
  readonly #totals: { blocks: number; bytes: number; sum: DigestSum }[] = [];
  /** By node and page, in seconds. */
  readonly #proofs: Map<number, Uint32Array>[] = [];
  readonly #bad = new Map<number, Set<number>>();
  #capacity = slotsAtFirst;
  #words = 1;
  #held = new Uint32Array(slotsAtFirst);

  /** @param table says how large the blocks are that are held */
  constructor(table: Pick<SlotTable, 'digest' | 'sizeBytes'>) {
    this.#table = table;
  }

  /** Room for `capacity` slots. */
  grow(capacity: number): void {
    this.#capacity = capacity;
    this.#held = grown(this.#held, new Uint32Array(capacity * this.#words));
  }

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

  get nodes(): readonly PeerName[] {
    return this.#nodes;
  }

  /** What the node holds by its own word. Throws RangeError for a number that was not given. */
  totals(node: number): NodeTotals {
    const { blocks, bytes, sum } = this.#totalsOf(node);
    return { blocks, bytes, sum: sum.bytes() };
  }

  holds(slot: number, node: number): boolean {
    return ((this.#held[slot * this.#words + (node >>> 5)] ?? 0) & (1 << (node & 31))) !== 0;
  }

  isHeld(slot: number): boolean {
    for (let word = 0; word < this.#words; word++)
      if (this.#held[slot * this.#words + word] !== 0) return true;
    return false;
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

  /** Nodes whose copies are proven wrong, undefined when there are none. */
  badNodes(slot: number): ReadonlySet<number> | undefined {
    return this.#bad.get(slot);
  }

  /** The node says that it holds the block. False when that is nothing new. */
  hold(slot: number, node: number): boolean {
    if (this.holds(slot, node)) return false;
    this.#setHeld(slot, node, 1);
    return true;
  }

  /** The node no longer holds it, and all that was known of its copy is forgotten. False when it did not. */
  unhold(slot: number, node: number): boolean {
    if (!this.holds(slot, node)) return false;
    this.#setHeld(slot, node, -1);
    this.#setProven(slot, node, 0);
    this.#clearBad(slot, node);
    return true;
  }

  /** A possession proof at `at` (ms): the copy is good. False when the node does not hold it. */
  prove(slot: number, node: number, at: number): boolean {
    if (!this.holds(slot, node)) return false;
    this.#setProven(slot, node, Math.floor(at / 1000));
    this.#clearBad(slot, node);
    return true;
  }

  /** What the node proved of it no longer counts. False when it has proven nothing. */
  doubt(slot: number, node: number): boolean {
    if (this.provenAt(slot, node) === 0) return false;
    this.#setProven(slot, node, 0);
    return true;
  }

  /** A proof has failed against the CID: the copy no longer counts. False when the node does not hold it. */
  markBad(slot: number, node: number): boolean {
    if (!this.holds(slot, node)) return false;
    this.#setProven(slot, node, 0);
    const bad = this.#bad.get(slot) ?? new Set();
    this.#bad.set(slot, bad.add(node));
    return true;
  }

  #totalsOf(node: number): { blocks: number; bytes: number; sum: DigestSum } {
    const totals = this.#totals[node];
    if (totals === undefined) throw new RangeError(`node ${node}`);
    return totals;
  }

  #setHeld(slot: number, node: number, sign: 1 | -1): void {
    const at = slot * this.#words + (node >>> 5);
    this.#held[at] = (this.#held[at] ?? 0) ^ (1 << (node & 31));
    const totals = this.#totalsOf(node);
    totals.blocks += sign;
    totals.bytes += sign * this.#table.sizeBytes(slot);
    if (sign === 1) totals.sum.add(this.#table.digest(slot));
    else totals.sum.subtract(this.#table.digest(slot));
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

  /** Room for 32 more nodes in every mask. */
  #widen(): void {
    const words = this.#words + 1;
    const held = new Uint32Array(this.#capacity * words);
    for (let slot = 0; slot < this.#capacity; slot++) {
      for (let word = 0; word < this.#words; word++) {
        held[slot * words + word] = this.#held[slot * this.#words + word] ?? 0;
      }
    }
    this.#held = held;
    this.#words = words;
  }
}
