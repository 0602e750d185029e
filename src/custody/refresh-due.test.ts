// When shares are refreshed: by the age of the shares, of both keys and of every version that opens, whatever else
// happens to the group meanwhile.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CeremonyWorld, cg } from '../../test/support/ceremony-world.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { concat, toHex } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { isRefreshed } from './ceremony-plan.ts';
import { coordinateDealing } from './coordinate-dealing.ts';
import type { Coordinator } from './coordinator-run.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-refresh-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
/** By the policy, and for what goes wrong at a beat and is done at a later one. */
const [dueBeats, slackBeats] = [8 * 10, 12];

/** How old each sharing is that somebody could gather shares of. */
class Ages {
  readonly #world: RotationWorld;
  readonly #seen = new Map<string, number>();

  constructor(world: RotationWorld) {
    this.#world = world;
  }

  look(): void {
    for (const { kek } of this.#world.custodians.versions().filter((each) => isRefreshed(each.kek)))
      for (const [key, points] of Object.entries({ kek: kek.C, frost: kek.frostYi })) {
        const sharing = `${key} ${toHex(concat(...points))}`;
        const since = this.#seen.get(sharing) ?? this.#world.beat;
        this.#seen.set(sharing, since);
        const ageBeats = this.#world.beat - since;
        assert.ok(ageBeats <= dueBeats + slackBeats, `shares of ${key} ${kek.ver} are ${ageBeats} beats old`);
      }
  }

  get signingKey(): number {
    return [...this.#seen.keys()].filter((sharing) => sharing.startsWith('frost')).length;
  }
}

async function beat(world: RotationWorld, steward: Coordinator): Promise<void> {
  await world.pass(1);
  await steward.onBeat({ beat: world.beat, downbeat: world.beat % 10 === 0 }, quiet);
}

/** Whoever read the records says the same of every version. */
async function checkAgreed(world: RotationWorld): Promise<void> {
  await world.custodians.tellAll();
  const said = world.custodians.book();
  for (const { kek } of world.custodians.versions())
    for (const { running } of world.custodians.sites)
      assert.equal(running.books.book(cg)?.dealtBeat(kek.ver), said.dealtBeat(kek.ver));
}

describe('a refresh is due by the age of the shares', () => {
  test('of the signing key too, when one rotation follows the other', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    const ages = new Ages(world);
    let steward = world.steward();
    let ordered = 0;
    for (let at = 0; at < 190; at++) {
      const { ver } = world.custodians.kek();
      // In the hands of one steward after another.
      if (at % 70 === 69) steward = world.steward();
      if (
        ver > ordered &&
        (await world.states()).every((state) => state === 'active' || state === 'destroyed')
      ) {
        await steward.command(world.rotateOrder(ver), quiet);
        ordered = ver;
      }
      await beat(world, steward);
      ages.look();
      if (at % 20 === 0) await checkAgreed(world);
    }
    await world.readAll();
    assert.ok(world.custodians.kek().ver > 4, `rotations came: ${world.custodians.kek().ver} versions`);
    const { signingKey } = ages;
    assert.ok(
      signingKey >= 3 && signingKey <= 6,
      `${signingKey} sharings of the signing key: no more than are due`,
    );
  });

  test('of a version that is left for another one, for as long as it opens', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    const ages = new Ages(world);
    const steward = world.steward();
    await steward.command(world.rotateOrder(1), quiet);
    world.custodians.kill = ({ protocol, who }) =>
      protocol === 'switch' && who !== 'coordinator' ? 'lose' : 'go';
    for (let at = 0; at < 200; at++) {
      await beat(world, steward);
      ages.look();
    }
    assert.deepEqual(await world.states(), ['decrypt-only', 'active']);
    assert.ok(world.custodians.versions().every(({ kek }) => kek.shareGen > 2));
    await world.readAll();
    world.custodians.kill = () => 'go';
    for (let at = 0; at < 40; at++) await beat(world, steward);
    assert.deepEqual(await world.states(), ['destroyed', 'active']);
    await world.readAll();
  });

  test('and keeps no rotation waiting, also when there is one every time that somebody looks', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    await world.write(2);
    const steward = world.steward();
    for (let at = 0; at < 21; at++) await beat(world, steward); // it knows how long a bar is
    await steward.command(world.rotateOrder(1), quiet);
    for (let looks = 0; (await world.states())[0] !== 'destroyed'; looks++) {
      assert.ok(looks < 10, (await world.states()).join());
      for (let at = 0; at < dueBeats / 2; at++) await world.pass(1);
      await steward.onBeat({ beat: world.beat, downbeat: false }, quiet);
    }
    assert.ok(world.custodians.versions().every(({ kek }) => kek.shareGen > 1));
    await world.readAll();
  });

  test('and not of shares that are young: custodians refuse whoever wears them out', async () => {
    await using world = await RotationWorld.start(dir, 2, 3);
    const steward = world.steward();
    await steward.command(world.rotateOrder(1), quiet);
    for (let at = 0; at < dueBeats + slackBeats; at++) await beat(world, steward);
    const { ver, shareGen } = world.custodians.kek();
    assert.deepEqual([ver, shareGen], [2, 2]);
    const again = coordinateDealing(world.custodians.ports(), cg, { ver }, quiet);
    await assert.rejects(again, /not before beat/);
  });

  test('when it cannot be done, who is behind is repaired all the same, and then it is', async () => {
    await using world = await CeremonyWorld.made(dir, 3, 5);
    const coordinator = world.coordinator();
    for (let at = 1; world.kek().shareGen === 1; at++) {
      assert.ok(at < dueBeats + slackBeats, coordinator.trouble ?? 'no refresh');
      // A moment before it is due: nobody has looked after them since.
      if (at === dueBeats) {
        await world.site('peer-2').kill();
        await world.site('peer-3').wipe();
        await world.site('peer-3').start();
      }
      world.beat++;
      world.nowMs += minute;
      await world.beatAll();
      await coordinator.onBeat({ beat: world.beat, downbeat: world.beat % 10 === 0 }, quiet);
    }
  });

  test('by certificates that are dated now: a date ahead would put it off for ever', async () => {
    await using world = await CeremonyWorld.made(dir, 2, 3);
    const order = world.dealOrder('refresh', 2, world.seats(3));
    const ports = world.ports();
    const dated = (ahead: number) => ({ ...ports, beat: () => world.beat + ahead });
    await assert.rejects(
      coordinateDealing(dated(1000), cg, { order }, quiet),
      /a certificate dated beat 1100/,
    );
    await assert.rejects(coordinateDealing(dated(-50), cg, { order }, quiet), /a certificate dated beat 50/);
    await coordinateDealing(ports, cg, { order }, quiet);
    assert.equal(world.book().dealtBeat(1), world.beat);
  });
});
