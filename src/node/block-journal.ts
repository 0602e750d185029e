// What changed lately in a block store: a ring of changes under an epoch.
//
// The ring is full after some days and stays so. Three flat arrays hold a change in 38 bytes; as objects with a
// CID each it took 900, and a full ring 60 MB of memory. CIDs are made when somebody asks.

import type { CID } from '../core/block.ts';
import { blockKeyBytes, cidOfKey, keyOfCid } from './block-key.ts';
import type { BlockChange, BlockJournal } from './block-ports.ts';

const ops: readonly BlockChange['op'][] = ['add', 'del', 'corrupt'];

export class ChangeRing implements BlockJournal {
  #epoch: string;
  #seq = 0;
  readonly #changesMax: number;
  // Change `seq` is at place `seq % changesMax` of each. Zeroed pages cost nothing before they are written to.
  readonly #keys: Uint8Array;
  readonly #ops: Uint8Array;
  readonly #sizes: Uint32Array;

  /** @param epoch a name never used before by this store  @param changesMax how many changes are remembered */
  constructor(epoch: string, changesMax: number) {
    this.#epoch = epoch;
    this.#changesMax = changesMax;
    this.#keys = new Uint8Array(changesMax * blockKeyBytes);
    this.#ops = new Uint8Array(changesMax);
    this.#sizes = new Uint32Array(changesMax);
  }

  get epoch(): string {
    return this.#epoch;
  }

  get seq(): number {
    return this.#seq;
  }

  add(cid: CID, op: BlockChange['op'], sizeBytes: number): void {
    this.#seq += 1;
    const place = this.#seq % this.#changesMax;
    this.#keys.set(keyOfCid(cid), place * blockKeyBytes);
    this.#ops[place] = ops.indexOf(op);
    this.#sizes[place] = sizeBytes;
  }

  /** Forgets everything: readers must list again. */
  restart(epoch: string): void {
    this.#epoch = epoch;
    this.#seq = 0;
  }

  since(seq: number, limit = this.#changesMax): { readonly changes: readonly BlockChange[] } | 'reset' {
    if (seq > this.#seq || seq < this.#seq - this.#changesMax || seq < 0) return 'reset';
    const changes: BlockChange[] = [];
    for (let at = seq + 1; at <= this.#seq && changes.length < limit; at++) changes.push(this.#change(at));
    return { changes };
  }

  #change(seq: number): BlockChange {
    const place = seq % this.#changesMax;
    const key = this.#keys.subarray(place * blockKeyBytes, (place + 1) * blockKeyBytes);
    const op = ops[this.#ops[place] ?? 0] ?? 'add';
    return { seq, cid: cidOfKey(key), op, sizeBytes: this.#sizes[place] ?? 0 };
  }
}
