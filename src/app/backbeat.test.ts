import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect } from '@nats-io/transport-node';
import { assertSchema } from '../../test/support/backbeat-schemas.ts';
import { natsSkip, natsStore, startNats } from '../../test/support/nats-server.ts';
import type { BarReport } from '../backbeat/bar-report.ts';
import { encodeBeat, parseBeat } from '../backbeat/beat.ts';
import { defaultLeaseTiming } from '../backbeat/lease.ts';
import { frameAt } from '../backbeat/schedule.ts';
import { encodeClaim, type StatusClaim } from '../backbeat/status-claim.ts';
import { signerFromSeed } from '../core/hash.ts';
import type { RpcHandler } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { defaultSettings } from '../local/cluster-file.ts';
import type { TempoSettings } from '../local/nats-settings.ts';
import type { StewardStatus } from '../steward/status.ts';
import { type Backbeat, startBackbeat, startVoices } from './backbeat.ts';
import type { Member } from './member.ts';
import { hearBeats } from './steward-follower.ts';

const skip = await natsSkip();

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function memberOf(
  name: string,
  tempo: TempoSettings = {},
): Promise<Pick<Member, 'config' | 'identity'>> {
  const dataDir = await mkdtemp(join(tmpdir(), 'holdfast-backbeat-'));
  const config = {
    dir: dataDir,
    dataDir,
    name,
    cluster: 'local-0011223344556677',
    settings: { ...defaultSettings, beatMs: 60, ...tempo },
  };
  const identity = { name, signer: signerFromSeed(new Uint8Array(32).fill(name.length)) };
  return { config, identity } as unknown as Pick<Member, 'config' | 'identity'>;
}

async function started(
  t: TestContext,
  name: string,
  tempo: TempoSettings = {},
): Promise<{ backbeat: Backbeat; member: Pick<Member, 'config' | 'identity'> }> {
  const member = await memberOf(name, tempo);
  const backbeat = await startBackbeat(member);
  t.after(async () => {
    await backbeat[Symbol.asyncDispose]();
    await rm(member.config.dataDir, { recursive: true, force: true });
  });
  return { backbeat, member };
}

/** The parts of a steward's status that its claims are made from. */
const status = {
  startedAt: 0,
  beat: { index: 1, sequence: 1, tempo: 'locked', intervalMs: 60 },
  queue: { waiting: 3, underway: 1, backingOff: 0 },
  healing: { copiesDone: 4, etaMs: 600, pendingBytes: 9 },
  objects: { lost: 0, lastCopy: 1, healthy: 5, total: 6 },
  unable: [],
  unableTotal: 0,
  nodes: [
    { name: 'node-1', liveness: 'up' },
    { name: 'node-2', liveness: 'listing' },
  ],
  alarms: [{ name: 'last-copy' }],
} as unknown as StewardStatus;
const chores = [{ ownRecords: 10, dueRecords: 4, scrubbedAt: undefined, corruptCount: 0, scrubTrouble: '' }];

test('embedded: every job claims once a beat, every bar is reported, both by the schema', async (t) => {
  const { backbeat, member } = await started(t, 'steward');
  const claims: StatusClaim[] = [];
  const reports: BarReport[] = [];
  backbeat.bus.onClaim((claim) => claims.push(claim));
  backbeat.bus.onReport((report) => reports.push(report));
  const custody = { rotationsOk: () => false, trouble: 'custodian-2 does not answer' };
  const voices = startVoices(member, backbeat, {
    steward: { status: () => status, chores: () => chores },
    custody,
  });
  t.after(() => voices[Symbol.dispose]());
  await until(() => reports.length === 1);
  const [report] = reports;
  assert.equal(report?.agents_reporting, 1);
  assert.equal(report?.secret_rotations_ok, false);
  assert.ok((report?.on_time_reviews ?? 0) >= 1, 'scrub and anti-entropy look');
  const names = ['heal', 'anti-entropy', 're-announce', 'scrub', 'refresh', 'rotate'];
  const states = new Map(claims.map(({ task_id, state }) => [task_id, state]));
  assert.deepEqual([...states.keys()], names);
  assert.deepEqual(
    [...states.values()],
    ['executing', 'reviewing', 'executing', 'blocked', 'failed', 'failed'],
  );
  const keys = claims.map(({ beat_index, task_id }) => `${beat_index} ${task_id}`);
  assert.equal(new Set(keys).size, keys.length, 'one claim per beat and job');
  for (const claim of claims) assertSchema('status', encodeClaim(claim));
  const told = backbeat.report();
  assert.deepEqual([told.state, told.isLeading, told.bus.text], ['locked', true, 'embedded']);
  assert.equal(backbeat.tempo.current().beat?.frame.metadata?.cluster_health, 'degraded');
});

