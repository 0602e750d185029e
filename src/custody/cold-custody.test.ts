import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { groups, random } from '../../test/support/ceremony-world.ts';
import { openHere } from '../../test/support/cold-shares.ts';
import { RotationWorld } from '../../test/support/rotation-world.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { ColdCustody } from './cold-custody.ts';
import type { ColdTask } from './cold-share.ts';
import type { FoundExport, OpenExport } from './drill.ts';
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

test('t shares of the safe open what is stored: each is opened once, and gives partial decryptions page after page', async () => {
  const tasks: ColdTask[] = [];
  const counted = counting(
    openHere(safe.secretKey, (_, task, use) => {
      tasks.push(task);
      return use(task);
    }),
  );
  const custody = custodyOf(await taken(), counted.open);
  for (const _ of [1, 2, 3]) await assertAllOpen(custody);
  assert.deepEqual(
    tasks.map(({ items }) => items.length),
    Array.from({ length: 6 }, () => world.known.length),
  );
  assert.equal(new Set(tasks.map(({ nonce }) => String(nonce))).size, 6);
  assert.deepEqual([counted.opened.length, counted.closed.length], [2, 0]);
  await assert.rejects(custody.createKey(), { code: 'KEY_UNAVAILABLE' });
  await custody[Symbol.asyncDispose]();
  assert.deepEqual(counted.closed, counted.opened);
});

test('pages that are asked for at once are done one after the other, by the same processes', async () => {
  let [under, most] = [0, 0];
  const counted = counting(
    openHere(safe.secretKey, async (_, task, use) => {
      most = Math.max(most, ++under);
      await new Promise((resolve) => setImmediate(resolve));
      under--;
      return use(task);
    }),
  );
  await using custody = custodyOf(await taken(), counted.open);
  await Promise.all([1, 2, 3].map(() => assertAllOpen(custody)));
  assert.deepEqual([counted.opened.length, most], [2, 2]);
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
  const counted = counting(
    openHere(safe.secretKey, (found, task, use) => {
      if (found !== exports[2]) throw new Error('the paper is wet');
      return use(task);
    }),
  );
  await using broken = custodyOf(exports, counted.open);
  await assert.rejects(broken.unwrap(records), /1 of 2 .*the paper is wet.*the paper is wet/);
  assert.equal(counted.closed.length, 2);
  // Who asks again tries again.
  await assert.rejects(broken.unwrap(records), /1 of 2 .*the paper is wet.*the paper is wet/);
});

test('a share that gives false parts is passed over, closed and not asked again, and another one takes its place', async () => {
  const exports = await taken();
  for (const how of [
    (task: ColdTask) => ({ ...task, items: task.items.toReversed() }),
    (task: ColdTask) => ({ ...task, items: task.items.slice(1) }),
    (task: ColdTask) => ({ ...task, nonce: random(32) }),
  ]) {
    let pages = 0;
    const counted = counting(
      openHere(safe.secretKey, (found, task, use) =>
        found === exports[0] && ++pages === 2 ? use(how(task)) : use(task),
      ),
    );
    await using custody = custodyOf(exports, counted.open);
    for (const _ of [1, 2, 3]) await assertAllOpen(custody);
    assert.deepEqual([pages, counted.opened.length], [2, 3]);
    assert.deepEqual(counted.closed, [exports[0]]);
  }
});

test('a share whose process died is opened again', async () => {
  const exports = await taken();
  let pages = 0;
  const counted = counting(
    openHere(safe.secretKey, (found, task, use) => {
      if (found === exports[0] && ++pages === 2) throw new Error('killed');
      return use(task);
    }),
  );
  await using custody = custodyOf(exports.slice(0, 2), counted.open);
  for (const _ of [1, 2, 3]) await assertAllOpen(custody);
  assert.deepEqual([counted.opened.length, counted.closed.length], [3, 1]);
});

test('wraps that somebody has forged are refused by themselves, and stop none of those beside them', async () => {
  const [first, second, ...rest] = await stored();
  const [one, two] = [first?.wraps[0], second?.wraps[0]];
  assert.ok(first && second && one?.t === 'tdec' && two?.t === 'tdec');
  const forged = [
    { ...first, wraps: [{ ...one, U: two.U }] },
    { ...second, wraps: [{ ...two, label: relabelled(two.label) }] },
    ...rest,
  ];
  await using custody = custodyOf(await taken());
  const answers = await custody.unwrap(forged);
  assert.deepEqual(answers.map(codeOf), ['KEY_UNAVAILABLE', 'KEY_UNAVAILABLE', ...rest.map(() => 'ok')]);
  assert.match(answers[0]?.ok === false ? answers[0].error.message : '', /proof of its wrap does not verify/);
  assert.match(answers[1]?.ok === false ? answers[1].error.message : '', /names another key/);
  close(answers);
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
        peer: site.peer,
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

/** With a label that names another version. */
function relabelled(label: Uint8Array): Uint8Array {
  return encodeLabel({ ...parseLabel(label), kekVer: 2 });
}

/** Which exports were opened, and whose processes have ended. */
function counting(open: OpenExport): {
  readonly open: OpenExport;
  readonly opened: FoundExport[];
  readonly closed: FoundExport[];
} {
  const [opened, closed]: FoundExport[][] = [[], []];
  assert.ok(opened && closed);
  const counted: OpenExport = async (found, opening) => {
    const share = await open(found, opening);
    opened.push(found);
    return {
      use: (task) => share.use(task),
      [Symbol.asyncDispose]: async () => {
        closed.push(found);
        await share[Symbol.asyncDispose]();
      },
    };
  };
  return { open: counted, opened, closed };
}

function custodyOf(exports: readonly FoundExport[], open = openHere(safe.secretKey)): ColdCustody {
  return new ColdCustody({ ...optionsOf(exports), open });
}

function optionsOf(exports: readonly FoundExport[]) {
  const directory = world.directory();
  const kek = directory.active();
  assert.ok(kek);
  const open = openHere(safe.secretKey);
  return { directory, kek, exports, open, group: async () => groups.kek, random };
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
