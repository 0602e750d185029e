// The custody groups of one custodian, each as a book of records it believes, and whether they are all there.
//
// A registry that was set back is refused record by record within one process (book.ts). Over a restart the books
// begin empty, so where each chain stood is kept, by the number and the CID of its newest record. With fewer records
// in a chain, or another one in that place, nothing was compared, revocations grow stale, and nothing is opened.
// When the registry was replaced it is read into new books; those that were compared serve until the new ones are.

import { describeError, isHoldfastError } from '../core/errors.ts';
import { isFirst } from './ballot.ts';
import { CustodyBook } from './book.ts';
import type { ShareEntry } from './share-state.ts';
import type { ShareStore } from './share-store.ts';
import { type Succession, Successions, type SuccessionTerms } from './succession.ts';

/** A record of custody as the registry gives it. */
interface FiledRecord {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export class CustodyBooks {
  readonly #shares: ShareStore;
  #books = new Map<string, CustodyBook>();
  /** Where records go: the same ones, but while a replaced registry is read. */
  #reading = this.#books;
  readonly #successions: Successions;
  /** Records that were no good, by group: for as long as this registry is read. */
  #problems = new Map<string, string>();
  /** Records that were missing at the last comparison. They may come: a registry is asked while it is being folded, too. */
  readonly #missing = new Map<string, string>();

  constructor(shares: ShareStore, terms: SuccessionTerms) {
    this.#shares = shares;
    this.#successions = new Successions(terms);
  }

  /** The group that has come into the place of `cg`, as far as the registry was read since the start; undefined while it stands. */
  endedBy(cg: string): Succession | undefined {
    return this.#successions.of(cg);
  }

  /** What is known of a group; undefined when nothing of it is here. */
  book(cg: string): CustodyBook | undefined {
    return this.#bookIn(this.#books, cg);
  }

  #bookIn(books: Map<string, CustodyBook>, cg: string): CustodyBook | undefined {
    const known = books.get(cg);
    if (known !== undefined) return known;
    const own = this.#concerning().filter((each) => each.cg === cg);
    if (own.length === 0) return undefined;
    const frost = own.find(({ key }) => key === 'frost');
    const book = new CustodyBook(cg, frost?.publicKey, this.#shares.pins(cg));
    books.set(cg, book);
    return book;
  }

  /** Groups of which shares are here, or of which this custodian is to become a member. */
  groups(): string[] {
    return [...new Set(this.#concerning().map(({ cg }) => cg))];
  }

  /**
   * Shares that make the records of their group our business. Of a group that is there already also those that are only
   * staged: the records say what came of them. Before the first key they belong to a ceremony that may lead to nothing,
   * and to another key than the next one.
   */
  #concerning(): ShareEntry[] {
    const isThere = (cg: string): boolean => {
      const ballot = this.#shares.ballot(cg);
      return ballot !== undefined && !isFirst(ballot.heads);
    };
    return this.#shares.shares().filter(({ cg, status }) => status !== 'staged' || isThere(cg));
  }

  /** Gives a record to every book. One that is no good is told in `problems`, and stops what depends on it. */
  take(record: FiledRecord): void {
    this.#successions.take(record);
    for (const cg of this.groups()) {
      try {
        this.#bookIn(this.#reading, cg)?.take(record.bytes);
      } catch (error) {
        if (!isHoldfastError(error)) throw error;
        // What comes behind it fails for the same reason.
        if (!this.#problems.has(cg)) this.#problems.set(cg, describeError(error));
      }
    }
  }

  /** All that the registry had at `beat` was taken: raises the pins, or finds that records are missing. */
  async comparedAt(beat: number): Promise<void> {
    for (const cg of this.groups()) {
      const book = this.#bookIn(this.#reading, cg);
      if (book === undefined || this.#problems.has(cg)) continue;
      const positions = book.positions();
      const lost = Object.entries(this.#shares.pins(cg)).find(
        ([chain, pin]) => (positions.get(chain)?.number ?? 0) < pin.number,
      );
      if (lost !== undefined) {
        const [chain, pin] = lost;
        const count = positions.get(chain)?.number ?? 0;
        this.#missing.set(cg, `the registry gives ${count} records of ${chain}, which had ${pin.number}`);
        continue;
      }
      this.#missing.delete(cg);
      await this.#shares.pin(cg, positions);
      book.comparedAt(beat);
      this.#books.set(cg, book);
    }
  }

  /** Begins anew: the registry was replaced, and is read from its start. What was compared before serves meanwhile. */
  restart(): void {
    this.#reading = new Map();
    this.#problems = new Map();
    this.#missing.clear();
  }

  /** What is wrong with the records of a group, in words. */
  problem(cg: string): string | undefined {
    return this.#problems.get(cg) ?? this.#missing.get(cg);
  }
}
