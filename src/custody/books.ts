// The custody groups of one custodian, each as a book of records it believes, and whether they are all there.
//
// A registry that was set back is refused record by record within one process (book.ts). Over a restart the books
// begin empty, so how many records a group had is kept as a high-water mark: with fewer than that nothing was
// compared, revocations grow stale, and nothing is opened.

import { toHex } from '../core/bytes.ts';
import { describeError, isHoldfastError } from '../core/errors.ts';
import { CustodyBook } from './book.ts';
import type { ShareStore } from './share-store.ts';

/** A record of custody as the registry gives it. */
interface FiledRecord {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export class CustodyBooks {
  readonly #shares: ShareStore;
  #books = new Map<string, CustodyBook>();
  #counts = new Map<string, number>();
  #problems = new Map<string, string>();

  constructor(shares: ShareStore) {
    this.#shares = shares;
  }

  /** What is known of a group; undefined when no share of it is here. */
  book(cg: string): CustodyBook | undefined {
    const known = this.#books.get(cg);
    if (known !== undefined) return known;
    // What is only staged belongs to a ceremony that may lead to nothing, and to another key than the next one.
    const own = this.#shares.shares().filter((each) => each.cg === cg && each.status !== 'staged');
    if (own.length === 0) return undefined;
    const frost = own.find(({ key }) => key === 'frost');
    const book = new CustodyBook(cg, frost?.publicKey);
    this.#books.set(cg, book);
    return book;
  }

  /** Groups of which shares are here. */
  groups(): string[] {
    const held = this.#shares.shares().filter(({ status }) => status !== 'staged');
    return [...new Set(held.map(({ cg }) => cg))];
  }

  /** Gives a record to every book. One that is no good is told in `problems`, and stops what depends on it. */
  take(record: FiledRecord): void {
    for (const cg of this.groups()) {
      try {
        const taken = this.book(cg)?.take(record.bytes);
        if (taken === 'taken' || (taken === 'ignored' && record.key.startsWith(`rev/${cg}/`)))
          this.#counts.set(cg, (this.#counts.get(cg) ?? 0) + 1);
      } catch (error) {
        if (!isHoldfastError(error)) throw error;
        this.#problems.set(cg, describeError(error));
      }
    }
  }

  /** All that the registry had at `beat` was taken: raises the marks, or finds that records are missing. */
  async comparedAt(beat: number): Promise<void> {
    for (const cg of this.groups()) {
      const count = this.#counts.get(cg) ?? 0;
      const before = this.#shares.mark(countMark(cg));
      if (count < before) {
        this.#problems.set(cg, `the registry gives ${count} records of a group that had ${before}`);
        continue;
      }
      if (count > before) await this.#shares.raise(countMark(cg), count);
      if (!this.#problems.has(cg)) this.book(cg)?.comparedAt(beat);
    }
  }

  /** Begins anew: the registry was replaced, and is read from its start. */
  restart(): void {
    this.#books = new Map();
    this.#counts = new Map();
    this.#problems = new Map();
  }

  /** What is wrong with the records of a group, in words. */
  problem(cg: string): string | undefined {
    return this.#problems.get(cg);
  }
}

function countMark(cg: string): string {
  return `records/${toHex(new TextEncoder().encode(cg))}`;
}
