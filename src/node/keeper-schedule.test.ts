import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  dialDown,
  dialFailed,
  dialNew,
  dialNow,
  dialStarted,
  type DialState,
  dialUp,
  pause,
} from './keeper-schedule.ts';

const times = { pauseMsMin: 100, pauseMsMax: 5000 };

test('pauses double, are bounded, and an absent member is dialled for ever', () => {
  let state: DialState = dialNew(true, 0, 0, times);
  const pauses: number[] = [];
  let now = 0;
  for (let attempt = 0; attempt < 9; attempt++) {
    assert.equal(state.status, 'waiting');
    now = state.dueAt;
    state = dialFailed(dialStarted(state), now, 0.999_999, times);
    if (state.status === 'waiting') pauses.push(Math.round(state.dueAt - now));
  }
  assert.deepEqual(pauses, [1600, 3200, 5000, 5000, 5000, 5000, 5000, 5000, 5000]);
});

test('a member that comes up late, a minute or an hour after, is dialled within one longest pause of it', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(60_000, 3_600_000),
      fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
      fc.integer({ min: 0, max: 5000 }),
      (upAt, chance, attemptMs) => {
        let now = 0;
        let dials = 0;
        let state = dialNew(true, now, chance.next().value, times);
        while (now < upAt) {
          assert.equal(state.status, 'waiting');
          const begun = state.status === 'waiting' ? state.dueAt : now;
          if (begun >= upAt) now = begun;
          else {
            now = begun + attemptMs;
            state = dialFailed(dialStarted(state), now, chance.next().value, times);
            dials += 1;
          }
        }
        const next = state.status === 'waiting' ? Math.max(now, state.dueAt) : now;
        assert.ok(next - upAt <= times.pauseMsMax + attemptMs, `dialled ${next - upAt} ms after it was up`);
        assert.ok(dials <= 6 + upAt / (times.pauseMsMax / 2), `${dials} dials`);
      },
    ),
    { numRuns: 20 },
  );
});

test('the second dialler waits, a lost member is redialled soon, one that shows itself at once', () => {
  assert.deepEqual(dialNew(false, 1000, 0, times), { status: 'waiting', attempts: 0, dueAt: 1200 });
  const down = dialDown(dialUp(), 1000, 0, times);
  assert.deepEqual(down, { status: 'waiting', attempts: 0, dueAt: 1050 });
  assert.deepEqual(dialNow(down, 1001), { status: 'waiting', attempts: 0, dueAt: 1001 });
});

test('late news changes nothing, and a wrong arrow throws', () => {
  assert.deepEqual(dialFailed(dialUp(), 0, 0, times), dialUp());
  const trying = dialStarted(dialNew(true, 0, 0, times));
  assert.deepEqual(dialDown(trying, 0, 0, times), trying);
  assert.throws(() => dialStarted(trying), /cannot start to dial from trying/);
});

test('a pause is always within half and whole of its bound', () => {
  fc.assert(
    fc.property(
      fc.nat(10_000),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (attempts, random) => {
        const ms = pause(attempts, random, times);
        assert.ok(ms >= 50 && ms <= 5000, String(ms));
      },
    ),
  );
});
