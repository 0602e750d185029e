// A steward that means harm: it begins ceremonies by several coordinators, lets each reach only some custodians at
// each step, loses answers, kills custodians, keeps back what the group has signed, and shows it to few. Never does
// the group sign two records for one place; whatever it has signed is held by enough; and an honest coordinator that
// comes after it brings the group on. ballot.test.ts does the same with many more turns and false custodians.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { CeremonyWorld, cg, groups } from '../../test/support/ceremony-world.ts';
import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { kekPreimage } from '../envelope/kek.ts';
import { samePoint } from '../threshold/group.ts';
import { nothing, readPromise } from './ballot.ts';
import { readBase } from './ceremony.ts';
import { readVoteOf } from './coordinate-ballot.ts';
import type { CoordinatorPorts } from './coordinator.ts';
import { Coordinator } from './coordinator-run.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-split-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
const [t, n] = [3, 5];

/** One ceremony of the false steward. */
const attack = fc.record({
  /** For each step, who is reached (a number per custodian): 0 is not, 1 takes the step and its answer is lost. */
  reach: fc.array(fc.array(fc.nat(11), { minLength: n, maxLength: n }), { minLength: 6, maxLength: 6 }),
  /** Who is shown what was signed. */
  shown: fc.array(fc.boolean(), { minLength: n, maxLength: n }),
  restarts: fc.nat(2 * n),
});
type Attack = typeof attack extends fc.Arbitrary<infer T> ? T : never;

/** Every record of a key that the group has signed, by its place. */
class Signed {
  readonly #seen = new Map<string, { readonly bytes: Uint8Array; readonly hash: string }>();

  note(bytes: Uint8Array): void {
    const { kek } = readBase(bytes);
    const [place, hash] = [`${kek.ver}/${kek.seq}`, toHex(sha256(kekPreimage(kek)))];
    const before = this.#seen.get(place);
    assert.ok(before === undefined || before.hash === hash, `two records for place ${place}`);
    this.#seen.set(place, { bytes, hash });
  }

  get records(): number {
    return this.#seen.size;
  }
}

function evil(world: CeremonyWorld, { reach, shown }: Attack, signed: Signed): CoordinatorPorts {
  const honest = world.ports();
  let steps = 0;
  const numbers = new Map<string, number>();
  return {
    ...honest,
    custodians: {
      ...honest.custodians,
      step: async (peer, at, payload) => {
        const key = `${toHex(at.session)} ${at.step}`;
        if (!numbers.has(key)) numbers.set(key, steps++);
        const place = world.sites.findIndex((site) => site.peer === peer);
        const luck = reach[(numbers.get(key) ?? 0) % reach.length]?.[place] ?? 0;
        if (luck === 0) throw new HoldfastError('PEER_UNREACHABLE', 'cut off');
        const answer = await honest.custodians.step(peer, at, payload);
        if (luck === 1) throw new HoldfastError('TIMEOUT', 'the answer is lost');
        return answer;
      },
    },
    registry: {
      ...honest.registry,
      file: async (_subject, _expected, records) => {
        const kek = records.find(({ key }) => key.startsWith('kek/'));
        const bytes = kek?.record.block.bytes ?? new Uint8Array(0);
        signed.note(bytes);
        for (const [at, isShown] of shown.entries())
          if (isShown) await honest.custodians.activate(world.sites[at]?.peer ?? '', bytes);
        throw new HoldfastError('BEACON_UNAVAILABLE', 'kept back');
      },
    },
  };
}

async function attackAll(world: CeremonyWorld, attacks: readonly Attack[], signed: Signed): Promise<void> {
  for (const each of attacks) {
    const ports = evil(world, each, signed);
    await new Coordinator(ports, cg)
      .command(world.dealOrder('refresh', t, world.seats(n)), quiet)
      .catch((error: unknown) => assert.ok(error instanceof HoldfastError, String(error)));
    const site = world.sites[each.restarts];
    if (site === undefined) continue;
    await site.kill();
    await site.start();
  }
}

