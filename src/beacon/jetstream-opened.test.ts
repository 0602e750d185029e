// A stream that is born closed, as one is that a registry is moved into: who may append to it, and from when on.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom, openWhenUp } from '../../test/support/jetstream-logs.ts';
import { type NatsCluster, startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { sayInStream } from './jetstream-word.ts';
import type { JetStreamLogOptions } from './jetstream.ts';

const room = await jetStreamRoom();

describe('a stream that is born closed', { skip: await natsSkip() }, () => {
  let cluster: NatsCluster;
  before(async () => {
    cluster = await startNatsCluster(room, { size: 1 });
  });
  after(() => room.end());

  /** One that somebody has filled with three entries, and the options of somebody else. */
  async function filled(): Promise<JetStreamLogOptions> {
    const { create: _, ...options } = room.options(cluster);
    const fills = {
      create: { replicas: 1, closed: true },
      fills: true,
      directory: `${options.directory}-fill`,
    };
    await using log = await openWhenUp({ ...options, ...fills });
    for (let index = 0; index < 3; index++) await log.append(someAppend(`addr/${index}`));
    return options;
  }

  it('takes appends from who fills it only, however often others look', async () => {
    const options = await filled();
    for (let time = 0; time < 2; time++) {
      await using log = await openWhenUp(options);
      assert.match(log.closed?.why ?? '', /being filled/);
      await assert.rejects(log.append(someAppend('addr/x')), {
        code: 'BEACON_UNAVAILABLE',
        details: { moving: true, by: 'its maker' },
      });
    }
  });

  it('stays open once it was opened, for who heard it and starts again, and for who has forgotten', async () => {
    const options = await filled();
    await sayInStream(options, { kind: 'open', by: 'maker', why: 'it is in force' });
    for (let time = 0; time < 4; time++) {
      await using log = await openWhenUp(options);
      assert.equal(log.closed, undefined);
      await log.append(someAppend(`addr/later-${time}`));
      assert.equal((await entriesOf(log)).length, 4 + time);
      if (time >= 1) await rm(join(options.directory, 'opened')); // as before it was written down
    }
    await using newcomer = await openWhenUp({ ...options, directory: `${options.directory}-new` });
    assert.equal(newcomer.closed, undefined);
    await newcomer.append(someAppend('addr/new'));
  });

  it('is closed and opened like any other after that', async () => {
    const options = await filled();
    await sayInStream(options, { kind: 'open', by: 'maker', why: 'it is in force' });
    for (const kind of ['closed', 'open', 'closed'] as const) {
      await sayInStream(options, { kind, by: 'steward', why: 'it is being moved' });
      await using log = await openWhenUp(options);
      assert.equal(log.closed?.by, kind === 'closed' ? 'steward' : undefined);
      if (kind === 'open') await log.append(someAppend('addr/between'));
    }
  });
});
