import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from '@nats-io/transport-node';
import { natsSkip, natsStore, type NatsServer, startNats } from '../../test/support/nats-server.ts';
import { backbeatBusSuite } from '../../test/suites/backbeat-bus.ts';
import { isHoldfastError } from '../core/errors.ts';
import { backbeatBus } from './bus.ts';
import { barReportType } from './bar-report.ts';
import type { ChannelMessage } from './channel.ts';
import { NatsChannel, type NatsOptions } from './nats.ts';
import { defaultSubjects, subjectsOf } from './subjects.ts';

const skip = await natsSkip();
const clock = { now: () => Date.now(), monotonic: () => performance.now() };

function openChannel(t: TestContext, server: NatsServer, more: Partial<NatsOptions> = {}): NatsChannel {
  const clusterId = more.clusterId ?? 'suite';
  const channel = new NatsChannel({
    servers: [server.url],
    clusterId,
    subjects: subjectsOf(clusterId),
    name: t.name.slice(0, 40),
    clock,
    ...more,
  });
  t.after(() => channel[Symbol.asyncDispose]());
  return channel;
}

/** Looks every few ms until `isTrue`; the test's own time-out bounds it. */
async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 10));
}

const connected = (channel: NatsChannel): Promise<void> => until(() => channel.state().connected);

backbeatBusSuite(
  'NATS',
  async (t, count) => {
    const server = await startNats(t);
    const channels = Array.from({ length: count }, () => openChannel(t, server));
    await Promise.all(channels.map(connected));
    return channels;
  },
  skip,
);

test('clusters do not hear each other, and subjects can be chosen', { skip }, async (t) => {
  const server = await startNats(t);
  const chosen = subjectsOf('suite', { report: 'tempo.{cluster_id}.bars' });
  const own = openChannel(t, server);
  const other = openChannel(t, server, { clusterId: 'other', subjects: subjectsOf('other') });
  const elsewhere = openChannel(t, server, { subjects: chosen });
  await Promise.all([own, other, elsewhere].map(connected));
  const heard: string[] = [];
  own.subscribe('report', () => heard.push('own'));
  other.subscribe('report', () => heard.push('other'));
  elsewhere.subscribe('report', () => heard.push('elsewhere'));
  const message: ChannelMessage = { text: JSON.stringify({ type: barReportType }), headers: {} };
  await until(() => {
    elsewhere.publish('report', message);
    return heard.length > 0;
  });
  assert.deepEqual([...new Set(heard)], ['elsewhere']);
  assert.equal(chosen.report, 'tempo.suite.bars');
  for (const bad of ['a.*', 'a.>', 'a b', '', '.a', 'a'.repeat(300)])
    assert.throws(
      () => subjectsOf('suite', { ...defaultSubjects, beat: bad }),
      (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
    );
});

test('bytes that are no text are refused and counted, and the next message is heard', { skip }, async (t) => {
  const server = await startNats(t);
  const channel = openChannel(t, server);
  await connected(channel);
  const bus = backbeatBus(channel);
  let heard = 0;
  bus.onBeat(() => heard++);
  const raw = await connect({ servers: server.url });
  t.after(() => raw.close());
  raw.publish(subjectsOf('suite').beat, Uint8Array.of(0xff, 0xfe, 0x00));
  raw.publish(subjectsOf('suite').beat, new Uint8Array(900_000).fill(0x20));
  await until(() => bus.status().counters.beat.refused === 2);
  const frame = {
    type: 'backbeat.beatframe.v1',
    cluster_id: 'suite',
    beat_index: 1,
    downbeat: false,
    phase: 'work',
  };
  const rest = {
    hlc: '0000:0000:0000',
    deadline_at: '2026-11-22T19:00:00Z',
    tempo_bpm: 1,
    window_id: '0'.repeat(32),
  };
  raw.publish(subjectsOf('suite').beat, JSON.stringify({ ...frame, ...rest }));
  await until(() => heard === 1);
  assert.equal(bus.status().counters.beat['phase-mapped'], 1);
});

test('no server at the start, one that comes, goes and comes again: subscriptions live on', {
  skip,
}, async (t) => {
  const first = await startNats(t);
  await first.end();
  const channel = openChannel(t, first);
  const bus = backbeatBus(channel);
  let heard = 0;
  bus.onReport(() => heard++);
  const report = {
    type: barReportType,
    window_id: '0'.repeat(32),
    from_beat: 0,
    to_beat: 1,
    agents_reporting: 0,
    on_time_reviews: 0,
    help_promises_fulfilled: 0,
    secret_rotations_ok: true,
    tempo_drift_ms: 0,
  } as const;
  bus.publishReport(report);
  assert.equal(bus.status().droppedCount, 1, 'nothing is kept to be sent later');
  await until(() => !channel.state().connected && channel.state().text !== 'not connected yet');
  for (let times = 1; times <= 2; times++) {
    const server = await startNats(t, { port: first.port });
    await connected(channel);
    const before = heard;
    await until(() => {
      bus.publishReport(report);
      return heard > before;
    });
    await server.end();
    await until(() => !channel.state().connected);
  }
});

test('user and password come from a file, and a wrong one is tried again once it is repaired', {
  skip,
}, async (t) => {
  const server = await startNats(t, { args: ['--user', 'pulse', '--pass', 'right'] });
  const path = join(await natsStore(t), 'credentials');
  await writeFile(path, 'pulse:wrong\n');
  const channel = openChannel(t, server, { credentialsPath: path });
  await until(() => /uthoriz/.test(channel.state().text));
  await writeFile(path, 'pulse:right\n');
  await connected(channel);
});

test('the lease register: compare-and-set, over a restart of the server', { skip }, async (t) => {
  const storeDir = await natsStore(t);
  const server = await startNats(t, { storeDir });
  const [a, b] = [openChannel(t, server), openChannel(t, server)];
  await Promise.all([connected(a), connected(b)]);
  const record = {
    token: 1,
    pulse: '0'.repeat(16),
    released: false,
    epoch: new Uint8Array(32),
    nextIndex: 9,
  };
  assert.equal(await a.read(), undefined);
  const revision = await a.write(record, 0);
  assert(revision !== undefined);
  assert.equal(await b.write({ ...record, token: 2 }, 0), undefined, 'there is one already');
  assert.deepEqual(await b.read(), { record, revision });
  const outcomes = await Promise.all([
    a.write({ ...record, token: 2 }, revision),
    b.write({ ...record, token: 2 }, revision),
  ]);
  assert.equal(outcomes.filter((each) => each !== undefined).length, 1, 'one of two wins');
  await server.end('SIGTERM');
  await until(() => !a.state().connected);
  await assert.rejects(a.read(), (error) => isHoldfastError(error, 'PEER_UNREACHABLE'));
  await startNats(t, { port: server.port, storeDir });
  await connected(a);
  assert.equal((await a.read())?.record.token, 2);
});