test('over NATS: two stewards, one Pulse; the other one takes over with the count', { skip }, async (t) => {
  const server = await startNats(t, { storeDir: await natsStore(t) });
  const nats = { servers: [server.url] };
  const first = await started(t, 'one', { nats });
  await until(() => first.backbeat.isLeading());
  const second = await started(t, 'second', { nats });
  await until(() => second.backbeat.tempo.current().state === 'locked');
  assert.equal(second.backbeat.isLeading(), false);
  const before = second.backbeat.tempo.current().beat?.frame;
  await first.backbeat[Symbol.asyncDispose]();
  await until(() => second.backbeat.isLeading());
  const told = second.backbeat.tempo.counters().resets;
  await until(() => second.backbeat.tempo.current().beat?.frame.metadata?.['fencing_token'] === 2);
  const after = second.backbeat.tempo.current().beat?.frame;
  assert.ok((after?.beat_index ?? 0) > (before?.beat_index ?? 0));
  assert.equal(told, 0);
});

test("another program's Pulse: ours is silent, ticks locally until it is heard, then follows it", {
  skip,
}, async (t) => {
  const server = await startNats(t);
  const theirs = await connect({ servers: server.url });
  t.after(() => theirs.close());
  const heard: string[] = [];
  // All subjects: a Pulse of ours would ask for its lease before it beats.
  theirs.subscribe('>', { callback: (_, { subject }) => void heard.push(subject) });
  await theirs.flush();
  const { backbeat, member } = await started(t, 'steward', {
    nats: { servers: [server.url] },
    pulse: 'external',
  });
  const clusterId = member.config.cluster;
  await until(() => backbeat.bus.status().connected && (backbeat.tempo.current().beat?.sequence ?? 0) > 2);
  assert.equal(backbeat.tempo.current().state, 'waiting');
  const settings = { clusterId, tempoBpm: 1000, barBeats: 120 };
  const record = { epoch: new Uint8Array(32), nextIndex: 0 };
  let index = 40;
  const beating = setInterval(() => {
    const frame = frameAt(settings, record, index++, { wall: index, logical: 0, node: 1 }, Date.now());
    theirs.publish(`backbeat.${clusterId}.beat`, encodeBeat(frame));
  }, 60);
  t.after(() => clearInterval(beating));
  // Long enough for a Pulse of ours that was not connected at its first try to ask for the lease again.
  const beats = (2 * defaultLeaseTiming.everyMs) / 60;
  await until(() => backbeat.tempo.current().state === 'locked' && heard.length >= beats);
  assert.ok((backbeat.tempo.current().beat?.frame.beat_index ?? 0) >= 40);
  assert.equal(backbeat.isLeading(), false);
  assert.deepEqual([...new Set(heard)], [`backbeat.${clusterId}.beat`]);
  assert.equal(heard.length <= index - 40, true, 'no beat but theirs');
});

test('a steward without NATS that does not lead has no Pulse: it keeps the time it is told, and by itself when nobody tells it', async (t) => {
  const { backbeat: leading } = await started(t, 'steward');
  const member = await memberOf('steward-2');
  const following = await startBackbeat(member, { isTold: true });
  t.after(async () => {
    await following[Symbol.asyncDispose]();
    await rm(member.config.dataDir, { recursive: true, force: true });
  });
  const handlers = new Map<string, RpcHandler>();
  const rpc = { handle: (method: string, handler: RpcHandler) => void handlers.set(method, handler) };
  hearBeats({ peer: { rpc } } as unknown as Pick<Member, 'peer'>, 'first', (head) =>
    following.bus.publishBeat(parseBeat(fieldOf(head, 'beat')).frame),
  );
  const tell = async (beat: unknown, peer = 'first'): Promise<unknown> =>
    handlers.get('steward.beat')?.(
      { head: { beat }, body: new Uint8Array() },
      { peer, signal: new AbortController().signal },
    );
  const stop = leading.tempo.onBeat(({ frame }) => void tell(frame));
  await until(() => following.tempo.current().state === 'locked' && leading.isLeading());
  const index = (): number => following.tempo.current().beat?.frame.beat_index ?? -1;
  assert.ok(Math.abs((leading.tempo.current().beat?.frame.beat_index ?? 0) - index()) <= 1);
  assert.equal(following.isLeading(), false);
  await assert.rejects(tell(leading.tempo.current().beat?.frame, 'somebody'), { code: 'FORBIDDEN' });
  await assert.rejects(tell({}), { code: 'RECORD_INVALID' });
  stop();
  const last = index();
  await until(() => following.tempo.current().state === 'degraded' && index() > last);
});
