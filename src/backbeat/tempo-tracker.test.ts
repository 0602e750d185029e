import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { BeatFrame } from './beat.ts';
import { frameAt, type PulseRecord } from './schedule.ts';
import { advance, intervalMsOf, startTracker, type Tracker, type TrackerEvent } from './tempo-tracker.ts';
import type { Beat } from './tempo.ts';

const options = { clusterId: 'c', defaultTempoBpm: 60, jitterMs: 50 };
const settings = { clusterId: 'c', tempoBpm: 60, barBeats: 8 };
const epoch = (seed: number): PulseRecord => ({ epoch: new Uint8Array(32).fill(seed), nextIndex: 0 });
const start = 1_000_000;

function frame(index: number, at: number, seed = 1): BeatFrame {
  return frameAt(settings, epoch(seed), index, { wall: at % 65_536, logical: 0, node: 1 }, at);
}

function run(events: readonly TrackerEvent[]): { tracker: Tracker; beats: Beat[] } {
  let tracker = startTracker(options, start);
  const beats: Beat[] = [];
  for (const event of events) {
    const step = advance(tracker, event, options);
    tracker = step.tracker;
    if (step.beat !== undefined) beats.push(step.beat);
  }
  return { tracker, beats };
}

const heard = (index: number, at = start + index * 1000, seed = 1): TrackerEvent => ({
  kind: 'frame',
  frame: frame(index, at, seed),
  at,
});

test('plain beats: one each, rising, downbeats as flagged', () => {
  const { beats, tracker } = run([0, 1, 2, 3, 4, 5, 6, 7, 8].map((index) => heard(index)));
  assert.deepEqual(
    beats.map((beat) => beat.sequence),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  assert.deepEqual(
    beats.filter((beat) => beat.downbeat).map((beat) => beat.frame.beat_index),
    [0, 8],
  );
  assert.equal(tracker.state, 'locked');
});

test('duplicates, late and reordered frames make no beat and no change of count', () => {
  const { beats, tracker } = run([heard(5), heard(5), heard(7), heard(6), heard(5), heard(8)]);
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [5, 7, 8],
  );
  assert.equal(tracker.counters.duplicates, 1);
  assert.equal(tracker.counters.late, 2);
  assert.equal(tracker.counters.missed, 1);
  assert.equal(tracker.counters.resets, 0);
});

test('a window that changed is a downbeat that was missed', () => {
  const { beats } = run([heard(6), heard(7), heard(9)]);
  assert.deepEqual(
    beats.map((beat) => beat.downbeat),
    [false, false, true],
  );
});

test('Pulse back at 0 with its clock right: followed at once', () => {
  const { beats, tracker } = run([heard(900, start), heard(0, start + 1000, 2), heard(1, start + 2000, 2)]);
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [900, 0, 1],
  );
  assert.deepEqual(
    beats.map((beat) => beat.sequence),
    [1, 2, 3],
  );
  assert.equal(tracker.counters.resets, 1);
});

test('Pulse back at 0 with its clock an hour behind: followed after three rising frames', () => {
  const behind = [0, 1, 2, 3].map((index) => heard(index, start - 3_600_000 + index * 1000, 2));
  const { beats } = run([heard(900, start), ...behind]);
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [900, 2, 3],
  );
});

test('silence: ticks on locally at the default tempo, says degraded, locks again', () => {
  const tick = (at: number): TrackerEvent => ({ kind: 'tick', at: start + at });
  const slow = { ...frame(3, start), tempo_bpm: 30 };
  const { beats, tracker } = run([
    { kind: 'frame', frame: slow, at: start },
    tick(3_900),
    tick(4_051),
    tick(5_050),
    tick(5_051),
  ]);
  assert.equal(tracker.state, 'degraded');
  assert.deepEqual(
    beats.map((beat) => beat.source),
    ['pulse', 'local', 'local'],
  );
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [3, 4, 5],
  );
  assert.equal(intervalMsOf(tracker, options), 1000);
  assert.equal(beats.at(-1)?.frame.metadata?.['local'], true);
  const back = advance(tracker, heard(5, start + 7_000), options);
  assert.equal(back.tracker.state, 'locked');
  assert.equal(back.beat?.sequence, 4);
});

test('nothing heard since start: waiting, local beats at the default tempo', () => {
  const { beats, tracker } = run([
    { kind: 'tick', at: start + 999 },
    { kind: 'tick', at: start + 1000 },
  ]);
  assert.equal(beats.length, 1);
  assert.equal(tracker.state, 'waiting');
});

