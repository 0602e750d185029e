// The first key while everything dies: coordinators cut at any of their calls, others that begin in between, some of
// them blind to what the registry has, custodians killed and started again. If a first record is ever filed, as many
// custodians as a key takes hold the shares that it names, and in the end all do. And in the end there is a record.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { cg, CeremonyWorld, groups, Killed } from '../../test/support/ceremony-world.ts';
import { HoldfastError } from '../core/errors.ts';
import { samePoint } from '../threshold/group.ts';
import type { CoordinatorPorts } from './coordinator.ts';
import { Coordinator } from './coordinator-run.ts';

const [t, n] = [3, 5];
const quiet = (): void => undefined;

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-first-key-'));
});
after(() => rm(dir, { recursive: true, force: true }));

/** What happens before the call of that number of a coordinator, counted over all its custodians and the registry. */
type Event =
  | { readonly at: number; readonly what: 'dies' }
  | { readonly at: number; readonly what: 'restarts'; readonly site: number }
  | { readonly at: number; readonly what: 'overtaken'; readonly by: Run };

interface Run {
  /** Its view of the registry has nothing yet. */
  readonly isBlind: boolean;
  /** The registry has taken what it filed, and it is not told so. */
  readonly isDeaf: boolean;
  /** Follows an order of its own, to the same custodians. */
  readonly ordersAnew: boolean;
  readonly events: readonly Event[];
}

/** Calls until the key is registered: looking around, six steps or more of five custodians each, and some for the votes. */
const callsMax = 65;
const at = fc.nat(callsMax);
const death = fc.record({ at, what: fc.constant('dies' as const) });
const restart = fc.record({ at, what: fc.constant('restarts' as const), site: fc.nat(n - 1) });
const flags = { isBlind: fc.boolean(), isDeaf: fc.boolean(), ordersAnew: fc.boolean() };
const inner: fc.Arbitrary<Run> = fc.record({
  ...flags,
  events: fc.array(fc.oneof(death, restart), { maxLength: 2 }),
});
const overtaken = fc.record({ at, what: fc.constant('overtaken' as const), by: inner });
const outer: fc.Arbitrary<Run> = fc.record({
  ...flags,
  events: fc.array(fc.oneof(death, restart, overtaken, overtaken), { maxLength: 3 }),
});

test('whoever dies while the first key is made: a filed record is held by enough, and by all in the end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(outer, { minLength: 1, maxLength: 3 }), async (runs) => {
      await using world = await CeremonyWorld.start(dir, n);
      const order = world.initOrder(t, n);
      for (const each of runs) await run(world, order, each);
      await goesOn(world, order);
    }),
    { numRuns: process.env['HOLDFAST_FULL'] === '1' ? 8 : 3, endOnFailure: true },
  );
});

test('a steward that does not know that its record was taken begins again, and nobody gives up a share', async () => {
  await using world = await CeremonyWorld.start(dir, n);
  const order = world.initOrder(t, n);
  const common = { isBlind: true, isDeaf: true, ordersAnew: false };
  await run(world, order, { ...common, events: [] });
  assert.ok(world.filedKek() !== undefined, 'it was taken');
  await run(world, order, { ...common, events: [] });
  await goesOn(world, order);
});

test('a steward that looked around before another one filed the key takes no share from under it', async () => {
  await using world = await CeremonyWorld.start(dir, n);
  const order = world.initOrder(t, n);
  const ports = world.ports();
  let asked = 0;
  const groupsOf = async () => {
    // Once to look around, and again before it begins: in between the other one files and is not told so.
    if (++asked === 2)
      await run(world, order, { isBlind: false, isDeaf: true, ordersAnew: false, events: [] });
    return ports.groups();
  };
  const coordinator = new Coordinator({ ...ports, groups: groupsOf }, cg);
  await assert.rejects(coordinator.command(order, quiet), { code: 'KEY_UNAVAILABLE' });
  assert.ok(world.filedKek() !== undefined, 'the other one filed it');
  await requireHeld(world);
  await goesOn(world, order);
});

test('what is agreed on under one order is finished under another, with the policy that it names', async () => {
  await using world = await CeremonyWorld.start(dir, n);
  await endedBefore(world, world.initOrder(t, n), 'append');
  const other = world.initOrder(t, n);
  await world.coordinator().command(other, quiet);
  assert.ok(world.book().policy(world.kek().policyRoot) !== undefined, 'its policy is there');
  await goesOn(world, other);
});

test('a key that the registry has lost is not made or filed again by itself', async () => {
  await using world = await CeremonyWorld.made(dir, t, n);
  const filed: string[] = [];
  const ports = world.ports();
  const lost = {
    ...ports.registry,
    kek: async () => undefined,
    file: async (subject: string) => void filed.push(subject),
  };
  const coordinator = new Coordinator({ ...ports, registry: lost }, cg);
  assert.equal(await coordinator.initialise(world.initOrder(t, n), quiet), false);
  assert.match(coordinator.trouble ?? '', /custodian-1, .* hold shares; bring the registry back/);
  assert.equal(coordinator.isLost, true);
  assert.deepEqual(filed, []);
});

