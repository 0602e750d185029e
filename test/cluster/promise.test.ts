// The promise, on real processes: what was acknowledged comes back byte for byte, whatever died meanwhile.
//
// One cluster lives through all of it in order, as a cluster does: objects of many sizes are put, a node is
// killed, another one in another zone after healing, one disk is wiped, blocks are damaged on disk, everything
// is killed in the middle of a put, and everything is started again. After each step every object is read.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { HoldfastClient } from '../../src/client/index.ts';
import { mapInOrder } from '../../src/core/concurrency.ts';
import { allHealthy, TestCluster } from '../helpers/cluster.ts';
import { sealingClient } from '../helpers/sealing-client.ts';

const objectsCount = 200;
const largestBytes = 64 * 1024 * 1024;
const root = 'ucxl://tester:author@promise:run/*^';

interface Stored {
  readonly address: string;
  readonly sizeBytes: number;
  readonly digest: string;
}

let cluster: TestCluster;
let client: HoldfastClient;
const stored: Stored[] = [];
let peers: Record<string, string>;

before(async () => {
  cluster = await TestCluster.start({ settings: { graceMs: 2000, leaseMs: 3000, scrubMs: 10_000 } });
  client = await sealingClient(cluster);
  peers = await peerIds();
});

after(async () => {
  await client[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

test('200 objects of 0 B to 64 MiB from real files are stored', async () => {
  const files = await realFiles();
  for await (const done of mapInOrder(files.entries(), 8, ([index, file]) =>
    putFile(`${root}/file-${index}`, file),
  ))
    stored.push(done);
  assert.equal(stored.length, objectsCount);
  assert.ok(
    stored.some(({ sizeBytes }) => sizeBytes === 0) &&
      stored.some(({ sizeBytes }) => sizeBytes === largestBytes),
  );
  await cluster.until(
    'all of them healthy',
    (steward) => allHealthy(steward) && steward.objects.total === objectsCount,
  );
});

test('kill -9 of one node: it comes back by itself, and every object is readable while it is away', async () => {
  const pid = await cluster.pid('node-1');
  process.kill(pid, 'SIGKILL');
  await readAll(stored.filter((_, index) => index % 4 === 0));
  await cluster.until('node-1 is back', ({ nodes }) => nodes.every(({ up }) => up));
  assert.notEqual(await cluster.pid('node-1'), pid);
});

test('a node that stays dead is healed, then a second one in another zone', async () => {
  const control = await cluster.control();
  await control.killNode('node-2');
  await cluster.until('healed without node-2', (steward) => isDown(steward, 'node-2') && restored(steward));
  await readAll(stored);
  await control.killNode('node-4');
  await cluster.until(
    'healed without node-2 and node-4',
    (steward) => isDown(steward, 'node-4') && restored(steward),
  );
  await readAll(stored);
  await control.startNode('node-2');
  await control.startNode('node-4');
  await cluster.until('all healthy', allHealthy);
});

test('a wiped disk is filled again, under the same peer id', async () => {
  const control = await cluster.control();
  await control.wipeNode('node-5');
  await cluster.until('node-5 holds blocks again', (steward) => {
    const node = steward.nodes.find(({ name }) => name === 'node-5');
    return node !== undefined && node.up && node.blocks > 0 && allHealthy(steward);
  });
  assert.deepEqual(await peerIds(), peers);
  await readAll(stored);
});

test('blocks damaged on disk are never served, and replaced from a good copy', async () => {
  const damaged = await damageFiles(join(cluster.dir, 'node-3'), 12);
  assert.equal(damaged.length, 12);
  await readAll(stored);
  // What nobody reads is found by the scrub: each file is put aside, and a good copy takes its place.
  await waitFor('every damaged file is replaced', async () => {
    const good = await Promise.all(damaged.map(({ path, digest }) => holdsAgain(path, digest)));
    return good.every(Boolean);
  });
  await cluster.until('all healthy', allHealthy);
});

test('kill -9 of everything in the middle of a put loses nothing acknowledged and leaves nothing behind', async () => {
  const acknowledged: Stored[] = [];
  const underway = (async () => {
    for (let index = 0; ; index++) {
      const bytes = randomBytes(300_000 + index);
      const address = `${root}/during-${index}`;
      await client.put(address, [bytes]);
      acknowledged.push({ address, sizeBytes: bytes.length, digest: sha256(bytes) });
    }
  })();
  const stopped = assert.rejects(underway);
  while (acknowledged.length < 10) await new Promise((resolve) => setTimeout(resolve, 10));
  await cluster.killAll();
  await stopped;
  await cluster.up();
  stored.push(...acknowledged);
  await cluster.until('all healthy', allHealthy);
  await readAll(stored);
  assert.deepEqual(await peerIds(), peers);
});

test('nothing is stranded: chain, view and blocks agree, and orphans are collected', async () => {
  const result = await client.beaconVerify();
  assert.deepEqual([result.ok, result.problems], [true, []]);
  assert.ok(result.blocks >= 3 * stored.length, `${result.blocks} blocks looked up`);
  await cluster.until('orphan blocks are collected', ({ blocks }) => blocks.unreferenced === 0);
});

test('a stopped and restarted cluster has the same peers and the same content', async () => {
  await cluster.down();
  await cluster.up();
  assert.deepEqual(await peerIds(), peers);
  await cluster.until('all healthy', allHealthy);
  await readAll(stored);
});

// Helpers

function restored({ objects }: { objects: Record<string, number> }): boolean {
  const { total = 0, healthy = 0, short = 0 } = objects;
  return total > 0 && healthy + short === total;
}

function isDown({ nodes }: { nodes: readonly { name: string; up: boolean }[] }, name: string): boolean {
  return nodes.some((node) => node.name === name && !node.up);
}

async function peerIds(): Promise<Record<string, string>> {
  const { processes } = await (await cluster.control()).state();
  return Object.fromEntries(processes.map(({ name, peer }) => [name, peer]));
}

/** Real files: what npm installed, but for caches that others write to meanwhile, in a fixed order, with the edges of the size range made sure of. */
async function realFiles(): Promise<{ path: string; limit: number }[]> {
  const found: { path: string; size: number }[] = [];
  for (const entry of await readdir('node_modules', { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || path.includes('/.cache/')) continue;
    const { size } = await stat(path);
    if (size < 4 * 1024 * 1024) found.push({ path, size });
  }
  found.sort((a, b) => a.size - b.size || a.path.localeCompare(b.path));
  const step = Math.floor(found.length / (objectsCount - 2));
  const chosen = Array.from(
    { length: objectsCount - 2 },
    (_, index) => found[index * step]?.path ?? process.execPath,
  );
  return [
    { path: '/dev/null', limit: 0 },
    ...chosen.map((path) => ({ path, limit: Number.POSITIVE_INFINITY })),
    { path: process.execPath, limit: largestBytes },
  ];
}

async function putFile(address: string, { path, limit }: { path: string; limit: number }): Promise<Stored> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  async function* tapped(): AsyncGenerator<Uint8Array> {
    const options = Number.isFinite(limit) && limit > 0 ? { end: limit - 1 } : {};
    for await (const chunk of createReadStream(path, options) as AsyncIterable<Uint8Array>) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  }
  const done = await client.put(address, tapped());
  assert.equal(done.short, false, `${path} was stored with ${done.copies} copies`);
  assert.equal(done.sizeBytes, sizeBytes);
  return { address, sizeBytes, digest: hash.digest('hex') };
}

async function readAll(objects: readonly Stored[]): Promise<void> {
  let read = 0;
  for await (const { digest, object } of mapInOrder(objects, 8, async (object) => ({
    digest: await readOne(object.address),
    object,
  }))) {
    assert.equal(digest, object.digest, object.address);
    read++;
  }
  assert.equal(read, objects.length);
}

async function readOne(address: string): Promise<string> {
  const hash = createHash('sha256');
  const { bytes } = await client.get(address);
  for await (const chunk of bytes) hash.update(chunk);
  return hash.digest('hex');
}

interface Damaged {
  readonly path: string;
  /** Of the whole file before the damage. */
  readonly digest: string;
}

/** Flips a byte in the middle of some block files of a node. */
async function damageFiles(dir: string, count: number): Promise<Damaged[]> {
  const damaged: Damaged[] = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (damaged.length === count) break;
    if (
      !entry.isFile() ||
      !path.includes('/blocks/') ||
      (await stat(path)).size < 65_536 ||
      path.includes('/segments/')
    )
      continue;
    const digest = sha256(await readFile(path));
    await using file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 40_000);
    byte[0] = (byte[0] ?? 0) ^ 0x10;
    await file.write(byte, 0, 1, 40_000);
    damaged.push({ path, digest });
  }
  return damaged;
}

/** The node may also have given the block up, when others hold enough copies; then the file is gone, never wrong. */
async function holdsAgain(path: string, digest: string): Promise<boolean> {
  try {
    return sha256(await readFile(path)) === digest;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT';
  }
}

async function waitFor(what: string, met: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const started = Date.now();
  while (!(await met())) {
    assert.ok(Date.now() - started < timeoutMs, `${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function randomBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536)
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65_536)));
  return bytes;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
