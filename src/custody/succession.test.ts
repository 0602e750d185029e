// A group in the place of one that has lost too many custodians: who can end one, what everybody then knows and does, and
// that nothing lies between the one and the other, wherever it is cut.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  CeremonyWorld,
  type CustodianSite,
  cg,
  type Kill,
  Killed,
  random,
} from '../../test/support/ceremony-world.ts';
import type { CID } from '../core/block.ts';
import { day, minute } from '../core/clock.ts';
import { isHoldfastError } from '../core/errors.ts';
import { type Signer, signerFromSeed } from '../core/hash.ts';
import { parseKek } from '../envelope/records.ts';
import { openRecord, signRecord } from '../manifest/record.ts';
import { parseLeaf } from './audit-leaf.ts';
import { type BirthCertificate, parseCertificate, verifyCertificate } from './certificate.ts';
import { CustodyFeed } from './feed.ts';
import { firstKeyOrder } from './first-key.ts';
import { isSuccessorName, successorNameOf } from './group-name.ts';
import { signRevocation } from './revocation.ts';
import { inPlaceOf, successionOf, Successions } from './succession.ts';
import { openOrder } from './order.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-succession-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
const young = successorNameOf(cg);
const lost = ['peer-1', 'peer-2', 'peer-3'];
const reason = 'three machines burnt';

/** An order of the operator to make a group of all custodians in the place of the first one. */
function orderIn(
  world: CeremonyWorld,
  { to = young, of = cg, by = world.operator }: { to?: string; of?: string; by?: Signer } = {},
): Uint8Array {
  const members = world.sites.map(({ peer, name }) => ({ peer, org: name }));
  return firstKeyOrder(
    { cg: to, members, inPlaceOf: { cg: of, reason, policies: policiesOf(world, of) } },
    by,
    random,
  );
}

/** Five custodians of whom three are needed; three are lost, and three others have their places in the membership. */
async function worldAfterLoss(): Promise<CeremonyWorld> {
  const world = await CeremonyWorld.made(dir, 3, 5);
  await world.replace(lost);
  return world;
}

/** What a group has of its own; what it took over itself is another test's. */
function policiesOf(world: CeremonyWorld, of: string): CID[] {
  const root = world.kek(of).policyRoot;
  assert.ok(root !== null);
  return [root];
}

async function succeeded(world: CeremonyWorld): Promise<void> {
  await world.coordinator().command(orderIn(world), quiet);
  await world.beatAll();
}

describe('names of groups', () => {
  test('count up, and say which is later', () => {
    assert.equal(successorNameOf('cg-a885bfd7'), 'cg-a885bfd7.2');
    assert.equal(successorNameOf('cg-a885bfd7.2'), 'cg-a885bfd7.3');
    assert.equal(successorNameOf('cg-a885bfd7.9'), 'cg-a885bfd7.10');
    assert.equal(successorNameOf('a.1'), 'a.1.2');
    assert.ok(isSuccessorName('a.2', 'a') && isSuccessorName('a.10', 'a.9'));
    for (const [later, earlier] of [
      ['a', 'a'],
      ['a', 'a.2'],
      ['a.2', 'a.2'],
      ['b.2', 'a'],
      ['a.02', 'a'],
    ] as const)
      assert.ok(!isSuccessorName(later, earlier), `${later} ${earlier}`);
  });
});

