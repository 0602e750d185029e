// Logs on NATS servers for tests: each with a stream and a copy of its own, all gone at the end.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JetStreamLog, type JetStreamLogOptions } from '../../src/beacon/jetstream.ts';
import { isHoldfastError } from '../../src/core/errors.ts';
import type { LogFixture } from '../suites/beacon-log.suite.ts';
import { beaconLogin, type NatsCluster, systemLogin } from './nats-cluster.ts';
import type { Ending } from './nats-server.ts';

export interface JetStreamRoom extends Ending {
  /** Options for a new stream and a new copy; `more` replaces some. A single server is taken though it is not durable. */
  options(cluster: NatsCluster, more?: Partial<JetStreamLogOptions>): JetStreamLogOptions;
  fixture(cluster: NatsCluster): Promise<LogFixture>;
  /** Resolves when the servers have found each other and make streams. */
  untilReady(cluster: NatsCluster, more?: Partial<JetStreamLogOptions>): Promise<void>;
  /** Ends all servers that were started for this room, and removes the copies. */
  end(): Promise<void>;
}

export async function jetStreamRoom(): Promise<JetStreamRoom> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-jetstream-'));
  const endings: (() => Promise<void>)[] = [];
  let names = 0;
  const options: JetStreamRoom['options'] = (cluster, more = {}) => {
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
  };
  return {
    after: (end) => void endings.push(end),
    options,
    fixture: (cluster) => fixtureOf(options(cluster)),
    untilReady: async (cluster, more) => {
      await using _log = await openWhenUp(options(cluster, more));
    },
    end: async () => {
      for (const end of endings.toReversed()) await end();
      await rm(directory, { recursive: true });
    },
  };
}

/** Opens a log as soon as its servers answer, however long that takes. Any refusal but their silence is thrown. */
export async function openWhenUp(options: JetStreamLogOptions): Promise<JetStreamLog> {
  for (;;) {
    try {
      return await JetStreamLog.open(options);
    } catch (error) {
      if (!isHoldfastError(error, 'BEACON_UNAVAILABLE') || error.details['unanswered'] !== true) throw error;
    }
  }
}

async function fixtureOf(options: JetStreamLogOptions): Promise<LogFixture> {
  let log = await JetStreamLog.open(options);
  return {
    log,
    reopen: async () => {
      await log[Symbol.asyncDispose]();
      log = await JetStreamLog.open(options);
      return log;
    },
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  };
}
