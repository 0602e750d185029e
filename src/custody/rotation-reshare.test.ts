// How long a version that nothing needs any more stays when its custodians change meanwhile.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { day, minute } from '../core/clock.ts';
import { coordinateDealing } from './coordinate-dealing.ts';
import type { Coordinator } from './coordinator-run.ts';
import { destroyWaits } from './rotation-marks.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-reshare-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
const { signal } = new AbortController();

async function pass(world: RotationWorld, steward: Coordinator, beats: number): Promise<void> {
  for (let at = 0; at < beats; at++) {
    await world.pass(1);
    await steward.onBeat({ beat: world.beat, downbeat: world.beat % 10 === 0 }, quiet);
  }
}

/** Version 1 was just retired, by order of the operator; four of nine custodians are no members. */
async function retired(): Promise<{ world: RotationWorld; steward: Coordinator }> {
  const world = await RotationWorld.start(dir, 3, 5, { count: 9 });
  await world.write(2);
  const steward = world.steward();
  await steward.command(world.rotateOrder(1), quiet);
  for (let beats = 0; (await world.states())[0] !== 'retired'; beats++) {
    assert.ok(beats < 60, 'retired at last');
    await pass(world, steward, 1);
  }
  return { world, steward };
}

function reshare(world: RotationWorld, steward: Coordinator, members: readonly number[]) {
  const { custodians } = world;
  const seats = custodians.seats(9).filter((_, at) => members.includes(at + 1));
  return steward.command(custodians.dealOrder('reshare', 3, seats), quiet);
}

function holders(world: RotationWorld): string[] {
  const sites = world.custodians.sites.filter(({ running }) =>
    running.shares.shares().some(({ kekVer }) => kekVer === 1),
  );
  return sites.map(({ name }) => name);
}

describe('a retired version', () => {
  test('is destroyed as soon as ever when a quorum of those that stay saw it retired', async () => {
    const { world, steward } = await retired();
    await using _ = world;
    await reshare(world, steward, [1, 2, 3, 4, 6]);
    await pass(world, steward, destroyWaits.orderedMs / minute + 2);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
    await world.pass(1);
    assert.deepEqual(holders(world), [], 'nor has custodian-5 anything, which left');
    await world.readAll();
  });

  test('stays a day from when those saw it that a quorum needs now, says so, and is destroyed then', async () => {
    const { world, steward } = await retired();
    await using _ = world;
    // Of five four are needed: of these one that came lately, and then two, of whom one came later still.
    let seenMs = 0;
    for (const members of [
      [1, 2, 3, 6, 7],
      [1, 2, 6, 8, 9],
    ]) {
      await reshare(world, steward, members);
      await world.pass(1);
      seenMs = world.custodians.nowMs;
      await pass(world, steward, 30);
      assert.deepEqual(await world.states(), ['retired', 'active']);
      const coordinator = world.coordinator();
      await coordinator.advance(signal);
      const from = new Date(seenMs + day).toISOString();
      assert.equal(coordinator.next, `version 1 is destroyed from ${from} on`);
    }
    // Meanwhile its shares do not grow old, also with those that have left the group.
    const gen = () => world.custodians.versions()[0]?.kek.shareGen ?? 0;
    const before = gen();
    await pass(world, steward, 90);
    assert.ok(gen() > before, `generation ${gen()} after ${before}`);
    const left = world.custodians.site('peer-5').running.shares.shares();
    assert.ok(left.some((each) => each.gen === gen() && each.status === 'active'));
    world.custodians.nowMs = seenMs + day - 2 * minute;
    await pass(world, steward, 1);
    assert.deepEqual(await world.states(), ['retired', 'active']);
    assert.ok(holders(world).includes('custodian-5'));
    await pass(world, steward, 4);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
    await world.pass(1);
    assert.deepEqual(holders(world), []);
    await world.readAll();
  });

  test('is not handed on to others', async () => {
    const { world } = await retired();
    await using _ = world;
    const { custodians } = world;
    const kek = custodians.versions()[0]?.kek;
    assert.ok(kek !== undefined);
    const { ver, shareGen: gen, frostPk } = kek;
    const args = { ver, gen, t: 3, members: custodians.seats(9).slice(2), frostPk, development: false };
    const order = custodians.order('reshare', args);
    await assert.rejects(coordinateDealing(custodians.ports(), 'cg-test', { order }, quiet), {
      code: 'VERSION_CONFLICT',
      message: /version 1 of the key is retired: its members stay/,
    });
  });
});
