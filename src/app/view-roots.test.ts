// Views that are compared, one of which is not what its log gives.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { MemoryLog } from '../beacon/memory.ts';
import { rowKey } from '../beacon/rows.ts';
import { BeaconView } from '../beacon/view.ts';
import { MemoryKv } from '../beacon/view-memory.ts';
import type { BeatFrame } from '../backbeat/beat.ts';
import type { Beat, Tempo, TempoView } from '../backbeat/tempo.ts';
import { minute } from '../core/clock.ts';
import type { RpcClient } from '../core/rpc.ts';
import { utf8 } from '../core/bytes.ts';
import { systemClock } from './member.ts';
import { type ComparerPorts, ViewComparer, ViewRoots } from './view-roots.ts';

const bk = someId('bk');

it('finds views alike in a log that stands still, and in one that grows all the time', async () => {
  await using site = await Site.make(['steward', 'door-1', 'door-2']);
  await site.append(30);
  await site.caughtUp();
  await site.compare();
  assert.deepEqual(site.comparer.report()?.equal, ['steward', 'door-1', 'door-2']);
  const still = site.comparer.report()?.revision;
  const compared = new AbortController();
  const growing = (async () => {
    while (!compared.signal.aborted) {
      await site.append(1);
      await delay(1); // a log in memory never waits for anything
    }
  })();
  await site.compare();
  compared.abort();
  await growing;
  assert.deepEqual(site.comparer.report()?.equal, ['steward', 'door-1', 'door-2']);
  assert((site.comparer.report()?.revision ?? 0) > (still ?? 0));
  assert.deepEqual(site.proven, []);
});

it('names the view that is unlike the others, and has all of them fold again', async () => {
  await using site = await Site.make(['steward', 'door-1', 'door-2']);
  await site.append(5);
  await site.caughtUp();
  await site.compare();
  assert.deepEqual(site.comparer.report()?.differing, []);
  // Nothing is appended meanwhile: what was read once is read again.
  await site.kvOf('door-2').write(new Map([[rowKey('tag', 'sec-high', someAddress('1')), utf8('')]]));
  await site.compare();
  const report = site.comparer.report();
  assert.deepEqual(report?.equal, ['steward', 'door-1']);
  assert.deepEqual(report.differing, [{ name: 'door-2', kinds: ['tag'] }]);
  assert.deepEqual(site.proven.toSorted(), ['door-1', 'door-2', 'steward']);
});

it('says who could not be compared and why', async () => {
  await using site = await Site.make(['steward', 'door-1']);
  await site.append(3);
  await site.caughtUp();
  site.away.add('door-1');
  await site.compare();
  assert.deepEqual(site.comparer.report()?.equal, ['steward']);
  assert.deepEqual(
    site.comparer.report()?.unknown.map(({ name }) => name),
    ['door-1'],
  );
});

it('waits no longer for a view when it is to end', { timeout: 10_000 }, async () => {
  const asked = Promise.withResolvers<void>();
  const own = {
    revision: 5,
    at: () => {
      asked.resolve();
      return new Promise<never>(() => undefined);
    },
    prove: () => undefined,
  } as unknown as ViewRoots;
  const rpc = { call: () => assert.fail('there is nobody'), stream: async function* () {} };
  const comparer = new ViewComparer({
    rpc,
    name: 'steward',
    own,
    others: () => [],
    clock: systemClock,
    paceMs: 1,
  });
  const compared = comparer.compare();
  await asked.promise;
  await comparer[Symbol.asyncDispose]();
  await compared;
  assert.equal(comparer.report(), undefined);
});

it('compares again soon after empty views, and not for long after others', async () => {
  await using site = await Site.make(['steward', 'door-1']);
  const tempo = new HandTempo();
  await using comparer = ViewComparer.start(site.ports, tempo);
  // What is settled is compared again after thirty bars.
  const comesTo = async (revision: number): Promise<void> => {
    for (let bar = 0; bar < 20 && comparer.report()?.revision !== revision; bar++) await tempo.bars(1);
    assert.equal(comparer.report()?.revision, revision);
    await delay(1000); // a comparison that has begun names the revision of now
  };
  await comesTo(0);
  await site.append(3);
  await site.caughtUp();
  await comesTo(3);
  assert.deepEqual(comparer.report()?.equal, ['steward', 'door-1']);
  await site.append(1);
  await site.caughtUp();
  await tempo.bars(5);
  await delay(300);
  assert.equal(comparer.report()?.revision, 3);
});

