import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chunked, Gate, mapInOrder } from './concurrency.ts';

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of source) out.push(item);
  return out;
}

test('mapInOrder keeps the order and the width', async () => {
  let under = 0;
  let most = 0;
  const results = await collect(
    mapInOrder([5, 1, 4, 2, 3, 0], 3, async (n) => {
      most = Math.max(most, ++under);
      for (let i = 0; i < 20 + n; i++) await Promise.resolve();
      under--;
      return n * 2;
    }),
  );
  assert.deepEqual(results, [10, 2, 8, 4, 6, 0]);
  assert.equal(most, 3);
});

test('mapInOrder throws the first failure in its place and leaves nothing running', async () => {
  let finished = 0;
  const seen: number[] = [];
  await assert.rejects(async () => {
    for await (const n of mapInOrder([1, 2, 3, 4], 4, async (n) => {
      await Promise.resolve();
      finished++;
      if (n === 2) throw new Error('two');
      return n;
    }))
      seen.push(n);
  }, /two/);
  assert.deepEqual(seen, [1]);
  assert.equal(finished, 4);
});

test('Gate admits its width and serves in order', async () => {
  const gate = new Gate(2);
  const order: number[] = [];
  await Promise.all([0, 1, 2, 3, 4].map((n) => gate.run(async () => void order.push(n))));
  assert.deepEqual(order, [0, 1, 2, 3, 4]);
  assert.equal(gate.waiting, 0);
});

test('chunked loses nothing, cuts evenly and marks exactly the last piece', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 20 })),
      fc.integer({ min: 1, max: 16 }),
      async (parts, size) => {
        const whole = Buffer.concat(parts);
        const pieces = await collect(chunked(parts, size));
        assert.deepEqual(Buffer.concat(pieces.map((piece) => piece.bytes)), whole);
        assert.equal(pieces.length, Math.max(1, Math.ceil(whole.length / size)));
        pieces.forEach((piece, index) => {
          assert.equal(piece.last, index === pieces.length - 1);
          if (!piece.last) assert.equal(piece.bytes.length, size);
        });
      },
    ),
  );
});
