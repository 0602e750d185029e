// The Beacon against raw LevelDB on the same disk, in the same run: appends, lookups, and the catch-up of a blank view.
//
//   node bench/beacon.bench.ts [--records 100000] [--rounds 5]
//
// Each figure is the median over rounds in which ours and the raw one alternate, so that both meet the same noise.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ClassicLevel } from 'classic-level';
import { encodeAppend } from '../src/beacon/log.ts';
import { LevelLog } from '../src/beacon/level.ts';
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
  await using view = await BeaconView.open(await LevelKv.open(join(directory, 'view')), {
    cacheBytes: 0,
    signatures: 'after', // as a door does
  });
  const begun = performance.now();
  const used = process.cpuUsage();
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  await view.waitFor(recordsCount, AbortSignal.timeout(600_000));
  const { user, system } = process.cpuUsage(used);
  const each = Math.round((user + system) / recordsCount);
  const rss = Math.round(process.memoryUsage.rss() / 2 ** 20);
  console.log(
    `catch-up of a blank view: ${recordsCount} entries in ${seconds(begun)} s, ${each} µs of processor time each, RSS ${rss} MiB`,
  );
  stop.abort();
  await following;
  const any = (): string => address(Math.floor(Math.random() * recordsCount));
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      () => perSecond(lookupsPerRound, width, () => view.head(any())),
      () => perSecond(lookupsPerRound, width, () => raw.get(any())),
    );
    report(`lookups/s of random addresses, ${width} at once, no cache`, mine, base);
  }
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
