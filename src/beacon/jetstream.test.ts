import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { beaconLogSuite, entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom } from '../../test/support/jetstream-logs.ts';
import { type NatsCluster, startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { JetStreamLog } from './jetstream.ts';

const room = await jetStreamRoom();

describe('JetStream', { skip: await natsSkip() }, () => {
  let single: NatsCluster;
  let cluster: NatsCluster;
  before(async () => {
    single = await startNatsCluster(room, { size: 1 });
    cluster = await startNatsCluster(room);
    await room.untilReady(cluster);
  });
  after(() => room.end());
  beaconLogSuite('JetStream, one server', () => room.fixture(single));
  beaconLogSuite('JetStream, three servers', () => room.fixture(cluster));

  it('is written by several writers at once, each with a copy of its own', async () => {
    const first = room.options(single);
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
      Array.from({ length: 100 }, (_, index) =>
        (index % 2 === 0 ? one : two).append(someAppend(`addr/${index}`)),
      ),
    );
    assert.deepEqual(await one.head(), await two.head());
    assert.equal((await entriesOf(two)).length, 102);
  });
});
