// Shares whose day is over at a custodian that was not there when that came about: it learns it from the registry when it
// is started again, and erases them, cut wherever it may be.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type CustodianSite, cg } from '../../test/support/ceremony-world.ts';
import { PluggedDisks } from '../../test/support/plugged-disks.ts';
import { survivals } from '../../test/support/power-cut-disk.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { parseKek } from '../envelope/records.ts';
import { openRecord, signRecord } from '../manifest/record.ts';
import { type AuditLeaf, parseLeaf } from './audit-leaf.ts';
import { exportShares } from './export-shares.ts';
import { beatAt } from './freshness.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { random } from './random.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-erasing-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const quiet = (): void => undefined;
const gone = 'peer-4';
const goneName = 'custodian-4';

/** Four custodians, of whom two are needed. */
async function worldOf(disks?: PluggedDisks): Promise<RotationWorld> {
  const world = await RotationWorld.start(dir, 2, 4, disks && { disk: (_, name) => disks.open(name) });
  await world.write(2);
  await world.pass(1);
  return world;
}

/** The others take it out while it is down. */
async function evict({ custodians }: RotationWorld): Promise<void> {
  await custodians.site(gone).kill();
  const members = custodians.seats(3);
  await custodians.coordinator().command(custodians.dealOrder('evict', 2, members), quiet);
}

/** A rotation to its end, which it misses from the moment on at which all keys are moved. */
async function rotateAway(world: RotationWorld): Promise<void> {
  const coordinator = world.coordinator();
  const { signal } = new AbortController();
  for (let turns = 0; (await world.states()).join() !== 'destroyed,active'; turns++) {
    assert.ok(turns < 200, (await world.states()).join());
    world.order = world.rotateOrder(1);
    const site = world.custodians.site(gone);
    if ((await world.states()).join() === 'retired,active' && site.isUp) await site.kill();
    const { step } = await coordinator.advance(signal);
    await world.pass(step === 'wait' ? 5 : 1);
  }
}

describe('shares whose day is over', () => {
  test('who was evicted while it was away erases at its start, before it answers anything, and writes it down', async () => {
    await using world = await worldOf();
    const site = world.custodians.site(gone);
    const request = await captured(world);
    const prekeys = await prekeysOf(site);
    await evict(world);
    await site.start();
    assert.deepEqual(heldBy(site), []);
    await assert.rejects(site.running.custodian.unwrap(request), /holds no share of generation 1/);
    assert.deepEqual(await erasures(site), ['1/1 no member of the group any more']);
    // What was dealt to it could be opened with the prekeys of then.
    const now = await prekeysOf(site);
    assert.ok(now.length > 0 && now.every((each) => !prekeys.includes(each)));
    await world.readAll();
  });

  test('a request that comes before the registry was read is refused as well', async () => {
    await using world = await worldOf();
    const site = world.custodians.site(gone);
    const request = await captured(world);
    await evict(world);
    const { log } = world.custodians;
    site.registry = () => {
      throw new Error('nobody shows it');
    };
    await assert.rejects(site.start(), /nobody shows it/);
    assert.equal(heldBy(site).length, 2);
    const [blind] = await Promise.allSettled([site.running.custodian.unwrap(request)]);
    assert.ok(blind.status === 'rejected' || (await granted(site)) === 0);
    site.registry = () => log;
    await assert.rejects(site.running.custodian.unwrap(request), /holds no share of generation 1/);
    assert.deepEqual(heldBy(site), []);
  });

  test('who was there erases only after the time in which readers may still hold requests', async () => {
    await using world = await worldOf();
    const { custodians } = world;
    await custodians.coordinator().command(custodians.dealOrder('evict', 2, custodians.seats(3)), quiet);
    await custodians.beatAll();
    const site = custodians.site(gone);
    assert.equal(heldBy(site).length, 2);
    await world.pass(11);
    assert.deepEqual(heldBy(site), []);
    assert.equal((await erasures(site)).length, 1);
  });

  test('who slept through the end of a version erases its shares, and has the others', async () => {
    await using world = await worldOf();
    await rotateAway(world);
    const site = world.custodians.site(gone);
    await site.start();
    assert.deepEqual(heldBy(site), ['1', '1', '2', '2']);
    const given = await exported(site);
    assert.equal(given.length, 1, 'none of a version that is destroyed');
    await world.pass(1);
    assert.deepEqual(heldBy(site), ['2', '2']);
    assert.deepEqual(await erasures(site), ['1/1 the version is destroyed']);
    await world.readAll();
    // Nobody gives it shares of that version again.
    for (const each of world.custodians.sites.slice(0, 3)) assert.equal((await erasures(each)).length, 1);
  });

  test('a record that the group has not signed erases nothing', async () => {
    await using world = await worldOf();
    const { custodians } = world;
    const site = custodians.site(gone);
    const kek = custodians.filedKek();
    assert.ok(kek);
    const body = parseKek(openRecord(kek.bytes).body);
    assert.ok(body.provider === 'tdec');
    const next = { ...body, seq: body.seq + 1, prev: kek.cid, writer: custodians.steward.publicKey };
    const destroyed = { ...next, state: 'destroyed' as const };
    const without = { ...next, shareGen: 2, custodians: body.custodians.slice(0, 3) };
    for (const forged of [destroyed, without]) {
      await site.kill();
      const bytes = signRecord(forged, custodians.steward).block.bytes;
      site.registry = () => [...custodians.log, { key: `kek/${cg}/1`, bytes }];
      await site.start();
      await world.pass(30);
      assert.equal(heldBy(site).length, 2);
      assert.deepEqual(await erasures(site), []);
    }
  });

  for (const survival of survivals)
    for (const [what, end] of [
      ['an eviction', evict],
      ['the end of a version', rotateAway],
    ] as const)
      test(`cut at each write after ${what}, of which ${survival} is left, it has the share whole or not at all`, async () => {
        const disks = new PluggedDisks();
        disks.survival = survival;
        await using world = await worldOf(disks);
        const { custodians } = world;
        custodians.isDiskOut = (name) => disks.isOut(name);
        custodians.isPowerCut = true;
        const site = custodians.site(gone);
        const prekeys = await prekeysOf(site);
        await end(world);
        const before = disks.copy(goneName);
        let cuts = 0;
        for (let at = 1; ; at++) {
          await site.kill();
          disks.replace(goneName, before);
          let writes = 0;
          disks.cut = (name) => name === goneName && ++writes === at;
          await startCut(site);
          await custodians.beatAll();
          if (!disks.isOut(goneName)) break;
          cuts++;
          disks.cut = () => false;
          await site.kill();
          await site.start();
          await assertWhole(site);
          await world.pass(1);
          assert.deepEqual(
            heldBy(site).filter((ver) => ver === '1'),
            [],
            `cut at write ${at}`,
          );
          if (end === evict)
            assert.ok(!(await prekeysOf(site)).some((each) => prekeys.includes(each)), `cut at write ${at}`);
          assert.equal((await disks.files(goneName)).length, 1 + 2 * site.running.shares.entries().length);
        }
        assert.ok(cuts >= 3, `${cuts} cuts`);
      });

  test('cut in and after its note in the audit log it still erases, and the log says it', async () => {
    for (const when of ['before', 'after'] as const) {
      await using world = await worldOf();
      const { custodians } = world;
      const site = custodians.site(gone);
      await evict(world);
      custodians.kill = (at) =>
        at.who === goneName && at.step === 'log in start' && at.when === when ? 'kill' : 'go';
      site.at('start', 'start');
      await assert.rejects(site.start());
      custodians.kill = () => 'go';
      await site.start();
      assert.deepEqual(heldBy(site), []);
      assert.equal((await erasures(site)).length, when === 'before' ? 1 : 2);
    }
  });
});

