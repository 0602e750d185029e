import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { assertKept, CasWriters } from '../../test/support/cas-writers.ts';
import { jetStreamRoom, openWhenUp } from '../../test/support/jetstream-logs.ts';
import { type NatsCluster, startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { sameBytes } from '../core/bytes.ts';
import { JetStreamLog } from './jetstream.ts';

const room = await jetStreamRoom();
after(() => room.end());

describe('a Beacon log on JetStream, while servers die', { skip: await natsSkip() }, () => {
  it('loses and doubles nothing of 20 writers when the leader is killed, and when all are', async (t) => {
    const cluster = await startNatsCluster(room);
    const options = room.options(cluster, { timeoutMs: 2000 });
    const first = await openWhenUp(options);
    const others = ['b', 'c', 'd'].map((name) => ({ ...options, directory: `${options.directory}-${name}` }));
    const logs = [first, ...(await Promise.all(others.map((each) => JetStreamLog.open(each))))];
    t.after(() => Promise.all(logs.map((log) => log[Symbol.asyncDispose]())));
    const writers = new CasWriters(logs, 20);
    await writers.more(200);
    await killLeader(cluster, options.stream);
    await writers.more(200);
    await Promise.all([0, 1, 2].map((index) => cluster.end(index)));
    await Promise.all([0, 1, 2].map((index) => cluster.start(index)));
    await writers.more(200);
    await writers.stop();
    await using newcomer = await JetStreamLog.open({ ...options, directory: `${options.directory}-new` });
    const entries = await assertKept(newcomer, writers.acknowledged);
    assert(writers.acknowledged.length >= 600 && entries.length >= 600);
    const head = await newcomer.head();
    for (const log of logs) {
      assert(sameBytes((await log.head()).chain, head.chain));
      assert.equal(log.health().state, 'ready');
    }
  });

  it('takes an append once whose acknowledgement was late', async () => {
    const cluster = await startNatsCluster(room, { size: 1 });
    const options = room.options(cluster, { timeoutMs: 500, retryMs: 700 });
    await using log = await JetStreamLog.open(options);
    const writers = new CasWriters([log], 4);
    for (let round = 0; round < 3; round++) {
      await writers.more(10);
      cluster.signal(0, 'SIGSTOP');
      // Long enough that what was sent is given up, and lies in the socket of a server that will read it.
      await delay(2000);
      cluster.signal(0, 'SIGCONT');
    }
    await writers.more(10);
    await writers.stop();
    assert(writers.unanswered > 0, 'no append was given up: the test is blind');
    await using newcomer = await JetStreamLog.open({ ...options, directory: `${options.directory}-new` });
    await assertKept(newcomer, writers.acknowledged);
  });
});

/** Kills the leader and starts it again once another has taken over. */
async function killLeader(cluster: NatsCluster, stream: string): Promise<void> {
  const leader = await cluster.leaderOf(stream);
  assert(leader !== undefined);
  await cluster.end(leader);
  for (;;) {
    const next = await cluster.leaderOf(stream);
    if (next !== undefined && next !== leader) break;
    await delay(100);
  }
  await cluster.start(leader);
}
