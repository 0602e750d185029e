import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { groups, random } from '../../test/support/ceremony-world.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { ColdCustody } from './cold-custody.ts';
import { type ColdTask, useColdShare } from './cold-share.ts';
import type { FoundExport } from './drill.ts';
import { exportShares } from './export-shares.ts';
import { beatAt } from './freshness.ts';
import type { Unwrapped } from './provider.ts';

const { signal } = new AbortController();
const safe = generateKeyPair(random);
let dir = '';
let world: RotationWorld;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-cold-'));
  world = await RotationWorld.start(dir, 2, 3);
  await world.write(3);
  await world.writeRestricted();
});
after(async () => {
  await world[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('t shares of the safe open what is stored, from t processes that give partial decryptions only', async () => {
  const exports = await taken();
  const tasks: ColdTask[] = [];
  const custody = custodyOf(exports, async (found, task) => {
    tasks.push(task);
    return use(found, task);
  });
  await assertAllOpen(custody);
  assert.deepEqual(
    tasks.map(({ items }) => items.length),
    [world.known.length, world.known.length],
  );
  await assert.rejects(custody.createKey(), { code: 'KEY_UNAVAILABLE' });
});

test('fewer than t open nothing, and it is said what is wrong with each', async () => {
  const exports = await taken();
  const records = await stored();
  await assert.rejects(custodyOf(exports.slice(0, 1)).unwrap(records), /1 of 2 shares of version 1 serve$/);
  const [one] = exports;
  assert.ok(one);
  await assert.rejects(
    custodyOf([one, { ...one, from: 'twin' }]).unwrap(records),
    /1 of 2 .*twin: .*is here already/,
  );
  const broken = custodyOf(exports, async (found, task) => {
    if (found !== exports[2]) throw new Error('the paper is wet');
    return use(found, task);
  });
  await assert.rejects(broken.unwrap(records), /1 of 2 .*the paper is wet.*the paper is wet/);
});

test('a share that gives false parts is passed over, and another one takes its place', async () => {
  const exports = await taken();
  const lying = (how: (task: ColdTask) => ColdTask) =>
    custodyOf(exports, async (found, task) => {
      const given = await use(found, found === exports[0] ? how(task) : task);
      return given;
    });
  await assertAllOpen(lying((task) => ({ ...task, items: task.items.toReversed() })));
  await assertAllOpen(lying((task) => ({ ...task, items: task.items.slice(1) })));
  await assertAllOpen(lying((task) => ({ ...task, nonce: random(32) })));
});

test('a record that was changed is refused by itself, and the others open', async () => {
  const records = await stored();
  const [first, second, ...rest] = records;
  assert.ok(first && second);
  const changed = [
    { ...first, commit: second.commit },
    { ...second, wraps: second.wraps.map((wrap) => ({ ...wrap, kekVer: 9 })) as BranchKeyBody['wraps'] },
    ...rest,
  ];
  const answers = await custodyOf(await taken()).unwrap(changed);
  assert.deepEqual(answers.map(codeOf), ['DECRYPT_FAILED', 'KEY_UNAVAILABLE', ...rest.map(() => 'ok')]);
  close(answers);
});

test('after a rotation they open what was switched, by its certificate', async () => {
  await rotated();
  await world.readAll(); // its provider hears of the new version
  await world.write(1);
  const exports = await taken();
  await assertAllOpen(custodyOf(exports));
  const blind = new ColdCustody({ ...optionsOf(exports), directory: { certificate: () => undefined } });
  const answers = await blind.unwrap(await stored());
  assert.deepEqual(answers.map(codeOf), [...answers.slice(1).map(() => 'KEY_UNAVAILABLE'), 'ok']);
  close(answers);
  const [first, second] = await stored();
  const [one, two] = [first?.wraps[0], second?.wraps[0]];
  assert.ok(first && one?.t === 'tdec-ks' && two?.t === 'tdec-ks');
  const foreign = { ...first, wraps: [{ ...one, U: two.U, V: two.V }] };
  const [answer] = await custodyOf(exports).unwrap([foreign]);
  assert.ok(answer?.ok === false);
  assert.match(answer.error.message, /does not list it/);
});

// Helpers

async function taken(): Promise<FoundExport[]> {
  const found: FoundExport[] = [];
  for (const site of world.custodians.sites) {
    const exports = await exportShares(
      {
        ...site.running,
        signer: site.signer,
        beat: () => beatAt({ beat: world.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 }),
        now: () => world.custodians.nowMs,
      },
      { publicKey: safe.publicKey },
    );
    for (const message of exports) found.push({ from: `${site.name}.share`, message });
  }
  return found;
}

function use(_: FoundExport, task: ColdTask) {
  return useColdShare(task, { secretKey: safe.secretKey }, groups, random);
}

function custodyOf(exports: readonly FoundExport[], how: typeof use = use): ColdCustody {
  return new ColdCustody({ ...optionsOf(exports), use: how });
}

function optionsOf(exports: readonly FoundExport[]) {
  const directory = world.directory();
  const kek = directory.active();
  assert.ok(kek);
  return { directory, kek, exports, use, group: async () => groups.kek, random };
}

function stored(): Promise<BranchKeyBody[]> {
  return Promise.all(world.known.map((each) => world.record(each)));
}

async function assertAllOpen(custody: ColdCustody): Promise<void> {
  const answers = await custody.unwrap(await stored());
  for (const [at, answer] of answers.entries()) {
    assert.ok(answer.ok, answer.ok ? '' : answer.error.message);
    assert.deepEqual(answer.branchKey, world.known[at]?.key);
  }
  close(answers);
}

function codeOf(answer: Unwrapped): string {
  return answer.ok ? 'ok' : answer.error.code;
}

function close(answers: readonly Unwrapped[]): void {
  for (const answer of answers) if (answer.ok) answer.branchKey.fill(0);
}

async function rotated(): Promise<void> {
  const coordinator = world.coordinator();
  for (let turns = 0; (await world.states()).join() !== 'destroyed,active'; turns++) {
    assert.ok(turns < 200, (await world.states()).join());
    world.order = world.rotateOrder(1);
    const { step } = await coordinator.advance(signal);
    await world.pass(step === 'wait' ? 5 : 1);
  }
}
