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
  const tempo = new CustodianTempo({ now: () => now, monotonic: () => now }, 0);
  assert.equal(tempo.hear(frame(10)), true);
  assert.equal(tempo.hear(frame(10)), false);
  now = 1000;
  assert.equal(tempo.hear(frame(9_000_000, true)), true);
  assert.ok(tempo.now().beat <= 11, 'time has not jumped');
  assert.equal(tempo.hear(frame(11)), true, 'and the next beat of Pulse is not old news');
});
