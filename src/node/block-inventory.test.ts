import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import type { BlockStoreEvent } from './block-options.ts';
import { openBlockStore } from './blockstore.ts';
import { openDataDir } from './stores.ts';

const owner = { node: 'node-1', peer: 'peer-1', cluster: 'cluster-1' };

test('an index that is damaged while in use says of no block that it is absent, and is made anew', {
  timeout: 20_000,
}, async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-inventory-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  const blocks = Array.from({ length: 60 }, (_, at) => rawBlock(utf8(`block ${at}`)));
  const events: BlockStoreEvent[] = [];
  const ready = Promise.withResolvers<void>();
  const options = {
    reserveBytes: 0,
    probeMs: 20,
    onEvent: (event: BlockStoreEvent): void => {
      events.push(event);
      if (event.type === 'ready') ready.resolve();
    },
  };
  await using dir = await openDataDir(path, owner);
  {
    await using store = await openBlockStore(dir, options);
    for (const { cid, bytes } of blocks) await store.put(cid, bytes);
  }
  await using store = await openBlockStore(dir, options); // now the index is in a table, not in LevelDB's memory
  const { epoch } = store.changes;
  await damageTables(join(path, 'stores', 'block-index'));
  await assert.rejects(store.list(), { code: 'FILE_UNREADABLE' });
  assert.equal(store.usage().state, 'read-only');
  const waiting = setInterval(() => undefined, 1000); // the timer of the probe does not hold the process
  await ready.promise;
  clearInterval(waiting);
  assert.deepEqual(
    events.map(({ type }) => type).filter((type) => type !== 'recovered'),
    ['read-only', 'index-rebuilt', 'ready'],
  );
  assert.equal((await store.list()).length, blocks.length);
  for (const { cid, bytes } of blocks)
    assert.deepEqual(Buffer.from((await store.get(cid)) ?? []), Buffer.from(bytes));
  assert.notEqual(store.changes.epoch, epoch, 'readers must list again');
});

/** Flips a bit in every fortieth byte of the first kilobyte of each table: its entries. */
async function damageTables(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (!name.endsWith('.ldb')) continue;
    await using file = await open(join(dir, name), 'r+');
    const bytes = new Uint8Array(1024);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    for (let at = 0; at < bytesRead; at += 40) bytes[at] = (bytes[at] ?? 0) ^ 0x10;
    await file.write(bytes, 0, bytesRead, 0);
  }
}
