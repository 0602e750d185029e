// Ceremonies cut at every step, on either side: a custodian killed before or after it took a step, the coordinator
// before or after each of its calls and the registry's append, and the disk of a custodian at each of its writes.
// Afterwards at least t custodians hold shares of one generation that together are the key, nothing is half made,
// and the group goes on.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  CeremonyWorld,
  type CustodianSite,
  groups,
  type Kill,
  Killed,
} from '../../test/support/ceremony-world.ts';
import { samePoint } from '../threshold/group.ts';
import type { Disk } from './disk.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-crash-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
const [t, n] = [2, 3];
/** The one that is killed; the others are its like. */
const victim = 'custodian-2';

type Ceremony = 'init' | 'refresh' | 'reshare' | 'repair';
type Place = Parameters<Kill>[0];

/** A world in which `ceremony` can be ordered. */
async function worldBefore(ceremony: Ceremony): Promise<CeremonyWorld> {
  if (ceremony === 'init') return CeremonyWorld.start(dir, n);
  return CeremonyWorld.made(dir, t, n, { count: ceremony === 'reshare' ? n + 1 : n });
}

/** The order for another one of the kind, given how the world is now. */
async function orderFor(ceremony: Ceremony, world: CeremonyWorld): Promise<Uint8Array> {
  if (ceremony === 'init') return world.initOrder(t, n);
  if (ceremony === 'refresh') return world.dealOrder('refresh', t, world.seats(n));
  if (ceremony === 'reshare') {
    // Of four, one that was out joins, and one that was in goes; the victim stays.
    const isIn = world.kek().custodians.some(({ peer }) => peer === 'peer-1');
    const members = world.seats(n + 1).filter(({ peer }) => peer !== (isIn ? 'peer-1' : 'peer-4'));
    return world.dealOrder('reshare', t, members);
  }
  await world.site('peer-2').wipe();
  await world.site('peer-2').start();
  return world.order('repair', { ver: 1, gen: world.kek().shareGen, member: 2 });
}

/** Every place where something can be cut, in order. */
async function placesOf(ceremony: Ceremony): Promise<Place[]> {
  await using world = await worldBefore(ceremony);
  const order = await orderFor(ceremony, world);
  const places: Place[] = [];
  const seen = new Set<string>();
  world.kill = (at) => {
    // The calls of the coordinator go out together, so before and after the one to the victim stand for all.
    const isOf =
      at.who === 'coordinator' ? !/ of /.test(at.step) || at.step.endsWith(victim) : at.who === victim;
    const key = `${at.who} ${at.step} ${at.when}`;
    if (isOf && !seen.has(key)) places.push(at);
    seen.add(key);
    return 'go';
  };
  await world.coordinator().command(order, quiet);
  return places;
}

async function cutAt(ceremony: Ceremony, world: CeremonyWorld, place: Place): Promise<void> {
  const order = await orderFor(ceremony, world);
  let isCut = false;
  world.kill = ({ who, step, when }) => {
    if (isCut && place.who === 'coordinator') return who === 'coordinator' ? 'kill' : 'go'; // it is dead
    if (who !== place.who || step !== place.step || when !== place.when) return 'go';
    isCut = true;
    return 'kill';
  };
  await attempt(world, order);
  assert.ok(isCut, 'cut');
  await goesOn(world, order, ceremony);
}

async function attempt(world: CeremonyWorld, order: Uint8Array): Promise<void> {
  await world
    .coordinator()
    .command(order, quiet)
    .catch((error: unknown) => checkExpected(error));
}

/** A ceremony that was cut fails with something that names the world's doing, never a fault of ours. */
function checkExpected(error: unknown): void {
  if (error instanceof Killed) return;
  assert.ok(error instanceof Error && 'code' in error, String(error));
  assert.notEqual(error.code, 'INTERNAL');
}

async function goesOn(world: CeremonyWorld, order: Uint8Array, ceremony: Ceremony): Promise<void> {
  world.kill = () => 'go';
  for (const site of world.sites.filter((each) => each.name === victim || !each.isUp)) {
    await site.kill();
    await site.start();
  }
  if (world.filedKek() === undefined) {
    assert.equal(ceremony, 'init');
    for (const { running } of world.sites)
      assert.ok(
        running.shares.shares().every(({ status }) => status === 'staged'),
        'nothing is half made',
      );
    assert.ok(await world.coordinator().initialise(order, quiet));
  } else if (ceremony !== 'init') await checkSome(world);
  await world.tellAll();
  await mend(world);
  await checkAll(world);
}

async function mend(world: CeremonyWorld): Promise<void> {
  const coordinator = world.coordinator();
  for (let at = 0; at < 10; at++) await coordinator.onBeat({ beat: world.beat, downbeat: false }, quiet);
}

