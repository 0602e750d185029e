// Which blocks this door saw stored lately, and on how many disks: so that registering a large upload need not
// ask every node about every block again. Bounded; what fell out is asked of the nodes.

import type { CID } from '../core/block.ts';

const receiptsMax = 262_144;

export class Receipts {
  readonly #copies = new Map<string, number>();

  add(cid: CID, copies: number): void {
    const key = cid.toString();
    this.#copies.delete(key);
    this.#copies.set(key, copies);
    const oldest = this.#copies.keys().next().value;
    if (this.#copies.size > receiptsMax && oldest !== undefined) this.#copies.delete(oldest);
  }

  /** Undefined when this door does not know. */
  copies(cid: CID): number | undefined {
    return this.#copies.get(cid.toString());
  }
}