// Helpers

/** Versions of the shares that it has, both keys. */
function heldBy(site: CustodianSite): string[] {
  return site.running.shares.shares().map(({ kekVer }) => String(kekVer));
}

async function prekeysOf(site: CustodianSite): Promise<string[]> {
  const pairs = site.running.shares.keyPairs().filter(({ kind }) => kind === 'prekey');
  return pairs.map(({ publicKey }) => Buffer.from(publicKey).toString('hex'));
}

async function leavesOf(site: CustodianSite): Promise<AuditLeaf[]> {
  const { log } = site.running;
  return (await log.leaves(0, log.size)).map((leaf) => parseLeaf(leaf));
}

async function erasures(site: CustodianSite): Promise<string[]> {
  const found = (await leavesOf(site)).filter(({ op }) => op === 'erase');
  return found.map(({ kekVer, shareGen, reason }) => `${kekVer}/${shareGen} ${reason}`);
}

async function granted(site: CustodianSite): Promise<number> {
  return (await leavesOf(site)).filter(({ op, decision }) => op === 'unwrap' && decision === 'granted')
    .length;
}

/** A good request to the one that will be gone, of the present generation, which it has not got. */
async function captured(world: RotationWorld): Promise<Uint8Array> {
  let request: Uint8Array | undefined;
  world.away = new Set(['peer-1', 'peer-2', 'peer-3']);
  world.liars = new Map([
    [
      gone,
      (message) => {
        request = message;
        return random(64);
      },
    ],
  ]);
  await world.read(world.known.slice(0, 1));
  world.away = new Set();
  world.liars = new Map();
  assert.ok(request);
  return request;
}

async function exported(site: CustodianSite): Promise<readonly Uint8Array[]> {
  const beat = () => beatAt({ beat: 500, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
  const { publicKey } = generateKeyPair(random);
  const ports = { ...site.running, peer: site.peer, signer: site.signer, beat, now: () => 0 };
  return exportShares(ports, { publicKey });
}

async function startCut(site: CustodianSite): Promise<void> {
  try {
    await site.start();
  } catch {
    // Its disk went away in that.
  }
}

/** Every share that its state names can be opened. */
async function assertWhole(site: CustodianSite): Promise<void> {
  const { shares } = site.running;
  for (const { cg: group, kekVer, gen, key } of shares.shares())
    (await shares.openShare({ cg: group, kekVer, gen }, key)).secret.fill(0);
  for (const { kind, epoch } of shares.keyPairs()) (await shares.openKeyPair(kind, epoch)).fill(0);
}
