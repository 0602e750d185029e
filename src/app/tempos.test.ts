// Doors and custodians as the steward tells them the beat: what it makes up while Pulse is silent moves no time of theirs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BeatFrame } from '../backbeat/beat.ts';
import { frameAt } from '../backbeat/schedule.ts';
import { CustodianTempo } from './custodian-tempo.ts';
import { DoorTempo } from './door-tempo.ts';

const frame = (index: number, isLocal = false): BeatFrame => {
  const settings = { clusterId: 'c', tempoBpm: 60, barBeats: 8 };
  const record = { epoch: new Uint8Array(32), nextIndex: 0 };
  const sent = frameAt(settings, record, index, { wall: index % 65_536, logical: 0, node: 1 }, index * 1000);
  return isLocal ? { ...sent, metadata: { ...sent.metadata, local: true } } : sent;
};

const unknown = { beat: 0, atMs: 0, bpm: 0 };

test('a door goes by its own clock and says that it is degraded', () => {
  let now = 0;
  const tempo = new DoorTempo({ now: () => now, monotonic: () => now });
  tempo.hear(frame(10));
  assert.deepEqual(tempo.answer('dev'), { index: 10, state: 'locked', kekPolicy: 'dev' });
  now = 2000;
  tempo.hear(frame(500, true));
  assert.deepEqual(tempo.answer('dev'), { index: 12, state: 'degraded', kekPolicy: 'dev' });
  tempo.hear(frame(12));
  assert.equal(tempo.answer('dev')?.state, 'locked');
});

test('a custodian does its chores with such a beat, and decides by its own clock', () => {
  let now = 0;
  const tempo = new CustodianTempo({ now: () => now, monotonic: () => now }, unknown);
  assert.equal(tempo.hear(frame(10)), true);
  assert.equal(tempo.hear(frame(10)), false);
  now = 1000;
  assert.equal(tempo.hear(frame(9_000_000, true)), true);
  assert.ok(tempo.now().beat <= 11, 'time has not jumped');
  assert.equal(tempo.hear(frame(11)), true, 'and the next beat of Pulse is not old news');
});

test('a beat from far ahead moves the time of a custodian by no more than what has passed, and is forgotten', () => {
  let now = 1_000_000;
  const clock = { now: () => now, monotonic: () => now };
  const tempo = new CustodianTempo(clock, unknown);
  tempo.hear(frame(10));
  for (let told = 0; told < 5; told++) {
    now += 1000;
    tempo.hear(frame(9_000_000));
  }
  assert.ok(tempo.now().beat <= 10 + 6 + 120, `beat ${tempo.now().beat}`);
  // Pulse's own beats are heard again as soon as they are later than what was believed.
  now += 145_000;
  assert.equal(tempo.hear(frame(160)), true);
  assert.equal(tempo.now().beat, 160);
  // Over a restart it is the same: what may have passed meanwhile is known from the wall clock.
  const memory = tempo.memory();
  now += 60_000;
  const again = new CustodianTempo(clock, memory);
  again.hear(frame(9_000_000));
  assert.ok(again.now().beat <= 160 + 66 + 120, `beat ${again.now().beat}`);
  assert.equal(new CustodianTempo(clock, memory).hear(frame(159)), false);
});

test('a Pulse that crashed goes on behind what it had reserved, and custodians go with it', () => {
  let now = 1_000_000;
  const tempo = new CustodianTempo({ now: () => now, monotonic: () => now }, unknown);
  let index = 10;
  for (let crash = 0; crash < 4; crash++) {
    tempo.hear(frame(index));
    now += 5000;
    index += 5 + 24;
    tempo.hear(frame(index));
    assert.equal(tempo.now().beat, index);
  }
});

test('a cluster that was set to quicker beats is followed at once, by whoever has the same settings', () => {
  let now = 1_000_000;
  const clock = { now: () => now, monotonic: () => now };
  const memory = { beat: 100, atMs: now, bpm: 60 };
  const quick = (index: number) => ({ ...frame(index), tempo_bpm: 240 });
  const told = new CustodianTempo(clock, memory, 250);
  const untold = new CustodianTempo(clock, memory);
  for (const beat of [500, 900, 1300]) {
    now += 100_000;
    for (const tempo of [told, untold]) tempo.hear(quick(beat));
  }
  assert.equal(told.now().beat, 1300);
  assert.ok(untold.now().beat < 900, `beat ${untold.now().beat}`);
  told.hear(quick(9_000_000));
  assert.ok(told.now().beat <= 1500, `beat ${told.now().beat}`);
});

test('a custodian believes a quicker tempo by a tenth in a bar', () => {
  let now = 0;
  const tempo = new CustodianTempo({ now: () => now, monotonic: () => now }, unknown);
  tempo.hear(frame(10));
  let told = 10;
  for (let at = 0; at < 60; at++) {
    now += 1000;
    told += 100;
    tempo.hear({ ...frame(told), tempo_bpm: 1000 });
  }
  // A minute at 60 beats: a tenth more, and a tenth of that, and the beats that may come early.
  assert.ok(tempo.now().beat < 10 + 60 * 4, `beat ${tempo.now().beat}`);
});

test('time that a custodian slept has passed', () => {
  let [wall, monotonic] = [0, 0];
  const tempo = new CustodianTempo({ now: () => wall, monotonic: () => monotonic }, unknown);
  tempo.hear(frame(10));
  wall += 3_600_000;
  monotonic += 1000;
  tempo.hear(frame(3610));
  assert.equal(tempo.now().beat, 3610);
});
