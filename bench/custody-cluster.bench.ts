// Threshold custody over real processes: how long a key takes, with all custodians and with two of five dead, and how
// long the ceremonies take. And what needs no cluster: wrapping a million content keys under another branch key.
//
//   node bench/custody-cluster.bench.ts [unwraps, default 300] [content keys, default 1000000]
//
// At most 2,000 unwraps: they are asked for twice, and a writer's capability opens 4,096 keys in a bar.
//
// "processor time" of an unwrap is that of all processes of the cluster and of this one, over all unwraps, without what
// the same processes take in as long a time of rest, which is measured before.
//
// Unwraps go the way of a client: one after the other, through the door, which relays; each for another branch key, so
// that nothing is remembered. Wall clock. The same number of empty requests to the door tells what of it is HTTP. Code is
// compiled as it becomes hot, which takes a thousand unwraps or so: the median of the last half is told beside that of
// all. The same work in one process, with the disk and without messages, is what an unwrap costs at least.

import { execFile, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import { once } from 'node:events';
import type { CustodyStatus } from '../src/api/types.ts';
import { custodianKeys, openWriter } from '../src/cli/connect.ts';
import { openProvider } from '../src/cli/custody-provider.ts';
import type { KekProvider } from '../src/custody/provider.ts';
import { loadGcm } from '../src/envelope/gcm.ts';
import type { BranchKeyBody } from '../src/envelope/records.ts';
import { commitmentOf, unwrapDek, WrappingKey, wrapDek } from '../src/envelope/wrap.ts';
import { TestCluster } from '../test/helpers/cluster.ts';
import { TestGroup } from '../test/support/custody-group.ts';
import { timesOf } from './measure.ts';

const [unwraps = 300, contentKeys = 1_000_000] = process.argv.slice(2).map(Number);
/** The argument of the processes that this one starts. */
const rewrapWord = 'rewrap';
const program = fileURLToPath(new URL('../bin/holdfast.js', import.meta.url));
const random = (sizeBytes: number): Uint8Array => new Uint8Array(randomBytes(sizeBytes));

async function overProcesses(): Promise<void> {
  await using cluster = await TestCluster.start({
    nodes: 3,
    zones: 3,
    custodians: 5,
  });
  while ((await statusOf(cluster)).key === null) await new Promise((resolve) => setTimeout(resolve, 200));
  const door = { url: cluster.url, token: await cluster.token() };
  const signer = await openWriter(cluster.dir);
  await using provider = await openProvider(door, cluster.dir, signer, () => custodianKeys(cluster.dir));
  const ask = (count: number, restMs = 0) => unwrapMany(cluster, provider, signer.publicKey, count, restMs);
  console.log(`refresh of all shares of both keys     ${await refreshMs(cluster.dir)} ms`);
  await ask(30);
  const restMs = await processorPerSecond(cluster);
  console.log(`processor time of all at rest          ${restMs.toFixed(0)} ms in a second`);
  const http = await timesOf(unwraps, async () => void (await (await cluster.fetch('/health/live')).text()));
  console.log(`an empty request to the door           ${spread(http)}`);
  console.log(`unwrap, five custodians of five        ${await ask(unwraps, restMs)}`);
  const control = await cluster.control();
  for (const name of ['custodian-2', 'custodian-4']) await control.killNode(name);
  console.log(`unwrap, the first ten after two died   ${await ask(Math.min(10, unwraps), restMs)}`);
  console.log(`unwrap, two of five dead for a while   ${await ask(unwraps, restMs)}`);
}

/** Of all processes of the cluster and this one while nobody asks for anything, milliseconds in a second. */
async function processorPerSecond(cluster: TestCluster): Promise<number> {
  const pids = await pidsOf(cluster);
  const [before, startMs] = [await processorMs(pids), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  const after = await processorMs(pids);
  const spent =
    [...after.values()].reduce((sum, ms) => sum + ms, 0) -
    [...before.values()].reduce((sum, ms) => sum + ms, 0);
  return (1000 * spent) / (performance.now() - startMs);
}

/** Unwraps of one new branch key each, one after the other. */
async function unwrapMany(
  cluster: TestCluster,
  provider: KekProvider,
  requester: Uint8Array,
  count: number,
  restMs: number,
): Promise<string> {
  const bodies = await Promise.all(Array.from({ length: count }, () => newKey(provider, requester)));
  const times: number[] = [];
  const pids = await pidsOf(cluster);
  const beat = await beatOf(cluster);
  const before = await processorMs(pids);
  const began = performance.now();
  for (const body of bodies) {
    const started = performance.now();
    const now = beat + Math.floor((started - began) / 1000);
    const [answer] = await provider.unwrap([body], { purpose: 'read', requester, beat: now });
    times.push(performance.now() - started);
    if (answer?.ok !== true) throw answer?.error ?? new Error('no answer');
  }
  const after = await processorMs(pids);
  const spent = new Map([...after].map(([name, ms]) => [name, (ms - (before.get(name) ?? 0)) / count]));
  const rest = (restMs * (performance.now() - began)) / 1000 / count;
  const total = [...spent.values()].reduce((sum, ms) => sum + ms, -rest);
  const shares = [...spent].map(([name, ms]) => `${name} ${ms.toFixed(1)}`).join(', ');
  const lastHalf = spread(times.slice(Math.floor(count / 2))).split(',')[0];
  return `${spread(times)} (last half: ${lastHalf}); ${total.toFixed(1)} ms of processor time (with rest: ${shares})`;
}

/** An unwrap by custodians that are called in this process: processor time of who asks and of three of them. */
async function inOneProcess(): Promise<void> {
  await using group = await TestGroup.create();
  const provider = group.provider({ hedgeMs: 60_000 });
  for (const each of group.custodians) each.isDown = each.i === 2 || each.i === 4;
  for (let round = 1; round <= 4; round++) {
    const bodies = await Promise.all(Array.from({ length: 300 }, () => newKey(provider, random(32))));
    const before = process.cpuUsage();
    for (const body of bodies) {
      const [answer] = await provider.unwrap([body], { purpose: 'read', requester: body.writer, beat: 100 });
      if (answer?.ok !== true) throw answer?.error ?? new Error('no answer');
    }
    const { user, system } = process.cpuUsage(before);
    const ms = ((user + system) / 1000 / bodies.length).toFixed(1);
    if (round === 4) console.log(`the same work in one process           ${ms} ms of processor time`);
  }
}

async function pidsOf(cluster: TestCluster): Promise<ReadonlyMap<number, string>> {
  const { processes } = await (await cluster.control()).state();
  return new Map(
    processes.flatMap(({ pid, name }) => (pid === undefined || pid === null ? [] : [[pid, name] as const])),
  );
}

/** Of these processes, by kind, and this one so far (Linux; clock ticks of 10 ms). */
async function processorMs(pids: ReadonlyMap<number, string>): Promise<ReadonlyMap<string, number>> {
  const { user, system } = process.cpuUsage();
  const spent = new Map([['client', (user + system) / 1000]]);
  for (const [pid, name] of pids) {
    const kind = name.replace(/-\d+$/, '');
    const words = (await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '')).split(') ')[1]?.split(' ');
    if (words !== undefined)
      spent.set(kind, (spent.get(kind) ?? 0) + 10 * (Number(words[11]) + Number(words[12])));
  }
  return spent;
}

async function newKey(provider: KekProvider, writer: Uint8Array): Promise<BranchKeyBody> {
  const scope = { project: 'bench', cls: 'internal', writer, window: [0, 119] } as const;
  const bkId = random(16);
  const { branchKey, wraps, combiner } = await provider.createKey({ ...scope, bkId, bkVer: 1, policy: null });
  const commit = commitmentOf(branchKey);
  return {
    kind: 'branch-key',
    v: 1,
    writer,
    prev: null,
    bkId,
    bkVer: 1,
    scope,
    maxWraps: 4096,
    commit,
    combiner,
    wraps,
  };
}

async function beatOf(cluster: TestCluster): Promise<number> {
  return (await statusOf(cluster)).beat;
}

async function statusOf(cluster: TestCluster): Promise<CustodyStatus> {
  const response = await cluster.fetch('/v1/custody/status');
  return ((await response.json()) as { readonly response: { readonly data: CustodyStatus } }).response.data;
}

async function refreshMs(dir: string): Promise<number> {
  const words = [program, 'custody', 'refresh', '--json', '--data', dir];
  const { stdout } = await promisify(execFile)(process.execPath, words);
  const said = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly tookMs?: number });
  return said.find(({ tookMs }) => tookMs !== undefined)?.tookMs ?? Number.NaN;
}

