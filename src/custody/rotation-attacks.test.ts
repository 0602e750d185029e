// A steward that lies: about what time it is, about what is still used, and about what others have signed.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cg, groups, random } from '../../test/support/ceremony-world.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { RotationCoordinator, type RotationRegistry } from './rotation-coordinator.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-rotation-attacks-'));
});
after(() => rm(dir, { recursive: true, force: true }));
const { signal } = new AbortController();

/** Says that no record is under any version, and what beat it likes. */
function liar(world: RotationWorld, beat: () => number): RotationCoordinator {
  const { custodians: ports, signer } = world.custodians.ports();
  const honest = world.registry();
  const registry: RotationRegistry = {
    versions: () => honest.versions(),
    rotateEveryBars: () => honest.rotateEveryBars(),
    lastCertificate: (ver) => honest.lastCertificate(ver),
    append: (records, stop) => honest.append(records, stop),
    wrapsUnder: async () => ({ items: [] }),
  };
  return new RotationCoordinator({
    cg,
    registry,
    step: (peer, at, payload) => ports.step(peer, at, payload),
    activate: (peer, record) => ports.activate(peer, record),
    nameOf: (peer) => ports.nameOf(peer),
    signer,
    groups: async () => groups,
    random,
    beat: () => ({ beat: beat(), bar: 0, silentBeats: 0, lost: undefined }),
    beatsPerBar: () => 10,
    instant: () => '2026-11-22T23:00:00Z',
    order: () => world.order,
  });
}

const sharesOf = (world: RotationWorld, ver: number): number[] =>
  world.custodians.sites.map(
    ({ running }) => running.shares.shares().filter(({ kekVer }) => kekVer === ver).length,
  );

/** `change` said to every custodian, as far as its first step. */
async function hello(world: RotationWorld, change: 'activate' | 'destroy', ver: number): Promise<unknown[]> {
  const session = random(32);
  const done = await Promise.allSettled(
    world.custodians.sites.map(({ running }) =>
      running.steps.step(session, 'change', 'hello', { cg, change, ver }),
    ),
  );
  return done.map((each) => (each.status === 'fulfilled' ? each.value : String(each.reason)));
}

/** As far as the vote of each custodian for it. */
async function propose(
  world: RotationWorld,
  change: 'activate' | 'destroy',
  ver: number,
): Promise<unknown[]> {
  const done = await Promise.allSettled(
    world.custodians.sites.map(async ({ running }) => {
      const session = random(32);
      await running.steps.step(session, 'change', 'hello', { cg, change, ver });
      return running.steps.step(session, 'change', 'propose', {});
    }),
  );
  return done.map((each) => (each.status === 'fulfilled' ? each.value : String(each.reason)));
}

/** Version 2 made, in use, and version 1 retired by a steward that hides what is under it. */
async function retireByLie(world: RotationWorld): Promise<RotationCoordinator> {
  const evil = liar(world, () => 1_000_000);
  await world.coordinator().advance(signal);
  await world.pass(12);
  await world.coordinator().advance(signal);
  await world.pass(30);
  assert.equal((await evil.advance(signal)).step, 'retire');
  assert.deepEqual(await world.states(), ['retired', 'active']);
  return evil;
}

describe('a rotation that the steward hurries', () => {
  test('is no rotation when its first beat lies in the past', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    await world.pass(50);
    world.order = world.rotateOrder(1);
    await assert.rejects(liar(world, () => 0).advance(signal), /first used at beat 10: 155 to 190 expected/);
    assert.deepEqual(await world.states(), ['active']);
    assert.deepEqual(sharesOf(world, 1), [2, 2, 2]);
    await world.readAll();
  });

  test('destroys nothing before the wall clock of the custodians allows it, also when they start anew', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    world.order = world.rotateOrder(1);
    const evil = await retireByLie(world);
    assert.equal((await evil.advance(signal)).step, 'wait');
    // Beats are what somebody else counts.
    world.custodians.beat += 1000;
    for (const site of world.custodians.sites) {
      await site.kill();
      await site.start();
    }
    assert.match(String(Object.values(await evil.advance(signal))), /wait,version 1 is destroyed from/);
    assert.deepEqual(sharesOf(world, 1), [2, 2, 2]);
    world.custodians.nowMs += 2 * 60_000;
    assert.equal((await evil.advance(signal)).step, 'destroy');
  });

  test('leaves a day to notice it when nobody had ordered it', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    world.order = world.rotateOrder(1);
    const evil = await retireByLie(world);
    // As after a rotation by schedule: none of them has seen an order about this version.
    for (const { running } of world.custodians.sites) {
      const mark = running.shares.mark.bind(running.shares);
      running.shares.mark = (name) => (name.endsWith('/ordered') ? 0 : mark(name));
    }
    assert.equal((await evil.advance(signal)).step, 'wait');
    world.custodians.nowMs += 23 * 3_600_000;
    assert.equal((await evil.advance(signal)).step, 'wait');
    world.custodians.nowMs += 3_600_000;
    assert.equal((await evil.advance(signal)).step, 'destroy');
  });

  test('does not forget with a restart that the old version was used', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    world.order = world.rotateOrder(1);
    const honest = world.coordinator();
    await honest.advance(signal);
    await world.pass(12);
    await honest.advance(signal);
    await world.pass(30);
    await world.readAll();
    await world.pass(1);
    for (const site of world.custodians.sites) {
      await site.kill();
      await site.start();
    }
    await assert.rejects(liar(world, () => 1_000_000).advance(signal), /was in use until lately/);
  });
});

