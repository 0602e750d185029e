import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CeremonyWorld, cg, groups } from '../../test/support/ceremony-world.ts';
import { birthProblem } from './birth.ts';
import { parseCertificate } from './certificate.ts';
import { minute } from '../core/clock.ts';
import { openRecord } from '../manifest/record.ts';
import type { CeremonyResult } from './coordinator.ts';
import type { OrderResult } from './coordinator-run.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-ceremony-'));
});
after(() => rm(dir, { recursive: true, force: true }));
const quiet = (): void => undefined;

function isCeremony(result: OrderResult): asserts result is CeremonyResult {
  assert.ok('shareGen' in result);
}

async function made(t: number, n: number): Promise<CeremonyWorld> {
  const world = await CeremonyWorld.start(dir, n);
  const result = await world.coordinator().command(world.initOrder(t, n), quiet);
  isCeremony(result);
  assert.deepEqual(result.behind, []);
  await world.tellAll();
  return world;
}

/** Any t of them hold the key of the record, in the generation it names. */
async function checkKey(world: CeremonyWorld): Promise<void> {
  const kek = world.kek();
  const holders = world.sites.filter(
    (site) =>
      site.isUp &&
      site.running.shares
        .shares()
        .some((each) => each.key === 'kek' && each.gen === kek.shareGen && each.status === 'active'),
  );
  assert.ok(holders.length >= kek.t, `${holders.length} hold generation ${kek.shareGen}`);
  for (const quorum of [holders.slice(0, kek.t), holders.slice(-kek.t)]) {
    assert.deepEqual(groups.kek.base(await world.secretOf(quorum, kek.shareGen)), kek.Y);
    assert.deepEqual(groups.frost.base(await world.secretOf(quorum, kek.shareGen, 'frost')), kek.frostPk);
  }
}

