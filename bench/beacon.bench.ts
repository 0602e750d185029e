// The Beacon against raw LevelDB on the same disk, in the same run: appends, lookups, and the catch-up of a blank view.
//
//   node bench/beacon.bench.ts [--records 100000] [--rounds 5]
//
// Each figure is the median over rounds in which ours and the raw one alternate, so that both meet the same noise.

import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ClassicLevel } from 'classic-level';
import { type BeaconLog, encodeAppend } from '../src/beacon/log.ts';
import { LevelLog } from '../src/beacon/level.ts';
import { packRows } from '../src/beacon/snapshot.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { putAppend, someAddress, someId, someManifest } from '../test/suites/beacon-records.ts';

const { values } = parseArgs({ options: { records: { type: 'string' }, rounds: { type: 'string' } } });
const recordsCount = Number(values.records ?? 100_000);
const rounds = Number(values.rounds ?? 5);
const appendsPerRound = 1000;
const lookupsPerRound = 20_000;
const bk = someId('bk');

const directory = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
try {
  const raw = new ClassicLevel<string, Uint8Array>(join(directory, 'raw'), { valueEncoding: 'view' });
  await benchAppends(raw);
  await benchView(raw);
  await raw.close();
} finally {
  await rm(directory, { recursive: true });
}

async function benchAppends(raw: ClassicLevel<string, Uint8Array>): Promise<void> {
  await using log = await LevelLog.open(join(directory, 'log'));
  const payload = encodeAppend(putAppend(someManifest(someAddress('bench')), bk));
  const append = (subject: string) =>
    log.append({ ...putAppend(someManifest(someAddress('bench')), bk), subject, expected: 0 });
  const prepared = putAppend(someManifest(someAddress('bench')), bk);
  let serial = 0;
  const ours = () => log.append({ ...prepared, subject: `addr/${serial++}`, expected: 0 });
  const theirs = () => raw.put(`k${serial++}`, payload, { sync: true });
  await append('warm');
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      () => perSecond(appendsPerRound, width, ours),
      () => perSecond(appendsPerRound, width, theirs),
    );
    report(`synced appends/s, ${width} at once, ${payload.length} B`, mine, base);
  }
}

async function benchView(raw: ClassicLevel<string, Uint8Array>): Promise<void> {
  await using log = await LevelLog.open(join(directory, 'catch-up'));
  const address = (index: number): string => someAddress(`bench/${index}`);
  const pending: Promise<unknown>[] = [];
  const started = performance.now();
  for (let index = 0; index < recordsCount; index++) {
    const append = putAppend(someManifest(address(index)), bk);
    // Keys come with every object only until they are registered.
    const records = index === 0 ? append.records : append.records.slice(0, 2);
    const [manifest] = records;
    if (manifest !== undefined) pending.push(raw.put(address(index), manifest.bytes));
    pending.push(log.append({ ...append, records }));
    if (pending.length >= 256) await Promise.all(pending.splice(0));
  }
  await Promise.all(pending);
  console.log(`made ${recordsCount} entries (signing included) in ${seconds(started)} s`);
  const kv = await LevelKv.open(join(directory, 'view'));
  await using view = await BeaconView.open(kv, {
    cacheBytes: 0,
    signatures: 'after', // as a door does
    snapshotFrom: Number.POSITIVE_INFINITY,
  });
  await benchNewcomer('folding the log', view, log);
  await benchSnapshot(log, kv);
  const any = (): string => address(Math.floor(Math.random() * recordsCount));
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      () => perSecond(lookupsPerRound, width, () => view.head(any())),
      () => perSecond(lookupsPerRound, width, () => raw.get(any())),
    );
    report(`lookups/s of random addresses, ${width} at once, no cache`, mine, base);
  }
}

/** Until a blank view shows everything. Both ends are in this process, without a network between them. */
async function benchNewcomer(how: string, view: BeaconView, log: BeaconLog): Promise<void> {
  const begun = performance.now();
  const used = process.cpuUsage();
  const main = process.threadCpuUsage();
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  await view.waitFor(recordsCount, AbortSignal.timeout(3_600_000));
  const micros = ({ user, system }: NodeJS.CpuUsage): number => Math.round((user + system) / recordsCount);
  const all = micros(process.cpuUsage(used));
  const own = micros(process.threadCpuUsage(main));
  const rss = Math.round(process.memoryUsage.rss() / 2 ** 20);
  console.log(
    `blank view, ${how}: ${recordsCount} entries in ${seconds(begun)} s, ${all} µs of processor time each, ` +
      `of it ${own} on the main thread, RSS ${rss} MiB`,
  );
  stop.abort();
  await following;
}

/** The same rows, taken from a view that has them. */
async function benchSnapshot(log: LevelLog, kv: LevelKv): Promise<void> {
  const giving: BeaconLog = {
    append: (append) => log.append(append),
    read: (from, options) => log.read(from, options),
    watch: (from, options) => log.watch(from, options),
    head: () => log.head(),
    snapshot: () => packRows(kv.sealedRows(), () => true),
    [Symbol.asyncDispose]: async () => undefined,
  };
  const copied = join(directory, 'copied');
  await using view = await BeaconView.open(await LevelKv.open(copied), {
    signatures: 'after',
    snapshotFrom: 1,
  });
  await benchNewcomer('by a snapshot', view, giving);
  console.log(
    `rows of a view on disk: ${Math.round((await sizeBytesOf(copied)) / recordsCount)} B per entry`,
  );
}

async function sizeBytesOf(path: string): Promise<number> {
  const files = await readdir(path, { recursive: true, withFileTypes: true });
  const sizes = files
    .filter((file) => file.isFile())
    .map(async (file) => (await stat(join(file.parentPath, file.name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

async function alternate(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<[number, number]> {
  const mine: number[] = [];
  const base: number[] = [];
  for (let round = 0; round < rounds; round++) {
    base.push(await theirs());
    mine.push(await ours());
  }
  return [median(mine), median(base)];
}

/** Calls per second with `width` under way. */
async function perSecond(count: number, width: number, call: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await call();
  };
  await Promise.all(Array.from({ length: width }, worker));
  return (count * 1000) / (performance.now() - begun);
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0;
}

function report(what: string, ours: number, raw: number): void {
  console.log(
    `${what}: ${Math.round(ours)}, raw LevelDB ${Math.round(raw)}, ratio ${(ours / raw).toFixed(2)}`,
  );
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}
