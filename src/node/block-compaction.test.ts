import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type Block, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import type { BlockStoreEvent } from './block-options.ts';
import type { DiskBlockStore } from './block-ports.ts';
import { openBlockStore } from './blockstore.ts';
import { openDataDir } from './stores.ts';

const owner = { node: 'node-1', peer: 'peer-1', cluster: 'cluster-1' };

type Work = (store: DiskBlockStore, events: BlockStoreEvent[]) => Promise<void>;

/** Lets `work` use the store at `path`; it is closed when `work` returns. */
async function withStore(path: string, work: Work): Promise<void> {
  const events: BlockStoreEvent[] = [];
  await using dir = await openDataDir(path, owner);
  const options = { segmentBytes: 64 * 1024, indexBufferBytes: 64 * 1024, reserveBytes: 0 };
  await using store = await openBlockStore(dir, { ...options, onEvent: (event) => events.push(event) });
  await work(store, events);
}

/** A store with as many small segments as blocks: each process begins a segment of its own. */
async function storeOfSmallSegments(
  t: TestContext,
  count: number,
): Promise<{ path: string; blocks: Block[] }> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-compaction-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  const blocks = Array.from({ length: count }, (_, at) => rawBlock(utf8(`block ${at}`)));
  for (const { cid, bytes } of blocks)
    await withStore(path, async (store) => {
      await store.put(cid, bytes);
    });
  assert.equal(await segmentsCount(path), count);
  return { path, blocks };
}

async function segmentsCount(path: string): Promise<number> {
  return (await readdir(join(path, 'stores', 'blocks', 'segments'))).length;
}

async function allThere(path: string, blocks: readonly Block[]): Promise<void> {
  await withStore(path, async (store) => {
    for (const { cid, bytes } of blocks)
      assert.deepEqual(Buffer.from((await store.get(cid)) ?? []), Buffer.from(bytes));
  });
}

test('small segments are joined when there are many, and their blocks are moved', async (t) => {
  const { path, blocks } = await storeOfSmallSegments(t, 17);
  await withStore(path, async (store, events) => {
    await store.compact();
    assert.deepEqual(
      events.map((event) => event.type === 'compacted' && event.segments),
      [17],
    );
    assert.equal(store.changes.seq, 0, 'a moved block is no change');
  });
  assert.equal(await segmentsCount(path), 1);
  await allThere(path, blocks);
});

test('a segment that still holds blocks is not removed: the store is closed before they were moved', async (t) => {
  const { path, blocks } = await storeOfSmallSegments(t, 17);
  await withStore(path, async (store, events) => {
    const compacting = store.compact();
    await store[Symbol.asyncDispose]();
    await compacting;
    assert.deepEqual(
      events.map((event) => event.type === 'compacted' && event.segments),
      [0],
    );
  });
  await allThere(path, blocks);
});
