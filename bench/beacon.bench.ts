// The Beacon against raw LevelDB on the same disk, and against raw JetStream on the same servers, in the same run:
// appends, watching, lookups, the catch-up of a blank view, and memory.
//
//   node bench/beacon.bench.ts [--records 100000] [--rounds 5] [--only appends,view,full,copy,stream] [--keep DIRECTORY]
//
// `copy` takes a snapshot of the view. `full` is about a log and a view that hold all records, beside LevelDB that has the
// same rows. What `--keep` names is not removed: the next run goes on with the entries and the folded view that it finds
// there, and does not time them again. A million entries:
//
//   node bench/beacon.bench.ts --records 1000000 --rounds 3 --only full,copy --keep DIRECTORY
//
// Each figure is the median over rounds in which ours and the raw one alternate, so that both meet the same noise.

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { ClassicLevel } from 'classic-level';
import { type Append, type BeaconLog, encodeAppend } from '../src/beacon/log.ts';
import { LevelLog } from '../src/beacon/level.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { natsSkip } from '../test/support/nats-server.ts';
import type { MemoryReport } from './beacon-memory.child.ts';
import { benchFull, fill } from './beacon-full.ts';
import { benchCopy } from './beacon-pair.ts';
import { benchStream, watchLatency } from './beacon-stream.ts';
import { alternate, perSecond, seconds } from './measure.ts';
import { putAppend, someAddress, someId, someManifest } from '../test/suites/beacon-records.ts';

const { values } = parseArgs({
  options: {
    records: { type: 'string' },
    rounds: { type: 'string' },
    only: { type: 'string' },
    keep: { type: 'string' },
  },
});
const recordsCount = Number(values.records ?? 100_000);
const rounds = Number(values.rounds ?? 5);
const appendsPerRound = 1000;
const lookupsPerRound = 20_000;
const bk = someId('bk');
const prepared = putAppend(someManifest(someAddress('bench')), bk);

/** A view that checks its tables keeps no process alive, and here nothing else may be under way. */
const alive = setInterval(() => undefined, 1000);
const directory = values.keep ?? (await mkdtemp(join(tmpdir(), 'holdfast-bench-')));
await mkdir(directory, { recursive: true });
const filled = join(directory, 'catch-up');
const full = {
  log: filled,
  view: join(directory, 'view'),
  scratch: join(directory, 'scratch'),
  recordsCount,
  rounds,
  append: prepared,
  report,
};
try {
  const raw = new ClassicLevel<string, Uint8Array>(join(directory, 'raw'), { valueEncoding: 'view' });
  const only = values.only?.split(',');
  const isWanted = (...parts: readonly string[]): boolean =>
    only === undefined || parts.some((part) => only.includes(part));
  if (isWanted('appends')) await benchAppends(raw);
  await benchView(raw, isWanted('view'));
  await raw.close();
  if (isWanted('full')) await benchFull(full);
  if (isWanted('view', 'copy')) await benchCopied();
  if (isWanted('view', 'full')) await benchMemory();
  const skip = isWanted('stream') ? await natsSkip() : 'no stream';
  if (skip === false) await benchStream({ rounds, appendsPerRound, append: prepared, filled, recordsCount });
  else console.log(skip);
} finally {
  clearInterval(alive);
  if (values.keep === undefined) await rm(directory, { recursive: true });
}

async function benchAppends(raw: ClassicLevel<string, Uint8Array>): Promise<void> {
  await using log = await LevelLog.open(join(directory, 'log'));
  const payload = encodeAppend(prepared);
  let serial = 0;
  const next = (): Append => ({ ...prepared, subject: `addr/${serial++}`, expected: 0 });
  const ours = () => log.append(next());
  const theirs = () => raw.put(`k${serial++}`, payload, { sync: true });
  await ours();
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      rounds,
      () => perSecond(appendsPerRound, width, ours),
      () => perSecond(appendsPerRound, width, theirs),
    );
    report(`synced appends/s, ${width} at once, ${payload.length} B`, mine, base);
  }
  await watchLatency('LevelDB', log, log, next);
}

