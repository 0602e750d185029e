// The replicated Beacon while everything happens to its servers: three NATS servers, writers with compare-and-set on
// three logs with a copy and a view each, and one fault after the other.
//
//   node bench/beacon-faults.bench.ts [--writers 50] [--cuts 10] [--appends 300] [--only power-all]
//
// Power cuts need root and loop devices: every server keeps its files on an ext4 of its own in an image; the servers are
// stopped, the images copied (they hold what was flushed), the servers killed, and started on the copies. `control` does
// the same with servers that do not sync: it must be seen to lose, to be named, and to be filled again from the copies.
// Exits with 1 when anything acknowledged was lost, accepted twice, or read stale, or when the control lost nothing.

import assert from 'node:assert/strict';
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { JetStreamLog, type JetStreamLogOptions } from '../src/beacon/jetstream.ts';
import { sayInStream } from '../src/beacon/jetstream-word.ts';
import { LevelLog } from '../src/beacon/level.ts';
import type { BeaconLog } from '../src/beacon/log.ts';
import { copyLog } from '../src/beacon/migrate.ts';
import { PatientLog } from '../src/beacon/patient-log.ts';
import { toHex } from '../src/core/bytes.ts';
import { isHoldfastError } from '../src/core/errors.ts';
import { assertKept, CasWriters } from '../test/support/cas-writers.ts';
import { jetStreamRoom, type JetStreamRoom, openWhenUp } from '../test/support/jetstream-logs.ts';
import { LoopDisks } from '../test/support/loop-disks.ts';
import {
  beaconLogin,
  type NatsCluster,
  startNatsCluster,
  systemLogin,
} from '../test/support/nats-cluster.ts';

const { values } = parseArgs({
  options: {
    writers: { type: 'string', default: '50' },
    cuts: { type: 'string', default: '10' },
    appends: { type: 'string', default: '300' },
    only: { type: 'string' },
  },
});
const [writersCount, cuts, appends] = [values.writers, values.cuts, values.appends].map(Number);
if (writersCount === undefined || cuts === undefined || appends === undefined)
  throw new TypeError('a number');

/** A cluster, three logs over it, and writers. */
interface Scene {
  readonly room: JetStreamRoom;
  readonly cluster: NatsCluster;
  readonly options: JetStreamLogOptions;
  readonly directories: readonly string[];
  readonly writers: CasWriters;
  readonly disks: LoopDisks | undefined;
}

const faults: Readonly<Record<string, (scene: Scene) => Promise<void>>> = {
  'kill-leader': async ({ cluster, options }) => {
    const leader = await leaderOf(cluster, options.stream);
    await cluster.end(leader);
    await delay(3000);
    await cluster.start(leader);
  },
  'kill-all': async ({ cluster }) => {
    await Promise.all([0, 1, 2].map((index) => cluster.end(index)));
    await Promise.all([0, 1, 2].map((index) => cluster.start(index)));
  },
  pause: async ({ cluster, options }) => {
    const leader = await leaderOf(cluster, options.stream);
    cluster.signal(leader, 'SIGSTOP');
    await delay(8000);
    cluster.signal(leader, 'SIGCONT');
  },
  partition: async ({ cluster, options }) => {
    const leader = await leaderOf(cluster, options.stream);
    cluster.isolate(leader);
    await delay(15_000);
    cluster.join();
  },
  'power-one': async ({ cluster, disks }) => {
    const index = Math.floor(Math.random() * 3);
    await cut(cluster, disks, [index]);
  },
  'power-all': async ({ cluster, disks }) => cut(cluster, disks, [0, 1, 2]),
  'bit-flips': async ({ cluster }) => damaged(cluster, 'flip'),
  truncation: async ({ cluster }) => damaged(cluster, 'truncate'),
};
const needsDisks = ['power-one', 'power-all'];

