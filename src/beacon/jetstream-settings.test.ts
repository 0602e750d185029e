import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom } from '../../test/support/jetstream-logs.ts';
import { manage, startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { messageBytesMax } from './jetstream-message.ts';
import { notDurable, type ServerFacts, type StreamFacts, unusable } from './jetstream-settings.ts';
import { JetStreamLog } from './jetstream.ts';

const stream: StreamFacts = {
  subjects: ['s.log'],
  storage: 'file',
  retention: 'limits',
  replicas: 3,
  maxMessages: -1,
  maxBytes: -1,
  maxMessageBytes: -1,
  maxPerSubject: -1,
  maxAgeNs: 0,
  denyDelete: true,
  denyPurge: true,
  allowRollup: false,
  allowTtl: false,
  noAck: false,
  persistMode: undefined,
  hasForeignSource: false,
  servers: ['a', 'b', 'c'],
  away: [],
};
const server: ServerFacts = {
  name: 'a',
  version: '2.12.3',
  maxPayloadBytes: messageBytesMax,
  syncAlways: true,
};
const servers = ['a', 'b', 'c'].map((name) => ({ ...server, name }));

it('takes a stream with every setting as it must be', () => {
  assert.deepEqual(unusable(stream, 's.log'), []);
  assert.deepEqual(notDurable(stream, servers), []);
});

it('names each setting by which a stream forgets or refuses', () => {
  const wrong: [Partial<StreamFacts>, RegExp][] = [
    [{ subjects: ['s.*'] }, /subjects/],
    [{ subjects: ['s.log', 't'] }, /subjects/],
    [{ retention: 'workqueue' }, /retention/],
    [{ maxMessages: 9 }, /max_msgs/],
    [{ maxBytes: 9 }, /max_bytes/],
    [{ maxPerSubject: 1 }, /max_msgs_per_subject/],
    [{ maxAgeNs: 1 }, /max_age/],
    [{ maxMessageBytes: 1024 }, /max_msg_size/],
    [{ allowRollup: true }, /allow_rollup_hdrs/],
    [{ allowTtl: true }, /allow_msg_ttl/],
    [{ noAck: true }, /no_ack/],
    [{ hasForeignSource: true }, /mirror/],
  ];
  for (const [facts, named] of wrong) {
    const problems = unusable({ ...stream, ...facts }, 's.log');
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', named);
  }
});

it('names each setting for want of which an acknowledged append may be lost', () => {
  const wrong: [Partial<StreamFacts>, Partial<ServerFacts>, RegExp][] = [
    [{ storage: 'memory' }, {}, /storage: file/],
    [{ replicas: 1 }, {}, /num_replicas: 3 or more, not 1/],
    [{ denyDelete: false }, {}, /deny_delete/],
    [{ denyPurge: false }, {}, /deny_purge/],
    [{ persistMode: 'async' }, {}, /persist_mode/],
    [{}, { syncAlways: false }, /server c needs sync_interval: always/],
    [{}, { syncAlways: undefined }, /server c does not tell/],
    [{}, { name: 'd' }, /server c does not tell its settings/],
    [{ away: ['a', 'c'] }, { syncAlways: false }, /server c needs sync_interval: always/],
    [{}, { maxPayloadBytes: 1024 * 1024 }, /server c needs max_payload/],
    ...['2.12.2', '2.11.9', '1.99.99', '2.12.3-RC.1', 'unknown'].map(
      (version): [Partial<StreamFacts>, Partial<ServerFacts>, RegExp] => [
        {},
        { version },
        /version 2\.12\.3/,
      ],
    ),
  ];
  for (const [streamFacts, serverFacts, named] of wrong) {
    const third = { ...server, name: 'c', ...serverFacts };
    const problems = notDurable({ ...stream, ...streamFacts }, [...servers.slice(0, 2), third]);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', named);
  }
  assert.deepEqual(notDurable({ ...stream, away: ['c'] }, servers.slice(0, 2)), []);
  for (const version of ['2.12.4', '2.13.0', '2.15.1', '3.0.0', '2.13.0-RC.1'])
    assert.deepEqual(notDurable({ ...stream, servers: ['a'] }, [{ ...server, version }]), []);
});

describe('the settings of real servers', { skip: await natsSkip() }, async () => {
  const room = await jetStreamRoom();
  after(() => room.end());

  it('refuses servers that sync later, and asks all of them', async () => {
    const cluster = await startNatsCluster(room, { syncInterval: '2m' });
    await room.untilReady(cluster, { acceptNotDurable: true });
    await assert.rejects(JetStreamLog.open(room.options(cluster)), {
      code: 'BEACON_UNAVAILABLE',
      message: /server n0 needs sync_interval: always.*server n1.*server n2/,
    });
    await using log = await JetStreamLog.open(room.options(cluster, { acceptNotDurable: true }));
    assert.equal(log.durability().durable, false);
  });

  it('refuses one server, one replica, and servers that nobody may ask', async () => {
    const single = await startNatsCluster(room, { size: 1 });
    await assert.rejects(JetStreamLog.open(room.options(single, { acceptNotDurable: false })), {
      message: /num_replicas: 3 or more, not 1/,
    });
    const cluster = await startNatsCluster(room);
    await room.untilReady(cluster);
    const options = room.options(cluster);
    const { system: _, ...mute } = options;
    await assert.rejects(JetStreamLog.open(mute), { message: /sync_interval/ });
    await using log = await JetStreamLog.open(options);
    assert.deepEqual(log.durability(), { durable: true, problems: [] });
  });

  it('refuses a stream with a limit even when nothing durable is asked for', async () => {
    const single = await startNatsCluster(room, { size: 1 });
    const options = room.options(single);
    const config = { name: options.stream, subjects: [`${options.stream}.log`], max_msgs: 1000 };
    await manage(single, (manager) => manager.streams.add(config));
    await assert.rejects(JetStreamLog.open(options), { message: /needs max_msgs: -1/ });
  });

  it('opens while one of three servers is away, and asks it when it is back', async () => {
    const cluster = await startNatsCluster(room);
    await room.untilReady(cluster);
    const options = room.options(cluster);
    await (await JetStreamLog.open(options))[Symbol.asyncDispose]();
    // For the others it stays on line for minutes: nobody has taken leave.
    await cluster.end(2, 'SIGKILL');
    await using log = await JetStreamLog.open(options);
    assert.equal(log.durability().durable, true);
    await log.append(someAppend('addr/a'));
    await cluster.start(2, { syncInterval: '2m' });
    while (log.durability().durable) await delay(200);
    await assert.rejects(log.append(someAppend('addr/b')), { message: /server n2 needs sync_interval/ });
  });

  it('refuses a payload that is too small', async () => {
    const small = await startNatsCluster(room, { size: 1, maxPayload: '1MB' });
    await assert.rejects(JetStreamLog.open(room.options(small)), { message: /max_payload/ });
  });

  it('never makes a stream unasked', async () => {
    const single = await startNatsCluster(room, { size: 1 });
    const { create: _, ...options } = room.options(single);
    await assert.rejects(JetStreamLog.open(options), { message: /there is no stream/ });
  });
});
