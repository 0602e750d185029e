import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type Block, type CID, cborBlock, cidOf, codecRaw } from '../core/block.ts';
import { uint32 } from '../core/bytes.ts';
import { type ErrorCode, isHoldfastError } from '../core/errors.ts';
import { indexLinksMax, segmentBytes } from '../core/limits.ts';
import { blocksOf, buildIndex, indexBlocks, type Segment, segmentsOf, walkIndex } from './segments.ts';

/** `count` segments without their bytes: all whole but the last. */
function segmentsFor(count: number, lastBytes = 100): Segment[] {
  return Array.from({ length: count }, (_, index) => ({
    cid: cidOf(uint32(index), codecRaw),
    size: index === count - 1 ? lastBytes : segmentBytes,
  }));
}

function store(blocks: readonly Block[]) {
  const held = new Map(blocks.map(({ cid, bytes }) => [cid.toString(), bytes]));
  const loaded: string[] = [];
  const load = async (cid: CID) => {
    loaded.push(cid.toString());
    const bytes = held.get(cid.toString());
    assert(bytes !== undefined);
    return bytes;
  };
  return { load, loaded };
}

async function texts(cids: AsyncIterable<CID>): Promise<string[]> {
  const out: string[] = [];
  for await (const cid of cids) out.push(cid.toString());
  return out;
}

test('one segment is its own root', async () => {
  const [segment] = segmentsFor(1);
  assert(segment !== undefined);
  const { root, blocks } = await buildIndex([segment]);
  assert(root.equals(segment.cid));
  assert.deepEqual(blocks, []);
  const { load, loaded } = store([]);
  assert.deepEqual(await texts(walkIndex(root, load)), [segment.cid.toString()]);
  assert.deepEqual(await texts(walkIndex(root, load, { from: 1 })), []);
  assert.deepEqual(await texts(indexBlocks(root, load)), [segment.cid.toString()]);
  assert.deepEqual(loaded, []);
});

for (const count of [2, 4095, 4096, 4097, 8192, 10_000]) {
  test(`${count} segments: the walk gives them back, the count is foretold`, async () => {
    const segments = segmentsFor(count);
    const { root, blocks } = await buildIndex(segments);
    const { load } = store(blocks);
    const expected = segments.map(({ cid }) => cid.toString());
    assert.deepEqual(await texts(walkIndex(root, load)), expected);
    const ctLen = (count - 1) * segmentBytes + 100;
    assert.equal(segmentsOf(ctLen), count);
    assert.equal(blocks.length + count, blocksOf(ctLen));
    const all = await texts(indexBlocks(root, load));
    assert.deepEqual(new Set(all), new Set([...expected, ...blocks.map(({ cid }) => cid.toString())]));
    assert.equal(all.length, blocksOf(ctLen));
    for (const { bytes } of blocks) assert(bytes.length < segmentBytes);
  });
}

test('a range loads only the nodes above it', async () => {
  const segments = segmentsFor(10_000);
  const { root, blocks } = await buildIndex(segments);
  const expected = segments.map(({ cid }) => cid.toString());
  for (const [from, to, nodes] of [
    [0, 1, 2],
    [5000, 5003, 2],
    [4095, 4097, 3],
    [9999, 20_000, 2],
    [10_000, 20_000, 2],
    [7, 7, 0],
    [0, 10_000, 4],
  ] as const) {
    const { load, loaded } = store(blocks);
    assert.deepEqual(await texts(walkIndex(root, load, { from, to })), expected.slice(from, to));
    assert.equal(loaded.length, nodes, `${from}…${to}`);
  }
});

test('any tree, any range', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 9000 }),
      fc.nat(9500),
      fc.nat(9500),
      async (count, from, length) => {
        const segments = segmentsFor(count, 1 + (count % segmentBytes));
        const { root, blocks } = await buildIndex(segments);
        const walked = await texts(walkIndex(root, store(blocks).load, { from, to: from + length }));
        assert.deepEqual(
          walked,
          segments.slice(from, from + length).map(({ cid }) => cid.toString()),
        );
      },
    ),
    { numRuns: 15 },
  );
});