describe('who may end a group', () => {
  test('nobody while it can be used: who holds it is named, and what to do instead', async () => {
    await using world = await CeremonyWorld.made(dir, 3, 5, { count: 7 });
    for (const peer of ['peer-1', 'peer-2']) await world.site(peer).kill();
    const before = world.log.length;
    const refused = world.coordinator().command(orderIn(world), quiet);
    await assert.rejects(refused, {
      code: 'VERSION_CONFLICT',
      message:
        /not lost: custodian-3, custodian-4, custodian-5 hold its shares and 3 suffice; .*reshare.*rotate/,
    });
    assert.equal(world.log.length, before);
  });

  test('the operator alone, for the name that follows, and with a reason', async () => {
    await using world = await worldAfterLoss();
    const stranger = orderIn(world, { by: signerFromSeed(random(32)) });
    await assert.rejects(
      world.coordinator().command(stranger, quiet),
      /only the operator of the cluster begins/,
    );
    assert.throws(
      () => inPlaceOf(openOrder(orderIn(world, { to: 'cg-test.3' })).order),
      /is named cg-test\.2/,
    );
    await assert.rejects(
      async () => world.coordinator().command(orderIn(world, { to: 'cg-test.3' }), quiet),
      {
        code: 'RECORD_INVALID',
      },
    );
    const members = world.seats(5);
    const silent = firstKeyOrder(
      { cg: young, members, inPlaceOf: { cg, reason: '  ', policies: [] } },
      world.operator,
      random,
    );
    await assert.rejects(async () => world.coordinator().command(silent, quiet), /a reason expected/);
    assert.equal(world.filedKek(young), undefined);
    for (const { running } of world.sites) assert.equal(running.books.endedBy(cg), undefined);
  });

  test('not with an order whose time is over, and a group that comes has the rules that it was given', async () => {
    await using world = await worldAfterLoss();
    const policies = policiesOf(world, cg);
    const old = world.book().policy(policies[0] ?? null);
    assert.ok(old);
    const restricted = { ...old.classes.restricted, approvals: { k: 1, of: old.authorities } };
    const rules = { ...old, ver: 3, frostSig: random(64), classes: { ...old.classes, restricted } };
    const members = world.seats(5);
    const order = firstKeyOrder(
      { cg: young, members, inPlaceOf: { cg, reason, policies }, rules, exp: world.beat + 5 },
      world.operator,
      random,
    );
    world.beat += 6;
    await assert.rejects(
      world.coordinator().command(order, quiet),
      /the order ended with beat 105, now is 106/,
    );
    world.beat -= 6;
    await world.coordinator().command(order, quiet);
    await world.beatAll();
    const feed = await feedOf(world, {});
    await feed.reload();
    const policy = feed.directory().policy();
    assert.deepEqual([policy?.ver, policy?.classes.restricted.approvals.k, policy?.cg], [1, 1, young]);
    assert.notDeepEqual(policy?.family, old.family);
  });

  test('not with the order alone, nor with custodians that the membership does not name', async () => {
    await using world = await worldAfterLoss();
    await succeeded(world);
    const { operator } = world;
    const terms = { operator: operator.publicKey, custodians: () => world.members() };
    const records = world.log.filter(({ key }) => key.includes(young));
    const judged = (changes: Partial<ConstructorParameters<typeof Successions>[0]>, given = records) => {
      const successions = new Successions({ ...terms, ...changes });
      for (const each of given) successions.take(each);
      return successions.of(cg);
    };
    assert.deepEqual(judged({})?.reason, reason);
    assert.equal(judged({ operator: random(32) }), undefined);
    const strangers = new Map(world.sites.map(({ peer }) => [peer, random(32)]));
    assert.equal(judged({ custodians: () => strangers }), undefined);
    assert.equal(
      judged(
        {},
        records.filter(({ key }) => !key.startsWith('kek/')),
      ),
      undefined,
    );
    // Somebody who has only the order makes up the rest.
    const forged = records.map((each) => {
      if (!each.key.startsWith('cert/')) return each;
      const birth = birthIn(world);
      const body = { ...birth, attestations: birth.attestations.map(({ i }) => ({ i, sig: random(64) })) };
      return { ...each, bytes: signRecord({ ...body, writer: operator.publicKey }, operator).block.bytes };
    });
    assert.equal(judged({}, forged), undefined);
    const other = { ...birthIn(world), order: orderIn(world, { by: signerFromSeed(random(32)) }) };
    assert.equal(successionOf(other, operator.publicKey), undefined);
    assert.equal(successionOf({ ...birthIn(world), order: random(40) }, operator.publicKey), undefined);
    assert.equal(successionOf({ ...birthIn(world), cg: 'cg-test.3' }, operator.publicKey), undefined);
  });
});

