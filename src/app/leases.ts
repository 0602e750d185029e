// Leases of blocks on their way into an object: what no address names yet would be collected as garbage.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CID } from '../core/block.ts';
import { minute } from '../core/clock.ts';
import { describeError } from '../core/errors.ts';
import type { Receipts } from './receipts.ts';

/** What one call takes (steward/steward.ts). */
const leaseCidsMax = 1024;

export class Leases {
  readonly #stage: (cids: readonly CID[]) => Promise<void>;
  readonly #receipts: Receipts;
  readonly #next: CID[] = [];
  /** Resolves when the call under way is answered. */
  #leasing: Promise<void> = Promise.resolve();
  /** Resolves when the blocks in `#next` have their lease. */
  #gathering: Promise<void> | undefined;

  /** @param stage leases up to 1,024 blocks at the steward */
  constructor(stage: (cids: readonly CID[]) => Promise<void>, receipts: Receipts) {
    this.#stage = stage;
    this.#receipts = receipts;
  }

  /**
   * Leases blocks before they are pushed. Requests of the same moment share a call, and so do those that come
   * while a call is under way. Without a steward there is no lease, and nobody who collects either.
   */
  async lease(cids: readonly CID[]): Promise<void> {
    this.#next.push(...cids);
    this.#gathering ??= this.#leasing.then(nextTurn).then(() => {
      this.#gathering = undefined;
      this.#leasing = this.#leaseNow(this.#next.splice(0));
      return this.#leasing;
    });
    await this.#gathering;
  }

  /**
   * Renews the leases of uploads that take longer than one: they are content that no address names yet. `pinned`:
   * what else is to be leased as long as it says so.
   */
  keep(stack: AsyncDisposableStack, pinned: () => readonly CID[] = () => []): void {
    let renewing: Promise<void> = Promise.resolve();
    const timer = setInterval(() => {
      renewing = renewing.then(() => this.lease([...this.#receipts.due(), ...pinned()]));
    }, minute);
    stack.defer(async () => {
      clearInterval(timer);
      await renewing;
    });
  }

  async #leaseNow(cids: readonly CID[]): Promise<void> {
    for (let at = 0; at < cids.length; at += leaseCidsMax) {
      const some = cids.slice(at, at + leaseCidsMax);
      try {
        await this.#stage(some);
        this.#receipts.renewed(some);
      } catch (error) {
        console.error(`blocks of an upload have no lease: ${describeError(error)}`);
        return;
      }
    }
  }
}
