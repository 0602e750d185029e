import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openHere } from '../../test/support/cold-shares.ts';
import { CeremonyWorld, cg, groups, random } from '../../test/support/ceremony-world.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { encrypt } from '../threshold/tdh2.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import { beatAt } from './freshness.ts';
import { drill, drillExit, type FoundExport, type OpenExport } from './drill.ts';
import { exportShares } from './export-shares.ts';
import type { ColdTask } from './cold-share.ts';
import { exportShare, importShare } from './share-export.ts';
import { formatShareFile, parseShareFile } from './share-file.ts';

let dir = '';
let world: CeremonyWorld;
const safe = generateKeyPair(random);
const quiet = (): void => undefined;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-drill-'));
  world = await CeremonyWorld.made(dir, 3, 5);
});
after(async () => {
  await world[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

async function taken(i: number): Promise<FoundExport> {
  const site = world.site(`peer-${i}`);
  const ports = {
    ...site.running,
    peer: site.peer,
    signer: site.signer,
    beat: () => beatAt({ beat: world.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 }),
    now: () => world.nowMs,
  };
  const exports = await exportShares(ports, { publicKey: safe.publicKey });
  const [message] = parseShareFile(formatShareFile(site.name, exports));
  assert.ok(message);
  return { from: `${site.name}.share`, message };
}

const open = openHere(safe.secretKey);

const run = (exports: readonly FoundExport[], how: OpenExport = open) =>
  drill({
    cg,
    versions: [world.kek()],
    exports,
    nameOf: (peer) => peer,
    open: how,
    group: async () => groups.kek,
    random,
    beat: world.beat,
  });

test('any three shares open the canary, two do not, and each export is in the audit log', async () => {
  const all = await Promise.all([1, 2, 3, 4, 5].map(taken));
  for (const some of [all.slice(0, 3), all.slice(2), all]) {
    const report = await run(some);
    assert.deepEqual([report.versions[0]?.opened, drillExit(report)], [true, 0]);
  }
  const report = await run(all.slice(0, 2));
  assert.deepEqual([report.versions[0]?.opened, drillExit(report)], [false, 5]);
  assert.match(report.versions[0]?.text ?? '', /2 good exports, and 3 are needed: have 1 more/);
  const { log } = world.site('peer-1').running;
  const before = log.size;
  await taken(1);
  assert.equal(log.size, before + 1);
});

test('the same share twice counts once, and a share that the group has not signed for counts not at all', async () => {
  const [one, two, three] = await Promise.all([1, 2, 3].map(taken));
  assert.ok(one && two && three);
  const twice = await run([one, two, await taken(1)]);
  assert.equal(twice.versions[0]?.opened, false);
  assert.match(twice.versions[0]?.exports[2]?.text ?? '', /here already/);

  const site = world.site('peer-3');
  const { head, secret } = await importShare(three.message, site.signer.publicKey, {
    secretKey: safe.secretKey,
  });
  secret[0] = (secret[0] ?? 0) ^ 1;
  const forged = await exportShare(head, secret, { publicKey: safe.publicKey }, site.signer);
  const report = await run([one, two, { from: 'forged', message: forged }]);
  assert.deepEqual([report.versions[0]?.opened, drillExit(report)], [false, 5]);
  assert.match(report.versions[0]?.exports[2]?.text ?? '', /not the one that the group has signed/);
});

test('a share opens canaries only, of the key that it is of', async () => {
  const one = await taken(1);
  const by = world.site('peer-1').signer.publicKey;
  const { Y } = world.kek();
  const task = (project: string, kekVer: number): ColdTask => {
    const label = encodeLabel({
      v: 1,
      cg,
      kekVer,
      bkId: random(16),
      bkVer: 1,
      project,
      cls: 'internal',
      policy: null,
      window: [1, 2],
      writer: random(32),
    });
    const { wrap } = encrypt(groups.kek, Y, label, random);
    assert.equal(parseLabel(label).project, project);
    return { nonce: random(32), items: [{ label, wrap }] };
  };
  await using share = await open(one, { purpose: 'drill', message: one.message, by, Y });
  await share.use(task('holdfast-canary', 1));
  await assert.rejects(share.use(task('somebody', 1)), { code: 'FORBIDDEN' });
  await assert.rejects(share.use(task('holdfast-canary', 2)), { code: 'RECORD_INVALID' });
  const [other, another] = [task('holdfast-canary', 1), task('holdfast-canary', 1)].map(
    ({ items: [item] }) => item,
  );
  assert.ok(other !== undefined && another !== undefined);
  for (const wrap of [{ ...other.wrap, U: another.wrap.U }, { U: other.wrap.U }])
    await assert.rejects(
      share.use({ ...task('holdfast-canary', 1), items: [another, { label: other.label, wrap }] }),
      { code: 'RECORD_INVALID' },
    );
  await assert.rejects(share.use({ ...task('holdfast-canary', 1), items: [] }), { code: 'ARGUMENT_INVALID' });
});

test('shares of a past generation are refused and say what would be right, also among good ones', async () => {
  const old = await Promise.all([1, 2, 3].map(taken));
  await world.coordinator().command(world.dealOrder('refresh', 3, world.seats(5)), quiet);
  await world.tellAll();
  const stale = await run(old);
  assert.equal(drillExit(stale), 5);
  assert.match(
    stale.versions[0]?.exports[0]?.text ?? '',
    /generation 1 is past: the group is at 2.*custody export/,
  );
  const fresh = await Promise.all([1, 2, 3].map(taken));
  const mixed = await run([...old, ...fresh.slice(0, 2)]);
  assert.equal(mixed.versions[0]?.opened, false);
  const enough = await run([...old, ...fresh]);
  assert.deepEqual([enough.versions[0]?.opened, drillExit(enough)], [true, 1]);
  assert.deepEqual(
    enough.versions[0]?.exports.map(({ age, good }) => [age, good]),
    [...old.map(() => ['behind', false]), ...fresh.map(() => ['current', true])],
  );
});

test('an export that does not open, or whose process dies, is told and stops nothing', async () => {
  const exports = await Promise.all([1, 2, 3, 4].map(taken));
  const report = await run(exports, async (found, opening) => {
    if (found === exports[0]) throw new Error('the process that tries the share does not answer');
    return open(found, opening);
  });
  assert.deepEqual([report.versions[0]?.opened, drillExit(report)], [true, 1]);
  assert.match(report.versions[0]?.exports[0]?.text ?? '', /does not answer/);
});
