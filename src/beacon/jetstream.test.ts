import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { beaconLogSuite, entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import {
  beaconLogin,
  type NatsCluster,
  startNatsCluster,
  systemLogin,
} from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { JetStreamLog, type JetStreamLogOptions } from './jetstream.ts';

const skip = await natsSkip();
const endings: (() => Promise<void>)[] = [];
const directory = await mkdtemp(join(tmpdir(), 'holdfast-jetstream-'));
after(async () => {
  for (const end of endings.toReversed()) await end();
  await rm(directory, { recursive: true });
});
const group = { after: (end: () => Promise<void>) => void endings.push(end) };
let names = 0;

/** Options for a new stream with a copy of its own. */
function options(cluster: NatsCluster, more: Partial<JetStreamLogOptions> = {}): JetStreamLogOptions {
  const stream = `log${++names}`;
  return {
    servers: cluster.urls,
    login: beaconLogin,
    system: systemLogin,
    stream,
    directory: join(directory, stream),
    create: { replicas: cluster.urls.length },
    acceptNotDurable: cluster.urls.length < 3,
    ...more,
  };
}

function suiteOn(name: string, cluster: NatsCluster): void {
  beaconLogSuite(name, async () => {
    const opened = options(cluster);
    let log = await JetStreamLog.open(opened);
    return {
      log,
      reopen: async () => {
        await log[Symbol.asyncDispose]();
        log = await JetStreamLog.open(opened);
        return log;
      },
      [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
    };
  });
}

if (skip === false) suiteOn('JetStream, one server', await startNatsCluster(group, { size: 1 }));

describe('a Beacon log on JetStream', { skip }, () => {
  it('is written by several writers at once, each with a copy of its own', async () => {
    const cluster = await startNatsCluster(group, { size: 1 });
    const first = options(cluster);
    await using one = await JetStreamLog.open(first);
    await using two = await JetStreamLog.open({ ...first, directory: `${first.directory}-two` });
    const { revision } = await one.append(someAppend('addr/a', { expected: 0 }));
    // The second knows only from elsewhere that there is something to be overwritten.
    await two.append(someAppend('addr/a', { expected: revision }));
    await assert.rejects(one.append(someAppend('addr/a', { expected: revision })), {
      code: 'VERSION_CONFLICT',
      details: { subject: 'addr/a', expected: 1, current: 2 },
    });
    await Promise.all(
      Array.from({ length: 100 }, (_, index) => [one, two][index % 2]?.append(someAppend(`addr/${index}`))),
    );
    assert.deepEqual(await one.head(), await two.head());
    assert.equal((await entriesOf(two)).length, 102);
  });
});