describe('ceremonies', () => {
  test('five custodians make a key that three of them can use, and everybody who knows them believes it', async () => {
    await using world = await made(3, 5);
    await checkKey(world);
    const certificate = world.log.find(({ key }) => key.startsWith('cert/'));
    assert.ok(certificate);
    const birth = parseCertificate(openRecord(certificate.bytes).body);
    assert.ok(birth.what === 'birth');
    const known = new Map(world.sites.map(({ peer, signer }) => [peer, signer.publicKey]));
    assert.equal(birthProblem(world.kek(), birth, known), undefined);
    assert.equal(world.book().policy(world.kek().policyRoot)?.cg, cg);
    await assert.rejects(world.coordinator().command(world.initOrder(3, 5), quiet), {
      code: 'VERSION_CONFLICT',
    });
  });

  test('a refresh changes all shares and nothing else, without one of five', async () => {
    await using world = await made(3, 5);
    const { Y, frostPk } = world.kek();
    const old = await world.secretOf(world.sites.slice(0, 3), 1);
    await world.site('peer-2').kill();
    const result = await world.coordinator().command(world.dealOrder('refresh', 3, world.seats(5)), quiet);
    isCeremony(result);
    assert.equal(result.shareGen, 2);
    assert.deepEqual(result.behind, ['custodian-2']);
    assert.deepEqual(world.kek().Y, Y);
    assert.deepEqual(world.kek().frostPk, frostPk);
    await checkKey(world);
    assert.deepEqual(
      await world.secretOf(
        [1, 3, 4].map((i) => world.site(`peer-${i}`)),
        2,
      ),
      old,
    );
    // The one that slept is repaired by itself.
    await world.site('peer-2').start();
    const coordinator = world.coordinator();
    for (let at = 0; at < 10; at++) await coordinator.onBeat({ beat: world.beat, downbeat: false }, quiet);
    assert.deepEqual(
      await world.secretOf(
        [1, 2, 3].map((i) => world.site(`peer-${i}`)),
        2,
      ),
      old,
    );
  });

  test('a refresh of one version leaves what is staged for another', async () => {
    await using world = await made(2, 3);
    const { shares } = world.site('peer-1').running;
    for (const facts of shares.shares())
      for (const kekVer of [1, 2])
        await shares.stage({ cg, kekVer, gen: 5 }, facts.key, {
          facts,
          secret: new Uint8Array(32).fill(1),
          beat: 100,
        });
    await world.coordinator().command(world.dealOrder('refresh', 2, world.seats(3)), quiet);
    const left = shares.shares().filter(({ status }) => status === 'staged');
    assert.deepEqual(
      left.map(({ kekVer, gen }) => [kekVer, gen]),
      [
        [2, 5],
        [2, 5],
      ],
    );
  });

  test('a session that was left is forgotten after a minute', async () => {
    await using world = await made(2, 3);
    const { steps } = world.site('peer-1').running;
    const session = new Uint8Array(32).fill(7);
    await steps.step(session, 'ballot', 'hello', { cg, order: null });
    const promise = { attempt: 1, round: 2 };
    await steps.step(session, 'ballot', 'promise', promise);
    world.nowMs += 59_000;
    steps.closeIdle(world.nowMs);
    await steps.step(session, 'ballot', 'promise', promise);
    world.nowMs += 60_000;
    steps.closeIdle(world.nowMs);
    await assert.rejects(steps.step(session, 'ballot', 'promise', promise), /was forgotten here/);
  });

  test('of five that need three, two that are lost are replaced by order, and by nothing less', async () => {
    await using world = await CeremonyWorld.made(dir, 3, 5, { count: 7 });
    const { Y } = world.kek();
    for (const peer of ['peer-1', 'peer-2']) await world.site(peer).kill();
    const kept = world.seats(7).filter(({ peer }) => !['peer-1', 'peer-2', 'peer-7'].includes(peer));
    const result = await world.coordinator().command(world.dealOrder('reshare', 3, kept), quiet);
    isCeremony(result);
    assert.deepEqual([result.t, result.n, result.shareGen], [3, 4, 2]);
    assert.deepEqual(world.kek().Y, Y);
  });

  test('a refresh with fewer than a quorum is not begun, and says who is missing', async () => {
    await using world = await made(3, 5);
    await world.site('peer-2').kill();
    await world.site('peer-4').kill();
    const refused = world.coordinator().command(world.dealOrder('refresh', 3, world.seats(5)), quiet);
    await assert.rejects(refused, /4 are needed.*custodian-2.*custodian-4/);
    await checkKey(world);
  });

  test('a reshare takes the key to others, and an evicted custodian erases', async () => {
    await using world = await made(3, 5);
    const { Y } = world.kek();
    const members = world.seats(5).filter(({ peer }) => peer !== 'peer-5');
    const result = await world.coordinator().command(world.dealOrder('evict', 2, members), quiet);
    isCeremony(result);
    assert.deepEqual([result.t, result.n, result.shareGen], [2, 4, 2]);
    assert.deepEqual(world.kek().Y, Y);
    await world.tellAll();
    await checkKey(world);
    const gone = world.site('peer-5').running;
    await gone.activation.settle(0);
    assert.equal(gone.shares.shares().length, 2);
    world.beat += 11;
    await gone.activation.settle(121_000);
    assert.equal(gone.shares.shares().length, 0);
    // And back again, as a newcomer who knows the group by the operator's order alone; what it read before is old.
    await world.coordinator().command(world.dealOrder('refresh', 2, members), quiet);
    const said: string[] = [];
    const reshare = world.dealOrder('reshare', 3, world.seats(5));
    await world.coordinator().command(reshare, (text) => void said.push(text));
    assert.ok(said.includes('5 custodians have verified and stored their new shares'), said.join('\n'));
    await checkKey(world);
    assert.equal(gone.shares.shares().filter(({ status }) => status === 'active').length, 2);
  });

  test('who was to join by a reshare that nothing came of erases what it had put by for it', async () => {
    await using world = await CeremonyWorld.made(dir, 2, 3, { count: 5 });
    world.kill = ({ who, step }) => (who === 'coordinator' && step.startsWith('propose') ? 'kill' : 'go');
    const reshare = world.dealOrder('reshare', 2, world.seats(5).slice(2));
    await assert.rejects(world.coordinator().command(reshare, quiet));
    world.kill = () => 'go';
    const held = (peer: string) => world.site(peer).running.shares.shares().length;
    assert.deepEqual(['peer-4', 'peer-5'].map(held), [2, 2]);
    await world.coordinator().command(world.dealOrder('refresh', 2, world.seats(3)), quiet);
    for (let at = 0; at < 2; at++) {
      await world.beatAll();
      world.beat += 11;
      world.nowMs += 11 * minute;
    }
    await world.beatAll();
    assert.deepEqual(['peer-3', 'peer-4', 'peer-5'].map(held), [2, 0, 0]);
  });

  test('a custodian that lost everything is repaired, trusting nothing but the birth of the group', async () => {
    await using world = await made(3, 5);
    const site = world.site('peer-4');
    const secret = await world.secretOf(world.sites.slice(0, 3), 1);
    await site.wipe();
    await site.start();
    const kek = world.kek();
    const order = world.order('repair', { ver: 1, gen: kek.shareGen, member: 4 });
    await world.coordinator().command(order, quiet);
    assert.deepEqual(await world.secretOf([world.site('peer-4'), ...world.sites.slice(0, 2)], 1), secret);
    await assert.rejects(world.coordinator().command(order, quiet), /nothing is lost here/);
  });

  test('a refresh is due after so many bars of frames, and not before', async () => {
    await using world = await made(3, 5);
    const coordinator = world.coordinator();
    const said: string[] = [];
    const hear = async (beats: number): Promise<void> => {
      for (let at = 0; at < beats; at++) {
        world.beat++;
        await coordinator.onBeat({ beat: world.beat, downbeat: world.beat % 10 === 0 }, (text) =>
          said.push(text),
        );
      }
    };
    world.nowMs += 60_000;
    await hear(79);
    assert.equal(world.kek().shareGen, 1);
    await hear(1);
    assert.equal(world.kek().shareGen, 2, said.join('\n'));
    await world.tellAll();
    await checkKey(world);
    // Beats that nobody heard are caught up with the next one.
    world.beat += 500;
    world.nowMs += 60_000;
    await hear(1);
    assert.equal(world.kek().shareGen, 3, said.join('\n'));
  });
});
