// Real custodians and a real steward through random sequences of refresh, reshare, eviction, repair, rotation, lost and
// set back disks, and time, each step cut anywhere: after every step any t open and no t − 1 do, generations never
// mix, and in the end the group comes to rest with all its members. protocols.test.ts does the same with the arithmetic alone.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type Cut, CustodySequence, deeds, type Step } from '../../test/support/custody-sequence.ts';
import { survivals } from '../../test/support/power-cut-disk.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-sequences-'));
});
after(() => rm(dir, { recursive: true, force: true }));

/** Places in the longest deed, about. */
const [callsMax, stepsMax, writesMax] = [120, 35, 70];
const whose = fc.nat(5);
const cut: fc.Arbitrary<Cut> = fc.oneof(
  fc.record({ what: fc.constant('coordinator dies' as const), at: fc.nat(callsMax) }),
  fc.record({
    what: fc.constantFrom('custodian dies', 'custodian restarts', 'message is lost'),
    whose,
    at: fc.nat(stepsMax),
  }),
  fc.record({
    what: fc.constant('disk goes' as const),
    whose,
    at: fc.nat(writesMax),
    left: fc.constantFrom(...survivals),
  }),
  fc.record({ what: fc.constant('nothing is shown' as const), whose }),
  fc.record({
    what: fc.constant('another comes' as const),
    at: fc.nat(callsMax / 2),
    deed: fc.constantFrom('refresh', 'reshare', 'evict', 'rotate', 'pass'),
    seed: fc.nat(),
  }),
);
const step: fc.Arbitrary<Step> = fc.record({
  // Most deeds take time to have their effect.
  deed: fc.constantFrom(...deeds, 'pass', 'pass', 'refresh', 'reshare', 'rotate'),
  seed: fc.nat(),
  cuts: fc.array(cut, { maxLength: 2 }),
  staysAway: fc.boolean(),
});
const group = fc.constantFrom({ t: 2, n: 4 }, { t: 3, n: 5 }, { t: 3, n: 4 });

const isFull = process.env['HOLDFAST_FULL'] === '1';
/** Of the run that is to be repeated: a failure names it. */
const { HOLDFAST_SEED: seed } = process.env;

test('whatever is done to a group and wherever it is cut: any t open, no fewer do, generations never mix', async () => {
  await fc.assert(
    fc.asyncProperty(
      group,
      fc.array(step, { minLength: 5, maxLength: isFull ? 12 : 7 }),
      fc.nat(),
      async (began, steps, last) => {
        await using sequence = await CustodySequence.begin(dir, began);
        try {
          for (const each of steps) await sequence.take(each);
          await sequence.settle(last);
        } catch (cause) {
          throw new Error(`after ${sequence.told.join(' | ')}: ${String(cause)}`, { cause });
        }
      },
    ),
    { numRuns: isFull ? 16 : 3, endOnFailure: true, ...(seed === undefined ? {} : { seed: Number(seed) }) },
  );
});
