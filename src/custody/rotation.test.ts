import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cg, Killed, random } from '../../test/support/ceremony-world.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { RotationCoordinator } from './rotation-coordinator.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-rotation-'));
});
after(() => rm(dir, { recursive: true, force: true }));
const { signal } = new AbortController();

/** One step after the other until nothing is left to do; `between` each. */
async function finish(
  world: RotationWorld,
  between: () => Promise<void>,
  coordinator: RotationCoordinator = world.coordinator(),
): Promise<string[]> {
  const steps: string[] = [];
  for (let turns = 0; turns < 400; turns++) {
    const { step } = await coordinator.advance(signal);
    if (steps.at(-1) !== step) steps.push(step);
    await between();
    if (step === 'idle') return steps;
    if (step === 'wait') await world.pass(3);
  }
  return assert.fail(`no end: ${steps.join(' ')}`);
}

describe('rotation of a key', () => {
  test('moves every key to a new version while they are read and written, and destroys the old one', async () => {
    await using world = await RotationWorld.start(dir, 3, 5);
    await world.write(9);
    await world.writeRestricted();
    await world.readAll();
    world.order = world.rotateOrder(1);
    const steps = await finish(world, async () => {
      await world.readAll();
      await world.write(1);
    });
    assert.deepEqual(steps, [
      'make',
      'wait',
      'activate',
      'switch',
      'wait',
      'retire',
      'wait',
      'destroy',
      'idle',
    ]);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
    for (const known of world.known) {
      const { wraps } = await world.record(known);
      assert.deepEqual(
        wraps.map((wrap) => ('kekVer' in wrap ? wrap.kekVer : 0)),
        [2],
      );
    }
    await world.pass(1);
    for (const { running } of world.custodians.sites)
      assert.deepEqual(
        running.shares.shares().map(({ kekVer, gen, key, status }) => [kekVer, gen, key, status]),
        [
          [2, 1, 'kek', 'active'],
          [2, 1, 'frost', 'active'],
        ],
      );
    await world.readAll();
    // Once more, now from wraps that were switched.
    world.order = world.rotateOrder(2);
    await finish(world, () => world.readAll());
    assert.deepEqual(await world.states(), ['destroyed', 'destroyed', 'active']);
    const entries = world.custodians.sites.map(({ running }) => running.log.size);
    assert.ok(
      entries.every((count) => count > 10),
      'every custodian has written down what it did',
    );
  });

  test('goes on after the coordinator was killed before and after each of its steps', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(5);
    await world.writeRestricted();
    world.order = world.rotateOrder(1);
    const seen = new Set<string>();
    world.custodians.kill = ({ who, step, when }) => {
      const label = `${step} ${when}`;
      if (who !== 'coordinator' || seen.has(label)) return 'go';
      seen.add(label);
      return 'kill';
    };
    let coordinator = world.coordinator();
    for (let turns = 0; ; turns++) {
      assert.ok(turns < 600, 'an end');
      try {
        const { step } = await coordinator.advance(signal);
        if (step === 'idle') break;
        if (step === 'wait') await world.pass(3);
      } catch (error) {
        assert.ok(error instanceof Killed || isHoldfastError(error), String(error));
        coordinator = world.coordinator();
      }
      await world.readAll();
    }
    assert.ok(seen.size > 40, `${seen.size} places`);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
  });

  test('goes on after each custodian was killed before and after each of its steps', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(5);
    world.order = world.rotateOrder(1);
    const seen = new Set<string>();
    world.custodians.kill = ({ who, step, when }) => {
      const label = `${who} ${step} ${when}`;
      if (who === 'coordinator' || step.startsWith('log ') || seen.has(label)) return 'go';
      seen.add(label);
      return 'kill';
    };
    const coordinator = world.coordinator();
    for (let turns = 0; ; turns++) {
      assert.ok(turns < 600, 'an end');
      try {
        const { step } = await coordinator.advance(signal);
        if (step === 'idle') break;
        if (step === 'wait') await world.pass(3);
      } catch (error) {
        assert.ok(isHoldfastError(error), String(error));
      }
      for (const site of world.custodians.sites) if (!site.isUp) await site.start();
      await world.readAll();
    }
    assert.ok(seen.size > 40, `${seen.size} places`);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
  });

  test('gives up a key that too many have lost before its first use, and makes another', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    world.order = world.rotateOrder(1);
    world.custodians.kill = ({ who, step, when }) =>
      who !== 'coordinator' && step === 'activate' && when === 'before' ? 'kill' : 'go';
    const coordinator = world.coordinator();
    await coordinator.advance(signal);
    for (const site of world.custodians.sites) {
      await site.start();
      await site.running.shares.erase({ cg, kekVer: 2, gen: 1 });
    }
    world.custodians.kill = () => 'go';
    await world.pass(12);
    await assert.rejects(coordinator.advance(signal), /no share of version 2/);
    await world.pass(40);
    const steps = await finish(world, () => world.readAll(), coordinator);
    assert.deepEqual(steps.slice(0, 2), ['destroy', 'make']);
    assert.deepEqual(await world.states(), ['destroyed', 'destroyed', 'active']);
  });

  test('keeps a share that is staged at the moment in which the one of an earlier attempt is erased', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    world.order = world.rotateOrder(1);
    const { custodians } = world;
    custodians.kill = ({ who, step }) => (who === 'custodian-1' && step === 'receive' ? 'lose' : 'go');
    await assert.rejects(world.coordinator().advance(signal), /custodian-1/);
    // It is agreed that nothing came of it, and no other attempt begins.
    custodians.kill = ({ who, protocol }) => (who === 'custodian-1' && protocol === 'rotate' ? 'lose' : 'go');
    await assert.rejects(world.coordinator().advance(signal), /custodian-1/);
    await world.pass(1);
    custodians.beat += 13;
    custodians.nowMs += 13 * 60_000;
    const { shares, activation } = custodians.site('peer-2').running;
    const stagedKek = () => shares.shares().find(({ key, status }) => key === 'kek' && status === 'staged');
    const facts = stagedKek();
    assert.ok(facts !== undefined);
    const put = { facts, secret: random(32), beat: custodians.beat };
    const staging = shares.stage({ cg, kekVer: 2, gen: 1 }, 'kek', put);
    await Promise.all([staging, activation.settle(custodians.nowMs)]);
    assert.notEqual(stagedKek()?.id, facts.id);
    assert.ok(stagedKek() !== undefined, 'it was promised to be there');
    assert.ok(
      !shares.shares().some(({ key, status }) => key === 'frost' && status === 'staged'),
      'it was past',
    );
  });

  test('needs all custodians to begin, and two of three to go on', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(3);
    world.order = world.rotateOrder(1);
    await world.custodians.site('peer-3').kill();
    await assert.rejects(world.coordinator().advance(signal), {
      code: 'KEY_UNAVAILABLE',
      message: /custodian-3/,
    });
    assert.deepEqual(await world.states(), ['active']);
    await world.custodians.site('peer-3').start();
    await world.coordinator().advance(signal);
    await world.custodians.site('peer-2').kill();
    await finish(world, () => world.readAll());
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
    await world.custodians.site('peer-2').start();
    await world.pass(1);
    const left = world.custodians.site('peer-2').running.shares.shares();
    assert.deepEqual(
      left.map(({ cg: group, kekVer }) => [group, kekVer]),
      [
        [cg, 2],
        [cg, 2],
      ],
    );
  });

  test('is due by the bars of the policy, once, however many were missed; and never while nobody knows the time', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    const coordinator = world.coordinator();
    world.rotateEveryBars = 3;
    assert.equal((await coordinator.advance(signal)).step, 'idle');
    await world.pass(75);
    world.lost = 'no beat was heard for long';
    assert.equal((await coordinator.advance(signal)).step, 'wait');
    assert.equal(coordinator.rotationsOk(), true);
    world.lost = undefined;
    // The custodians have the last word: their policy, which they read themselves, knows no schedule.
    await assert.rejects(coordinator.advance(signal), /nobody ordered a new key/);
    assert.equal(coordinator.rotationsOk(), false);
    assert.match(coordinator.problem, /nobody ordered/);
    await world.readAll();
  });
});