/** Before anybody mended anything: the shares of one generation that are in use make up the key. */
async function checkSome(world: CeremonyWorld): Promise<void> {
  const { Y } = world.kek();
  const used = world.sites.flatMap((site) =>
    site.running.shares
      .shares()
      .filter(({ key, status }) => key === 'kek' && status !== 'staged')
      .map((entry) => ({ site, entry })),
  );
  for (const gen of new Set(used.map(({ entry }) => entry.gen))) {
    const holders = used.filter(({ entry }) => entry.gen === gen);
    const needed = holders[0]?.entry.t ?? t;
    if (holders.length < needed) continue;
    const sites = holders.slice(0, needed).map(({ site }) => site);
    assert.ok(samePoint(groups.kek.base(await world.secretOf(sites, gen)), Y), `generation ${gen}`);
    return;
  }
  assert.fail(`no generation is held by enough: ${used.map(({ entry }) => entry.gen).join()}`);
}

/** All members hold what the record says, of both keys, and whichever t of them make up the key. */
async function checkAll(world: CeremonyWorld): Promise<void> {
  const { Y, frostPk, custodians, shareGen, t: needed } = world.kek();
  const sites: CustodianSite[] = custodians.map(({ peer }) => world.site(peer));
  for (const { name, running } of sites)
    for (const key of ['kek', 'frost'])
      assert.ok(
        running.shares
          .shares()
          .some((each) => each.key === key && each.gen === shareGen && each.status === 'active'),
        `${name} has no active ${key} share of generation ${shareGen}`,
      );
  for (const quorum of [sites.slice(0, needed), sites.slice(-needed)]) {
    assert.ok(samePoint(groups.kek.base(await world.secretOf(quorum, shareGen)), Y));
    assert.ok(samePoint(groups.frost.base(await world.secretOf(quorum, shareGen, 'frost')), frostPk));
  }
}

/** Runs `cut` at each place: one world after another for the birth of a group, one group through all that follows. */
async function through<P>(
  ceremony: Ceremony,
  places: readonly P[],
  cut: (world: CeremonyWorld, place: P) => Promise<void>,
) {
  await using kept = new AsyncDisposableStack();
  let world: CeremonyWorld | undefined;
  for (const place of places) {
    if (world === undefined || ceremony === 'init') world = kept.use(await worldBefore(ceremony));
    try {
      await cut(world, place);
    } catch (cause) {
      throw new Error(`${JSON.stringify(place)}: ${String(cause)}`, { cause });
    }
  }
  // And at last one that nobody cuts.
  if (world === undefined) return;
  const { custodians, shareGen } = world.kek();
  const seats = custodians.map(({ peer, org }) => ({ peer, org }));
  await world.coordinator().command(world.dealOrder('refresh', t, seats), quiet);
  assert.equal(world.kek().shareGen, shareGen + 1);
  await checkAll(world);
}

for (const ceremony of ['init', 'refresh', 'reshare', 'repair'] as const)
  describe(`${ceremony}, cut`, () => {
    test('at every step of a custodian and of the coordinator', async () => {
      const places = await placesOf(ceremony);
      assert.ok(places.length >= 12, `${places.length} places`);
      await through(ceremony, places, (world, place) => cutAt(ceremony, world, place));
    });

    test('whenever a custodian replaces a file', async () => {
      // More than any of them replaces: at the last numbers nothing is cut.
      const numbers = Array.from({ length: 18 }, (_, at) => at + 1);
      let cuts = 0;
      await through(ceremony, numbers, async (world, at) => {
        const order = await orderFor(ceremony, world);
        const disk = new FailingDisk(at);
        world.disk = (folder, name) => (name === victim ? disk.over(folder) : folder);
        const site = world.site('peer-2');
        await site.kill();
        await site.start();
        disk.armed = true;
        await attempt(world, order);
        disk.armed = false;
        if (disk.writes >= at) cuts++;
        await goesOn(world, order, ceremony);
      });
      assert.ok(cuts >= 6, `cut ${cuts} times`);
    });
  });

/** From the n-th replacement of a file on nothing is written, as on a disk that has gone away. */
class FailingDisk {
  armed = false;
  writes = 0;
  readonly #at: number;

  constructor(at: number) {
    this.#at = at;
  }

  over(folder: Disk): Disk {
    const guard = (): void => {
      if (this.armed && this.writes >= this.#at) throw new Error('the disk has gone away');
    };
    return {
      path: folder.path,
      list: () => folder.list(),
      read: (name) => folder.read(name),
      create: async (name, bytes) => {
        guard();
        await folder.create(name, bytes);
      },
      flush: (name) => folder.flush(name),
      rename: async (from, to) => {
        if (this.armed) this.writes++;
        guard();
        await folder.rename(from, to);
      },
      unlink: (name) => folder.unlink(name),
      flushNames: () => folder.flushNames(),
    };
  }
}
