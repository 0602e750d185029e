import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CeremonyWorld, cg, random } from '../../test/support/ceremony-world.ts';
import { encodeCbor } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { signerFromSeed } from '../core/hash.ts';
import { type PolicyHead, type ProposedPolicy, policySteps } from './policy-change.ts';
import { changedPolicy, policyDocument } from './policy-document.ts';

let dir = '';
/** One group for all: each test goes on from the version that the one before left. */
let world: CeremonyWorld;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-policy-'));
  world = await CeremonyWorld.made(dir, 3, 5);
});
after(async () => {
  await world[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});
const quiet = (): void => undefined;

function headOf(): PolicyHead {
  const head = world.book().policyHead();
  assert.ok(head);
  return head;
}

function next(document: unknown, changes: Partial<ProposedPolicy> = {}) {
  const { writer: _, ...policy } = changedPolicy(headOf(), document, world.operator.publicKey);
  return { ...policy, ...changes };
}

const give = (policy: unknown, signer = world.operator) =>
  world.coordinator().command(world.order('policy', { policy: encodeCbor(policy) }, signer), quiet);

const twoApprovals = { classes: { restricted: { maxItemsPerBar: 7, keyAgentOnly: true } } };

describe('changing the policy', () => {
  test('is signed by the group, with two of five away, and follows the version before it', async () => {
    await world.site('peer-2').kill();
    await world.site('peer-5').kill();
    const result = await give(next(twoApprovals));
    assert.ok('known' in result);
    assert.deepEqual([result.version, result.known.length, result.refused.length], [2, 3, 2]);
    await world.site('peer-2').start();
    await world.site('peer-5').start();
    const { body } = headOf();
    assert.deepEqual([body.ver, body.classes.restricted.maxItemsPerBar], [2, 7]);
    assert.deepEqual(body.classes.internal, next({}).classes.internal);
    // The custodians decide by it at once, and the next one follows.
    assert.equal(world.site('peer-1').running.books.book(cg)?.policyHead()?.body.ver, 2);
    await give(next({ refreshEveryBars: 100 }));
    assert.deepEqual([headOf().body.ver, headOf().body.refreshEveryBars], [3, 100]);
    await world.tellAll();
  });

  test('is refused from who is no authority, for an old version, and for a family cut short', async () => {
    const stranger = signerFromSeed(random(32));
    await assert.rejects(give(next(twoApprovals), stranger), {
      code: 'FORBIDDEN',
      message: /neither operator nor authority/,
    });
    const first = next({ maxItemsPerBar: 8 });
    await give(first);
    const { ver } = first;
    const inForce = new RegExp(`version ${ver} is in force`);
    await assert.rejects(give(first), { code: 'FORBIDDEN', message: inForce });
    const third = next({ maxItemsPerBar: 9 });
    const refused: readonly [string, Partial<ProposedPolicy>, RegExp][] = [
      ['a version left out', { ver: ver + 2 }, new RegExp(`version ${ver + 1} is next, not ${ver + 2}`)],
      ['not after the one that is known', { prev: first.prev }, /does not follow version/],
      ['another family', { family: random(16) }, /another family/],
      ['another group', { cg: 'cg-other' }, /for group cg-other/],
    ];
    for (const [what, changes, message] of refused)
      await assert.rejects(give({ ...third, ...changes }), { code: 'FORBIDDEN', message }, what);
    assert.equal(headOf().body.ver, ver);
    await give(third);
  });

  test('of two documents for one version a custodian signs one, also after a restart', async () => {
    const [one, other] = [next({ maxItemsPerBar: 1 }), next({ maxItemsPerBar: 2 })];
    let cut = true;
    world.kill = ({ who, step, when }) =>
      cut && who === 'coordinator' && step === 'append' && when === 'before' ? 'kill' : 'go';
    await assert.rejects(give(one)); // signed by three, and never registered
    cut = false;
    for (const i of [1, 2, 3]) {
      await world.site(`peer-${i}`).kill();
      await world.site(`peer-${i}`).start();
    }
    await assert.rejects(give(other), { code: 'FORBIDDEN', message: /give that one again/ });
    await give(one);
    assert.equal(headOf().body.maxItemsPerBar, 1);
    await give(next({ maxItemsPerBar: 2 }));
  });

  test('an authority that is taken out commands no more, and the operator still does', async () => {
    const officer = signerFromSeed(random(32));
    const keys = (...list: Uint8Array[]) => ({ authorities: list.map(toHex) });
    await give(next(keys(world.operator.publicKey, officer.publicKey)));
    await give(next(keys(world.operator.publicKey)), officer);
    await assert.rejects(give(next({ maxItemsPerBar: 3 }), officer), { code: 'FORBIDDEN' });
    await give(next({ maxItemsPerBar: 3 }));
  });

  test('a refresh comes by the schedule of the newest policy', async () => {
    await give(next({ refreshEveryBars: 2 }));
    world.beat += 125; // a coordinator that heard no downbeat counts 60 beats a bar; the key was made with 8 bars
    world.nowMs += 600_000;
    await world.tellAll();
    await world.coordinator().onBeat({ beat: world.beat, downbeat: false }, quiet);
    assert.equal(world.kek().shareGen, 2);
  });
});

describe('the document of a policy', () => {
  test('says which field is wrong and what may stand there', async () => {
    const head = headOf();
    const wrong: [unknown, RegExp][] = [
      [7, /^policy: an object with some of/],
      [{ clases: {} }, /^policy\.clases: no such rule; there are .*classes/],
      [{ classes: { secret: {} } }, /^policy\.classes\.secret: no such rule; there are public, internal/],
      [{ classes: { internal: { ops: ['open'] } } }, /classes\.internal\.ops: some of read, write/],
      [{ classes: { internal: { approvals: { k: 9 } } } }, /approvals\.k: an integer from 0 to 1 expected/],
      [
        { classes: { internal: { keyAgentOnly: true, approvals: { k: 1 } } } },
        /^policy\.classes\.internal: keyAgentOnly or approvals expected, not both/,
      ],
      [{ authorities: [] }, /authorities/],
      [{ authorities: ['xx'] }, /^policy\.authorities\[0\]: 64 hex digits/],
      [
        { keyAgents: [toHex(head.body.family).repeat(2), toHex(head.body.family).repeat(2)] },
        /in the list already/,
      ],
      [{ recovery: 'maybe' }, /recovery: one of none, any/],
      [{ cg: 'cg-other' }, /^policy\.cg: the document is of another group/],
      [{ family: 'ff'.repeat(16) }, /^policy\.family: the document is of another family/],
    ];
    for (const [document, message] of wrong)
      assert.throws(() => changedPolicy(head, document, random(32)), { code: 'ARGUMENT_INVALID', message });
    assert.throws(() => changedPolicy(head, { ver: 999 }, random(32)), { code: 'VERSION_CONFLICT' });
    const same = changedPolicy(head, policyDocument(head.body), random(32));
    assert.deepEqual(policySteps(head.body, same), []);
  });

  test('each rule is said to tighten or to widen', async () => {
    const { body } = headOf();
    const key = toHex(random(32));
    const cases: [unknown, string, string][] = [
      [{ projects: 'chorus*' }, 'projects', 'tightens'],
      [{ keyAgents: [key] }, 'keyAgents', 'widens'],
      [{ authorities: [key] }, 'authorities', 'changes'],
      [{ classes: { public: { ops: ['read'] } } }, 'classes.public.ops', 'tightens'],
      [{ classes: { public: { maxItemsPerBar: 50_000 } } }, 'classes.public.maxItemsPerBar', 'widens'],
      [{ classes: { internal: { approvals: { k: 1 } } } }, 'classes.internal.approvals.k', 'tightens'],
      [
        { classes: { restricted: { approvals: { of: [key] } } } },
        'classes.restricted.approvals.of',
        'changes',
      ],
      [{ classes: { internal: { keyAgentOnly: true } } }, 'classes.internal.keyAgentOnly', 'tightens'],
      [{ classes: { internal: { notBefore: 5 } } }, 'classes.internal.notBefore', 'tightens'],
      [{ classes: { internal: { notAfter: 5 } } }, 'classes.internal.notAfter', 'tightens'],
      [{ maxItemsPerBar: 0 }, 'maxItemsPerBar', 'tightens'],
      [{ recovery: 'any' }, 'recovery', 'widens'],
      [{ refreshEveryBars: 1 }, 'refreshEveryBars', 'tightens'],
      [{ refreshEveryBars: 0 }, 'refreshEveryBars', 'widens'],
      [{ rotateEveryBars: 1000 }, 'rotateEveryBars', 'tightens'],
    ];
    for (const [document, field, effect] of cases) {
      const steps = policySteps(body, changedPolicy(headOf(), document, random(32)));
      assert.deepEqual(
        steps.map((each) => [each.field, each.effect]),
        [[field, effect]],
      );
    }
  });
});
