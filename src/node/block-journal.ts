// What changed lately in a block store: a ring of changes under an epoch.

import type { CID } from '../core/block.ts';
import type { BlockChange, BlockJournal } from './blockstore.ts';

export class ChangeRing implements BlockJournal {
  #epoch: string;
  #seq = 0;
  readonly #ring: BlockChange[] = [];
  readonly #changesMax: number;

  /** @param epoch a name never used before by this store  @param changesMax how many changes are remembered */
  constructor(epoch: string, changesMax: number) {
    this.#epoch = epoch;
    this.#changesMax = changesMax;
  }

  get epoch(): string {
    return this.#epoch;
  }

  get seq(): number {
    return this.#seq;
  }

  add(cid: CID, op: BlockChange['op'], sizeBytes: number): void {
    const change = { seq: ++this.#seq, cid, op, sizeBytes };
    this.#ring[this.#seq % this.#changesMax] = change;
  }

  /** Forgets everything: readers must list again. */
  restart(epoch: string): void {
    this.#epoch = epoch;
    this.#seq = 0;
    this.#ring.length = 0;
  }

  since(seq: number, limit = this.#changesMax): { readonly changes: readonly BlockChange[] } | 'reset' {
    if (seq > this.#seq || seq < this.#seq - this.#changesMax || seq < 0) return 'reset';
    const changes: BlockChange[] = [];
    for (let at = seq + 1; at <= this.#seq && changes.length < limit; at++) {
      const change = this.#ring[at % this.#changesMax];
      if (change !== undefined) changes.push(change);
    }
    return { changes };
  }
}
