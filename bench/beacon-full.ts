// A Beacon that holds many entries: they are made here, and its appends and lookups are held against LevelDB that has the
// very same rows: its tables under a second name.

import { once } from 'node:events';
import { copyFile, link, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ClassicLevel } from 'classic-level';
import { LevelLog } from '../src/beacon/level.ts';
import { type Append, type BeaconLog, encodeAppend } from '../src/beacon/log.ts';
import { rowKey } from '../src/beacon/rows.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { someAddress } from '../test/suites/beacon-records.ts';
import type { EntriesWanted } from './beacon-entries.worker.ts';
import { alternate, perSecond } from './measure.ts';

/** Lists of signed appends that are on their way at a time. */
const ahead = 4;

/** Fills `log` up to `count` entries. `each` is called with every append. */
export async function fill(
  log: BeaconLog,
  count: number,
  each: (append: Append) => Promise<unknown> = async () => undefined,
): Promise<void> {
  const wanted: EntriesWanted = { from: (await log.head()).revision, to: count };
  const worker = new Worker(new URL('./beacon-entries.worker.ts', import.meta.url), { workerData: wanted });
  const lists: Promise<readonly Append[]>[] = [];
  const ask = (): void => {
    worker.postMessage('more', []);
    lists.push(nextOf(worker, lists.at(-1)));
  };
  for (let at = 0; at < ahead; at++) ask();
  for (let list = await lists.shift(); list !== undefined && list.length > 0; list = await lists.shift()) {
    ask();
    await Promise.all(list.flatMap((append) => [log.append(append), each(append)]));
  }
  await worker.terminate();
}

/** Answers come in the order of their questions. */
async function nextOf(worker: Worker, before: Promise<unknown> | undefined): Promise<readonly Append[]> {
  await before;
  const [list] = await once(worker, 'message');
  return list;
}

export interface FullOptions {
  readonly log: string;
  readonly view: string;
  /** For what is removed afterwards, on the same disk. */
  readonly scratch: string;
  readonly recordsCount: number;
  readonly rounds: number;
  readonly append: Append;
  readonly report: (what: string, ours: number, raw: number) => void;
}

/** `log` and `view`: directories that nobody has open. They stay what they are. */
export async function benchFull(options: FullOptions): Promise<void> {
  await rm(options.scratch, { recursive: true, force: true });
  await mkdir(options.scratch);
  await benchFullAppends(options);
  await benchFullLookups(options);
  await rm(options.scratch, { recursive: true });
}

const appendsPerRound = 1000;
const lookupsPerRound = 20_000;

async function benchFullAppends({
  log,
  scratch,
  rounds,
  append,
  recordsCount,
  report,
}: FullOptions): Promise<void> {
  await linkStore(log, join(scratch, 'log'));
  await linkStore(join(log, 'db'), join(scratch, 'raw-log'));
  await using ours = await LevelLog.open(join(scratch, 'log'));
  const raw = await openRaw(join(scratch, 'raw-log'));
  const payload = encodeAppend(append);
  let serial = 0;
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      rounds,
      () =>
        perSecond(appendsPerRound, width, () =>
          ours.append({ ...append, subject: `addr/full/${serial++}`, expected: 0 }),
        ),
      () => perSecond(appendsPerRound, width, () => raw.put(`k${serial++}`, payload, { sync: true })),
    );
    report(`synced appends/s to ${recordsCount} entries, ${width} at once, ${payload.length} B`, mine, base);
  }
  await raw.close();
}

async function benchFullLookups({ view, scratch, rounds, recordsCount, report }: FullOptions): Promise<void> {
  await linkStore(join(view, 'db'), join(scratch, 'raw-view'));
  await using ours = await BeaconView.open(await LevelKv.open(view), { cacheBytes: 0 });
  for await (const _row of ours.rows()) break; // like one that has been up for a while, it has looked at all its tables
  const raw = await openRaw(join(scratch, 'raw-view'));
  const any = (): string => someAddress(`bench/${Math.floor(Math.random() * recordsCount)}`);
  for (const width of [1, 64]) {
    const [mine, base] = await alternate(
      rounds,
      () => perSecond(lookupsPerRound, width, () => ours.head(any())),
      () => perSecond(lookupsPerRound, width, () => raw.get(rowKey('head', `addr/${any()}`))),
    );
    report(`lookups/s of random addresses among ${recordsCount}, ${width} at once, no cache`, mine, base);
  }
  await raw.close();
}

async function openRaw(path: string): Promise<ClassicLevel<string, Uint8Array>> {
  const raw = new ClassicLevel<string, Uint8Array>(path, { valueEncoding: 'view', createIfMissing: false });
  await raw.open();
  return raw;
}

/** The same files somewhere else. A table never changes, so it only gets a second name. */
async function linkStore(from: string, to: string): Promise<void> {
  await mkdir(to);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await linkStore(source, target);
    else if (entry.name.endsWith('.ldb')) await link(source, target);
    else if (entry.name !== 'LOCK') await copyFile(source, target);
  }
}
