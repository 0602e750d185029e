// Three logs over one stream, each with a copy and a view, and writers that append real records through them by
// compare-and-set, on the picture that their own view gives them. What was acknowledged is read back all the time
// through the views of the others.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { JetStreamLog, type JetStreamLogOptions } from '../../src/beacon/jetstream.ts';
import { sayInStream } from '../../src/beacon/jetstream-word.ts';
import { LevelLog } from '../../src/beacon/level.ts';
import type { Append } from '../../src/beacon/log.ts';
import { copyLog } from '../../src/beacon/migrate.ts';
import { PatientLog } from '../../src/beacon/patient-log.ts';
import { compareRows, Problems } from '../../src/beacon/verify.ts';
import { BeaconView } from '../../src/beacon/view.ts';
import { LevelKv } from '../../src/beacon/view-level.ts';
import { toHex } from '../../src/core/bytes.ts';
import { minute } from '../../src/core/clock.ts';
import { servedItsPurpose } from '../../src/core/concurrency.ts';
import { putAppend, someAddress, someId, someManifest } from '../suites/beacon-records.ts';
import { type Acknowledged, assertKept, CasWriters } from './cas-writers.ts';
import { jetStreamRoom, type JetStreamRoom, openWhenUp } from './jetstream-logs.ts';
import { LoopDisks } from './loop-disks.ts';
import { type NatsCluster, startNatsCluster } from './nats-cluster.ts';

export interface SceneOptions {
  readonly writers: number;
  /** Servers keep their files on file systems whose power can be cut. */
  readonly withDisks: boolean;
  /** Default `always`. */
  readonly syncInterval?: string;
}

/** Whoever holds an acknowledgement waits so long at most until any view shows it. */
const showMsMax = 3 * minute;
const readPauseMs = 20;
const names = ['a', 'b', 'c'];
const bk = someId('bk');

export class BeaconScene implements AsyncDisposable {
  readonly cluster: NatsCluster;
  readonly #room: JetStreamRoom;
  readonly #disks: LoopDisks | undefined;
  readonly #views: readonly BeaconView[];
  readonly #writersCount: number;
  #options: JetStreamLogOptions;
  #logs: readonly PatientLog[] = [];
  #writers: CasWriters | undefined;
  #ending = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  #failure: unknown;
  #sentAgain = 0;
  #reads = 0;
  #stale = 0;

  private constructor(
    parts: Pick<BeaconScene, 'cluster'> & { readonly room: JetStreamRoom; readonly views: BeaconView[] },
    options: JetStreamLogOptions,
    disks: LoopDisks | undefined,
    writersCount: number,
  ) {
    this.cluster = parts.cluster;
    this.#room = parts.room;
    this.#views = parts.views;
    this.#options = options;
    this.#disks = disks;
    this.#writersCount = writersCount;
  }

  /** Servers, a stream and empty views; nobody writes yet. */
  static async make({ writers, withDisks, syncInterval }: SceneOptions): Promise<BeaconScene> {
    const room = await jetStreamRoom();
    const disks = withDisks ? await LoopDisks.make(room, 3) : undefined;
    const cluster = await startNatsCluster(room, {
      ...(disks === undefined ? {} : { storeOf: (index) => disks.pathOf(index) }),
      ...(syncInterval === undefined ? {} : { syncInterval }),
      proxied: true,
    });
    const options = room.options(cluster, { timeoutMs: 2000, acceptNotDurable: syncInterval !== undefined });
    await openWhenUp(options).then((log) => log[Symbol.asyncDispose]());
    const views: BeaconView[] = [];
    for (const name of names) {
      const directory = `${options.directory}-view-${name}`;
      await mkdir(directory);
      views.push(await BeaconView.open(await LevelKv.open(directory)));
    }
    return new BeaconScene({ cluster, room, views }, options, disks, writers);
  }

  get stream(): string {
    return this.#options.stream;
  }

  /** What anybody was told, on this stream and on those before it. */
  get acknowledged(): readonly Acknowledged[] {
    return this.#writers?.acknowledged ?? [];
  }

