// A cluster whose Beacon is a stream on three NATS servers, in real processes.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { BeaconReport } from '../../src/steward/status.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { jetStreamRoom } from '../support/jetstream-logs.ts';
import { startNatsCluster, writeLogins } from '../support/nats-cluster.ts';
import { natsSkip } from '../support/nats-server.ts';

const room = await jetStreamRoom();
after(() => room.end());

describe('a cluster over NATS', { skip: await natsSkip() }, () => {
  test('keeps its Beacon in a stream, says what it is, and goes on when the servers are back', async (t) => {
    const nats = await startNatsCluster(room);
    await room.untilReady(nats);
    const dir = await mkdtemp(join(tmpdir(), 'holdfast-stream-'));
    t.after(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
    const logins = await mkdtemp(join(tmpdir(), 'holdfast-logins-'));
    t.after(() => rm(logins, { recursive: true }));
    await using cluster = await TestCluster.start({
      nodes: 1,
      dir: join(dir, 'cluster'),
      settings: {
        beacon: {
          engine: 'jetstream',
          stream: 'registry',
          servers: nats.urls,
          ...(await writeLogins(logins)),
        },
      },
    });
    await put(cluster, 'one');
    const { views, ...log } = (await logOf(cluster)) ?? {};
    assert.deepEqual(views?.differing ?? [], []);
    assert.deepEqual(log, {
      engine: 'jetstream',
      text: 'JetStream stream registry',
      state: 'ready',
      reason: '',
      durable: true,
      problems: [],
    });
    await Promise.all([0, 1, 2].map((index) => nats.end(index)));
    assert.equal(await get(cluster, 'one'), 'one');
    const refused = await cluster.fetch(...putOf('two'));
    assert.equal(refused.status, 503, await refused.text());
    await cluster.down();
    // A steward starts without its servers, and reads go on.
    await cluster.up();
    assert.equal(await get(cluster, 'one'), 'one');
    assert.equal((await logOf(cluster))?.state, 'waiting');
    await Promise.all([0, 1, 2].map((index) => nats.start(index)));
    await cluster.until('the log is back', ({ beacon }) => beacon?.state === 'ready');
    await put(cluster, 'two');
    assert.equal(await get(cluster, 'two'), 'two');
  });
});

function putOf(name: string): [string, RequestInit] {
  const address = encodeURIComponent(`ucxl://a:b@c:d/*^/${name}`);
  return [`/ucxi/v1/put?address=${address}`, { method: 'PUT', body: name }];
}

async function put(cluster: TestCluster, name: string): Promise<void> {
  const answer = await cluster.fetch(...putOf(name));
  assert.equal(answer.ok, true, await answer.text());
}

async function get(cluster: TestCluster, name: string): Promise<string> {
  const answer = await cluster.fetch(
    `/ucxi/v1/get?address=${encodeURIComponent(`ucxl://a:b@c:d/*^/${name}`)}`,
  );
  assert.equal(answer.status, 200);
  return answer.text();
}

async function logOf(cluster: TestCluster): Promise<BeaconReport | undefined> {
  return (await cluster.status()).steward?.beacon;
}
