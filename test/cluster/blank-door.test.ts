// A door that begins with nothing beside a steward with much: it takes the rows of the steward's view, and does not fold the
// log. To see that, it is killed as soon as it serves, before it can have proven them.

import assert from 'node:assert/strict';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { LevelLog } from '../../src/beacon/level.ts';
import type { Append } from '../../src/beacon/log.ts';
import { LevelKv } from '../../src/beacon/view-level.ts';
import { isThere } from '../../src/files/whole.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { sealingClient } from '../helpers/sealing-client.ts';
import { putAppend, someAddress, someId, someManifest } from '../suites/beacon-records.ts';

/** Doors ask for rows where there are 4,096 entries or more; of so many, those are more than 4 MiB. */
const entriesCount = 4_300;
const ownAddress = 'ucxl://tester:author@blank:door/*^/before';
const someOthers = [0, 1, 2_150, entriesCount - 1];

test('a blank door takes the rows of a steward that runs, serves them at once and proves them', async (context) => {
  await using cluster = await TestCluster.start({ nodes: 2, zones: 1 });
  await using client = await sealingClient(cluster);
  await client.put(ownAddress, [Buffer.from('before')]);
  await cluster.down();
  await fillLog(join(cluster.dir, 'steward', 'data', 'beacon-1', 'log'));
  await cluster.up();
  await untilServed(cluster, context.signal); // by then the steward has folded them
  const control = await cluster.control();
  await control.killNode('door');
  const doorData = join(cluster.dir, 'door', 'data');
  for (const name of ['view', 'view-log', 'view.check'])
    await rm(join(doorData, name), { recursive: true, force: true });

  await control.startNode('door');
  await untilServed(cluster, context.signal);
  await control.killNode('door');
  const taken = await rowsOf(join(doorData, 'view'));
  assert(taken.has('cop'), 'its rows are those of the steward, and unproven');
  assert(taken.has('sig'), 'nobody has opened all records yet');
  const bytes = await sizeBytesOf(join(doorData, 'view', 'db'));
  assert(bytes > 4 * 1024 * 1024, `more than is walked without a thread, not ${bytes} bytes`);

  await rm(join(doorData, 'view.check'), { recursive: true, force: true });
  await control.startNode('door');
  await untilServed(cluster, context.signal);
  const opened = await client.get(ownAddress);
  assert.equal(Buffer.concat(await Array.fromAsync(opened.bytes)).toString(), 'before');
  await untilProven(doorData, context.signal);
  await cluster.down();
  const rows = await rowsOf(join(doorData, 'view'));
  assert(!rows.has('cop') && !rows.has('sig'), 'they are proven, and every record was opened');
  assert.deepEqual(rows, await rowsOf(join(cluster.dir, 'steward', 'data', 'beacon-1', 'view')));
});

/** What many puts would have left there, without their content. Nobody has the log open. */
async function fillLog(path: string): Promise<void> {
  await using log = await LevelLog.open(path);
  const batch = 430;
  for (let from = 0; from < entriesCount; from += batch)
    await Promise.all(Array.from({ length: batch }, (_, at) => log.append(someEntry(from + at))));
}

const bk = someId('bk');

/** The branch key comes with every object until it is registered. */
function someEntry(index: number): Append {
  const append = putAppend(someManifest(addressOf(index)), bk);
  return index === 0 ? append : { ...append, records: append.records.slice(0, 2) };
}

function addressOf(index: number): string {
  return someAddress(`blank/${index}`);
}

/** Until the door knows the first and the last of them, and some between. */
async function untilServed(cluster: TestCluster, signal: AbortSignal): Promise<void> {
  for (const index of someOthers) {
    const query = new URLSearchParams({ address: addressOf(index) }).toString();
    while (!(await isAnswered(() => cluster.fetch(`/ucxi/v1/navigate?${query}`))))
      await delay(20, undefined, { signal });
  }
}

async function isAnswered(ask: () => Promise<Response>): Promise<boolean> {
  try {
    return (await ask()).status === 200;
  } catch {
    return false; // the door is starting
  }
}

/** The copy is folded again in `view.check`, from before the door serves, which goes once all rows were compared. */
async function untilProven(doorData: string, signal: AbortSignal): Promise<void> {
  while (await isThere(join(doorData, 'view.check'))) await delay(100, undefined, { signal });
}

/** All rows of a view that nobody has open. */
async function rowsOf(path: string): Promise<Map<string, string>> {
  await using kv = await LevelKv.open(path);
  const rows = await Array.fromAsync(kv.range({ from: '', to: '\u{10ffff}' }));
  return new Map(rows.map(([key, value]) => [key, Buffer.from(value).toString('latin1')]));
}

async function sizeBytesOf(path: string): Promise<number> {
  const names = await readdir(path);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(path, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
