// Custody's records as a custodian follows them: asked of the steward once a beat, believed for their signatures.

import { custodyStart, readCustody } from '../beacon/custody-rpc.ts';
import type { CustodyCursor } from '../beacon/queries.ts';
import { second } from '../core/clock.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import type { CustodyBooks } from '../custody/books.ts';

const askMs = 5 * second;
/** Pages in one round: more wait for the next beat. */
const pagesMax = 64;

export class CustodyFollower {
  readonly #rpc: RpcClient;
  readonly #books: CustodyBooks;
  #cursor: CustodyCursor = custodyStart;
  /** Groups whose records were looked for so far. */
  #groups = '';

  constructor(rpc: RpcClient, books: CustodyBooks) {
    this.#rpc = rpc;
    this.#books = books;
  }

  /**
   * Reads on from `steward`. What was read to its end was compared at `beat`, the beat before asking.
   *
   * @throws PEER_UNREACHABLE, TIMEOUT, BEACON_UNAVAILABLE, RECORD_INVALID (the answer has another form), and what
   * the share store throws
   */
  async follow(steward: PeerName, beat: number, signal: AbortSignal): Promise<void> {
    const groups = this.#books.groups().join();
    if (groups !== this.#groups) this.#restart();
    this.#groups = groups;
    for (let pages = 0; pages < pagesMax; pages++) {
      const page = await readCustody(this.#rpc, steward, this.#cursor, { timeoutMs: askMs, signal });
      if (page.head < this.#cursor.revision) return this.#restart();
      for (const record of page.records) {
        this.#books.take(record);
        this.#cursor = { revision: record.revision, index: record.index };
      }
      if (page.done) return this.#books.comparedAt(beat);
    }
  }

  /** The log was replaced by a shorter one, or there is another group to look for: reading begins anew. */
  #restart(): void {
    this.#cursor = custodyStart;
    this.#books.restart();
  }
}
