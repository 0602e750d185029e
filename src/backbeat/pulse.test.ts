import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { encodeBeat } from './beat.ts';
import { backbeatBus } from './bus.ts';
import { LocalChannel } from './channel.ts';
import { pulseFile } from './pulse-file.ts';
import { Pulse } from './pulse.ts';
import { type PulseStore, SoleLease } from './sole-lease.ts';
import { TempoFollower } from './tempo-follower.ts';
import type { Beat } from './tempo.ts';

const clock = { now: () => Date.now(), monotonic: () => performance.now() };

interface Bench {
  readonly path: string;
  readonly damaged: unknown[];
  readonly store: PulseStore;
  start(store?: PulseStore, reserve?: number): Promise<Running>;
}

interface Running extends AsyncDisposable {
  readonly tempo: TempoFollower;
  readonly pulse: Pulse;
}

async function benchIn(t: TestContext): Promise<Bench> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-pulse-'));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, 'pulse');
  const damaged: unknown[] = [];
  let seed = 0;
  const random = (count: number): Uint8Array => new Uint8Array(count).fill(++seed);
  const store = pulseFile(path, (error) => damaged.push(error));
  const start = async (used = store, reserve = 256): Promise<Running> => {
    const bus = backbeatBus(new LocalChannel(Date.now()));
    const lease = await SoleLease.open({ store: used, random, reserve });
    const tempo = new TempoFollower({ bus, clusterId: 'c', defaultTempoBpm: 1000, clock });
    const pulse = new Pulse({ clusterId: 'c', tempoBpm: 1000, barBeats: 4, bus, lease, clock, random });
    const stop = async (): Promise<void> => {
      pulse[Symbol.dispose]();
      tempo[Symbol.dispose]();
      await lease[Symbol.asyncDispose]();
    };
    return { tempo, pulse, [Symbol.asyncDispose]: stop };
  };
  return { path, damaged, store, start };
}

/** The next `count` beats. */
async function hear({ tempo }: Running, count: number): Promise<Beat[]> {
  const beats: Beat[] = [];
  await new Promise<void>((resolve) => {
    const stop = tempo.onBeat((beat) => {
      beats.push(beat);
      if (beats.length < count) return;
      stop();
      resolve();
    });
  });
  return beats;
}

test('beats rise, bars have their window, an orderly restart goes on with the next index', async (t) => {
  const bench = await benchIn(t);
  const first = await bench.start();
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
  const next = first.tempo.current().beat?.frame.beat_index ?? 0;
  const second = await bench.start();
  const [again] = await hear(second, 1);
  assert.equal(again?.frame.beat_index, next + 1);
  assert.equal(second.tempo.current().state, 'locked');
  await second[Symbol.asyncDispose]();
});

test('after a kill no index is used twice', async (t) => {
  const bench = await benchIn(t);
  const { path } = bench;
  const first = await bench.start();
  const beats = await hear(first, 3);
  const killed = await readFile(path); // what a kill -9 would leave
  await first[Symbol.asyncDispose]();
  await writeFile(path, killed);
  const second = await bench.start();
  const [again] = await hear(second, 1);
  await second[Symbol.asyncDispose]();
  assert.ok((again?.frame.beat_index ?? 0) > (beats.at(-1)?.frame.beat_index ?? 0));
});

test('a damaged record is said and begins a new count with other windows', async (t) => {
  const bench = await benchIn(t);
  const { path, damaged } = bench;
  const first = await bench.start();
  const [before] = await hear(first, 1);
  await first[Symbol.asyncDispose]();
  const bytes = await readFile(path);
  bytes[30] = (bytes[30] ?? 0) ^ 1;
  await writeFile(path, bytes);
  const second = await bench.start();
  const [after] = await hear(second, 1);
  await second[Symbol.asyncDispose]();
  assert.equal(damaged.length, 1);
  assert.equal(after?.frame.beat_index, 0);
  assert.notEqual(after?.frame.window_id, before?.frame.window_id);
});

test('a record that cannot be written: what is reserved is used, then local beats, then the count goes on', async (t) => {
  const bench = await benchIn(t);
  let isBroken = false;
  let record: Awaited<ReturnType<PulseStore['read']>> = { epoch: new Uint8Array(32), nextIndex: 0 };
  const fragile: PulseStore = {
    read: async () => record,
    write: async (next) => {
      if (isBroken) throw new Error('disk full');
      record = next;
    },
  };
  const running = await bench.start(fragile, 4);
  isBroken = true;
  const told: Beat[] = [];
  await new Promise<void>((resolve) => {
    running.tempo.onBeat((beat) => {
      told.push(beat);
      if (beat.source === 'local') isBroken = false;
      if (!isBroken && beat.source === 'pulse' && beat.frame.beat_index >= 4) resolve();
    });
  });
  await running[Symbol.asyncDispose]();
  const heard = told.filter((beat) => beat.source === 'pulse').map((beat) => beat.frame.beat_index);
  assert.deepEqual(
    heard,
    [...heard].sort((a, b) => a - b),
  );
  assert.equal(new Set(heard).size, heard.length);
  assert.ok(told.some((beat) => beat.source === 'local'));
});