test('the operator may order others to make the key as long as nobody has voted', async () => {
  await using world = await CeremonyWorld.start(dir, n);
  await endedBefore(world, world.initOrder(t, n), 'conclude');
  await world.site('peer-5').kill();
  await world.coordinator().command(world.initOrder(t, n - 1), quiet);
  assert.equal(world.kek().n, n - 1);
});

test('once custodians have voted only those who were ordered to make the key finish it', async () => {
  await using world = await CeremonyWorld.start(dir, n);
  const order = world.initOrder(t, n);
  await endedBefore(world, order, 'append');
  await assert.rejects(world.coordinator().command(world.initOrder(t, n - 1), quiet), {
    code: 'KEY_UNAVAILABLE',
  });
  await world.site('peer-5').kill();
  await world.coordinator().command(order, quiet);
  assert.equal(world.kek().n, n);
  await world.site('peer-5').start();
  await goesOn(world, order);
});

/** A coordinator that dies before the first time that it comes to that step. */
async function endedBefore(world: CeremonyWorld, order: Uint8Array, step: string): Promise<void> {
  world.kill = (at) => (at.who === 'coordinator' && at.step.startsWith(step) ? 'kill' : 'go');
  await world
    .coordinator()
    .command(order, quiet)
    .catch(() => undefined);
  world.kill = () => 'go';
  assert.equal(world.filedKek(), undefined);
}

async function run(world: CeremonyWorld, order: Uint8Array, each: Run): Promise<void> {
  const mine = each.ordersAnew ? world.initOrder(t, n) : order;
  await new Coordinator(portsOf(world, order, each), cg).command(mine, quiet).catch((error: unknown) => {
    if (error instanceof Killed) return;
    assert.ok(error instanceof HoldfastError && error.code !== 'INTERNAL', String(error));
  });
  await requireHeld(world);
}

function portsOf(
  world: CeremonyWorld,
  order: Uint8Array,
  { isBlind, isDeaf, events }: Run,
): CoordinatorPorts {
  const ports = world.ports();
  let calls = 0;
  let isDead = false;
  const call = async <T>(make: () => Promise<T>): Promise<T> => {
    const number = calls++;
    for (const event of events.filter((one) => one.at === number)) {
      if (event.what === 'dies') isDead = true;
      else if (event.what === 'overtaken') await run(world, order, event.by);
      else await restarted(world, event.site);
    }
    if (isDead) throw new Killed();
    return make();
  };
  return {
    ...ports,
    custodians: {
      ...ports.custodians,
      step: (peer, step, payload) => call(() => ports.custodians.step(peer, step, payload)),
      activate: (peer, record) => call(() => ports.custodians.activate(peer, record)),
    },
    registry: {
      ...ports.registry,
      kek: async (group) => (isBlind ? undefined : ports.registry.kek(group)),
      file: async (subject, expected, records) => {
        await call(() => ports.registry.file(subject, expected, records));
        if (isDeaf) throw new HoldfastError('TIMEOUT', 'no answer');
      },
    },
  };
}

async function restarted(world: CeremonyWorld, index: number): Promise<void> {
  const site = world.sites[index];
  if (site?.isUp !== true) return; // it is just starting
  await site.kill();
  await site.start();
}

/** Who could use its shares now, or as soon as it is shown the record. */
async function requireHeld(world: CeremonyWorld): Promise<void> {
  const filed = world.filedKek()?.kek;
  if (filed === undefined) return;
  const held = world.sites.filter((site) =>
    (['kek', 'frost'] as const).every((key) =>
      site.running.shares
        .shares()
        .some(
          (each) => each.key === key && samePoint(each.publicKey, key === 'kek' ? filed.Y : filed.frostPk),
        ),
    ),
  );
  assert.ok(held.length >= t, `${held.length} of ${n} custodians hold shares of the key that is registered`);
}

async function goesOn(world: CeremonyWorld, order: Uint8Array): Promise<void> {
  const coordinator = world.coordinator();
  assert.ok(await coordinator.initialise(order, quiet), coordinator.trouble);
  await requireHeld(world);
  await world.tellAll();
  for (let beat = 0; beat < 10; beat++)
    await coordinator.onBeat({ beat: world.beat, downbeat: false }, quiet);
  const { Y, frostPk } = world.kek();
  for (const { name, running } of world.sites)
    assert.deepEqual(
      running.shares.shares().map(({ status }) => status),
      ['active', 'active'],
      name,
    );
  for (const quorum of [world.sites.slice(0, t), world.sites.slice(-t)]) {
    assert.ok(samePoint(groups.kek.base(await world.secretOf(quorum, 1)), Y));
    assert.ok(samePoint(groups.frost.base(await world.secretOf(quorum, 1, 'frost')), frostPk));
  }
}
