// No single process is needed: three NATS servers, two stewards, five nodes and five custodians, of which one at a time,
// of any kind, is killed every five seconds while writers write. What was acknowledged is readable at the end, and every
// deficit is healed. Once with the cluster's first key made before, and once from the start, while it is made.
// Seeded: HOLDFAST_SEED repeats a run. 45 seconds each; five minutes with HOLDFAST_FULL_TIME=1.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { minute, second } from '../../src/core/clock.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { jetStreamRoom } from '../support/jetstream-logs.ts';
import { type NatsCluster, startNatsCluster, writeLogins } from '../support/nats-cluster.ts';
import { natsSkip } from '../support/nats-server.ts';

const chaosMs = process.env['HOLDFAST_FULL_TIME'] === '1' ? 5 * minute : 45 * second;
const killEveryMs = 5 * second;
/** A NATS server has no supervisor here. */
const natsAwayMs = 2 * second;
const lanes = 4;
/** More of them show that writers got on. */
const enoughWrites = 10;

const room = await jetStreamRoom();
after(() => room.end());

describe('a cluster without a single machine that it needs', { skip: await natsSkip() }, () => {
  test('any one of each kind may be killed at any moment, under load', (t) => killAnyOne(t, 'with its key'));
  test('also while the first key is made', (t) => killAnyOne(t, 'from the start'));
});

async function killAnyOne(t: TestContext, begin: 'with its key' | 'from the start'): Promise<void> {
  const nats = await startNatsCluster(room);
  await room.untilReady(nats);
  await using cluster = await started(t, nats);
  await cluster.until(
    'the stewards have divided the work',
    ({ shares }) => shares?.stewards.every(({ slices }) => slices > 0) === true && shares.waitMs === 0,
    2 * minute,
  );
  const seed = Number(process.env['HOLDFAST_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`seed ${seed}`);
  const load = new Load(cluster);
  if (begin === 'with its key') await load.acknowledges(1);
  const killed = await chaos(cluster, nats, seed);
  // While stewards are killed one after another there may be nobody who makes the key: then it is made now.
  await load.acknowledges(enoughWrites);
  const { acknowledged, failed } = await load.stop();
  t.diagnostic(`${killed.join(' ')}; ${acknowledged.size} writes acknowledged, ${failed} not`);
  await cluster.until(
    'every deficit is healed',
    ({ objects, nodes, catalogue }) =>
      catalogue.fresh &&
      nodes.every(({ up }) => up) &&
      objects.total >= acknowledged.size &&
      objects.healthy === objects.total,
    4 * minute,
  );
  for (const [name, digest] of acknowledged) assert.equal(await digestOf(cluster, name), digest, name);
}

async function started(t: TestContext, nats: NatsCluster): Promise<TestCluster> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-any-one-'));

  t.after(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const { credentials, system } = await writeLogins(dir);
  return TestCluster.start({
    nodes: 5,
    zones: 3,
    custodians: 5,
    stewards: 2,
    dir: join(dir, 'cluster'),
    settings: {
      graceMs: 3000,
      nats: { servers: nats.urls, credentials },
      beacon: { engine: 'jetstream', stream: 'registry', servers: nats.urls, credentials, system },
    },
  });
}

/** Kills one process every few seconds. Returns whom. */
async function chaos(cluster: TestCluster, nats: NatsCluster, seed: number): Promise<string[]> {
  const chance = chanceOf(seed);
  const kinds = [
    [0, 1, 2].map((index) => `nats-${index}`),
    ['steward', 'steward-2'],
    [1, 2, 3, 4, 5].map((index) => `node-${index}`),
    [1, 2, 3, 4, 5].map((index) => `custodian-${index}`),
  ];
  const killed: string[] = [];
  for (const end = performance.now() + chaosMs; performance.now() < end; ) {
    await sleep(killEveryMs);
    const kind = kinds[Math.floor(chance() * kinds.length)] ?? [];
    const name = kind[Math.floor(chance() * kind.length)] ?? '';
    killed.push(name);
    if (name.startsWith('nats-')) await restartServer(nats, Number(name.slice('nats-'.length)));
    else await kill(cluster, name);
  }
  return killed;
}

async function restartServer(nats: NatsCluster, index: number): Promise<void> {
  await nats.end(index, 'SIGKILL');
  await sleep(natsAwayMs);
  await nats.start(index);
}

/** The supervisor starts it again. One that is not back yet from the last time has been killed already. */
async function kill(cluster: TestCluster, name: string): Promise<void> {
  const { processes } = await (await cluster.control()).state();
  const pid = processes.find((each) => each.name === name)?.pid;
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
}

/** Writers that go on whatever happens, and remember what was acknowledged. */
class Load {
  readonly #cluster: TestCluster;
  readonly #acknowledged = new Map<string, string>();
  readonly #lanes: Promise<void>[];
  #stopped = false;
  #failed = 0;

  constructor(cluster: TestCluster) {
    this.#cluster = cluster;
    this.#lanes = Array.from({ length: lanes }, (_, lane) => this.#run(lane));
  }

  /** Throws after two minutes without so many acknowledged writes. */
  async acknowledges(count: number): Promise<void> {
    for (const end = performance.now() + 2 * minute; this.#acknowledged.size < count; await sleep(100))
      assert.ok(performance.now() < end, `only ${this.#acknowledged.size} writes were acknowledged`);
  }

  async stop(): Promise<{ readonly acknowledged: ReadonlyMap<string, string>; readonly failed: number }> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
    return { acknowledged: this.#acknowledged, failed: this.#failed };
  }

  async #run(lane: number): Promise<void> {
    for (let turn = 0; !this.#stopped; turn++) {
      const name = `${lane}-${turn}`;
      const body = randomBytes(turn % 5 === 0 ? 400_000 : 4_000);
      const isStored = await this.#put(name, body);
      if (isStored) this.#acknowledged.set(name, digest(body));
      else this.#failed++;
      await sleep(isStored ? 50 : 500);
    }
  }

  async #put(name: string, body: Buffer): Promise<boolean> {
    try {
      const path = `/ucxi/v1/put?address=${encodeURIComponent(addressOf(name))}`;
      const init = { method: 'PUT', body: new Uint8Array(body), signal: AbortSignal.timeout(30_000) };
      const answer = await this.#cluster.fetch(path, init);
      await answer.arrayBuffer();
      return answer.ok;
    } catch {
      return false; // not acknowledged
    }
  }
}

async function digestOf(cluster: TestCluster, name: string): Promise<string> {
  const answer = await cluster.fetch(`/ucxi/v1/get?address=${encodeURIComponent(addressOf(name))}`);
  const bytes = Buffer.from(await answer.arrayBuffer());
  assert.equal(answer.status, 200, bytes.toString('utf8', 0, 500));
  return digest(bytes);
}

function addressOf(name: string): string {
  return `ucxl://ann:author@any-one:run/*^/${name}`;
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function chanceOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 0x1_0000_0000;
  };
}
