import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { BeatFrame } from './beat.ts';
import {
  type BeatClock,
  beatsLeft,
  done,
  due,
  type Job,
  type JobFacts,
  moveClock,
  startBeatClock,
} from './job-schedule.ts';
import { frameAt } from './schedule.ts';
import { advance, startTracker } from './tempo-tracker.ts';
import type { Beat } from './tempo.ts';

const job: Job = { name: 'refresh', every: { beats: 10 }, floorMs: 30_000 };
const never: JobFacts = { isRunning: false, doneAt: undefined, doneBeats: 0, doneBars: 0 };
const frame = (index: number, at: number, epoch = 1): BeatFrame =>
  frameAt(
    { clusterId: 'c', tempoBpm: 60, barBeats: 8 },
    { epoch: new Uint8Array(32).fill(epoch), nextIndex: 0 },
    index,
    { wall: at % 65_536, logical: 0, node: 1 },
    at,
  );
const beat = (index: number, sequence = index): Beat => {
  return { sequence, frame: frame(index, index * 1000), source: 'pulse', downbeat: index % 8 === 0 };
};

function clockAfter(beats: readonly (readonly [index: number, at: number])[]): BeatClock {
  return beats.reduce((clock, [index, at]) => moveClock(clock, beat(index), at), startBeatClock(0));
}

test('plain: due at first, then every ten beats, or after thirty seconds', () => {
  assert.equal(due(job, never, { beats: 0, bars: 0, at: 5 }), 'first');
  const facts = done(never, { beats: 3, bars: 0, at: 1000 });
  assert.equal(due(job, facts, { beats: 12, bars: 9, at: 1000 }), undefined);
  assert.equal(due(job, facts, { beats: 13, bars: 0, at: 1000 }), 'beat');
  assert.equal(due(job, facts, { beats: 3, bars: 0, at: 30_999 }), undefined);
  assert.equal(due(job, facts, { beats: 3, bars: 0, at: 31_000 }), 'floor');
  assert.equal(due(job, { ...facts, isRunning: true }, { beats: 99, bars: 9, at: 99_000 }), undefined);
  assert.equal(due(job, facts, { beats: 3, bars: 0, at: -60_000 }), 'floor', 'a clock set back by a minute');
  assert.equal(due(job, facts, { beats: 3, bars: 0, at: -1000 }), undefined);
});

test('by bars; and how long it takes yet', () => {
  const bars: Job = { name: 'rotate', every: { bars: 2 }, floorMs: 3_600_000 };
  const facts = done(never, { beats: 5, bars: 1, at: 0 });
  assert.equal(due(bars, facts, { beats: 500, bars: 2, at: 10 }), undefined);
  assert.equal(due(bars, facts, { beats: 500, bars: 3, at: 10 }), 'beat');
  const tempo = { intervalMs: 1000, barBeats: 8 };
  assert.equal(beatsLeft(bars, facts, { beats: 6, bars: 2, at: 10 }, tempo), 8);
  assert.equal(beatsLeft(job, facts, { beats: 6, bars: 2, at: 10 }, tempo), 9);
  assert.equal(beatsLeft(job, facts, { beats: 6, bars: 2, at: 29_500 }, tempo), 1);
  assert.equal(beatsLeft(job, facts, { beats: 60, bars: 2, at: 0 }, tempo), 0);
  assert.equal(beatsLeft(job, never, { beats: 60, bars: 2, at: 0 }, tempo), 0);
});

test('the clock: lost beats are made good, a jump is not believed, a reset is one beat', () => {
  assert.equal(
    clockAfter([
      [1, 0],
      [2, 1000],
      [7, 6000],
    ]).beats,
    7,
  );
  assert.equal(
    clockAfter([
      [1, 0],
      [9001, 1000],
    ]).beats,
    2,
  );
  assert.equal(
    clockAfter([
      [900, 0],
      [0, 1000],
      [1, 2000],
    ]).beats,
    3,
  );
  assert.equal(
    clockAfter([
      [1, 0],
      [2, 960],
      [3, 2000],
    ]).beats,
    3,
    'a little early is on time',
  );
});

test('the clock: twice as many beats as the tempo says are counted by halves', () => {
  const doubled = Array.from({ length: 41 }, (_, step): [number, number] => [
    step % 2 === 0 ? step : 5000 + step,
    step * 500,
  ]);
  const { beats } = clockAfter(doubled);
  assert.ok(beats >= 20 && beats <= 22, `${beats}`);
});

/** Of a slow tempo: its bar never comes, so the floor alone keeps it going. */
const rare: Job = { name: 'rotate', every: { bars: 1000 }, floorMs: 30_000 };

const step = fc.oneof(
  { weight: 12, arbitrary: fc.constant({ kind: 'plain' as const }) },
  { weight: 3, arbitrary: fc.constant({ kind: 'lost' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('repeated' as const), times: fc.integer({ min: 2, max: 5 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('jump' as const), by: fc.integer({ min: 2, max: 100_000 }) }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'reset' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('late' as const), back: fc.integer({ min: 1, max: 9 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('silent' as const), beats: fc.integer({ min: 2, max: 90 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('doubled' as const), other: fc.nat(1_000_000) }) },
);

test('whatever Pulse does, no work is lost and none is doubled', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(job, rare),
      fc.array(step, { minLength: 40, maxLength: 200 }),
      (job, steps) => {
        const options = { clusterId: 'c', defaultTempoBpm: 60, jitterMs: 50 };
        let tracker = startTracker(options, 0);
        let clock = startBeatClock(0);
        let facts = never;
        let [now, index, epoch] = [0, 0, 1];
        const runs: number[] = [];
        const hear = (event: Parameters<typeof advance>[1]): void => {
          const moved = advance(tracker, event, options);
          tracker = moved.tracker;
          if (moved.beat === undefined) return;
          clock = moveClock(clock, moved.beat, event.at);
          const at = { beats: clock.beats, bars: clock.bars, at: event.at };
          if (due(job, facts, at) === undefined) return;
          runs.push(event.at);
          facts = done(facts, at);
        };
        const send = (sent: number): void => hear({ kind: 'frame', frame: frame(sent, now, epoch), at: now });
        const wait = (ms: number): void => {
          for (const end = now + ms; now < end; ) {
            now = Math.min(end, now + 250);
            hear({ kind: 'tick', at: now });
          }
        };
        for (const each of steps) {
          wait(each.kind === 'silent' ? each.beats * 1000 : 1000);
          index += each.kind === 'jump' ? each.by : 1;
          if (each.kind === 'reset') [index, epoch] = [0, epoch + 1];
          if (each.kind === 'lost') continue;
          send(index);
          if (each.kind === 'repeated') for (let copy = 1; copy < each.times; copy++) send(index);
          if (each.kind === 'late') send(Math.max(0, index - each.back));
          if (each.kind === 'doubled') hear({ kind: 'frame', frame: frame(each.other, now, 99), at: now });
        }
        const gaps = runs.map((at, which) => at - (runs[which - 1] ?? 0)).slice(1);
        for (const gap of gaps) {
          assert.ok(gap >= 8 * 1000, `done again after ${gap} ms: doubled`);
          assert.ok(gap <= job.floorMs + 3000, `not done for ${gap} ms: lost`);
        }
        assert.ok(now - (runs.at(-1) ?? 0) <= job.floorMs + 3000, 'the last one is lost');
      },
    ),
    { numRuns: 150 },
  );
});