it('is for stewards', async () => {
  await using site = await Site.make(['steward', 'door-1']);
  site.asker = 'node-1';
  await site.compare();
  assert.match(site.comparer.report()?.unknown[0]?.reason ?? '', /not for node-1/);
});

/** Bars of one beat, when they are asked for. */
class HandTempo implements Tempo {
  #listener: (beat: Beat) => void = () => undefined;
  #index = 0;

  current(): TempoView {
    return { state: 'locked', beat: undefined, intervalMs: beatMs, since: 0 };
  }

  onBeat(listener: (beat: Beat) => void): () => void {
    this.#listener = listener;
    return () => undefined;
  }

  async bars(count: number): Promise<void> {
    for (let bar = 0; bar < count; bar++) {
      await delay(beatMs + 10);
      const sequence = ++this.#index;
      const frame = { beat_index: sequence, tempo_bpm: minute / beatMs } as BeatFrame;
      this.#listener({ sequence, frame, source: 'pulse', downbeat: true });
    }
  }
}

const beatMs = 60;

/** Views of one log in this process. The first member compares. */
class Site implements AsyncDisposable {
  readonly log = new MemoryLog();
  readonly proven: string[] = [];
  readonly away = new Set<string>();
  readonly comparer: ViewComparer;
  readonly ports: ComparerPorts;
  asker = 'steward';
  readonly #stop = new AbortController();
  readonly #kvs: ReadonlyMap<string, MemoryKv>;
  readonly #following: Promise<void>[];
  readonly #views: readonly BeaconView[];
  #count = 0;

  private constructor(kvs: ReadonlyMap<string, MemoryKv>, views: ReadonlyMap<string, BeaconView>) {
    this.#kvs = kvs;
    this.#views = [...views.values()];
    this.#following = [...views.values()].map((view) => view.follow(this.log, this.#stop.signal));
    const loops = new Map<string, Loopback>();
    const offers = [...views].map(([name, view]) => {
      const offer = new ViewRoots(view, () => this.proven.push(name), this.#stop.signal);
      const loop = new Loopback();
      offer.serve(loop, (peer) => peer === 'steward');
      loops.set(name, loop);
      return { name, peer: name, offer };
    });
    const rpc: RpcClient = {
      call: async (peer, ...rest) => {
        const loop = loops.get(peer);
        assert(loop !== undefined);
        if (this.away.has(peer)) throw new Error('nobody there');
        loop.caller = this.asker;
        return loop.call(peer, ...rest);
      },
      stream: async function* () {
        yield* [];
      },
    };
    const [own, ...others] = offers;
    assert(own !== undefined);
    const paceMs = 50;
    this.ports = {
      rpc,
      name: own.name,
      own: own.offer,
      others: () => others,
      clock: systemClock,
      paceMs,
    };
    this.comparer = new ViewComparer(this.ports);
  }

  static async make(names: readonly string[]): Promise<Site> {
    const kvs = new Map(names.map((name) => [name, new MemoryKv()]));
    const views = new Map<string, BeaconView>();
    for (const [name, kv] of kvs) views.set(name, await BeaconView.open(kv));
    return new Site(kvs, views);
  }

  async append(count: number): Promise<void> {
    for (let index = 0; index < count; index++)
      await this.log.append(putAppend(someManifest(someAddress(String(this.#count++))), bk));
  }

  async caughtUp(): Promise<void> {
    for (const view of this.#views) await view.waitFor(this.#count, this.#stop.signal);
  }

  compare(): Promise<void> {
    return this.comparer.compare();
  }

  kvOf(name: string): MemoryKv {
    const kv = this.#kvs.get(name);
    assert(kv !== undefined);
    return kv;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.comparer[Symbol.asyncDispose]();
    await Promise.all(this.#following);
  }
}
