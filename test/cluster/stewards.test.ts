// Two stewards on real processes, the log on the disk of the first: they divide the work, either may die at any moment,
// what is missing is healed by whoever is left, and what they order carries the token of their epoch.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { HoldfastClient } from '../../src/client/index.ts';
import { isHoldfastError } from '../../src/core/errors.ts';
import type { StewardStatus } from '../../src/steward/status.ts';
import { allHealthy, TestCluster } from '../helpers/cluster.ts';
import { sealingClient } from '../helpers/sealing-client.ts';

let cluster: TestCluster;
let client: HoldfastClient;
/** Tries once. */
let hasty: HoldfastClient;
const stored = new Map<string, Buffer>();

before(async () => {
  cluster = await TestCluster.start({ stewards: 2, settings: { graceMs: 2000 } });
  client = await sealingClient(cluster);
  hasty = await sealingClient(cluster, cluster.url, { attemptsMax: 1 });
});

after(async () => {
  await client[Symbol.asyncDispose]();
  await hasty[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

test('two stewards divide the work between them', async () => {
  const { shares } = await cluster.until('divided', (steward) =>
    sharesOf(steward).every((each) => each > 80),
  );
  assert.equal(
    sharesOf({ shares }).reduce((a, b) => a + b),
    256,
  );
  await cluster.until('they act', (steward) => steward.shares?.waitMs === 0 && steward.shares.leaseMs > 0);
  for (let at = 0; at < 40; at++) await put(`object-${at}`);
  await cluster.until('healthy', allHealthy);
  const held = JSON.parse(
    await readFile(join(cluster.dir, 'node-1', 'data', 'steward-epoch.json'), 'utf8'),
  ) as {
    members: string[];
  };
  assert.equal(held.members.length, 2);
});

test('a node dies: both heal, each its own', async () => {
  const control = await cluster.control();
  await control.killNode('node-2');
  await cluster.until('healed', (steward) => isDown(steward, 'node-2') && restored(steward));
  await control.startNode('node-2');
  await cluster.until('healthy', allHealthy);
  await readAll();
});

test('the steward with the log stands still for a moment: a door that turned to the second still puts at once', async () => {
  const pid = await cluster.pid('steward');
  process.kill(pid, 'SIGSTOP');
  try {
    await cluster.until('the other answers', (steward) => !isFirst(steward));
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  for (let at = 0; at < 3; at++) await put(`after-a-moment-${at}`);
});

test('the second steward dies, then a node: the first takes its share over and heals everything', async () => {
  const control = await cluster.control();
  await control.killNode('steward-2');
  await control.killNode('node-4');
  const { shares } = await cluster.until(
    'healed by one',
    (steward) => sharesOf(steward).includes(256) && isDown(steward, 'node-4') && restored(steward),
    120_000,
  );
  assert.deepEqual(sharesOf({ shares }), [256, 0]);
  await control.startNode('node-4');
  await control.startNode('steward-2');
  await cluster.until('divided again', (steward) => sharesOf(steward).every((each) => each > 80), 120_000);
  await cluster.until('healthy', allHealthy);
  await readAll();
});

test('the steward with the log dies, then a node: the second answers and heals, and says that appends wait', async () => {
  const control = await cluster.control();
  await control.killNode('steward');
  const started = Date.now();
  const alone = await cluster.until('the other answers', (steward) => !isFirst(steward));
  assert.ok(Date.now() - started < 20_000, `${Date.now() - started} ms`);
  assert.match(alone.beacon?.text ?? '', /the log of steward, which alone takes appends/);
  await readAll();
  await assert.rejects(put('refused', hasty), (error) => isHoldfastError(error, 'BEACON_UNAVAILABLE'));
  await control.killNode('node-5');
  await cluster.until(
    'healed by the second',
    (steward) => isDown(steward, 'node-5') && restored(steward) && sharesOf(steward).includes(256),
    120_000,
  );
  await control.startNode('node-5');
  await control.startNode('steward');
  await cluster.until('divided again', (steward) => sharesOf(steward).every((each) => each > 80), 120_000);
  await put('after');
  await cluster.until('healthy', allHealthy);
  await readAll();
});

// Helpers

async function put(name: string, by = client): Promise<void> {
  const address = `ucxl://ann:author@stewards:run/*^/${name}`;
  const bytes = randomBytes(2_000 + stored.size * 4_000);
  await by.put(address, [bytes]);
  stored.set(address, bytes);
}

async function readAll(): Promise<void> {
  for (const [address, bytes] of stored) {
    const parts: Uint8Array[] = [];
    for await (const part of (await client.get(address)).bytes) parts.push(new Uint8Array(part));
    assert.ok(bytes.equals(Buffer.concat(parts)), address);
  }
}

function sharesOf({ shares }: { readonly shares?: StewardStatus['shares'] | undefined }): number[] {
  return shares?.stewards.map(({ slices }) => slices) ?? [0];
}

function isFirst({ shares }: StewardStatus): boolean {
  return shares?.stewards.some(({ name, isSelf }) => isSelf && name === 'steward') === true;
}

function restored({ objects }: StewardStatus): boolean {
  return objects.total >= stored.size && objects.healthy + objects.short === objects.total;
}

function isDown({ nodes }: StewardStatus, name: string): boolean {
  return nodes.some((node) => node.name === name && !node.up);
}
