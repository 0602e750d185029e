// A rotation cut at every step of either side: the coordinator before and after each of its calls and of the
// registry's appends; a custodian before and after each of its steps, and in and after each write to its audit log;
// and the disk of a custodian at each of its writes: without power, so that what was not flushed is gone, and gone
// away under a process that goes on.
//
// One group rotates again and again, and each place is cut once. After each cut every key opens: by those that are
// left, and then by any two with the one that was cut, started again. At the end of each rotation nothing is left over.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CustodianSite, cg, groups, Killed } from '../../test/support/ceremony-world.ts';
import { PluggedDisks } from '../../test/support/plugged-disks.ts';
import { survivals } from '../../test/support/power-cut-disk.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { openRecord } from '../manifest/record.ts';
import { samePoint } from '../threshold/group.ts';
import { parseLeaf } from './audit-leaf.ts';
import { parseCertificate, type RotationCertificate } from './certificate.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-rotation-crash-'));
});
after(() => rm(dir, { recursive: true, force: true }));
const { signal } = new AbortController();
const [t, n] = [2, 3];
/** The one that is cut; the others are its like. */
const victim = 'custodian-2';
/** Drops out when a new key is there, so that each step needs the victim. */
const third = 'custodian-3';
/** In the first rotations it does not, and the others go on without the victim. */
const rotationsOfThree = 2;

/** Where something was cut: each place once, and one in a turn. */
class Places {
  readonly seen = new Set<string>();
  /** What is under way: states of the versions that are not destroyed. */
  phase = '';
  /** Pages that the victim has answered about, or would have. */
  answered = 0;
  #isOpen = false;