test('frames of another cluster are counted, not followed', () => {
  const other = { ...frame(9, start), cluster_id: 'x' };
  assert.equal(run([{ kind: 'frame', frame: other, at: start }]).tracker.counters.foreign, 1);
});

const led = (index: number, token: number, pulse: string, at = start + index * 1000): TrackerEvent => {
  const plain = frame(index, at);
  return {
    kind: 'frame',
    frame: { ...plain, metadata: { ...plain.metadata, fencing_token: token, pulse_id: pulse } },
    at,
  };
};

test('two Pulses at once: only the one with the higher token counts, also when the other is ahead', () => {
  const { beats, tracker } = run([
    led(1, 4, 'old'),
    led(2, 4, 'old'),
    led(300, 5, 'new', start + 3000),
    led(3, 4, 'old'),
    led(301, 5, 'new', start + 4000),
    led(9000, 4, 'old', start + 5000),
    led(302, 5, 'other', start + 5000),
    led(302, 5, 'new', start + 5000),
  ]);
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [1, 2, 300, 301, 302],
  );
  assert.equal(tracker.counters.fenced, 3);
  assert.deepEqual(tracker.authority, { token: 5, pulse: 'new' });
});

test('a frame without a token is refused while a Pulse with one is heard', () => {
  const { beats, tracker } = run([led(1, 1, 'a'), heard(2), led(2, 1, 'a')]);
  assert.equal(beats.length, 2);
  assert.equal(tracker.counters.fenced, 1);
});

test('a Pulse that has just taken over is believed at once, whatever its index', () => {
  const { beats, tracker } = run([led(900, 4, 'old', start), led(0, 5, 'new', start - 3_600_000)]);
  assert.deepEqual(
    beats.map((beat) => beat.frame.beat_index),
    [900, 0],
  );
  assert.equal(tracker.counters.resets, 1);
});

test('tokens begin again when the lease records are lost: believed after a silence and three beats', () => {
  const tick = (at: number): TrackerEvent => ({ kind: 'tick', at: start + at });
  const before: TrackerEvent[] = [led(0, 9, 'old'), led(1, 9, 'old')];
  const after = (from: number): TrackerEvent[] =>
    [0, 1, 2, 3].map((step) => led(50 + step, 1, 'new', start + from + step * 1000));
  const silent = run([...before, tick(3_100), ...after(4_000)]);
  assert.deepEqual(
    silent.beats.filter((beat) => beat.source === 'pulse').map((beat) => beat.frame.beat_index),
    [0, 1, 52, 53],
  );
  const speaking = run([...before, ...after(1_100).slice(0, 3)]);
  assert.equal(speaking.tracker.counters.fenced, 3);
});

test('an index that jumps ahead is one beat; the count goes on from there', () => {
  const far = Number.MAX_SAFE_INTEGER - 1;
  const { beats, tracker } = run([heard(1), heard(far, start + 2000), heard(far + 1, start + 3000)]);
  assert.equal(beats.length, 3);
  assert.equal(tracker.counters.missed, far - 2);
  const tick = advance(tracker, { kind: 'tick', at: start + 60_000 }, options);
  assert.equal(
    tick.beat?.frame.beat_index,
    Number.MAX_SAFE_INTEGER,
    'counting on never leaves safe integers',
  );
});

test('a beat within the jitter is no silence', () => {
  const locked = run([heard(0)]).tracker;
  const within = advance(locked, { kind: 'tick', at: start + 2000 + 49 }, options);
  assert.equal(within.beat, undefined);
  assert.equal(advance(locked, { kind: 'tick', at: start + 2000 + 50 }, options).beat?.source, 'local');
});

test('whatever is lost, repeated or reordered nearby, beats rise by one and the newest index wins', () => {
  const noise = fc.array(
    fc.record({ lost: fc.boolean(), copies: fc.integer({ min: 1, max: 3 }), delay: fc.nat(2) }),
    {
      minLength: 1,
      maxLength: 60,
    },
  );
  fc.assert(
    fc.property(noise, (list) => {
      const sent = list.flatMap(({ lost, copies, delay }, index) =>
        lost ? [] : Array.from({ length: copies }, () => ({ index, at: index + delay })),
      );
      sent.sort((a, b) => a.at - b.at);
      const { beats, tracker } = run(sent.map(({ index }) => heard(index)));
      beats.forEach((beat, at) => assert.equal(beat.sequence, at + 1));
      assert.equal(tracker.counters.resets, 0);
      assert.equal(
        tracker.heard?.beat_index,
        sent.length === 0 ? undefined : Math.max(...sent.map(({ index }) => index)),
      );
    }),
  );
});
