import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type Block, CID, cborBlock, encodeCbor, matchesCid, rawBlock } from '../core/block.ts';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { type ErrorCode, isHoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import { carHeader, carSection, openCar, readCar } from './car.ts';

const vectors = join(
  process.env['HOLDFAST_VECTORS'] ?? join(import.meta.dirname, '../../../shared/vectors'),
  'car',
);
const absent = existsSync(vectors) ? false : `vectors absent: ${vectors}`;

/** Name, root, blocks, and how many of them are dag-pb. */
const published: readonly [string, number, number][] = [
  ['dir-with-duplicate-files.car', 9, 2],
  ['dir-with-files.car', 9, 2],
  ['file-3k-and-3-blocks-missing-block.car', 3, 3],
  ['gateway-raw-block.car', 3, 2],
  ['single-layer-hamt-with-multi-block-files.car', 243, 238],
  ['subdir-with-two-single-block-files.car', 4, 2],
];

test('written blocks read back, however the bytes arrive', async () => {
  const blocks = [
    rawBlock(utf8('one')),
    cborBlock({ two: 2 }),
    rawBlock(new Uint8Array(0)),
    rawBlock(new Uint8Array(30_000).fill(3)),
  ];
  const [first] = blocks;
  assert(first !== undefined);
  const car = write([first.cid], blocks);
  for (const size of [1, 7, 4096, car.length]) {
    const { roots, blocks: read } = await openCar(chunks(car, size));
    assert.deepEqual(roots.map(String), [first.cid.toString()]);
    assert.deepEqual((await collect(read)).map(shown), blocks.map(shown));
  }
});

test('a block does not share memory with the chunk it came in', async () => {
  const car = write([], [rawBlock(utf8('mine'))]);
  const [block] = await collect(readCar(chunks(car, car.length)));
  car.fill(0);
  assert(block !== undefined && matchesCid(block.cid, block.bytes));
  assert(block.bytes.buffer.byteLength < 200);
});

test('a CID is worth keeping: it does not hold the block it came with', async () => {
  const block = rawBlock(new Uint8Array(262_144).fill(1));
  for await (const { cid } of readCar(chunks(write([], [block]), 65_536))) {
    assert(cid.equals(block.cid));
    assert(cid.bytes.buffer.byteLength <= 64 && cid.multihash.digest.buffer.byteLength <= 64);
    assert(cid.multihash.bytes.buffer.byteLength <= 64);
  }
});

test('a car without roots or blocks', async () => {
  const { roots, blocks } = await openCar(chunks(carHeader([]), 5));
  assert.deepEqual(roots, []);
  assert.deepEqual(await collect(blocks), []);
});

test('an end anywhere but between sections is truncation', async () => {
  const header = carHeader([]);
  const [a, b] = [rawBlock(utf8('one')), rawBlock(utf8('two'))].map((block) => concat(...carSection(block)));
  assert(a !== undefined && b !== undefined);
  const car = concat(header, a, b);
  const whole = new Set([header.length, header.length + a.length, car.length]);
  for (let length = 0; length <= car.length; length++) {
    const read = collect(readCar(chunks(car.subarray(0, length), 16)));
    if (whole.has(length)) await read;
    else await failing(read, 'UPLOAD_TRUNCATED');
  }
});

test('other bytes are corrupt, and blocks before them are given', async () => {
  const good = rawBlock(utf8('good'));
  const bad = { cid: good.cid, bytes: utf8('evil') };
  const read = readCar(chunks(write([], [good, bad]), 10));
  assert.equal((await read.next()).done, false);
  await failing(read.next(), 'BLOCK_CORRUPT');
});

test('what is no CAR v1, or carries what cannot be verified', async () => {
  const framed = (value: unknown) => {
    const bytes = encodeCbor(value);
    return concat(Uint8Array.of(bytes.length), bytes);
  };
  const identity = CID.decode(Uint8Array.of(1, 0x55, 0, 3, ...utf8('foo')));
  const cases: readonly [string, Uint8Array][] = [
    ['version 2', framed({ version: 2 })],
    ['no roots', framed({ version: 1 })],
    ['roots of text', framed({ version: 1, roots: ['x'] })],
    ['not a map', framed([1])],
    ['not CBOR', Uint8Array.of(3, 0xff, 0xff, 0xff)],
    ['empty header', Uint8Array.of(0)],
    ['endless length', new Uint8Array(20).fill(0xff)],
    ['huge header', Uint8Array.of(0xff, 0xff, 0xff, 0x0f)],
    ['empty section', concat(carHeader([]), Uint8Array.of(0))],
    ['no CID', concat(carHeader([]), Uint8Array.of(3, 1, 2, 3))],
    ['identity hash', write([], [{ cid: identity, bytes: utf8('foo') }])],
  ];
  for (const [what, bytes] of cases)
    await failing(collect(readCar(chunks(bytes, 8))), 'ARGUMENT_INVALID', what);
});

test('a block above the limit is refused before it is read', async () => {
  const largest = rawBlock(new Uint8Array(blockBytesMax));
  assert.equal((await collect(readCar(chunks(write([], [largest]), 65_536)))).length, 1);
  const larger = rawBlock(new Uint8Array(blockBytesMax + 1));
  await failing(collect(readCar(chunks(write([], [larger]), 65_536))), 'TOO_LARGE');
  const claim = concat(carHeader([]), Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x7f));
  await failing(collect(readCar(chunks(claim, 8))), 'TOO_LARGE');
});

