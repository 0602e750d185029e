// From claim to holder: which copies are only listed, and have to be challenged.
//
// A node that is listed anew, or that returns after it was given up, only claims its blocks. Until they are proven
// they count as no copy and hold off healing (classes.ts), so it matters that they are asked soon: the most endangered
// first, then what waits to be judged, then the rest of the table in turn, in which proofs that have become old are
// renewed too. Many blocks are asked in one call, of two holders at once.

import type { Clock } from '../core/clock.ts';
import { challengeBlocksMax } from '../core/limits.ts';
import type { Ledger } from './ledger.ts';
import type { PlanNode } from './plan.ts';
import type { Prover } from './prover.ts';

export interface ClaimsPorts {
  readonly ledger: Ledger;
  readonly prover: Prover;
  readonly clock: Clock;
  readonly nodes: () => readonly PlanNode[];
  /** A proof older than this is asked for again, ms. */
  readonly proofAgeMsMax: number;
}

interface Batch {
  readonly node: number;
  /** -1: nobody else has it, so that the block itself is fetched. */
  readonly witness: number;
  readonly slots: number[];
  sizeBytes: number;
}

/** Bytes that one call lets two nodes read: well within its deadline. */
const batchBytesMax = 32 * 1024 * 1024;
/** Claims looked at between two judgements. */
const slotsPerTurn = 8192;
/** Blocks fetched between two judgements for want of a second holder. */
const fetchesPerTurn = 64;
/** Slots of the table looked at in a round in which nothing waits: a million blocks in under two minutes. */
const walkPerTurn = 16_384;
/** Calls in a row that a node may leave unanswered before its claims hold off nothing. */
const silencesMax = 3;

export class Claims {
  readonly #ports: ClaimsPorts;
  readonly #silences = new Map<number, number>();
  #running = false;
  #cursor = 0;
  #turn = 0;

  constructor(ports: ClaimsPorts) {
    this.#ports = ports;
  }

  /** True for a node that lists blocks and does not answer when it is asked to prove them. */
  isDoubted(node: number): boolean {
    return (this.#silences.get(node) ?? 0) >= silencesMax;
  }

  /**
   * Challenges until nothing is only claimed or a turn proved nothing, with a call of `onSome` after each turn.
   * Undefined while the last run is not over.
   */
  run(onSome: () => void, signal: AbortSignal): Promise<void> | undefined {
    if (this.#running) return undefined;
    this.#running = true;
    return this.#runTurns(onSome, signal).finally(() => {
      this.#running = false;
    });
  }

  async #runTurns(onSome: () => void, signal: AbortSignal): Promise<void> {
    const silent = new Set<number>(); // asked again in the next round, and not sooner
    for (let isMore = true; isMore && !signal.aborted; ) {
      const batches = this.#nextBatches(silent);
      const before = this.#ports.prover.counts.proven;
      for (const batch of batches) {
        if (signal.aborted) return;
        if (!silent.has(batch.node) && !silent.has(batch.witness))
          await this.#challenge(batch, silent, signal);
      }
      if (batches.length > 0) onSome();
      isMore = this.#ports.prover.counts.proven > before;
    }
  }

  async #challenge(batch: Batch, silent: Set<number>, signal: AbortSignal): Promise<void> {
    const { prover, ledger } = this.#ports;
    const { node, witness } = batch;
    // A slot may have been given to another block since the batch was made.
    const slots = batch.slots.filter((slot) => ledger.inUse(slot) && ledger.holds(slot, node));
    if (slots.length === 0) return;
    if (witness === -1) {
      for (const slot of slots) if (ledger.holds(slot, node)) await this.#fetch(slot, node, silent, signal);
      return;
    }
    const [first, second] = await prover.challengeBoth(slots, [node, witness], signal);
    this.#heard(node, first, silent);
    this.#heard(witness, second, silent);
  }

  async #fetch(slot: number, node: number, silent: Set<number>, signal: AbortSignal): Promise<void> {
    if (silent.has(node)) return;
    const { prover } = this.#ports;
    const before = prover.counts.unanswered;
    await prover.challenge(slot, node, [], signal);
    this.#heard(node, prover.counts.unanswered === before, silent);
  }

  #heard(node: number, isHeard: boolean, silent: Set<number>): void {
    if (isHeard) this.#silences.delete(node);
    else {
      this.#silences.set(node, (this.#silences.get(node) ?? 0) + 1);
      silent.add(node);
    }
  }

  #nextBatches(silent: ReadonlySet<number>): Batch[] {
    const { ledger } = this.#ports;
    const sorter = new Sorter();
    const oldBefore = this.#ports.clock.now() - this.#ports.proofAgeMsMax;
    const add = (slot: number, isOldToo: boolean): void => {
      const validFrom = isOldToo ? oldBefore : 1;
      // Nearly all blocks have all their proofs: nothing is made for those.
      if (ledger.isProvenSince(slot, validFrom)) return;
      this.#addClaims(slot, validFrom, silent, sorter);
    };
    for (const name of ['lastCopy', 'belowMin', 'unchecked'] as const) {
      const size = Math.min(slotsPerTurn, ledger.countOf(name));
      for (const slot of ledger.sample(name, this.#turn * size, size)) add(slot, false);
    }
    this.#turn++;
    if (sorter.batches.length > 0) return sorter.batches;
    const end = Math.min(this.#cursor + walkPerTurn, ledger.slotsEnd);
    for (let slot = this.#cursor; slot < end; slot++) if (ledger.inUse(slot)) add(slot, true);
    // A round walks on only where it found something; the next one goes on from here.
    this.#cursor = end < ledger.slotsEnd ? end : 0;
    return sorter.batches;
  }

  #addClaims(slot: number, validFrom: number, silent: ReadonlySet<number>, sorter: Sorter): void {
    const { ledger, nodes } = this.#ports;
    const known = nodes();
    const holders = ledger
      .holders(slot)
      .filter(({ node, bad }) => !bad && known[node]?.state === 'up' && !silent.has(node));
    const claims = holders.filter(({ provenAt }) => provenAt < validFrom);
    // Two claims prove each other where they can; else somebody who has proven before is the witness.
    for (let at = 0; at < claims.length; at += 2) {
      const [first, second] = [claims[at], claims[at + 1]];
      if (first === undefined) return;
      const witness = second ?? holders.find(({ node }) => node !== first.node);
      sorter.add(slot, first.node, witness?.node ?? -1, ledger.sizeBytes(slot));
    }
  }
}

/** Gathers blocks by who is asked about them. */
class Sorter {
  readonly batches: Batch[] = [];
  readonly #open = new Map<string, Batch>();
  #fetches = 0;

  add(slot: number, node: number, witness: number, sizeBytes: number): void {
    if (witness === -1 && ++this.#fetches > fetchesPerTurn) return;
    const key = `${node}/${witness}`;
    let batch = this.#open.get(key);
    const isFull = batch !== undefined && batch.sizeBytes + sizeBytes > batchBytesMax;
    if (batch === undefined || isFull || batch.slots.length >= challengeBlocksMax) {
      batch = { node, witness, slots: [], sizeBytes: 0 };
      this.#open.set(key, batch);
      this.batches.push(batch);
    }
    batch.slots.push(slot);
    batch.sizeBytes += sizeBytes;
  }
}
