// A custodian that lost its shares gets those of every version of the key again, also of one that is left for another.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cg } from '../../test/support/ceremony-world.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import type { RepairResult } from './coordinate-repair.ts';
import type { Coordinator, OrderResult } from './coordinator-run.ts';
import { holdsVersion } from './wire.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-repair-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;

/** Version 2 is in use, and what is under version 1 stays there. */
async function between(t: number, n: number): Promise<{ world: RotationWorld; steward: Coordinator }> {
  const world = await RotationWorld.start(dir, t, n);
  await world.write(2);
  await world.writeRestricted();
  const steward = world.steward();
  await steward.command(world.rotateOrder(1), quiet);
  world.custodians.kill = ({ protocol, who }) =>
    protocol === 'switch' && who !== 'coordinator' ? 'lose' : 'go';
  for (let at = 0; at < 14; at++) {
    await world.pass(1);
    await steward.onBeat({ beat: world.beat, downbeat: false }, quiet);
  }
  assert.deepEqual(await world.states(), ['decrypt-only', 'active']);
  await world.reload();
  return { world, steward };
}

async function held(world: RotationWorld, peer: string): Promise<number[]> {
  const { shares } = await world.custodians.ports().custodians.status(peer);
  return world.custodians
    .versions()
    .filter(({ kek }) => holdsVersion(shares, kek))
    .map(({ kek }) => kek.ver);
}

function repairOrder(world: RotationWorld, member: number): Uint8Array {
  const { ver, shareGen: gen } = world.custodians.kek();
  return world.custodians.order('repair', { ver, gen, member });
}

function isRepair(result: OrderResult): asserts result is RepairResult {
  assert.ok('restored' in result);
}

/** Those under version 1 come back only when all of these custodians answer. */
async function requireRead(world: RotationWorld, peers: readonly string[]): Promise<void> {
  const others = world.custodians.sites.map(({ peer }) => peer).filter((peer) => !peers.includes(peer));
  world.away = new Set(others);
  await world.readAll();
  world.away = new Set();
}

describe('a repair', () => {
  test('by order restores every version that is not destroyed', async () => {
    const { world, steward } = await between(2, 3);
    await using _ = world;
    const site = world.custodians.site('peer-3');
    await site.wipe();
    await site.start();
    assert.deepEqual(await held(world, 'peer-3'), []);
    const result = await steward.command(repairOrder(world, 3), quiet);
    isRepair(result);
    assert.deepEqual([result.restored, result.failed], [[2, 1], []]);
    assert.deepEqual(await held(world, 'peer-3'), [1, 2]);
    await world.pass(0);
    await requireRead(world, ['peer-1', 'peer-3']);
    await assert.rejects(steward.command(repairOrder(world, 3), quiet), /nothing is lost here/);
  });

  test('comes by itself, of the one version that is lacking', async () => {
    const { world, steward } = await between(2, 3);
    await using _ = world;
    const { shares } = world.custodians.site('peer-3').running;
    await shares.leave({ cg, kekVer: 1 });
    assert.deepEqual(await held(world, 'peer-3'), [2]);
    for (let at = 0; at < 40 && (await held(world, 'peer-3')).length < 2; at++)
      await steward.onBeat({ beat: world.beat, downbeat: false }, quiet).then(() => world.pass(1));
    assert.deepEqual(await held(world, 'peer-3'), [1, 2]);
    await requireRead(world, ['peer-2', 'peer-3']);
  });

  test('says of which version nobody could help, and restores the others', async () => {
    const { world, steward } = await between(2, 3);
    await using _ = world;
    const site = world.custodians.site('peer-3');
    await site.wipe();
    await site.start();
    await world.custodians.site('peer-2').running.shares.leave({ cg, kekVer: 1 });
    const said: string[] = [];
    const result = await steward.command(repairOrder(world, 3), (text) => void said.push(text));
    isRepair(result);
    assert.deepEqual(result.restored, [2]);
    assert.equal(result.failed.length, 1);
    assert.match(
      result.failed[0] ?? '',
      /version 1 of the key: .*1 custodians can help custodian 3; 2 are needed/,
    );
    assert.ok(
      said.some((text) => /custodian-3 still lacks its shares of version 1/.test(text)),
      said.join('\n'),
    );
    assert.deepEqual(await held(world, 'peer-3'), [2]);
  });
});