const wanted = values.only === undefined ? [...Object.keys(faults), 'control'] : [values.only];
let failed = 0;
for (const name of wanted) {
  const repeats = needsDisks.includes(name) ? cuts : name === 'control' ? 3 : 1;
  try {
    await (name === 'control' ? control(repeats) : run(name, repeats));
  } catch (error) {
    failed++;
    console.log(`${name}: FAILED`, error);
  }
}
process.exitCode = failed === 0 ? 0 : 1;

async function run(name: string, repeats: number): Promise<void> {
  await using scene = await makeScene({ withDisks: needsDisks.includes(name) });
  const { writers } = scene;
  const begun = performance.now();
  for (let round = 0; round < repeats; round++) {
    await writers.more(appends ?? 0);
    await faults[name]?.(scene);
    await writers.more(appends ?? 0);
  }
  await writers.stop();
  const stale = await scene.readers();
  await using newcomer = await openWhenUp({ ...scene.options, directory: `${scene.options.directory}-new` });
  const entries = await assertKept(newcomer, writers.acknowledged);
  const head = await newcomer.head();
  for (const directory of scene.directories) {
    await using log = await openWhenUp({ ...scene.options, directory });
    assert.equal(toHex((await log.head()).chain), toHex(head.chain), 'the copies differ');
  }
  assert.equal(stale, 0, 'stale reads');
  console.log(
    `${name} ×${repeats}: ${writers.acknowledged.length} acknowledged of ${entries.length}, 0 lost, 0 twice, ` +
      `0 stale of ${scene.reads()} reads, ${writers.unanswered} sent again, ${seconds(begun)} s`,
  );
}

/** Servers that do not sync: what they lose is named, and filled again. */
async function control(repeats: number): Promise<void> {
  let lost = 0;
  for (let round = 0; round < repeats; round++) {
    await using scene = await makeScene({ withDisks: true, syncInterval: '2m' });
    const { writers, cluster, options } = scene;
    await writers.more(2 * (appends ?? 0));
    await cut(cluster, scene.disks, [0, 1, 2], () => writers.stop().catch(() => undefined));
    await scene.readers();
    const longest = await longestCopy(scene.directories);
    let isNamed = false;
    try {
      await using log = await openWhenUp({ ...options, directory: longest, behindMs: 3000 });
      await log.head();
    } catch (error) {
      isNamed = isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true;
      if (!isNamed) throw error;
    }
    if (!isNamed) continue;
    lost++;
    const next = { ...options, stream: `${options.stream}-e2`, directory: `${options.directory}-e2` };
    await using copy = await LevelLog.open(longest);
    await using filled = await openWhenUp({ ...next, create: { replicas: 3, closed: true }, fills: true });
    await copyLog(copy, filled);
    await sayInStream(next, { kind: 'open', by: 'bench', why: 'it is in force' });
    await assertKept(filled, writers.acknowledged);
  }
  assert(lost > 0, 'servers without sync lost nothing: the test is blind');
  console.log(
    `control ×${repeats}: ${lost} lost what they had acknowledged; each was named and filled again, 0 lost`,
  );
}

interface OpenScene extends Scene, AsyncDisposable {
  /** Ends the readers; how many reads behind an acknowledgement did not show it. */
  readers(): Promise<number>;
  reads(): number;
}

