import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test, type TestContext } from 'node:test';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom } from '../../test/support/jetstream-logs.ts';
import { manage, startNatsCluster, writeLogins } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import type { BeaconSettings } from '../local/beacon-settings.ts';
import { logDirectory } from './beacon-generations.ts';
import { continueNext } from './beacon-next.ts';
import type { Member } from './member.ts';

const room = await jetStreamRoom();
after(() => room.end());
const level: BeaconSettings = { engine: 'leveldb' };
const current = { number: 1, kept: level };

test('a log that was begun is gone on with, and one that is damaged is begun anew', async (t) => {
  const member = await steward(t);
  await oneMore(member, level);
  assert.equal(await oneMore(member, level), 2);
  t.mock.method(console, 'error', () => undefined);
  await rm(join(logDirectory(member, 2), 'db', 'CURRENT'));
  assert.equal(await oneMore(member, level), 1);
});

test('a stream that is gone is begun anew', { skip: await natsSkip() }, async (t) => {
  const member = await steward(t);
  const cluster = await startNatsCluster(room, { size: 1 });
  const logins = await writeLogins(member.config.dataDir);
  const kept: BeaconSettings = {
    engine: 'jetstream',
    stream: 'next',
    servers: cluster.urls,
    replicas: 1,
    acceptNotDurable: true,
    ...logins,
  };
  await oneMore(member, kept);
  assert.equal(await oneMore(member, kept), 2);
  t.mock.method(console, 'error', () => undefined);
  await manage(cluster, (manager) => manager.streams.delete('next'));
  assert.equal(await oneMore(member, kept), 1);
});

/** Appends to the log that is being made. Returns how long that is then. */
async function oneMore(member: Member, kept: BeaconSettings): Promise<number> {
  await using next = await continueNext(member, current, kept);
  return (await next.log.append(someAppend('addr/a'))).revision;
}

/** As much of a member as a log in the making needs. */
async function steward(t: TestContext): Promise<Member> {
  const dataDir = await mkdtemp(join(tmpdir(), 'holdfast-next-'));
  t.after(() => rm(dataDir, { recursive: true }));
  const member = {
    config: { dir: dataDir, dataDir, settings: {} },
    dir: { isBorn: () => false, markBorn: async () => undefined },
    peer: { name: 'steward' },
  };
  // oxlint-disable-next-line no-unsafe-type-assertion -- these are all that is looked at
  return member as unknown as Member;
}