async function benchView(raw: ClassicLevel<string, Uint8Array>, isLookedUp: boolean): Promise<void> {
  await using log = await LevelLog.open(filled);
  const address = (index: number): string => someAddress(`bench/${index}`);
  const started = performance.now();
  const kept = (await log.head()).revision;
  await fill(log, recordsCount, async ({ subject, records: [manifest] }) => {
    if (isLookedUp && manifest !== undefined) await raw.put(subject.slice('addr/'.length), manifest.bytes);
  });
  console.log(`made ${recordsCount - kept} entries (signing included) in ${seconds(started)} s`);
  const kv = await LevelKv.open(join(directory, 'view'));
  await using view = await BeaconView.open(kv, {
    cacheBytes: 0,
    signatures: 'after', // as a door does
    snapshotFrom: Number.POSITIVE_INFINITY,
  });
  if (view.position().revision < recordsCount) await benchNewcomer('folding the log', view, log);
  if (!isLookedUp) {
    await kv.write(new Map([['sig', null]])); // nobody opens its records: to verify so many signatures takes minutes
    return;
  }
  await allOpened(kv, view, log);
  const any = (): string => address(Math.floor(Math.random() * recordsCount));
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      rounds,
      () => perSecond(lookupsPerRound, width, () => view.head(any())),
      () => perSecond(lookupsPerRound, width, () => raw.get(any())),
    );
    report(`lookups/s of random addresses, ${width} at once, no cache`, mine, base);
  }
}

/** Until every record was opened that was folded in on trust: whoever asks before that has it opened first. */
async function allOpened(kv: LevelKv, view: BeaconView, log: BeaconLog): Promise<void> {
  const begun = performance.now();
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  while ((await kv.get('sig')) !== undefined) await delay(100);
  console.log(`its records opened afterwards, all of them after ${seconds(begun)} s more`);
  stop.abort();
  await following;
}

/** Until a blank view shows everything. The log is in this process, too. */
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

/** The same rows, taken from a process that has them. */
async function benchCopied(): Promise<void> {
  const copied = join(directory, 'copied');
  await rm(copied, { recursive: true, force: true });
  await benchCopy(filled, join(directory, 'view'), copied, recordsCount);
  for (const [what, path] of [
    ['folded', 'view'],
    ['copied', 'copied'],
  ] as const) {
    const perEntry = (await sizeBytesOf(join(directory, path))) / recordsCount;
    console.log(`rows of a ${what} view on disk: ${Math.round(perEntry)} B per entry`);
  }
}

/** What a process needs for log and view, by a child with all of it beside one with none. */
async function benchMemory(): Promise<void> {
  const empty = await memoryOf(join(directory, 'empty-log'), join(directory, 'empty-view'));
  const full = await memoryOf(filled, join(directory, 'view'));
  const million = (name: keyof MemoryReport): number =>
    Math.round(((full[name] - empty[name]) * 1e6) / recordsCount);
  console.log(
    `a process with log and view of ${recordsCount} entries: resident ${full.residentMiB} MiB, of which its own ` +
      `${full.ownMiB} MiB, heap ${full.heapMiB} MiB; with empty ones ${empty.residentMiB}, ${empty.ownMiB} and ` +
      `${empty.heapMiB}; for a million ${million('ownMiB')} of its own and ${million('heapMiB')} of heap more at this rate`,
  );
}

async function memoryOf(log: string, view: string): Promise<MemoryReport> {
  const path = fileURLToPath(new URL('./beacon-memory.child.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', path, log, view]);
  return JSON.parse(stdout) as MemoryReport;
}

async function sizeBytesOf(path: string): Promise<number> {
  const files = await readdir(path, { recursive: true, withFileTypes: true });
  const sizes = files
    .filter((file) => file.isFile())
    .map(async (file) => (await stat(join(file.parentPath, file.name))).size);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

function report(what: string, ours: number, raw: number): void {
  console.log(
    `${what}: ${Math.round(ours)}, raw LevelDB ${Math.round(raw)}, ratio ${(ours / raw).toFixed(2)}`,
  );
}
