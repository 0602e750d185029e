import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { assertSchema } from '../../test/support/backbeat-schemas.ts';
import { isHoldfastError } from '../core/errors.ts';
import { type BarReport, encodeReport, parseReport } from './bar-report.ts';
import type { BeatFrame } from './beat.ts';
import { agentsMax, Reverb } from './reverb.ts';
import { frameAt } from './schedule.ts';
import type { StatusClaim } from './status-claim.ts';

/** Bars of 6 beats, one in a second: two each are plan, execute, review. */
const frame = (index: number, at = index * 1000, epoch = 1): BeatFrame =>
  frameAt(
    { clusterId: 'c', tempoBpm: 60, barBeats: 6 },
    { epoch: new Uint8Array(32).fill(epoch), nextIndex: 0 },
    index,
    { wall: at % 65_536, logical: 0, node: 1 },
    at,
  );
const claim = (agent: string, beat: number, more: Partial<StatusClaim> = {}): StatusClaim => {
  const fixed = { type: 'backbeat.statusclaim.v1', hlc: '0000:0000:0000', task_id: 'task' } as const;
  return { ...fixed, agent_id: agent, beat_index: beat, state: 'executing', ...more };
};

function beats(reverb: Reverb, from: number, to: number, isOk = true): BarReport[] {
  const reports: BarReport[] = [];
  for (let index = from; index <= to; index++) {
    const report = reverb.hearBeat(frame(index), index * 1000, isOk);
    if (report !== undefined) reports.push(report);
  }
  return reports;
}

test('one bar: who reported, what was reviewed in time, and the window it was', () => {
  const reverb = new Reverb();
  beats(reverb, 0, 4);
  reverb.hearClaim(claim('a', 1), 1100);
  reverb.hearClaim(claim('a', 2), 2100);
  reverb.hearClaim(claim('b', 4, { state: 'reviewing' }), 4900);
  reverb.hearClaim(claim('c', 4, { state: 'completed' }), 5051); // its beat is over
  reverb.hearClaim(claim('d', 2, { state: 'completed' }), 4500); // no beat of the review
  const [report, ...more] = beats(reverb, 5, 6, false);
  assert.deepEqual(more, []);
  assert.deepEqual(report, {
    type: 'backbeat.barreport.v1',
    window_id: frame(0).window_id,
    from_beat: 0,
    to_beat: 5,
    agents_reporting: 4,
    on_time_reviews: 1,
    help_promises_fulfilled: 0,
    secret_rotations_ok: false,
    tempo_drift_ms: 0,
  });
  assertSchema('report', encodeReport(report));
});

test('help that was promised and given, also over the bar line, counts once', () => {
  const reverb = new Reverb();
  beats(reverb, 0, 2);
  reverb.hearClaim(claim('a', 1, { state: 'helping', task_id: 'x' }), 1000);
  reverb.hearClaim(claim('a', 1, { state: 'helping', task_id: 'y' }), 1000);
  reverb.hearClaim(claim('a', 2, { state: 'completed', task_id: 'x' }), 2000);
  reverb.hearClaim(claim('a', 2, { state: 'completed', task_id: 'x' }), 2100);
  reverb.hearClaim(claim('b', 2, { state: 'completed', task_id: 'x' }), 2000); // another one promised it
  assert.equal(beats(reverb, 3, 6)[0]?.help_promises_fulfilled, 1);
  reverb.hearClaim(claim('a', 6, { state: 'completed', task_id: 'y' }), 6100);
  assert.equal(beats(reverb, 7, 12)[0]?.help_promises_fulfilled, 1);
  reverb.hearClaim(claim('a', 12, { state: 'completed', task_id: 'y' }), 12_100);
  assert.equal(beats(reverb, 13, 18)[0]?.help_promises_fulfilled, 0);
});

