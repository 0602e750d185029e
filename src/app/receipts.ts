// Which blocks this door saw stored lately, and on how many disks: so that registering a large upload need not
// ask every node about every block again. Bounded in count and time; what fell out is asked of the nodes.
//
// A block that no address names yet is garbage once its lease at the steward ends. A receipt therefore counts
// for less than a lease, and while an upload goes on the leases of its blocks are renewed.

import type { CID } from '../core/block.ts';
import { hour, minute } from '../core/clock.ts';

const receiptsMax = 262_144;
/** What the steward leases lasts 15 minutes. */
const renewMs = 5 * minute;
/** An upload that takes longer than this is asked of the nodes when it is registered, and may have to send blocks again. */
const keptMs = 6 * hour;

interface Receipt {
  readonly cid: CID;
  readonly copies: number;
  readonly storedMs: number;
  leasedMs: number;
}

export class Receipts {
  readonly #receipts = new Map<string, Receipt>();
  readonly #now: () => number;

  /** @param now milliseconds, any monotonic origin */
  constructor(now: () => number) {
    this.#now = now;
  }

  add(cid: CID, copies: number): void {
    const key = cid.toString();
    const now = this.#now();
    this.#receipts.delete(key);
    this.#receipts.set(key, { cid, copies, storedMs: now, leasedMs: now });
    const oldest = this.#receipts.keys().next().value;
    if (this.#receipts.size > receiptsMax && oldest !== undefined) this.#receipts.delete(oldest);
  }

  /** Undefined when this door does not know, or not for sure any more. */
  copies(cid: CID): number | undefined {
    const found = this.#receipts.get(cid.toString());
    return found !== undefined && this.#now() - found.leasedMs < 2 * renewMs ? found.copies : undefined;
  }

  /** Forgets receipts of content that is registered: the catalogue keeps it from now on. */
  settle(cids: Iterable<CID>): void {
    for (const cid of cids) this.#receipts.delete(cid.toString());
  }

  /** Blocks whose lease should be renewed now. Say `renewed` when that is done. */
  due(): CID[] {
    const now = this.#now();
    const due: CID[] = [];
    for (const [key, receipt] of this.#receipts) {
      if (now - receipt.storedMs > keptMs) this.#receipts.delete(key);
      else if (now - receipt.leasedMs >= renewMs) due.push(receipt.cid);
    }
    return due;
  }

  renewed(cids: Iterable<CID>): void {
    const now = this.#now();
    for (const cid of cids) {
      const receipt = this.#receipts.get(cid.toString());
      if (receipt !== undefined) receipt.leasedMs = now;
    }
  }
}
