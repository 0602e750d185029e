import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isHoldfastError } from '../core/errors.ts';
import {
  type BeatFrame,
  compareBeats,
  countParsed,
  encodeBeat,
  formatHlc,
  nextHlc,
  parseBeat,
  parseBeatText,
  parseHlc,
  zeroBeatCounters,
} from './beat.ts';

const sample: BeatFrame = {
  type: 'backbeat.beatframe.v1',
  cluster_id: 'chorus-prod_1',
  beat_index: 42,
  downbeat: true,
  phase: 'plan',
  hlc: '7ffd:0001:beef',
  deadline_at: '2026-11-22T19:00:00.250Z',
  tempo_bpm: 2.3,
  window_id: '0123456789abcdef0123456789abcdef',
  metadata: { pulse_version: '1.2', cluster_health: 'healthy', expected_agents: 3 },
};

const refused = (change: Record<string, unknown>, field: string): void => {
  assert.throws(
    () => parseBeat({ ...sample, ...change }),
    (error) => isHoldfastError(error, 'RECORD_INVALID') && error.details['field'] === field,
    `${field} ${JSON.stringify(change)}`,
  );
};

test('a strict frame comes back as it went', () => {
  assert.deepEqual(parseBeatText(encodeBeat(sample)), { frame: sample, notes: [] });
});

test('limits: each field outside its own is refused by name', () => {
  for (const value of [undefined, '', 'a b', 'x'.repeat(65), 7]) refused({ cluster_id: value }, 'cluster_id');
  for (const value of [-1, 1.5, '1', 2 ** 53, 1e19, null]) refused({ beat_index: value }, 'beat_index');
  for (const value of [0, 'true', undefined]) refused({ downbeat: value }, 'downbeat');
  for (const value of ['working', '', undefined]) refused({ phase: value }, 'phase');
  for (const value of ['7ffd:0001', '7ffd:0001:beeg', '7ffd:0001:beef0']) refused({ hlc: value }, 'hlc');
  for (const value of ['2026-11-22', '2026-13-01T00:00:00Z', 'now', '2026-11-22T19:00:00']) {
    refused({ deadline_at: value }, 'deadline_at');
  }
  for (const value of [0, 0.05, 1000.1, Number.NaN, '60']) refused({ tempo_bpm: value }, 'tempo_bpm');
  for (const value of ['', 'g'.repeat(32), 'a'.repeat(31)]) refused({ window_id: value }, 'window_id');
  refused({ type: 'backbeat.beatframe.v2' }, 'type');
  assert.throws(() => parseBeatText('{'), /not JSON/);
  assert.throws(() => parseBeatText(' '.repeat(20_000)), /at most/);
  for (const value of [null, [], 'x', 1]) assert.throws(() => parseBeat(value), /an object expected/);
});

test('every tempo in tenths is legal, whatever its remainder in binary', () => {
  for (let tenths = 1; tenths <= 10_000; tenths++) {
    const { frame, notes } = parseBeat({ ...sample, tempo_bpm: tenths / 10 });
    assert.deepEqual(notes, []);
    assert.equal(frame.tempo_bpm, tenths / 10);
  }
});

test('lenient: accepted, corrected and noted', () => {
  const odd = { ...sample, phase: 'work', tempo_bpm: 2.34, colour: 'red', metadata: { expected_agents: 2 } };
  const parsed = parseBeat(odd);
  assert.equal(parsed.frame.phase, 'execute');
  assert.equal(parsed.frame.tempo_bpm, 2.3);
  assert.deepEqual(parsed.frame.metadata, { colour: 'red', expected_agents: 2 });
  assert.deepEqual([...parsed.notes].sort(), ['extra-field', 'phase-mapped', 'tempo-rounded']);
  const counters = countParsed(countParsed(zeroBeatCounters, parsed), parseBeat({ ...sample, metadata: 3 }));
  assert.equal(counters.accepted, 2);
  assert.equal(counters['metadata-dropped'], 1);
  assert.equal(zeroBeatCounters.accepted, 0);
});

test('what breaks the schema is not emitted', () => {
  assert.throws(() => encodeBeat({ ...sample, tempo_bpm: 2.34 }), /tempo-rounded/);
  assert.throws(() => encodeBeat({ ...sample, cluster_id: 'a b' }), /cluster_id/);
});

test('order: by index first; within one index the wall part may wrap', () => {
  const at = (beat_index: number, hlc: string): BeatFrame => ({ ...sample, beat_index, hlc });
  assert.ok(compareBeats(at(1, 'ffff:0000:0000'), at(2, '0000:0000:0000')) < 0);
  assert.ok(compareBeats(at(2, '0001:0000:0000'), at(2, 'fffe:0000:0000')) > 0);
  assert.ok(compareBeats(at(2, '0001:0001:0000'), at(2, '0001:0000:ffff')) > 0);
  assert.equal(compareBeats(at(2, 'abcd:0000:0001'), at(2, 'ABCD:0000:0001')), 0);
});

test('the clock rises whatever the wall clock does, and its text comes back', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -50, max: 5_000 }), { maxLength: 60 }), (steps) => {
      let now = 1_790_000_000_000;
      let hlc = { wall: now % 65_536, logical: 0, node: 7 };
      for (const step of steps) {
        now += step;
        const next = nextHlc(hlc, now);
        assert.ok(compareBeats({ ...sample, hlc: formatHlc(hlc) }, { ...sample, hlc: formatHlc(next) }) < 0);
        assert.deepEqual(parseHlc(formatHlc(next)), next);
        hlc = next;
      }
    }),
  );
});

test('no value makes the parser throw anything but its own error', () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.record({ ...fields() }, { requiredKeys: [] })), (value) => {
      try {
        parseBeat(value);
      } catch (error) {
        assert.ok(isHoldfastError(error, 'RECORD_INVALID'));
      }
    }),
  );
});

/** Each field now right, now anything. */
function fields(): Record<string, fc.Arbitrary<unknown>> {
  return Object.fromEntries(
    Object.entries(sample).map(([name, value]) => [
      name,
      fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.anything()),
    ]),
  );
}