describe('a version that was not used yet', () => {
  /** Made, and due. */
  async function due(): Promise<RotationWorld> {
    const world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    world.order = world.rotateOrder(1);
    await world.coordinator().advance(signal);
    await world.pass(12);
    return world;
  }

  test('loses no share by a session about its end that nothing came of', async () => {
    await using world = await due();
    await world.pass(60);
    for (const begun of await hello(world, 'destroy', 2)) assert.equal(Object(begun).early, null);
    assert.deepEqual(sharesOf(world, 2), [2, 2, 2]);
  });

  test('is not put in use any more once it is given up', async () => {
    await using world = await due();
    await world.pass(60);
    for (const answer of await hello(world, 'activate', 2))
      assert.match(String(answer), /was to come in use before beat/);
  });

  test('is not given up once its use was agreed on, and comes in use late', async () => {
    await using world = await due();
    // All signatures are made, and the record of it is withheld.
    world.custodians.kill = ({ who, step }) => (who === 'coordinator' && step === 'append' ? 'kill' : 'go');
    await assert.rejects(world.coordinator().advance(signal));
    world.custodians.kill = () => 'go';
    await world.pass(60);
    // Whoever wants its end now finds custodians locked on its use.
    const answers = await propose(world, 'destroy', 2);
    assert.ok(
      answers.every((answer) => /round 1 is over here/.test(String(answer))),
      String(answers),
    );
    await world.coordinator().advance(signal);
    assert.deepEqual(await world.states(), ['decrypt-only', 'active']);
    await world.readAll();
  });

  test('is not put in use once its end was agreed on', async () => {
    await using world = await due();
    await world.pass(60);
    world.custodians.kill = ({ who, step }) => (who === 'coordinator' && step === 'append' ? 'kill' : 'go');
    await assert.rejects(world.coordinator().advance(signal));
    world.custodians.kill = () => 'go';
    assert.deepEqual(sharesOf(world, 2), [2, 2, 2]);
    await world.coordinator().advance(signal);
    assert.deepEqual(await world.states(), ['active', 'destroyed']);
  });

  test('is not stuck where custodians have voted for its use, and too few of them for its end', async () => {
    await using world = await due();
    // One votes that it comes in use, and nobody hears of it.
    world.custodians.kill = ({ who, step, when }) => {
      if (step !== 'propose') return 'go';
      return who === 'custodian-1'
        ? when === 'after'
          ? 'kill'
          : 'go'
        : who === 'coordinator'
          ? 'go'
          : 'kill';
    };
    await assert.rejects(world.coordinator().advance(signal));
    world.custodians.kill = () => 'go';
    for (const site of world.custodians.sites) if (!site.isUp) await site.start();
    await world.pass(60);
    await world.coordinator().advance(signal);
    assert.deepEqual(await world.states(), ['active', 'destroyed']);
  });

  test('keeps the group from being dealt anew to others', async () => {
    await using world = await due();
    const { custodians } = world;
    const members = custodians.seats(3).toReversed();
    const reshare = custodians
      .coordinator()
      .command(custodians.dealOrder('reshare', 2, members), () => undefined);
    await assert.rejects(reshare, {
      code: 'VERSION_CONFLICT',
      message: /version 2 of the key is pre-active/,
    });
    await world.coordinator().advance(signal);
    const again = custodians
      .coordinator()
      .command(custodians.dealOrder('evict', 2, members), () => undefined);
    await assert.rejects(again, {
      code: 'VERSION_CONFLICT',
      message: /version 1 of the key is decrypt-only/,
    });
  });
});
