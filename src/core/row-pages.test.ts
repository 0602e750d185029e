import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rowsOf } from './row-pages.ts';

class Counting {
  readonly asked: number[] = [];
  closed = 0;
  #next = 0;
  readonly #total: number;

  constructor(total: number) {
    this.#total = total;
  }

  async nextv(count: number): Promise<number[]> {
    this.asked.push(count);
    const page = Array.from({ length: Math.min(count, this.#total - this.#next) }, (_, i) => this.#next + i);
    this.#next += page.length;
    return page;
  }

  async close(): Promise<void> {
    this.closed++;
  }
}

test('all rows come in order, in pages that grow only while there is something to read', async () => {
  for (const total of [0, 1, 4, 5, 3000]) {
    const iterator = new Counting(total);
    assert.deepEqual(
      await Array.fromAsync(rowsOf(iterator)),
      Array.from({ length: total }, (_, i) => i),
    );
    assert.equal(iterator.closed, 1);
    assert.ok(
      iterator.asked.every((count) => count <= Math.max(4, 2 * total)),
      `${total} rows, asked for ${iterator.asked.join(', ')}`,
    );
    assert.ok(Math.max(...iterator.asked) <= 256);
  }
});

test('never more than the limit is asked for; leaving early closes', async () => {
  const limited = new Counting(100);
  assert.deepEqual(await Array.fromAsync(rowsOf(limited, 6)), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(limited.asked, [4, 2]);
  const left = new Counting(100);
  for await (const row of rowsOf(left)) if (row === 1) break;
  assert.deepEqual([left.asked, left.closed], [[4], 1]);
  assert.deepEqual(await Array.fromAsync(rowsOf(new Counting(5), 0)), []);
});
