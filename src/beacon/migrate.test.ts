import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { assertKept, CasWriters } from '../../test/support/cas-writers.ts';
import { jetStreamRoom } from '../../test/support/jetstream-logs.ts';
import { startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { JetStreamLog } from './jetstream.ts';
import { LevelLog } from './level.ts';
import { type BeaconLog, type LogPosition } from './log.ts';
import { MemoryLog } from './memory.ts';
import { copyLog, migrateLog } from './migrate.ts';

it('moves LevelDB to JetStream under writers, and back, without a lost or doubled append', {
  skip: await natsSkip(),
}, async (t) => {
  const room = await jetStreamRoom();
  t.after(() => room.end());
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-migrate-'));
  t.after(() => rm(directory, { recursive: true }));
  const cluster = await startNatsCluster(room, { size: 1 });
  await using level = await LevelLog.open(join(directory, 'old'));
  await using stream = await JetStreamLog.open(room.options(cluster));
  const writers = new CasWriters([level], 8);
  await writers.more(1000);
  const report = await moved(level, stream, () => writers.stop());
  assert(report.revision >= 1000);
  await assertKept(stream, writers.acknowledged);
  await using back = await LevelLog.open(join(directory, 'new'));
  const more = new CasWriters([stream], 8);
  await more.more(200);
  await moved(stream, back, () => more.stop());
  assert.deepEqual(await back.head(), await plainHead(stream));
  await assertKept(back, [...writers.acknowledged, ...more.acknowledged]);
});

it('goes on where it was interrupted, wherever that was', async () => {
  await using from = await filled(40);
  for (const cut of [0, 1, 17, 39, 40]) {
    await using to = new MemoryLog();
    const stop = new AbortController();
    const failing = failingAfter(to, cut);
    if (cut < 40) await assert.rejects(copyLog(from, failing, { signal: stop.signal }), /cut/);
    assert.equal((await to.head()).revision, cut === 40 ? 0 : cut);
    await moved(from, to, async () => undefined);
    assert.deepEqual((await entriesOf(to)).length, 40);
  }
});

it('puts nothing in force when the histories differ or somebody else writes', async () => {
  await using from = await filled(5);
  const nothing = async (): Promise<void> => undefined;
  const never = async (): Promise<void> => assert.fail('it was put in force');
  await using other = new MemoryLog();
  await other.append(someAppend('other'));
  await using longer = await filled(6);
  for (const to of [other, longer]) {
    await assert.rejects(migrateLog({ from, to, close: nothing, putInForce: never }), {
      code: 'VERSION_CONFLICT',
    });
  }
  await using to = new MemoryLog();
  const late = async (): Promise<void> => void (await to.append(someAppend('late')));
  await assert.rejects(migrateLog({ from, to, close: late, putInForce: never }), {
    code: 'VERSION_CONFLICT',
  });
});

/** Moves `from` to `to`, and gives the position that was put in force. */
async function moved(from: BeaconLog, to: BeaconLog, close: () => Promise<void>): Promise<LogPosition> {
  const inForce: LogPosition[] = [];
  await migrateLog({ from, to, close, putInForce: async (position) => void inForce.push(position) });
  const [position] = inForce;
  assert(position !== undefined && inForce.length === 1);
  assert.deepEqual(position, await plainHead(from));
  return position;
}

async function plainHead(log: BeaconLog): Promise<LogPosition> {
  const { revision, chain } = await log.head();
  return { revision, chain };
}

async function filled(count: number): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (let index = 0; index < count; index++) await log.append(someAppend(`addr/${index}`));
  return log;
}

/** `log`, which takes `count` appends and fails then. */
function failingAfter(log: MemoryLog, count: number): BeaconLog {
  let taken = 0;
  return {
    append: async (append) => {
      if (taken++ >= count) throw new Error('cut');
      return log.append(append);
    },
    read: (from) => log.read(from),
    watch: (from, options) => log.watch(from, options),
    head: () => log.head(),
    [Symbol.asyncDispose]: async () => undefined,
  };
}