  /** True when it is to be cut here. */
  take({ protocol, step }: { readonly protocol: string; readonly step: string }, what: string): boolean {
    // Shares are taken up alike whoever shows the record, and to who has taken them up it says nothing new.
    const isShown = protocol === 'activate' || step === 'settle';
    const place = isShown ? `shown a record: ${what}` : `${this.phase}: ${protocol} ${what}`;
    if (!this.#isOpen || this.seen.has(place)) return false;
    this.#isOpen = false;
    this.seen.add(place);
    return true;
  }

  async open(work: () => Promise<void>): Promise<void> {
    this.#isOpen = true;
    try {
      await work();
    } finally {
      this.#isOpen = false;
    }
  }
}

async function worldOf(pageItems: number, disks?: PluggedDisks): Promise<RotationWorld> {
  const world = await RotationWorld.start(dir, t, n, disks && { disk: (_, name) => disks.open(name) });
  world.pageItems = pageItems;
  await world.write(1);
  await world.writeRestricted();
  return world;
}

/** Rotates until a whole rotation came to no place that was not cut yet. */
async function rotateThrough(world: RotationWorld, places: Places, checkMore = async () => {}) {
  const { custodians } = world;
  const cut = custodians.kill;
  for (let rotations = 1; ; rotations++) {
    assert.ok(rotations < 40, 'an end');
    const before = places.seen.size;
    custodians.kill = (at) => {
      const isStep = !['activate', 'read', 'beat', 'start'].includes(at.protocol);
      const dropsOut = rotations > rotationsOfThree && places.phase !== 'active' && isStep;
      if (at.who === victim && at.step === 'open' && at.when === 'after') places.answered++;
      return at.who === third && dropsOut ? 'lose' : cut(at);
    };
    await rotate(world, places);
    await checkEnd(world);
    const { log } = custodians.site('peer-2').running;
    const leaves = (await log.leaves(0, log.size)).map((leaf) => parseLeaf(leaf).reason);
    const written = leaves.filter((reason) => /^page \d+ (?:moved|verified)/.test(reason)).length;
    assert.ok(written >= places.answered, `${written} pages written down, ${places.answered} answered about`);
    await checkMore();
    if (places.seen.size === before && rotations > rotationsOfThree) return;
  }
}

async function rotate(world: RotationWorld, places: Places): Promise<void> {
  const from = await activeVer(world);
  let coordinator = world.coordinator();
  for (let turns = 0; ; turns++) {
    assert.ok(turns < 600, `an end: ${(await world.states()).join()}`);
    places.phase = (await world.states()).filter((state) => state !== 'destroyed').join();
    world.order = world.rotateOrder(from);
    const before = places.seen.size;
    let done = 'nothing';
    await places.open(async () => {
      try {
        ({ step: done } = await coordinator.advance(signal));
        if (done === 'wait') await world.pass(5);
      } catch (error) {
        if (!(error instanceof Killed)) checkExpected(error);
        coordinator = world.coordinator();
      }
    });
    const isCut = places.seen.size > before;
    try {
      if (isCut || done !== 'wait') await checkMoment(world, places);
      if (done !== 'nothing' && done !== 'wait') await checkShares(world);
    } catch (cause) {
      throw new Error(`${isCut ? 'after' : 'long after'} ${[...places.seen].at(-1)}: ${String(cause)}`, {
        cause,
      });
    }
    if (done === 'idle') return;
    if (done === 'nothing' && !isCut) await world.pass(1);
  }
}

/** What was cut fails with something that names the world's doing, never a fault of ours. */
function checkExpected(error: unknown): void {
  assert.ok(isHoldfastError(error) && error.code !== 'INTERNAL', String(error));
}

async function activeVer(world: RotationWorld): Promise<number> {
  return 1 + (await world.states()).lastIndexOf('active');
}

async function checkMoment(world: RotationWorld, places: Places): Promise<void> {
  const { custodians } = world;
  const { sites } = custodians;
  const isCut = ({ name, isUp }: CustodianSite): boolean =>
    name === victim && (!isUp || custodians.isDiskOut(name));
  // By those that are left.
  if (sites.some(isCut)) {
    for (const site of sites) if (!site.isUp && !isCut(site)) await site.start();
    await world.readAll();
  }
  do {
    for (const site of sites) if (isCut(site)) await site.kill();
    await places.open(async () => {
      await custodians.revive();
      await world.pass(0);
    });
  } while (sites.some((site) => !site.isUp || isCut(site)));
  // By the one that was cut, with as few as it takes.
  world.away = new Set(sites.filter(({ name }) => name === third).map(({ peer }) => peer));
  await world.readAll();
  world.away = new Set();
}

/** Any t hold each version that opens, of both keys; fewer do not. */
async function checkShares(world: RotationWorld): Promise<void> {
  const { sites } = world.custodians;
  const serving = world.custodians
    .versions()
    .map(({ kek }) => kek)
    .filter(({ state }) => state !== 'pre-active' && state !== 'destroyed');
  for (const kek of serving) {
    for (const { name, running } of sites)
      assert.ok(running.desk.own(kek), `${name} has lost version ${kek.ver}, which is ${kek.state}`);
    for (const out of sites) {
      const quorum = sites.filter((each) => each !== out);
      assert.ok(await isKey(world, quorum, kek), `version ${kek.ver} without ${out.name}`);
      assert.ok(!(await isKey(world, quorum.slice(1), kek)), 'one alone is no key');
    }
  }
}

async function isKey(world: RotationWorld, quorum: readonly CustodianSite[], kek: TdecKek): Promise<boolean> {
  const { ver, shareGen, Y, frostPk } = kek;
  const secret = await world.custodians.secretOf(quorum, shareGen, 'kek', ver);
  const signing = await world.custodians.secretOf(quorum, shareGen, 'frost', ver);
  const found = [samePoint(groups.kek.base(secret), Y), samePoint(groups.frost.base(signing), frostPk)];
  assert.equal(found[0], found[1]);
  return found[0] === true;
}

/** All keys are under the newest version, and of the others nothing is left. */
async function checkEnd(world: RotationWorld): Promise<void> {
  // What was put by for an attempt that nothing came of goes after a bar and two minutes.
  for (const beats of [1, 13, 1]) await world.pass(beats);
  const ver = await activeVer(world);
  const states = await world.states();
  assert.equal(states.length, ver);
  assert.ok(
    states.slice(0, -1).every((state) => state === 'destroyed'),
    states.join(),
  );
  for (const known of world.known) {
    const { wraps } = await world.record(known);
    assert.deepEqual(
      wraps.map((wrap) => ('kekVer' in wrap ? wrap.kekVer : 0)),
      [ver],
    );
  }
  const certificates = world.custodians.log
    .filter(({ key }) => key.startsWith('cert/'))
    .map(({ bytes }) => parseCertificate(openRecord(bytes).body))
    .filter((body) => body.what === 'rotation');
  for (const site of world.custodians.sites) {
    const { shares } = site.running;
    assert.deepEqual(
      shares.shares().map(({ kekVer, gen, key, status }) => [kekVer, gen, key, status].join(' ')),
      [`${ver} 1 kek active`, `${ver} 1 frost active`],
      site.name,
    );
    assert.deepEqual(shares.versions(cg), [ver], `${site.name} remembers nothing of others`);
    await checkLog(site, certificates);
  }
}

/** Nothing was contributed that is not written down. */
async function checkLog(site: CustodianSite, certificates: readonly RotationCertificate[]): Promise<void> {
  const { log } = site.running;
  const i = Number(site.name.split('-')[1]);
  const reasons = new Set((await log.leaves(0, log.size)).map((leaf) => parseLeaf(leaf).reason));
  for (const { ver, fromVer, n: page, contributions } of certificates)
    if (contributions.some((each) => each.i === i)) {
      const said = `page ${page} moved, version ${fromVer} to ${ver}`;
      assert.ok(reasons.has(said), `${site.name} did not write down: ${said}`);
    }
}

describe('a rotation, cut', () => {
  test('before and after each call of the coordinator and each append', async () => {
    await using world = await worldOf(1);
    const places = new Places();
    // Its calls go out together, so those to the victim stand for all.
    const isOne = (step: string): boolean => !/ of /.test(step) || step.endsWith(victim);
    world.custodians.kill = (at) =>
      at.who === 'coordinator' && isOne(at.step) && places.take(at, `${at.step} ${at.when}`) ? 'kill' : 'go';
    await rotateThrough(world, places);
    assert.ok(places.seen.size > 80, `${places.seen.size} places`);
  });

  test('before and after each step of a custodian, and in and after each write to its audit log', async () => {
    await using world = await worldOf(1);
    const places = new Places();
    world.custodians.kill = (at) =>
      at.who === victim && places.take(at, `${at.step} ${at.when}`) ? 'kill' : 'go';
    await rotateThrough(world, places);
    assert.ok(places.seen.size > 100, `${places.seen.size} places`);
  });

  // Where names survive that nobody flushed is for a release: the share store's own tests have it too.
  for (const survival of survivals.filter((each) => each !== 'names' || process.env['HOLDFAST_ALL'] === '1'))
    test(`at each write to the disk of a custodian, of which ${survival} is left`, async () => {
      const disks = new PluggedDisks();
      disks.survival = survival;
      await using world = await worldOf(2, disks);
      const { custodians } = world;
      const places = new Places();
      // What was written and is not lost is also what a disk has that goes away under a process which goes on.
      custodians.isPowerCut = survival !== 'everything';
      custodians.isDiskOut = (name) => disks.isOut(name);
      const writes = new WeakMap<object, number>();
      disks.cut = (name) => {
        if (name !== victim) return false;
        const { doing } = custodians.site('peer-2');
        const number = 1 + (writes.get(doing) ?? 0);
        writes.set(doing, number);
        return places.take(
          doing,
          `${doing.protocol === 'activate' ? 'settle' : doing.step}, write ${number}`,
        );
      };
      await rotateThrough(world, places, async () => {
        const { shares } = custodians.site('peer-2').running;
        assert.equal((await disks.files(victim)).length, 1 + 2 * shares.entries().length);
      });
      assert.ok(places.seen.size > 100, `${places.seen.size} places`);
    });
});
