import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { encodeBeat } from './beat.ts';
import { pulseFile } from './pulse-file.ts';
import { Pulse, type PulseOptions } from './pulse.ts';
import type { Beat } from './tempo.ts';

const clock = { now: () => Date.now(), monotonic: () => performance.now() };

async function optionsIn(
  t: TestContext,
): Promise<{ options: PulseOptions; path: string; damaged: unknown[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-pulse-'));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, 'pulse');
  const damaged: unknown[] = [];
  let seed = 0;
  const random = (count: number): Uint8Array => new Uint8Array(count).fill(++seed);
  const store = pulseFile(path, (error) => damaged.push(error));
  return { options: { clusterId: 'c', tempoBpm: 1000, barBeats: 4, store, clock, random }, path, damaged };
}

/** The next `count` beats. */
async function hear(pulse: Pulse, count: number): Promise<Beat[]> {
  const beats: Beat[] = [];
  await new Promise<void>((resolve) => {
    const stop = pulse.onBeat((beat) => {
      beats.push(beat);
      if (beats.length < count) return;
      stop();
      resolve();
    });
  });
  return beats;
}

test('beats rise, bars have their window, an orderly restart goes on with the next index', async (t) => {
  const { options } = await optionsIn(t);
  const first = await Pulse.start(options);
  const beats = await hear(first, 6);
  await first[Symbol.asyncDispose]();
  const indexes = beats.map((beat) => beat.frame.beat_index);
  assert.deepEqual(indexes, [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(
    beats.map((beat) => beat.downbeat),
    [true, false, false, false, true, false],
  );
  assert.equal(new Set(beats.map((beat) => beat.frame.window_id)).size, 2);
  for (const beat of beats) encodeBeat(beat.frame);
  const next = first.current().beat?.frame.beat_index ?? 0;
  const second = await Pulse.start(options);
  const [again] = await hear(second, 1);
  assert.equal(again?.frame.beat_index, next + 1);
  assert.equal(second.current().state, 'locked');
  await second[Symbol.asyncDispose]();
});

test('after a kill no index is used twice', async (t) => {
  const { options, path } = await optionsIn(t);
  const first = await Pulse.start(options);
  const beats = await hear(first, 3);
  const killed = await readFile(path); // what a kill -9 would leave
  await first[Symbol.asyncDispose]();
  await writeFile(path, killed);
  const second = await Pulse.start(options);
  const [again] = await hear(second, 1);
  await second[Symbol.asyncDispose]();
  assert.ok((again?.frame.beat_index ?? 0) > (beats.at(-1)?.frame.beat_index ?? 0));
});

test('a damaged record is said and begins a new count with other windows', async (t) => {
  const { options, path, damaged } = await optionsIn(t);
  const first = await Pulse.start(options);
  const [before] = await hear(first, 1);
  await first[Symbol.asyncDispose]();
  const bytes = await readFile(path);
  bytes[30] = (bytes[30] ?? 0) ^ 1;
  await writeFile(path, bytes);
  const second = await Pulse.start(options);
  const [after] = await hear(second, 1);
  await second[Symbol.asyncDispose]();
  assert.equal(damaged.length, 1);
  assert.equal(after?.frame.beat_index, 0);
  assert.notEqual(after?.frame.window_id, before?.frame.window_id);
});
