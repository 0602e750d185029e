// Rows of a LevelDB iterator, a few at a time.
//
// The iterator reserves 64 bytes for each row that it is asked for, outside of what V8 counts, and gives them back
// when V8 collects it. Its own `for await` and `all()` ask for 1,000 rows whatever there is to read: 64 KB for each
// look at a single row, and 100 MiB of a process that looks a hundred times a second. Here it is asked for as many
// as may be wanted, and for more only after it had that many.

/** The part of an iterator that this needs. */
export interface RowIterator<Row> {
  /** The next rows, at most `count`; none at the end. */
  nextv(count: number): Promise<Row[]>;
  close(): Promise<void>;
}

const firstRows = 4;
const rowsMax = 256;

/** All rows in order, at most `limit`. Closes the iterator, also when left early. */
export async function* rowsOf<Row>(
  iterator: RowIterator<Row>,
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<Row, void, undefined> {
  try {
    let left = limit;
    let count = firstRows;
    while (left > 0) {
      const page = await iterator.nextv(Math.min(count, left));
      if (page.length === 0) return;
      left -= page.length;
      if (page.length === count) count = Math.min(2 * count, rowsMax);
      yield* page;
    }
  } finally {
    await iterator.close();
  }
}