test('three heights', async () => {
  // 4,096² + 1 links take long to make; the same segment 16.8 million times over is a tree like any other, made of
  // few different nodes. Built by hand, since the builder would hash each of them anew.
  const { cid } = segmentsFor(1)[0] ?? assert.fail();
  const node = (h: number, n: number, len: number, l: readonly CID[]) =>
    cborBlock({ t: 'index', h, n, len, l });
  const fill = (link: CID) => Array.from({ length: indexLinksMax }, () => link);
  const square = indexLinksMax ** 2;
  const low = node(1, indexLinksMax, indexLinksMax * segmentBytes, fill(cid));
  const middle = node(2, square, square * segmentBytes, fill(low.cid));
  const lowEnd = node(1, 1, 5, [cid]);
  const middleEnd = node(2, 1, 5, [lowEnd.cid]);
  const root = node(3, square + 1, square * segmentBytes + 5, [middle.cid, middleEnd.cid]);
  const { load, loaded } = store([low, middle, lowEnd, middleEnd, root]);
  assert.equal((await texts(walkIndex(root.cid, load, { from: square - 2 }))).length, 3);
  assert.equal(loaded.length, 5);
  assert.equal(blocksOf(square * segmentBytes + 5), square + 1 + 4096 + 1 + 2 + 1);
});

test('nodes that do not belong are refused', async () => {
  const [a, b] = segmentsFor(2).map(({ cid }) => cid);
  assert(a !== undefined && b !== undefined);
  const good = { t: 'index', h: 1, n: 2, len: segmentBytes + 1, l: [a, b] };
  const bad: readonly object[] = [
    { ...good, t: 'other' },
    { ...good, x: 1 },
    { ...good, h: 0 },
    { ...good, h: 5 },
    { ...good, h: 2 },
    { ...good, n: 3 },
    { ...good, n: 2.5 },
    { ...good, len: 2 * segmentBytes + 1 },
    { ...good, len: 0 },
    { ...good, l: [a] },
    { ...good, l: [a, b, b] },
    { ...good, l: [a, 'b'] },
    { ...good, l: a },
    { ...good, l: [a, cborBlock(1).cid] },
    { ...good, n: 1, len: 1, l: [a] },
    [1],
  ];
  for (const value of bad) {
    const block = cborBlock(value);
    await failing(texts(walkIndex(block.cid, store([block]).load)), 'RECORD_INVALID');
  }
  const block = cborBlock(good);
  assert.equal((await texts(walkIndex(block.cid, store([block]).load))).length, 2);
});

test('a child that is not the one which must stand there is refused', async () => {
  const { root, blocks } = await buildIndex(segmentsFor(4098));
  const [full, end] = blocks;
  assert(full !== undefined && end !== undefined && blocks.length === 3);
  const top = (l: readonly CID[], n = 4098, len = 4097 * segmentBytes + 100) =>
    cborBlock({ t: 'index', h: 2, n, len, l });
  const wrong = [
    top([full.cid, full.cid]),
    top([end.cid, full.cid]),
    top([full.cid, end.cid], 4098, 4097 * segmentBytes + 99),
    top([full.cid, end.cid], 4099, 4098 * segmentBytes + 1),
  ];
  for (const block of wrong)
    await failing(texts(walkIndex(block.cid, store([...blocks, block]).load)), 'RECORD_INVALID');
  assert(top([full.cid, end.cid]).cid.equals(root));
});

test('an index block with other bytes is corrupt', async () => {
  const { root } = await buildIndex(segmentsFor(3));
  await failing(texts(walkIndex(root, async () => new Uint8Array(5))), 'BLOCK_CORRUPT');
});

test('wrong segments are refused when the tree is built', async () => {
  const [a, b] = segmentsFor(2);
  assert(a !== undefined && b !== undefined);
  await failing(buildIndex([]), 'ARGUMENT_INVALID');
  await failing(buildIndex([b, a]), 'ARGUMENT_INVALID');
  await failing(buildIndex([{ ...a, size: 0 }]), 'ARGUMENT_INVALID');
  await failing(buildIndex([{ ...a, size: segmentBytes + 1 }]), 'ARGUMENT_INVALID');
  await failing(buildIndex([{ ...a, cid: cborBlock(1).cid }]), 'ARGUMENT_INVALID');
});

async function failing(work: Promise<unknown>, code: ErrorCode): Promise<void> {
  await assert.rejects(work, (error) => isHoldfastError(error, code));
}