  /** Figures for one line. */
  summary(): string {
    return `0 stale of ${this.#reads} reads, ${this.#sentAgain} sent again`;
  }

  /** Opens the logs; writers, readers and views go on until `finish` or `abandon`. */
  async begin(): Promise<void> {
    this.#ending = new AbortController();
    const { signal } = this.#ending;
    const { create: _, ...access } = this.#options;
    const open = (directory: string) => (stop: AbortSignal) =>
      JetStreamLog.open({ ...access, directory, signal: stop, openMs: 0 });
    const logs: PatientLog[] = [];
    for (const directory of this.#copies()) {
      await mkdir(directory, { recursive: true });
      logs.push(await PatientLog.start(open(directory)));
    }
    this.#logs = logs;
    const following = this.#views.map((view, index) => {
      const log = logs[index];
      return log === undefined ? Promise.resolve() : view.follow(log, signal);
    });
    const before = this.acknowledged;
    this.#writers = new CasWriters(logs, this.#writersCount, {
      before,
      make: (writer, expected) => this.#append(writer, expected, signal),
    });
    const reading = this.#read(this.#writers, signal).catch((error: unknown) => {
      if (!signal.aborted) this.#failure ??= error;
    });
    this.#running = Promise.all([...following, reading]);
  }

  /** Resolves when `count` more appends were acknowledged. */
  async more(count: number): Promise<void> {
    await this.#writers?.more(count);
  }

  /** Resolves when every log says that the stream is not what it was. */
  async named(): Promise<void> {
    const giveUpAt = performance.now() + showMsMax;
    while (!this.#logs.every((log) => log.problem()?.details['diverged'] === true)) {
      assert(performance.now() < giveUpAt, 'a lost stream was not named');
      await delay(100);
    }
  }

  /** Ends everybody with what they have been told: the servers will not answer the rest. */
  async abandon(): Promise<void> {
    this.#ending.abort(servedItsPurpose);
    await this.#writers?.halt();
    await this.#end();
  }

  /**
   * Lets everybody finish. Throws when anything that was acknowledged is lost, was taken twice, was not to be seen in
   * time, or when the copies or the views differ. Returns how many entries there are.
   */
  async finish(): Promise<number> {
    await this.#writers?.stop();
    const last = Math.max(0, ...this.acknowledged.map(({ revision }) => revision));
    for (const view of this.#views) await view.waitFor(last, AbortSignal.timeout(showMsMax));
    this.#ending.abort(servedItsPurpose);
    await this.#end();
    assert.ifError(this.#failure);
    assert.equal(this.#stale, 0, 'stale reads');
    await using newcomer = await openWhenUp({
      ...this.#options,
      directory: `${this.#options.directory}-new-${Date.now()}`,
    });
    const entries = await assertKept(newcomer, this.acknowledged);
    const { revision, chain } = await newcomer.head();
    for (const directory of this.#copies()) {
      await using log = await openWhenUp({ ...this.#options, directory });
      assert.equal(toHex((await log.head()).chain), toHex(chain), 'the copies differ');
    }
    await this.#compareViews(newcomer, revision);
    return entries.length;
  }

  /** Fills a new stream with what the longest copy holds; from the next `begin` on it is the one. */
  async reseed(): Promise<void> {
    const longest = await longestCopy(this.#copies());
    const stream = `${this.#options.stream}-e2`;
    const next = { ...this.#options, stream, directory: `${this.#options.directory}-e2` };
    await using copy = await LevelLog.open(longest);
    await using filled = await openWhenUp({
      ...next,
      directory: `${next.directory}-fill`,
      create: { replicas: 3, closed: true },
      fills: true,
    });
    await copyLog(copy, filled);
    await sayInStream(next, { kind: 'open', by: 'bench', why: 'it is in force' });
    await assertKept(filled, this.acknowledged);
    this.#options = next;
  }

  /** What opening each copy over the stream comes to. */
  async opened(): Promise<PromiseSettledResult<JetStreamLog>[]> {
    const results: PromiseSettledResult<JetStreamLog>[] = [];
    for (const directory of this.#copies()) {
      const [result] = await Promise.allSettled([JetStreamLog.open({ ...this.#options, directory })]);
      if (result.status === 'fulfilled') await result.value[Symbol.asyncDispose]();
      results.push(result);
    }
    return results;
  }

  /** Cuts the power of some servers: what was not flushed is gone. `meanwhile` runs while they are off. */
  async cut(
    indexes: readonly number[],
    meanwhile: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    const [disks, cluster] = [this.#disks, this.cluster];
    assert(disks !== undefined, 'no disks');
    for (const index of indexes) cluster.signal(index, 'SIGSTOP');
    for (const index of indexes) await disks.snapshot(index);
    for (const index of indexes) await cluster.end(index);
    await meanwhile();
    for (const index of indexes) await disks.restore(index);
    await Promise.all(indexes.map((index) => cluster.start(index)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abandon();
    for (const view of this.#views) await view[Symbol.asyncDispose]();
    await this.#room.end();
  }

  #copies(): readonly string[] {
    return names.map((name) => `${this.#options.directory}-copy-${name}`);
  }

  async #end(): Promise<void> {
    await this.#running;
    for (const log of this.#logs) await log[Symbol.asyncDispose]();
    this.#logs = [];
    this.#sentAgain += this.#writers?.unanswered ?? 0;
  }

  /** The next version of the address that the writer shares with another, as the view beside his log shows it. */
  async #append(writer: number, expected: number, signal: AbortSignal): Promise<Append> {
    const view = this.#views[writer % this.#views.length];
    assert(view !== undefined);
    await view.waitFor(expected, signal);
    const address = someAddress(`shared/${Math.floor(writer / 2)}`);
    const head = await view.head(address);
    const version = (head?.version ?? 0) + 1;
    const prev = head?.record.cid ?? null;
    // Two writers of one version write different ones.
    const manifest = someManifest(address, { version, prev, salt: String(writer) });
    const append = putAppend(manifest, bk, expected);
    return version === 1 ? append : { ...append, records: append.records.slice(0, 2) };
  }

  /** What one log acknowledged is asked of any view, once that has come so far. */
  async #read(writers: CasWriters, signal: AbortSignal): Promise<void> {
    for (let at = 0; !signal.aborted; at++) {
      await delay(readPauseMs);
      const last = writers.acknowledged.at(-1);
      const view = this.#views[at % this.#views.length];
      if (last === undefined || view === undefined) continue;
      await view.waitFor(last.revision, AbortSignal.any([signal, AbortSignal.timeout(showMsMax)]));
      this.#reads++;
      if (!(await shows(view, last))) this.#stale++;
    }
  }

  async #compareViews(log: JetStreamLog, revision: number): Promise<void> {
    for (const view of this.#views) {
      const stop = new AbortController();
      const following = view.follow(log, stop.signal); // appends that nobody was told of are entries too
      await view.waitFor(revision, AbortSignal.timeout(showMsMax));
      stop.abort();
      await following;
      assert.equal(view.counts().rejected, 0, 'a writer was shown an old picture by his own view');
    }
    const [first, ...others] = this.#views;
    for (const other of others) {
      const problems = new Problems();
      if (first !== undefined) await compareRows(first.rows(), other.rows(), problems);
      assert.deepEqual(problems.list, [], 'the views differ');
    }
  }
}

async function shows(view: BeaconView, { subject, revision, chain }: Acknowledged): Promise<boolean> {
  if ((await view.subjectRevision(subject)) < revision) return false;
  const head = await view.head(subject.slice('addr/'.length));
  if (head === undefined || head.revision < revision) return false;
  for await (const entry of view.entriesSince(revision)) return toHex(entry.chain) === chain;
  return false;
}

async function longestCopy(directories: readonly string[]): Promise<string> {
  let [longest = '', most] = [directories[0], -1];
  for (const directory of directories) {
    await using copy = await LevelLog.open(directory);
    const { revision } = await copy.head();
    if (revision > most) [longest, most] = [directory, revision];
  }
  return longest;
}