test('lost beats, a lost downbeat and a Pulse that began again: every bar is reported once', () => {
  const reverb = new Reverb();
  const reports: BarReport[] = [];
  const hear = (index: number, at: number, epoch: number): void => {
    const report = reverb.hearBeat(frame(index, at, epoch), at, true);
    if (report !== undefined) reports.push(report);
  };
  for (const index of [0, 1, 3, 7, 8]) hear(index, index * 1000, 1);
  hear(0, 9000, 2);
  hear(1, 10_000, 2);
  hear(6, 15_000, 2);
  assert.deepEqual(
    reports.map(({ from_beat, to_beat }) => [from_beat, to_beat]),
    [
      [0, 3],
      [7, 8],
      [0, 1],
    ],
  );
  assert.equal(new Set(reports.map(({ window_id }) => window_id)).size, 3);
});

test('drift is what the last beat is late by, whatever the tempo was meanwhile', () => {
  const reverb = new Reverb();
  const fast = (index: number, at: number): BeatFrame => ({ ...frame(index, at), tempo_bpm: 120 });
  reverb.hearBeat(frame(0), 0, true);
  reverb.hearBeat(fast(1, 1000), 1000, true);
  reverb.hearBeat(fast(2, 1512), 1512.5, true);
  assert.equal(reverb.hearBeat(frame(6), 6000, true)?.tempo_drift_ms, 12.5);
});

test('claims for other beats are counted apart, and agents beyond the bound too', () => {
  const reverb = new Reverb();
  reverb.hearClaim(claim('early', 0), 0);
  beats(reverb, 6, 7);
  reverb.hearClaim(claim('old', 5), 7000);
  reverb.hearClaim(claim('future', 9), 7000);
  reverb.hearClaim(claim('ahead', 8), 7000); // its beat is on the way
  assert.equal(reverb.counters.outOfBar, 3);
  for (let agent = 0; agent < agentsMax + 10; agent++) reverb.hearClaim(claim(`a${agent}`, 7), 7000);
  assert.equal(reverb.counters.beyondBound, 11);
  assert.equal(beats(reverb, 8, 12)[0]?.agents_reporting, agentsMax);
});

test('whatever is claimed and however beats come, reports satisfy the schema and bars do not overlap', () => {
  const event = fc.oneof(
    fc.record({ beat: fc.integer({ min: 0, max: 30 }), epoch: fc.constantFrom(1, 1, 1, 2) }),
    fc.record({
      agent: fc.constantFrom('a', 'b', 'c'),
      at: fc.integer({ min: 0, max: 30 }),
      state: fc.constantFrom('helping', 'completed', 'reviewing'),
    }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 120 }), (events) => {
      const reverb = new Reverb();
      let now = 0;
      for (const each of events) {
        now += 300;
        if ('agent' in each)
          reverb.hearClaim(claim(each.agent, each.at, { state: each.state as StatusClaim['state'] }), now);
        else {
          const report = reverb.hearBeat(frame(each.beat, now, each.epoch), now, true);
          if (report === undefined) continue;
          assertSchema('report', encodeReport(report));
          assert.ok(report.to_beat - report.from_beat < 6);
          assert.ok(report.agents_reporting <= 3);
        }
      }
    }),
  );
});

const sample: BarReport = {
  type: 'backbeat.barreport.v1',
  window_id: 'A'.repeat(32),
  from_beat: 1,
  to_beat: 2,
  agents_reporting: 3,
  on_time_reviews: 4,
  help_promises_fulfilled: 5,
  secret_rotations_ok: false,
  tempo_drift_ms: -3,
};

test('reports of others: issues as they come, up to a hundred; limits by name', () => {
  const issues = Array.from({ length: 120 }, () => ({ severity: 'odd', category: 'x', count: 1 }));
  const { report, notes } = parseReport({ ...sample, issues, colour: 1 });
  assert.equal(report.issues?.length, 100);
  assert.equal(report.window_id, 'a'.repeat(32));
  assert.deepEqual(notes.toSorted(), ['extra-field', 'issues-cut']);
  for (const [field, value] of [
    ['window_id', 'x'],
    ['to_beat', 0],
    ['agents_reporting', -1],
    ['tempo_drift_ms', '3'],
    ['secret_rotations_ok', 1],
  ] as const)
    assert.throws(
      () => parseReport({ ...sample, [field]: value }),
      (error) => isHoldfastError(error, 'RECORD_INVALID') && error.details['field'] === field,
    );
});
