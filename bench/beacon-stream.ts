// The part of beacon.bench.ts that needs NATS servers: the Beacon in a stream against raw JetStream on the same three
// servers, which sync before they acknowledge.

import { readFile } from 'node:fs/promises';
import { DeliverPolicy, DiscardPolicy, RetentionPolicy, StorageType } from '@nats-io/jetstream';
import type { JetStreamLogOptions } from '../src/beacon/jetstream.ts';
import { LevelLog } from '../src/beacon/level.ts';
import { type Append, type BeaconLog, encodeAppend } from '../src/beacon/log.ts';
import { copyLog } from '../src/beacon/migrate.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { jetStreamRoom, openWhenUp } from '../test/support/jetstream-logs.ts';
import { manage, type NatsCluster, startNatsCluster } from '../test/support/nats-cluster.ts';
import { alternate, perSecond, quantile, seconds, timesOf } from './measure.ts';

export interface StreamBench {
  readonly rounds: number;
  readonly appendsPerRound: number;
  /** What is appended, each time to a subject of its own. */
  readonly append: Append;
  /** A log on LevelDB that is moved into the stream, and its entries. */
  readonly filled: string;
  readonly recordsCount: number;
}

export async function benchStream(options: StreamBench): Promise<void> {
  const room = await jetStreamRoom();
  try {
    const cluster = await startNatsCluster(room);
    const access = room.options(cluster);
    await benchAppends(cluster, access, options);
    await benchCatchUp(cluster, room.options(cluster), options);
  } finally {
    await room.end();
  }
}

/** From sending an append until somebody who watches has it, beside how long its answer takes. */
export async function watchLatency(
  what: string,
  log: BeaconLog,
  watching: BeaconLog,
  append: () => Append,
): Promise<void> {
  const left = new AbortController();
  const { revision } = await log.head();
  const entries = watching.watch(revision + 1, { signal: left.signal })[Symbol.asyncIterator]();
  await seenAfter(
    what,
    () => log.append(append()),
    () => entries.next(),
  );
  left.abort();
}

const watchedCount = 1000;

async function seenAfter(
  what: string,
  send: () => Promise<unknown>,
  next: () => Promise<unknown>,
): Promise<void> {
  const answers: number[] = [];
  const seen = await timesOf(watchedCount, async () => {
    const begun = performance.now();
    const coming = next();
    await send();
    answers.push(performance.now() - begun);
    await coming;
  });
  const shown = (times: readonly number[]): string =>
    `p50 ${quantile(times, 0.5).toFixed(2)} ms, p99 ${quantile(times, 0.99).toFixed(2)} ms`;
  console.log(
    `${what}: a watcher has an append after ${shown(seen)}; it is answered after ${shown(answers)}`,
  );
}

async function benchAppends(
  cluster: NatsCluster,
  access: JetStreamLogOptions,
  { rounds, appendsPerRound, append }: StreamBench,
): Promise<void> {
  await using log = await openWhenUp(access);
  const payload = encodeAppend(append);
  let serial = 0;
  const next = (): Append => ({ ...append, subject: `addr/${serial++}`, expected: 0 });
  const name = 'raw';
  await manage(cluster, async (manager, client) => {
    await manager.streams.add({ ...rawStream, name, subjects: [`${name}.log`] });
    for (const width of [1, 64]) {
      const [mine, base] = await alternate(
        rounds,
        () => perSecond(appendsPerRound, width, () => log.append(next())),
        () => perSecond(appendsPerRound, width, () => client.publish(`${name}.log`, payload)),
      );
      console.log(
        `JetStream, 3 servers: durable appends/s, ${width} at once, ${payload.length} B: ${Math.round(mine)}, ` +
          `raw JetStream ${Math.round(base)}, ratio ${(mine / base).toFixed(2)}`,
      );
    }
    // Only now: the raw stream has nobody else who keeps a copy while it is appended to either.
    await using watching = await openWhenUp({ ...access, directory: `${access.directory}-watching` });
    await watchLatency('JetStream, 3 servers', log, watching, next);
    const consumer = await client.consumers.get(name, { deliver_policy: DeliverPolicy.New });
    const messages = await consumer.consume();
    const coming = messages[Symbol.asyncIterator]();
    await client.publish(`${name}.log`, payload).then(() => coming.next()); // it is there
    await seenAfter(
      'raw JetStream, 3 servers',
      () => client.publish(`${name}.log`, payload),
      () => coming.next(),
    );
    messages.stop();
  });
}

/** As the Beacon's own. */
const rawStream = {
  retention: RetentionPolicy.Limits,
  storage: StorageType.File,
  discard: DiscardPolicy.New,
  num_replicas: 3,
} as const;

async function benchCatchUp(
  cluster: NatsCluster,
  access: JetStreamLogOptions,
  { filled, recordsCount }: StreamBench,
): Promise<void> {
  const before = await residentMiB(cluster);
  let begun = performance.now();
  {
    await using source = await LevelLog.open(filled);
    await using log = await openWhenUp(access);
    await copyLog(source, log);
  }
  console.log(`moved ${recordsCount} entries from LevelDB into the stream in ${seconds(begun)} s`);
  const after = await residentMiB(cluster);
  begun = performance.now();
  await using blank = await openWhenUp({ ...access, directory: `${access.directory}-blank` });
  console.log(`a blank copy of the stream: ${recordsCount} entries in ${seconds(begun)} s`);
  begun = performance.now();
  const kv = await LevelKv.open(`${access.directory}-view`);
  await using view = await BeaconView.open(kv, { signatures: 'after' });
  const stop = new AbortController();
  const following = view.follow(blank, stop.signal);
  await view.waitFor(recordsCount, AbortSignal.timeout(3_600_000));
  console.log(`a blank view of that copy: ${recordsCount} entries in ${seconds(begun)} s`);
  stop.abort();
  await following;
  const grown = after.map((each, index) => each - (before[index] ?? 0));
  console.log(
    `nats-server, resident: ${before.join(', ')} MiB before, ${after.join(', ')} MiB with ${recordsCount} entries; ` +
      `${Math.round((Math.max(...grown) * 1e6) / recordsCount)} MiB more for a million`,
  );
}

async function residentMiB(cluster: NatsCluster): Promise<number[]> {
  return Promise.all(
    cluster.urls.map(async (_, index) => {
      const status = await readFile(`/proc/${cluster.pidOf(index)}/status`, 'utf8');
      return Math.round(Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024);
    }),
  );
}