describe('a group that has ended', () => {
  test('is told by the registry together with the key of the one in its place', async () => {
    await using world = await worldAfterLoss();
    const before = world.log.length;
    await succeeded(world);
    assert.ok(world.log.slice(before).every(({ key }) => key.includes(young) || key.startsWith('pol/')));
    const kek = world.kek(young);
    assert.deepEqual([kek.t, kek.n, kek.cg], [3, 5, young]);
    assert.notDeepEqual(kek.Y, world.kek(cg).Y);
    // The group signs the order with the rest of its birth: nobody puts one in, or takes it out.
    const birth = birthIn(world);
    const { order: _, ...without } = birth;
    assert.ok(verifyCertificate(birth, kek.frostPk));
    assert.ok(!verifyCertificate(without, kek.frostPk));
    assert.ok(!verifyCertificate({ ...birth, order: orderIn(world) }, kek.frostPk));
    const said = successionOf(birth, world.operator.publicKey);
    const policies = policiesOf(world, cg);
    assert.deepEqual(said, { of: cg, to: young, reason, policies, beat: world.beat });
    const again = world.coordinator().command(orderIn(world), quiet);
    await assert.rejects(again, { code: 'VERSION_CONFLICT', message: /has its key already/ });
    // Everybody who makes the key writes down what ends with it.
    for (const site of world.sites)
      assert.match((await reasonsOf(site, 'init')).join(), /in the place of cg-test: three machines burnt/);
  });

  test('opens nothing and takes part in nothing from then on, also after a restart that has read nothing', async () => {
    await using world = await worldAfterLoss();
    const old = world.kek(cg);
    const order = world.order('reshare', {
      ver: 1,
      gen: 1,
      t: 2,
      members: world.seats(2),
      frostPk: old.frostPk,
      development: true,
    });
    await succeeded(world);
    const site = world.site('peer-4');
    const hello = (): Promise<unknown> =>
      site.running.steps.step(random(32), 'deal', 'hello', {
        kek: world.filedKek(cg)?.bytes,
        ver: 1,
        order,
        versions: [],
        attempt: 1,
      });
    const record = world.filedKek(cg)?.bytes ?? random(1);
    assert.throws(() => site.running.desk.base(record), {
      code: 'FORBIDDEN',
      message: /cg-test has ended, cg-test\.2 is in its place/,
    });
    await assert.rejects(hello());
    await site.kill();
    site.registry = () => [];
    await site.start();
    assert.throws(() => site.running.desk.base(record), { code: 'FORBIDDEN', message: /cg-test has ended/ });
  });

  test('is erased by those that are left a day later, by their own clock, and they write it down', async () => {
    await using world = await worldAfterLoss();
    await succeeded(world);
    const site = world.site('peer-4');
    const held = (group: string) => site.running.shares.shares().filter((each) => each.cg === group).length;
    assert.deepEqual([held(cg), held(young)], [2, 2]);
    world.beat += 100_000;
    world.nowMs += day - minute;
    await world.beatAll();
    assert.deepEqual([held(cg), held(young)], [2, 2]);
    await site.kill();
    await site.start();
    world.nowMs += 2 * minute;
    await world.beatAll();
    assert.deepEqual([held(cg), held(young)], [0, 2]);
    assert.deepEqual(await reasonsOf(site, 'erase'), ['the group has ended, cg-test.2 is in its place']);
    await world.beatAll();
    assert.equal((await reasonsOf(site, 'erase')).length, 1);
  });

  test('has one in its place that refreshes, hands its key on, and can itself be followed', async () => {
    await using world = await worldAfterLoss();
    await succeeded(world);
    const deal = async (op: 'refresh' | 'reshare', members = world.seats(5)) => {
      const { shareGen: gen, frostPk } = world.kek(young);
      const args = { ver: 1, gen, t: 3, members, frostPk, development: false };
      await world.coordinator(young).command(world.order(op, args, world.operator, young), quiet);
      await world.beatAll();
    };
    await deal('refresh');
    await deal('reshare', world.seats(4));
    assert.deepEqual([world.kek(young).shareGen, world.kek(young).n], [3, 4]);
    const third = successorNameOf(young);
    await world.replace(world.sites.slice(0, 3).map(({ peer }) => peer));
    await world.coordinator(young).command(orderIn(world, { of: young, to: third }), quiet);
    await world.beatAll();
    assert.equal(world.kek(third).n, 5);
    assert.deepEqual(await followed(world), [third, young]);
  });
});

