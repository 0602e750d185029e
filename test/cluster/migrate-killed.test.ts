// A registry that is moved into a stream and back while the steward that moves it is killed, in real processes: at each
// step of the move, and while the new engine opens. The command is given again until it succeeds, writers go on, and at
// the end every record is there once, and everything that was acknowledged.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PutAnswer } from '../../src/api/types.ts';
import type { LogEntry } from '../../src/beacon/log.ts';
import { MemoryLog } from '../../src/beacon/memory.ts';
import { importLog } from '../../src/beacon/transfer.ts';
import { cidOf, codecDagCbor } from '../../src/core/block.ts';
import { toHex } from '../../src/core/bytes.ts';
import { minute } from '../../src/core/clock.ts';
import { codeOf } from '../../src/custody/disk.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { type CommandLine, commandLine } from '../helpers/command-line.ts';
import { assertKept } from '../support/cas-writers.ts';
import { jetStreamRoom } from '../support/jetstream-logs.ts';
import { startNatsCluster, writeLogins } from '../support/nats-cluster.ts';
import { natsSkip } from '../support/nats-server.ts';

const writersCount = 4;
/** So many that they are copied in several groups. */
const filledCount = 150;
/** Between two puts of a writer once that is there. */
const pauseMs = 500;
/** More commands than places to die at, and than starts that are not over when the next command comes. */
const commandsMax = 40;
/** From the first word of a move: longer than a move takes. */
const randomMsMax = 400;
const randomKills = 3;

const room = await jetStreamRoom();

describe('a registry that is moved while its steward is killed', { skip: await natsSkip() }, () => {
  let dir: string;
  let site: Site;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'holdfast-killed-'));
    const nats = await startNatsCluster(room);
    await room.untilReady(nats);
    const stream = { servers: nats.urls, ...(await writeLogins(dir)) };
    const cluster = await TestCluster.start({ nodes: 1, dir: join(dir, 'cluster'), dies: true });
    site = new Site(cluster, stream);
    await site.acknowledges(filledCount);
  });
  after(async () => {
    await site?.end();
    await room.end();
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  });

  test('is whole in the stream', async () => {
    await site.moved({ engine: 'jetstream', stream: 'registry' }, 2, [
      'after rename beacon-2/making', // begun
      'after write 2 beacon-2/log/mark', // copying
      'before rename beacon-generation', // the new stream is open, and the switch comes
      'after rename beacon-generation',
      'before rename beacon-2/view/born.json', // opening: the view of a stream first
      'before rename birth.json', // open, and not yet known to have been
    ]);
    await site.isWhole();
  });

  test('is whole on the disk again', async () => {
    await site.moved({ engine: 'leveldb' }, 3, [
      'after write 2 beacon-3/log/mark',
      'before rename beacon-lineage', // all is copied, and the stream closed
      'before rename beacon-generation',
      'after rename beacon-generation',
      'before rename birth.json', // opening: the log first
      'before rename beacon-3/view/born.json',
    ]);
    await site.isWhole();
  });

  test('is whole wherever the kill came', async (t) => {
    const before = site.acknowledged;
    await site.killedAtRandom({ engine: 'jetstream', stream: 'again' }, t);
    await site.moved({ engine: 'jetstream', stream: 'again' }, 4, [], before);
    await site.isWhole();
  });
});

interface Servers {
  readonly servers: readonly string[];
  readonly credentials: string;
  readonly system: string;
}

interface Target {
  readonly engine: 'leveldb' | 'jetstream';
  readonly stream?: string;
}

interface Acknowledged {
  readonly address: string;
  readonly cid: string;
  readonly revision: number;
  readonly body: string;
}

/** Keys of a window, which each of those who come first brings along. */
function isOfKeys(key: string): boolean {
  return key.startsWith('bk/') || key.startsWith('kek/');
}

