import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { asTheyCome, chunked, Gate, groupsOf, mapInOrder } from './concurrency.ts';

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

test('asTheyCome gives what is there, whoever is still awaited', async () => {
  const [slow, quick] = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  const items = asTheyCome([slow.promise, quick.promise]);
  quick.resolve('quick');
  assert.deepEqual(await items.next(), { done: false, value: 'quick' });
  slow.resolve('slow');
  assert.deepEqual(await collect(items), ['slow']);
  await assert.rejects(collect(asTheyCome([Promise.reject(new Error('no'))])), /^Error: no$/);
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

test('groupsOf joins what is there already, and waits for nobody else', async () => {
  const late = Promise.withResolvers<void>();
  async function* source(): AsyncGenerator<number> {
    yield* [1, 2, 3, 4, 5];
    await late.promise;
    yield* [6, 7];
  }
  const groups = groupsOf(source(), (_, count) => (count < 4 ? 'if-ready' : false));
  assert.deepEqual((await groups.next()).value, [1, 2, 3, 4]);
  assert.deepEqual((await groups.next()).value, [5]);
  late.resolve();
  assert.deepEqual(await collect(groups), [[6, 7]]);
});

test('groupsOf gathers for as long as it is told to, whatever the pace', async () => {
  async function* slow(): AsyncGenerator<number> {
    for (const n of [1, 2, 3, 4, 5]) {
      await new Promise((resolve) => setImmediate(resolve));
      yield n;
    }
  }
  assert.deepEqual(await collect(groupsOf(slow(), (n) => n % 2 === 1)), [[1, 2], [3, 4], [5]]);
});

test('groupsOf throws a failure after what came before it, and leaving does not wait for the next item', async () => {
  async function* failing(): AsyncGenerator<number> {
    yield 1;
    throw new Error('broken');
  }
  const groups = groupsOf(failing(), () => 'if-ready');
  await assert.rejects(collect(groups), /broken/);
  async function* silent(): AsyncGenerator<number> {
    yield 1;
    await new Promise(() => undefined);
  }
  const watched = groupsOf(silent(), () => 'if-ready');
  assert.deepEqual((await watched.next()).value, [1]);
  await watched.return();
});