/** The honest one that comes after. */
async function goesOn(world: CeremonyWorld, signed: Signed): Promise<void> {
  const ports = world.ports();
  const noting: CoordinatorPorts = {
    ...ports,
    registry: {
      ...ports.registry,
      file: async (subject, expected, records) => {
        for (const { key, record } of records) if (key.startsWith('kek/')) signed.note(record.block.bytes);
        await ports.registry.file(subject, expected, records);
      },
    },
  };
  const coordinator = new Coordinator(noting, cg);
  const order = world.dealOrder('refresh', t, world.seats(n));
  // Refused when what was begun has taken the generation that it is for: then it is finished.
  await coordinator.command(order, quiet).catch((error: unknown) => {
    assert.ok(error instanceof HoldfastError && error.code === 'VERSION_CONFLICT', String(error));
  });
  await world.tellAll();
  for (let at = 0; at < 20; at++) await coordinator.onBeat({ beat: world.beat, downbeat: false }, quiet);
  const { Y, frostPk, shareGen } = world.kek();
  assert.equal(world.kek().seq, shareGen);
  for (const quorum of [world.sites.slice(0, t), world.sites.slice(-t)]) {
    assert.ok(samePoint(groups.kek.base(await world.secretOf(quorum, shareGen)), Y));
    assert.ok(samePoint(groups.frost.base(await world.secretOf(quorum, shareGen, 'frost')), frostPk));
  }
}

test('however the steward cuts, replays and keeps back: one record a place, held by enough, and an end', async () => {
  await using world = await CeremonyWorld.made(dir, t, n);
  await fc.assert(
    fc.asyncProperty(fc.array(attack, { minLength: 2, maxLength: 3 }), async (attacks) => {
      const signed = new Signed();
      const { shareGen } = world.kek();
      await attackAll(world, attacks, signed);
      await goesOn(world, signed);
      assert.ok(world.kek().shareGen > shareGen, 'a generation further');
    }),
    { numRuns: process.env['HOLDFAST_FULL'] === '1' ? 8 : 1, endOnFailure: true },
  );
});

test('a record that the steward keeps back, shown to some until their old shares are gone, is filed by the next', async () => {
  await using world = await CeremonyWorld.made(dir, t, n);
  const signed = new Signed();
  const reach = Array.from({ length: 6 }, () => Array.from({ length: n }, () => 5));
  const shown = [true, true, true, false, false];
  await attackAll(world, [{ reach, shown, restarts: 2 * n }], signed);
  assert.equal(signed.records, 1);
  for (const { running } of world.sites) await running.activation.settle(0);
  world.beat += 11;
  for (const { running } of world.sites) await running.activation.settle(121_000);
  const gens = (site: (typeof world.sites)[number]) =>
    site.running.shares.shares().map(({ gen, status }) => `${gen} ${status}`);
  assert.deepEqual([...new Set(world.sites.slice(0, 3).flatMap(gens))], ['2 active']);
  // Who was not shown it keeps what it has promised to keep, however long.
  assert.deepEqual([...new Set(world.sites.slice(3).flatMap(gens))], ['1 active', '2 staged']);
  await goesOn(world, signed);
  assert.equal(world.kek().shareGen, 2);
});

test('what was dealt in an attempt that came to nothing is voted for in no other, in the same sessions neither', async () => {
  await using world = await CeremonyWorld.made(dir, t, n);
  const honest = world.ports();
  const step: CoordinatorPorts['custodians']['step'] = (...asked) => honest.custodians.step(...asked);
  let over: Promise<void> | undefined;
  let refusals = 0;
  const ports: CoordinatorPorts = {
    ...honest,
    custodians: {
      ...honest.custodians,
      step: async (peer, at, payload) => {
        if (at.step !== 'propose') return step(peer, at, payload);
        // All have stored; now a quorum decides that nothing comes of it.
        await (over ??= endAttempt((name, sent) =>
          Promise.all(world.sites.map((site) => step(site.peer, { ...at, step: name }, sent))),
        ));
        return step(peer, at, payload).catch((error: unknown) => {
          assert.ok(error instanceof HoldfastError && error.code === 'VERSION_CONFLICT', String(error));
          refusals++;
          throw error;
        });
      },
    },
  };
  const order = world.dealOrder('refresh', t, world.seats(n));
  await assert.rejects(new Coordinator(ports, cg).command(order, quiet), { code: 'KEY_UNAVAILABLE' });
  assert.equal(refusals, n);
  const signed = new Signed();
  await goesOn(world, signed);
  assert.equal(world.kek().shareGen, 2);
});

/** Has round 2 of attempt 1 decide that nothing comes of it, and tells all. */
async function endAttempt(ask: (step: string, payload: object) => Promise<unknown[]>): Promise<void> {
  const about = { attempt: 1, round: 2, value: nothing };
  const promises = (await ask('promise', { attempt: 1, round: 2 })).map((each) =>
    readPromise(each, 'promise'),
  );
  const prepared = { ...about, votes: (await ask('prepare', { ...about, promises })).map(readVoteOf) };
  const votes = (await ask('lock', { certificate: prepared, contents: new Uint8Array(0) })).map(readVoteOf);
  await ask('end', { ...about, votes });
}