/** A cluster, its writers, and how far its log was seen to have come. */
class Site {
  readonly #cluster: TestCluster;
  readonly #servers: Servers;
  readonly #commands: CommandLine;
  readonly #acknowledged: Acknowledged[] = [];
  readonly #writers: Promise<void>[];
  #isEnding = false;
  #checkedCount = 0;
  #seen: readonly LogEntry[] = [];

  constructor(cluster: TestCluster, servers: Servers) {
    this.#cluster = cluster;
    this.#servers = servers;
    this.#commands = commandLine(() => ({ dir: cluster.dir }));
    this.#writers = Array.from({ length: writersCount }, (_, writer) => this.#write(writer));
  }

  async end(): Promise<void> {
    this.#isEnding = true;
    await Promise.all(this.#writers);
    await this.#cluster[Symbol.asyncDispose]();
  }

  /** Puts, so far. */
  get acknowledged(): number {
    return this.#acknowledged.length;
  }

  /** Resolves when `count` more puts were acknowledged. */
  async acknowledges(count: number): Promise<void> {
    const target = this.#acknowledged.length + count;
    for (const giveUpAt = performance.now() + minute; this.#acknowledged.length < target; await sleep(50))
      assert.ok(performance.now() < giveUpAt, `${target - this.#acknowledged.length} were not acknowledged`);
  }

  /**
   * Gives the command until it succeeds and nobody is left to die. Whoever died is started at once, and what had been
   * copied into generation `next` by then is not copied again. Somebody writes between any two commands; more puts than
   * `before` must be acknowledged when it is over, and so must further ones.
   */
  async moved(
    to: Target,
    next: number,
    places: readonly string[],
    before = this.acknowledged,
  ): Promise<void> {
    const { engine, stream = '' } = to;
    const begun = new Set<bigint>();
    const { servers, credentials, system } = this.#servers;
    const where = ['--to', servers.join(','), '--stream', stream, '--login', credentials, '--system', system];
    const words = engine === 'leveldb' ? ['--to', engine] : where;
    await this.#cluster.diesAt(places);
    for (let count = 0; ; count++) {
      const { status, err } = await this.#commands.run('beacon', 'migrate', ...words);
      await this.#startAgain();
      for (const at of await this.#begunAt(next)) begun.add(at);
      if (status === 0) break;
      assert.ok(count < commandsMax, `not moved by ${count} commands: ${err}`);
      await this.acknowledges(1); // each command finds more to copy than the one before
    }
    await this.#everybodyDied();
    const text = engine === 'leveldb' ? 'embedded LevelDB log' : `JetStream stream ${stream}`;
    await this.#cluster.until(
      text,
      ({ beacon, catalogue }) => beacon?.text === text && beacon.state === 'ready' && catalogue.fresh,
    );
    assert.equal(begun.size, 1, `generation ${next} was begun anew`);
    assert.ok(this.acknowledged > before, 'nobody wrote meanwhile');
    await this.acknowledges(writersCount);
  }

  /** Begins the move some times, and kills the steward at any moment of it. */
  async killedAtRandom({ engine, stream }: Target, t: TestContext): Promise<void> {
    for (let count = 0; count < randomKills; count++) {
      const to = { engine, stream, ...this.#servers };
      const init = { method: 'POST', body: JSON.stringify({ to }) };
      const answer = await this.#cluster.fetch('/ucxi/v1/beacon/migrate', init);
      const lines = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      const { value = '' } = (await lines?.read()) ?? {};
      const ms = Math.random() * randomMsMax;
      await sleep(ms);
      await (await this.#cluster.control()).killNode('steward');
      const { value: more = '' } = (await lines?.read().catch(() => undefined)) ?? {};
      t.diagnostic(`killed after ${ms.toFixed(0)} ms: ${value}${more}`);
      await this.#startAgain();
      await this.acknowledges(1);
    }
  }

  /** Every record is there once, all that was there before or was acknowledged is, and verifying finds nothing. */
  async isWhole(): Promise<void> {
    const acknowledged = this.#acknowledged.slice(this.#checkedCount);
    this.#checkedCount += acknowledged.length;
    const entries = await this.#exported();
    const versions = entries.flatMap(({ records }) => records).filter(({ key }) => !isOfKeys(key));
    const distinct = new Set(versions.map(({ bytes }) => toHex(bytes)));
    assert.equal(distinct.size, versions.length, 'a record is there twice');
    for (const { chain, revision } of this.#seen.slice(-1))
      assert.equal(toHex(entries[revision - 1]?.chain ?? chain), toHex(chain), 'it is another history');
    for (const { address, cid, revision, body } of acknowledged) {
      const held = entries[revision - 1]?.records.map(({ bytes }) => cidOf(bytes, codecDagCbor).toString());
      assert.ok(held?.includes(cid), `${address} was acknowledged at revision ${revision} and is not there`);
      assert.equal(await this.#get(address), body, address);
    }
    const { ok, problems } = await this.#commands.json('beacon', 'verify');
    assert.deepEqual([ok, problems], [true, []]);
    this.#seen = entries;
  }

  /** The log as the door exports it: read with its chain, each append once, each on the picture that its writer had. */
  async #exported(): Promise<readonly LogEntry[]> {
    const file = join(this.#cluster.dir, 'exported');
    await this.#commands.ok('beacon', 'export', file, '--force');
    await using log = new MemoryLog();
    await importLog(file, log);
    return await assertKept(log, []);
  }

  async #get(address: string): Promise<string> {
    const answer = await this.#cluster.fetch(`/ucxi/v1/get?address=${encodeURIComponent(address)}`);
    return answer.text();
  }

  /** Nothing while no command has come so far. */
  async #begunAt(generation: number): Promise<bigint[]> {
    const path = join(this.#cluster.dir, 'steward', 'data', `beacon-${generation}`, 'making');
    try {
      return [(await stat(path, { bigint: true })).mtimeNs];
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async #everybodyDied(): Promise<void> {
    for (const giveUpAt = performance.now() + minute; ; await sleep(50)) {
      const left = await this.#cluster.placesLeft();
      if (left.length === 0) return;
      assert.ok(performance.now() < giveUpAt, `nobody came to ${left.join(', ')}`);
      await this.#startAgain();
    }
  }

  /** The supervisor would wait longer and longer. */
  async #startAgain(): Promise<void> {
    const control = await this.#cluster.control();
    for (const giveUpAt = performance.now() + minute; ; await sleep(20)) {
      const { status, text } = await control.startNode('steward');
      if (status === 'ready') return;
      assert.ok(performance.now() < giveUpAt, `the steward does not start: ${text}`);
    }
  }

  /** Each two share an address. What was not acknowledged is not sent again: the next one has other words. */
  async #write(writer: number): Promise<void> {
    const target = `ucxl://ann:author@moves:run/*^/${Math.floor(writer / 2)}`;
    for (let turn = 0; !this.#isEnding; turn++) {
      const body = `${writer} says ${turn}`;
      const acknowledged = await this.#put(target, body).catch(() => undefined);
      if (acknowledged !== undefined) this.#acknowledged.push(acknowledged);
      if (this.#acknowledged.length > filledCount) await sleep(pauseMs);
    }
  }

  async #put(target: string, body: string): Promise<Acknowledged | undefined> {
    const path = `/ucxi/v1/put?address=${encodeURIComponent(target)}`;
    const signal = AbortSignal.timeout(minute / 2);
    const answer = await this.#cluster.fetch(path, { method: 'PUT', body, signal });
    const text = await answer.text();
    if (!answer.ok) return undefined;
    const { address, cid, revision } = (JSON.parse(text) as { response: { data: PutAnswer } }).response.data;
    return { address, cid, revision, body };
  }
}