describe('who reads the records', () => {
  test('goes over once the other is believed, remembers it, and never goes back', async () => {
    await using world = await worldAfterLoss();
    const pins: { text?: string } = {};
    const reader = (records = () => world.log) => feedOf(world, pins, records);
    // It knew the group before custodians were lost; of the membership of now it would not believe it.
    const known = await worldBefore(world, pins);
    await known.reload();
    assert.equal(known.directory().cg, cg);
    const short = world.log.length;
    await succeeded(world);
    await known.reload();
    assert.deepEqual([known.directory().cg, known.directory().problem], [young, undefined]);
    assert.deepEqual(known.directory().inPlaceOf?.of, cg);
    assert.match(pins.text ?? '', /"cg":"cg-test\.2".*"ended":\{"cg-test":"[0-9a-f]{64}"\}/);
    const restarted = await reader();
    assert.equal(restarted.directory().cg, young);
    await restarted.reload();
    assert.equal(restarted.directory().active()?.cg, young);
    // The group before is still known by the key that was believed then.
    const before = await restarted.ended(cg);
    assert.equal(before?.problem, undefined);
    assert.deepEqual(before?.kek(1)?.Y, world.kek(cg).Y);
    assert.equal(await restarted.ended('cg-other'), undefined);
    const back = await reader(() => world.log.slice(0, short));
    await back.reload();
    assert.match(back.directory().problem ?? '', /cg-test\.2 is not believed: .*was set back/);
  });

  test('who runs while the membership changes goes on believing what it believed, and nothing that it never did', async () => {
    await using world = await CeremonyWorld.made(dir, 3, 5);
    let members = world.members();
    const open = (pins: { text?: string }) =>
      feedOf(
        world,
        pins,
        () => world.log,
        () => members,
      );
    const running = await open({});
    await running.reload();
    await world.replace(lost);
    members = world.members();
    await running.reload();
    assert.equal(running.directory().problem, undefined);
    const stranger = await open({});
    await stranger.reload();
    assert.match(
      stranger.directory().problem ?? '',
      /2 of the 5 custodians of this cluster have signed for it/,
    );
    await succeeded(world);
    for (const feed of [running, stranger]) {
      await feed.reload();
      assert.deepEqual([feed.directory().cg, feed.directory().problem], [young, undefined]);
    }
  });

  test('what the one before revoked is not forgotten: with fewer records than at its end it is not believed', async () => {
    await using world = await worldAfterLoss();
    const pins: { text?: string } = {};
    await (await worldBefore(world, pins)).reload();
    const stolen = random(32);
    const revoked = [{ what: 'key', id: stolen }] as const;
    const { beat } = world;
    const bytes = signRevocation({ cg, n: 1, prev: null, beat, revoked }, world.operator);
    world.log.push({ key: `rev/${cg}/1`, bytes });
    const reader = await feedOf(world, pins);
    await reader.reload();
    await succeeded(world);
    await reader.reload();
    assert.deepEqual((await reader.ended(cg))?.revocations().keys(), [stolen]);
    // In the new group it is not, until somebody says so there.
    assert.deepEqual(reader.directory().revocations().keys(), []);
    for (let restarts = 0; restarts < 2; restarts++) {
      const withheld = await feedOf(world, pins, () =>
        world.log.filter(({ key }) => !key.startsWith('rev/')),
      );
      await withheld.reload();
      assert.equal(withheld.directory().problem, undefined);
      const before = await withheld.ended(cg);
      assert.match(before?.problem ?? '', /0 records of rev\/cg-test and had 1: it was set back/);
      assert.throws(() => before?.revocations(), { code: 'KEY_UNAVAILABLE' });
    }
  });

  test('who never knew the one before comes to the one of now, and stays with none that is not believed', async () => {
    await using world = await worldAfterLoss();
    await succeeded(world);
    assert.deepEqual(await followed(world), [young, cg]);
    const filed = world.filedKek(young);
    assert.ok(filed);
    const body = { ...parseKek(openRecord(filed.bytes).body), seq: 2, prev: filed.cid };
    const bytes = signRecord({ ...body, writer: world.steward.publicKey }, world.steward).block.bytes;
    const broken = await feedOf(world, {}, () => [...world.log, { key: `kek/${young}/1`, bytes }]);
    await broken.reload();
    assert.equal(broken.directory().cg, cg);
    const strangers = new Map(world.sites.map(({ peer }) => [peer, random(32)]));
    const feed = await feedOf(world, {}, () => world.log, strangers);
    await feed.reload();
    assert.deepEqual([feed.directory().cg, feed.directory().initialised], [cg, false]);
  });
});

