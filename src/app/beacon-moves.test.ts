// A steward and a door whose Beacon is moved, lost and begun again: the whole way, in one process.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openAsBlob } from 'node:fs';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { jetStreamRoom } from '../../test/support/jetstream-logs.ts';
import { manage, type NatsCluster, startNatsCluster, writeLogins } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { keepRunning } from '../../test/support/roles.ts';
import { emptyPosition, type LogEntry, nextEntry } from '../beacon/log.ts';
import { exportLog, readLogFile } from '../beacon/transfer.ts';
import { toHex } from '../core/bytes.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { devKeyPath, layoutPaths, loadProcessConfig, readToken } from '../local/layout.ts';
import { createOrOpenLayout } from '../local/layout-create.ts';
import type { BeaconReport } from '../steward/status.ts';
import { startDoorRole } from './door-role.ts';
import { systemClock } from './member.ts';
import { startStewardRole } from './steward-role.ts';

const room = await jetStreamRoom();
const count = 200;

describe('a Beacon', { skip: await natsSkip() }, () => {
  let nats: NatsCluster;
  let files: string;
  let logins: Awaited<ReturnType<typeof writeLogins>>;
  let site: Site;
  let exported: string;
  before(async () => {
    files = await mkdtemp(join(tmpdir(), 'holdfast-moves-'));
    logins = await writeLogins(files);
    nats = await startNatsCluster(room);
    await room.untilReady(nats);
    site = await Site.start(join(files, 'cluster'));
    await site.fill(join(files, 'filling'));
    exported = await site.export(join(files, 'before'));
  });
  after(async () => {
    await site.end();
    await room.end();
    await rm(files, { recursive: true, force: true, maxRetries: 5 });
  });
  const stream = (more: object = {}): object => ({
    engine: 'jetstream',
    stream: 'registry',
    servers: nats.urls,
    ...logins,
    ...more,
  });

  test('is refused a stream that would not be durable, by name, and goes on where it is', async () => {
    const { error } = await site.told('migrate', { to: stream({ stream: 'single', replicas: 1 }) });
    assert.match(JSON.stringify(error), /num_replicas: 3 or more, not 1/);
    const blind = await site.told('migrate', { to: stream({ stream: 'blind', system: undefined }) });
    assert.match(JSON.stringify(blind.error), /does not tell its settings/);
    assert.equal((await site.log()).text, 'embedded LevelDB log');
    await site.append();
  });

  test('moves into a stream with its whole history', async () => {
    exported = await site.export(join(files, 'before'));
    const { result, error } = await site.told('migrate', { to: stream() });
    assert.equal(result?.['entries'], count + 1, JSON.stringify(error));
    await site.until('JetStream stream registry');
    assert.equal(await site.export(join(files, 'moved')), exported);
    await site.append();
    assert.deepEqual((await site.told('migrate', { to: stream() })).result?.['already'], true);
  });

  test('whose stream is gone is named, and begun again with what the views hold', async () => {
    exported = await site.export(join(files, 'before'));
    await manage(nats, (manager) => manager.streams.delete('registry'));
    await site.until('JetStream stream registry', 'diverged');
    const { result, error } = await site.told('reseed', {});
    assert.equal(result?.['entries'], count + 2, JSON.stringify(error));
    await site.until('JetStream stream registry-e2');
    assert.equal(await site.export(join(files, 'reseeded')), exported);
    await site.append();
  });

  test('whose stream lost its end is named, and begun again with all of it', async () => {
    exported = await site.export(join(files, 'before'));
    await manage(nats, async (manager, client) => {
      // The last message is gone, as after a cut that the servers did not survive as they promised.
      const { config, state } = await manager.streams.info('registry-e2');
      const kept: Uint8Array[] = [];
      for (let seq = 1; seq < state.last_seq; seq++) {
        const message = await manager.streams.getMessage('registry-e2', { seq });
        if (message !== null) kept.push(message.data);
      }
      await manager.streams.delete('registry-e2');
      await manager.streams.add(config);
      for (const bytes of kept) await client.publish('registry-e2.log', bytes);
    });
    await site.until('JetStream stream registry-e2', 'diverged');
    const { result, error } = await site.told('reseed', {});
    assert.equal(result?.['entries'], count + 3, JSON.stringify(error));
    await site.until('JetStream stream registry-e3');
    assert.equal(await site.export(join(files, 'again')), exported);
  });

  test('moves back', async () => {
    await site.append();
    exported = await site.export(join(files, 'before'));
    const { result, error } = await site.told('migrate', { to: { engine: 'leveldb' } });
    assert.equal(result?.['entries'], count + 4, JSON.stringify(error));
    await site.until('embedded LevelDB log');
    assert.equal(await site.export(join(files, 'back')), exported);
    await site.append();
  });
});

