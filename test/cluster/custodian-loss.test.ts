// Thousands of reads while custodians die: two of five are killed in the middle, come back, and two others are killed.
// No read may fail, and enough of them must be such that custodians decided them.
//
// A read of restricted content is a threshold operation each time, through the client library; what the door sealed is
// read over plain HTTP and asks custodians once a bar for each project. HOLDFAST_LOSS_READS sets how many reads there
// are; the objective speaks of 10,000.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { custodianKeys, openWriter } from '../../src/cli/connect.ts';
import { openProvider } from '../../src/cli/custody-provider.ts';
import { HoldfastClient, type KekProvider } from '../../src/client/index.ts';
import { mapInOrder } from '../../src/core/concurrency.ts';
import { parseReceipts } from '../../src/custody/receipts.ts';
import { layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { custodyAnswered, untilCustody } from '../helpers/custody.ts';

const readsCount = Number(process.env['HOLDFAST_LOSS_READS'] ?? 800);
const parallel = 12;
/** Each has a budget of 1,024 restricted keys in a bar. */
const projects = 8;
const objectsPerProject = 4;

interface Stored {
  readonly kind: 'restricted' | 'internal' | 'door';
  readonly address: string;
  readonly text: string;
}

let cluster: TestCluster;
let provider: KekProvider;
let client: HoldfastClient;

before(async () => {
  cluster = await TestCluster.start({ nodes: 2, custodians: 5 });
  await untilAllServe();
  const door = { url: cluster.url, token: await cluster.token() };
  const signer = await openWriter(cluster.dir);
  provider = await openProvider(door, cluster.dir, signer, () => custodianKeys(cluster.dir));
  client = new HoldfastClient({ ...door, signer, provider });
});
after(async () => {
  await client[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

test(`two of five killed, and two others, during ${readsCount} reads: none fails`, async (t) => {
  const stored = await store();
  const before = await openings();
  const killer = new Killer();
  const failures: string[] = [];
  const startedMs = performance.now();
  let read = 0;
  for await (const problem of mapInOrder(turns(stored, killer), parallel, (object) => problemOf(object))) {
    if (problem !== undefined) failures.push(`read ${read}: ${problem}`);
    killer.after(++read);
    assert.ok(failures.length < 20, failures.join('\n'));
  }
  const tookMs = performance.now() - startedMs;
  await killer.done();
  const after = await openings();
  const [byClient, byDoor] = [after.client - before.client, after.door - before.door];
  t.diagnostic(
    `${read} reads in ${Math.round(tookMs)} ms, ${byClient} threshold operations by the client, ${byDoor} by the door`,
  );
  assert.deepEqual(failures.slice(0, 5), [], `${failures.length} of ${read} reads failed`);
  assert.ok(read >= readsCount);
  // Every eighth read is of restricted content, and never of a key in memory.
  assert.ok(byClient >= readsCount / 8, `only ${byClient} reads were decided by custodians`);
  assert.ok(byDoor >= projects, `only ${byDoor} keys were opened by the door`);
});

/** Kills two, brings them back after a fifth of the reads, and once they are there again kills two others. */
class Killer {
  #kill: Promise<void> | undefined;
  #exchange: Promise<void> | undefined;
  #killedAll = false;
  #failed: Error | undefined;
  #readsAfter = 0;

  /** To be called after each read. */
  after(read: number): void {
    if (read >= readsCount / 5) this.#kill ??= this.#noting(kill('custodian-1', 'custodian-4'));
    if (read >= (2 * readsCount) / 5) this.#exchange ??= this.#noting(this.#exchangeThem());
    if (this.#killedAll) this.#readsAfter++;
  }

  /** True once a fifth of the reads came after the last kill, or there will be none. */
  get isOver(): boolean {
    return this.#failed !== undefined || this.#readsAfter >= readsCount / 5;
  }

  /** Throws when something could not be killed or did not come back. */
  async done(): Promise<void> {
    await Promise.all([this.#kill, this.#exchange]);
    if (this.#failed !== undefined) throw this.#failed;
  }

  async #exchangeThem(): Promise<void> {
    await this.#kill;
    const control = await cluster.control();
    await Promise.all(['custodian-1', 'custodian-4'].map((name) => control.startNode(name)));
    await untilAllServe();
    await kill('custodian-2', 'custodian-5');
    this.#killedAll = true;
  }

  #noting(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => {
      this.#failed = new Error('custodians could not be exchanged', { cause: error });
    });
  }
}

async function kill(...names: readonly string[]): Promise<void> {
  const control = await cluster.control();
  await Promise.all(names.map((name) => control.killNode(name)));
}

async function store(): Promise<Stored[]> {
  const wanted = Array.from({ length: projects * objectsPerProject }, (_, index): Stored[] => {
    const project = `loss-${index % projects}`;
    const kinds = ['restricted', 'internal', 'door'] as const;
    return kinds.map((kind) => {
      const address = `ucxl://tester:reader@${project}:run/*^/${kind}-${index}.txt`;
      return { kind, address, text: `${kind} ${index}\n` };
    });
  }).flat();
  for await (const _ of mapInOrder(wanted, parallel, put));
  return wanted;
}

async function put({ kind, address, text }: Stored): Promise<void> {
  if (kind !== 'door') return void (await client.put(address, [Buffer.from(text)], { cls: kind }));
  const query = new URLSearchParams({ address }).toString();
  const { status } = await cluster.fetch(`/ucxi/v1/put?${query}`, { method: 'PUT', body: text });
  assert.equal(status, 201, address);
}

/** Of eight reads one is of restricted content and one through the door; the keys of the others are in memory. */
function* turns(stored: readonly Stored[], killer: Killer): Generator<Stored> {
  const of = (kind: Stored['kind']) => stored.filter((each) => each.kind === kind);
  const [restricted, internal, door] = [of('restricted'), of('internal'), of('door')];
  for (let i = 0; i < readsCount || !killer.isOver; i++) {
    const kind = [restricted, internal, door][i % 8] ?? internal;
    const object = kind[Math.floor(i / 8) % kind.length];
    assert.ok(object !== undefined);
    yield object;
  }
}

/** What was wrong with a read, in words. */
async function problemOf({ kind, address, text }: Stored): Promise<string | undefined> {
  try {
    const got = kind === 'door' ? await getByDoor(address) : await getByClient(address);
    return got === text ? undefined : `${address}: ${JSON.stringify(got.slice(0, 200))}`;
  } catch (error) {
    return `${address}: ${String(error)}`;
  }
}

async function getByClient(address: string): Promise<string> {
  const { bytes } = await client.get(address);
  return Buffer.concat(await Array.fromAsync(bytes)).toString();
}

async function getByDoor(address: string): Promise<string> {
  const response = await cluster.fetch(`/ucxi/v1/get?${new URLSearchParams({ address }).toString()}`);
  return `${response.status === 200 ? '' : `${response.status} `}${await response.text()}`;
}

/** Receipts of the client and of the door: one for each threshold operation. */
async function openings(): Promise<{ readonly client: number; readonly door: number }> {
  const paths = layoutPaths(cluster.dir);
  const files = [paths.custodyReceipts, join(paths.data('door'), 'custody-receipts')];
  const [own = 0, door = 0] = await Promise.all(
    files.map(async (path) => parseReceipts(await readFile(path, 'utf8').catch(() => '')).length),
  );
  return { client: own, door };
}

/** Until the group has its key and all five hold their shares and know the time. */
function untilAllServe(): Promise<void> {
  return untilCustody(
    () => custodyAnswered(cluster),
    'all five serve',
    ({ custodians, key }) =>
      key !== null && custodians.filter(({ state, text }) => state === 'ready' && text === '').length === 5,
    { timeoutMs: 120_000 },
  );
}