test('leaving early, or a bad header, closes the source', async () => {
  let closed = 0;
  async function* source(bytes: Uint8Array) {
    try {
      yield* chunks(bytes, 4);
    } finally {
      closed++;
    }
  }
  for await (const _ of readCar(source(write([], [rawBlock(utf8('one')), rawBlock(utf8('two'))])))) break;
  assert.equal(closed, 1);
  await failing(openCar(source(new Uint8Array(20).fill(0xff))), 'ARGUMENT_INVALID');
  assert.equal(closed, 2);
});

test('any blocks, any chunks', async () => {
  const bodies = fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(bodies, fc.integer({ min: 1, max: 500 }), async (bodies, size) => {
      const blocks = bodies.map(rawBlock);
      const read = await collect(readCar(chunks(write([], blocks), size)));
      assert.deepEqual(read.map(shown), blocks.map(shown));
    }),
  );
});

test('any bytes end in blocks or a named refusal', async () => {
  const noise = fc.uint8Array({ maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(noise, fc.boolean(), async (noise, headed) => {
      const bytes = headed ? concat(carHeader([]), noise) : noise;
      const codes: readonly ErrorCode[] = [
        'ARGUMENT_INVALID',
        'UPLOAD_TRUNCATED',
        'BLOCK_CORRUPT',
        'TOO_LARGE',
      ];
      await collect(readCar(chunks(bytes, 64))).catch((error: unknown) => {
        assert(isHoldfastError(error) && codes.includes(error.code), String(error));
      });
    }),
    { numRuns: 300 },
  );
});

for (const [name, blocks, dagPb] of published) {
  test(`published: ${name}`, { skip: absent }, async () => {
    const bytes = readFileSync(join(vectors, name));
    const car = await openCar(chunks(bytes, 1000));
    const read = await collect(car.blocks);
    assert.equal(read.length, blocks);
    assert.equal(read.filter(({ cid }) => cid.code === 0x70).length, dagPb);
    assert(car.roots.length > 0);
    assert.equal(toHex(write(car.roots, read)), toHex(bytes));
  });
}

function write(roots: readonly CID[], blocks: readonly Block[]): Uint8Array {
  return concat(carHeader(roots), ...blocks.flatMap((block) => [...carSection(block)]));
}

async function* chunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect(blocks: AsyncIterable<Block>): Promise<Block[]> {
  const out: Block[] = [];
  for await (const block of blocks) out.push(block);
  return out;
}

function shown({ cid, bytes }: Block): string {
  return `${cid.toString()} ${toHex(bytes)}`;
}

async function failing(work: Promise<unknown>, code: ErrorCode, what?: string): Promise<void> {
  await assert.rejects(work, (error) => isHoldfastError(error, code), what);
}