async function makeScene({
  withDisks,
  syncInterval,
}: {
  withDisks: boolean;
  syncInterval?: string;
}): Promise<OpenScene> {
  const room = await jetStreamRoom();
  const disks = withDisks ? await LoopDisks.make(room, 3) : undefined;
  const cluster = await startNatsCluster(room, {
    ...(disks === undefined ? {} : { storeOf: (index) => disks.pathOf(index) }),
    ...(syncInterval === undefined ? {} : { syncInterval }),
    proxied: true,
  });
  const acceptNotDurable = syncInterval !== undefined;
  const options = room.options(cluster, {
    timeoutMs: 2000,
    acceptNotDurable,
    login: beaconLogin,
    system: systemLogin,
  });
  await openWhenUp(options).then((log) => log[Symbol.asyncDispose]());
  const directories = ['', '-b', '-c'].map((suffix) => `${options.directory}${suffix}`);
  const logs: BeaconLog[] = [];
  for (const directory of directories) {
    await mkdir(directory, { recursive: true });
    const { create: _create, ...access } = options;
    logs.push(await PatientLog.start((signal) => JetStreamLog.open({ ...access, directory, signal })));
  }
  const writers = new CasWriters(logs, writersCount ?? 0);
  const stop = new AbortController();
  let [reads, stale] = [0, 0];
  /** What one log acknowledged is read through another one, once that has come so far. */
  const reading = (async () => {
    for (let at = 0; !stop.signal.aborted; at++) {
      await delay(50);
      const last = writers.acknowledged.at(-1);
      const log = logs[at % logs.length];
      if (last === undefined || log === undefined) continue;
      try {
        if ((await log.head()).revision < last.revision) continue; // not there yet: who holds the token waits
        for await (const { chain } of log.read(last.revision)) {
          reads++;
          if (toHex(chain) !== last.chain) stale++;
          break;
        }
      } catch {
        // no server answers: no read, so no stale one
      }
    }
  })();
  let isClosed = false;
  const close = async (): Promise<void> => {
    if (isClosed) return;
    isClosed = true;
    stop.abort();
    await reading;
    for (const log of logs) await log[Symbol.asyncDispose]();
  };
  return {
    room,
    cluster,
    options,
    directories,
    writers,
    disks,
    reads: () => reads,
    readers: async () => {
      await close();
      return stale;
    },
    [Symbol.asyncDispose]: async () => {
      await close();
      await room.end();
    },
  };
}

/** Cuts the power of some servers: what was not flushed is gone. */
async function cut(
  cluster: NatsCluster,
  disks: LoopDisks | undefined,
  indexes: readonly number[],
  meanwhile: () => Promise<unknown> = async () => undefined,
): Promise<void> {
  assert(disks !== undefined, 'no disks');
  for (const index of indexes) cluster.signal(index, 'SIGSTOP');
  for (const index of indexes) await disks.snapshot(index);
  for (const index of indexes) await cluster.end(index);
  await meanwhile();
  for (const index of indexes) await disks.restore(index);
  for (const index of indexes) await cluster.start(index);
}

/** Damages files of the stream on one server that is down. */
async function damaged(cluster: NatsCluster, how: 'flip' | 'truncate'): Promise<void> {
  const index = Math.floor(Math.random() * 3);
  await cluster.end(index);
  const store = cluster.storeOf(index);
  const names = await readdir(store, { recursive: true });
  const blocks = names.filter((name) => name.endsWith('.blk') && name.includes('BEACON'));
  assert(blocks.length > 0, 'no files to damage');
  for (const name of blocks) {
    const path = join(store, name);
    const { size } = await stat(path);
    if (size < 64) continue;
    await using file = await open(path, 'r+');
    if (how === 'truncate') await file.truncate(Math.floor(size / 2));
    else
      for (let count = 0; count < 20; count++) {
        const at = Math.floor(Math.random() * size);
        const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
        await file.write(Buffer.of((buffer[0] ?? 0) ^ (1 << (count % 8))), 0, 1, at);
      }
  }
  await cluster.start(index);
  await delay(3000);
}

async function leaderOf(cluster: NatsCluster, stream: string): Promise<number> {
  for (;;) {
    const leader = await cluster.leaderOf(stream);
    if (leader !== undefined) return leader;
    await delay(100);
  }
}

async function longestCopy(directories: readonly string[]): Promise<string> {
  let [longest = '', most] = [directories[0], -1];
  for (const directory of directories) {
    await using copy = await LevelLog.open(directory);
    const { revision } = await copy.head();
    if (revision > most) [longest, most] = [directory, revision];
  }
  return longest;
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(0);
}