/** Opens `count` wrapped content keys under one branch key and wraps them under another. Seconds of processor time. */
function rewrap(count: number): number {
  const [from, to] = [random(16), random(16)];
  const [old, next] = [new WrappingKey(random(32), from), new WrappingKey(random(32), to)];
  const common = { objId: random(16), headerTag: random(32), bkVer: 1, policy: null };
  const dek = random(32);
  const wraps = Array.from({ length: 4096 }, () => wrapDek(old, dek, { ...common, bkId: from }, random));
  const nonces = new Nonces();
  const start = process.cpuUsage();
  for (let i = 0; i < count; i++) {
    const opened = unwrapDek(old, wraps[i % 4096] ?? dek, { ...common, bkId: from });
    wrapDek(next, opened, { ...common, bkId: to }, (sizeBytes) => nonces.take(sizeBytes));
    opened.fill(0);
  }
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}

/** Nonces are public: they may be drawn many at a time. */
class Nonces {
  #pool = random(12 * 4096);
  #at = 0;

  take(sizeBytes: number): Uint8Array {
    if (this.#at + sizeBytes > this.#pool.length) {
      this.#pool = random(this.#pool.length);
      this.#at = 0;
    }
    return this.#pool.subarray(this.#at, (this.#at += sizeBytes));
  }
}

async function rewrapAll(): Promise<void> {
  const threads = availableParallelism();
  const started = performance.now();
  const seconds = await Promise.all(
    Array.from({ length: threads }, () => inProcess(Math.ceil(contentKeys / threads))),
  );
  const wall = (performance.now() - started) / 1000;
  const cpu = seconds.reduce((sum, each) => sum + each, 0);
  const count = contentKeys.toLocaleString('en');
  console.log(
    `${count} content keys under another branch key: ${wall.toFixed(1)} s in ${threads} processes, ${cpu.toFixed(1)} s of processor time`,
  );
}

async function inProcess(count: number): Promise<number> {
  const child = fork(fileURLToPath(import.meta.url), [rewrapWord, String(count)]);
  const [seconds] = await once(child, 'message');
  return Number(seconds);
}

function spread(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN)
      .toFixed(1)
      .padStart(6);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`;
}

if (process.argv[2] === rewrapWord) {
  await loadGcm();
  process.send?.(rewrap(Number(process.argv[3])));
} else {
  await overProcesses();
  await inOneProcess();
  await rewrapAll();
  console.log(`node ${process.version}, ${availableParallelism()} cores`);
}