describe('cut anywhere', () => {
  const places = async (): Promise<Parameters<Kill>[0][]> => {
    await using world = await worldAfterLoss();
    const found: Parameters<Kill>[0][] = [];
    const seen = new Set<string>();
    world.kill = (place) => {
      const isOne = place.who === 'coordinator' || place.who === 'custodian-4';
      const name = JSON.stringify(place);
      if (isOne && !seen.has(name)) found.push(place);
      seen.add(name);
      return 'go';
    };
    await succeeded(world);
    return found;
  };

  test('the order given again comes to one group in the place of the other, and the two never both stand', async () => {
    const all = await places();
    assert.ok(all.length > 40, `${all.length} places`);
    // Every place of the coordinator's registry and some of the others: all of them with HOLDFAST_ALL.
    const some = all.filter(
      (place, at) => process.env['HOLDFAST_ALL'] === '1' || place.protocol === 'registry' || at % 12 === 0,
    );
    for (const place of some) {
      await using world = await worldAfterLoss();
      let isCut = false;
      world.kill = (at) => {
        if (isCut || JSON.stringify(at) !== JSON.stringify(place)) return 'go';
        isCut = true;
        return 'kill';
      };
      await attempt(world);
      world.kill = () => 'go';
      await world.revive();
      assertOneStands(world);
      // Another coordinator, and another order: the one before may be lost.
      for (let tries = 0; world.filedKek(young) === undefined; tries++) {
        assert.ok(tries < 3, JSON.stringify(place));
        await attempt(world);
      }
      const steward = world.coordinator(young);
      for (let beats = 0; beats < 12; beats++) {
        world.beat++;
        world.nowMs += minute;
        await world.beatAll();
        await steward.onBeat({ beat: world.beat, downbeat: false }, quiet);
      }
      assertOneStands(world);
      const kek = world.kek(young);
      const holders = world.sites.filter(({ running }) =>
        running.shares
          .shares()
          .some((each) => each.cg === young && each.key === 'kek' && each.status === 'active'),
      );
      assert.ok(holders.length >= kek.t, `${JSON.stringify(place)}: ${holders.length}`);
    }
  });

  async function attempt(world: CeremonyWorld): Promise<void> {
    try {
      await world.coordinator().command(orderIn(world), quiet);
    } catch (error) {
      if (!(error instanceof Killed) && !isHoldfastError(error)) throw error;
    }
  }

  /** The other has ended in the registry if and only if this one has its key. */
  function assertOneStands(world: CeremonyWorld): void {
    const successions = new Successions({
      operator: world.operator.publicKey,
      custodians: () => world.members(),
    });
    for (const each of world.log) successions.take(each);
    assert.equal(successions.of(cg) !== undefined, world.filedKek(young) !== undefined);
  }
});

// Helpers

function birthIn(world: CeremonyWorld): BirthCertificate {
  const filed = world.log.find(({ key }) => key.startsWith(`cert/${young}/`));
  const birth = parseCertificate(openRecord(filed?.bytes ?? random(1)).body);
  assert.ok(birth.what === 'birth');
  return birth;
}

async function reasonsOf(site: CustodianSite, op: string): Promise<string[]> {
  const { log } = site.running;
  const leaves = (await log.leaves(0, log.size)).map((leaf) => parseLeaf(leaf));
  return leaves.filter((leaf) => leaf.op === op).map((leaf) => leaf.reason);
}

function feedOf(
  world: CeremonyWorld,
  pins: { text?: string },
  records: () => readonly { key: string; bytes: Uint8Array }[] = () => world.log,
  members: ReadonlyMap<string, Uint8Array> | (() => ReadonlyMap<string, Uint8Array>) = world.members(),
): Promise<CustodyFeed> {
  return CustodyFeed.open({
    cg,
    operator: world.operator.publicKey,
    custodians: () => (typeof members === 'function' ? members() : members),
    read: async (since) => {
      const all = records().map((each, at) => ({ ...each, revision: at + 1, index: 0 }));
      return { head: all.length, records: all.slice(since.revision), done: true };
    },
    pins: {
      load: async () => pins.text,
      save: async (text) => {
        pins.text = text;
      },
    },
  });
}

/** A reader that believed the first group when its custodians were still in the membership. */
async function worldBefore(world: CeremonyWorld, pins: { text?: string }): Promise<CustodyFeed> {
  const founders = new Map(world.kek(cg).custodians.map(({ peer, sigPk }) => [peer, sigPk]));
  const feed = await feedOf(world, pins, () => world.log, founders);
  await feed.reload();
  return feedOf(world, pins);
}

/** Where somebody comes who begins with nothing, and in whose place that is. */
async function followed(world: CeremonyWorld): Promise<(string | undefined)[]> {
  const feed = await feedOf(world, {});
  await feed.reload();
  const directory = feed.directory();
  assert.equal(directory.problem, undefined);
  return [directory.cg, directory.inPlaceOf?.of];
}