/** A steward and a door, each started again when it ends, as the supervisor does. */
class Site {
  readonly #dir: string;
  readonly #url: string;
  readonly #token: string;
  readonly #roles: Promise<void>[] = [];
  readonly #stop = new AbortController();
  readonly #entries: LogEntry[] = [];

  private constructor(dir: string, url: string, token: string) {
    this.#dir = dir;
    this.#url = url;
    this.#token = token;
  }

  static async start(dir: string): Promise<Site> {
    const { file } = await createOrOpenLayout(dir, { nodes: 1, port: 0, custodians: 0 });
    const keyPath = devKeyPath({ keysDir: layoutPaths(dir).keys });
    await using _provider = await openDevFile({ path: keyPath, clock: systemClock, create: true });
    const site = new Site(dir, `http://127.0.0.1:${file.doorPort}`, await readToken(dir));
    site.#roles.push(
      keepRunning(async () => startStewardRole(await loadProcessConfig(dir, 'steward')), site.#stop.signal),
      keepRunning(async () => startDoorRole(await loadProcessConfig(dir, 'door')), site.#stop.signal),
    );
    await site.until('embedded LevelDB log');
    return site;
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#roles);
  }

  async fill(path: string): Promise<void> {
    for (let index = 0; index < count; index++) this.#next();
    await this.#import(path);
  }

  /** One more entry, through the door. */
  async append(): Promise<void> {
    this.#next();
    await this.#import(join(this.#dir, 'appending'));
  }

  /** Chain of the log that the door exports. */
  async export(path: string): Promise<string> {
    const answer = await this.#fetch('export', {});
    await writeFile(path, new Uint8Array(await answer.arrayBuffer()));
    let last = '';
    for await (const { revision, chain } of readLogFile(path)) last = `${revision} ${toHex(chain)}`;
    return last;
  }

  async told(
    work: string,
    body: object,
  ): Promise<{ readonly result?: Readonly<Record<string, unknown>>; readonly error?: unknown }> {
    const answer = await this.#fetch(work, { method: 'POST', body: JSON.stringify(body) });
    return JSON.parse((await answer.text()).trim().split('\n').at(-1) ?? '{}');
  }

  async log(): Promise<BeaconReport> {
    const answer = await this.#fetch('../status', {});
    const { response } = JSON.parse(await answer.text());
    return response.data.steward.beacon;
  }

  /** Waits for the log that says `text` of itself, and for a door that follows it. */
  async until(text: string, state: BeaconReport['state'] = 'ready'): Promise<void> {
    let last: unknown;
    for (const giveUpAt = Date.now() + 120_000; Date.now() < giveUpAt; await delay(100)) {
      try {
        const { response } = JSON.parse(await (await this.#fetch('../status', {})).text());
        const { steward, door } = response.data;
        last = [steward?.beacon, door.beacon];
        const isThere = steward?.beacon?.text === text && steward.beacon.state === state;
        if (isThere && (state !== 'ready' || door.beacon.state === 'following')) return;
      } catch (error) {
        last = error; // the door starts again
      }
    }
    assert.fail(`${text} is not ${state}: ${JSON.stringify(last)}`);
  }

  #next(): void {
    const index = this.#entries.length;
    const append = putAppend(someManifest(someAddress(`moved/${index}`)), someId('bk'));
    const records = index === 0 ? append.records : append.records.slice(0, 2);
    this.#entries.push(nextEntry(this.#entries.at(-1) ?? emptyPosition, { ...append, records }));
  }

  async #import(path: string): Promise<void> {
    await rm(path, { force: true });
    await exportLog((from) => Readable.from(this.#entries.slice(from - 1)), path);
    // An import goes on behind what is there; a loaded machine may not show it in time.
    let said = '';
    for (let attempt = 0; attempt < 10; attempt++) {
      const answer = await this.#fetch('import', { method: 'POST', body: await openAsBlob(path) });
      said = await answer.text();
      if (answer.ok) return;
      await delay(1000);
    }
    assert.fail(said);
  }

  #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = { authorization: `Bearer ${this.#token}` };
    return fetch(`${this.#url}/ucxi/v1/beacon/${path}`, { ...init, headers });
  }
}
