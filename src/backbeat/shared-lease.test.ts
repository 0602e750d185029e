import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { natsSkip, natsStore, type NatsServer, startNats } from '../../test/support/nats-server.ts';
import { assertSchema } from '../../test/support/backbeat-schemas.ts';
import { type BeatFrame, encodeBeat } from './beat.ts';
import { type BackbeatBus, backbeatBus } from './bus.ts';
import { LocalChannel } from './channel.ts';
import type { LeaseEntry, LeaseRecord, LeaseRegister } from './lease.ts';
import { NatsChannel } from './nats.ts';
import { Pulse } from './pulse.ts';
import { SharedLease, type SharedLeaseOptions } from './shared-lease.ts';
import { subjectsOf } from './subjects.ts';
import { TempoFollower } from './tempo-follower.ts';
import type { Beat } from './tempo.ts';

const skip = await natsSkip();
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));
const timing = { ttlMs: 900, everyMs: 100 };
/** For tests in which nobody may lose a lease, however busy the machine is. */
const patient = { ttlMs: 4000, everyMs: 100 };
const clusterId = 'two-pulses';

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
}

class MemoryRegister implements LeaseRegister {
  entry: LeaseEntry | undefined;
  isReachable = true;
  isAnswerLost = false;

  async read(): Promise<LeaseEntry | undefined> {
    if (!this.isReachable) throw new Error('cut off');
    return this.entry;
  }

  async write(record: LeaseRecord, expected: number): Promise<number | undefined> {
    if (!this.isReachable) throw new Error('cut off');
    if ((this.entry?.revision ?? 0) !== expected) return undefined;
    this.entry = { record, revision: expected + 1 };
    if (this.isAnswerLost) throw new Error('no answer');
    return expected + 1;
  }
}

interface Station {
  readonly pulse: Pulse;
  readonly lease: SharedLease;
  /** Ends it as a kill would: nothing is given back. */
  kill(): void;
}

function station(
  t: TestContext,
  bus: BackbeatBus,
  register: LeaseRegister,
  more: Partial<SharedLeaseOptions> = {},
): Station {
  let isKilled = false;
  const guarded: LeaseRegister = {
    read: async () => register.read(),
    write: async (record, expected) => {
      if (isKilled) throw new Error('killed');
      return register.write(record, expected);
    },
  };
  const lease = new SharedLease({ register: guarded, clock, random, timing, reserve: 30, ...more });
  const pulse = new Pulse({ clusterId, tempoBpm: 1000, barBeats: 8, bus, lease, clock, random });
  const kill = (): void => {
    isKilled = true;
    pulse[Symbol.dispose]();
  };
  t.after(async () => {
    kill();
    await lease[Symbol.asyncDispose]();
  });
  return { pulse, lease, kill };
}

function followed(
  t: TestContext,
  bus: BackbeatBus,
): { readonly beats: Beat[]; readonly tempo: TempoFollower } {
  const beats: Beat[] = [];
  const tempo = new TempoFollower({ bus, clusterId, defaultTempoBpm: 1000, clock });
  t.after(() => tempo[Symbol.dispose]());
  tempo.onBeat((beat) => {
    if (beat.source === 'pulse') beats.push(beat);
  });
  return { beats, tempo };
}

const indexOf = ({ frame }: Beat): number => frame.beat_index;
const tokenOf = ({ frame }: Beat): unknown => frame.metadata?.['fencing_token'];

function assertOneCount(beats: readonly Beat[]): void {
  const indexes = beats.map(indexOf);
  assert.deepEqual(
    indexes,
    [...new Set(indexes)].sort((a, b) => a - b),
    'each index once, rising',
  );
  const tokens = beats.map((beat) => Number(tokenOf(beat)));
  assert.deepEqual(
    tokens,
    tokens.toSorted((a, b) => a - b),
    'no token goes back',
  );
  for (const { frame } of beats) assertSchema('beat', encodeBeat(frame));
}

test('the first one begins with the count of a Pulse that was alone; giving back hands over at once', async (t) => {
  const bus = backbeatBus(new LocalChannel(0));
  const register = new MemoryRegister();
  const { beats } = followed(t, bus);
  const seed = { epoch: new Uint8Array(32).fill(4), nextIndex: 500 };
  const a = station(t, bus, register, { seed, timing: patient });
  await until(() => beats.length >= 3);
  assert.equal(indexOf(beats[0] ?? assert.fail()), 500);
  const b = station(t, bus, register, { timing: patient });
  a.pulse[Symbol.dispose]();
  await a.lease[Symbol.asyncDispose]();
  const last = indexOf(beats.at(-1) ?? assert.fail());
  await until(() => b.pulse.isLeading && tokenOf(beats.at(-1) ?? assert.fail()) === 2);
  assert.equal(
    beats.map(indexOf).find((index) => index > last),
    last + 1,
    'no index is skipped',
  );
  assertOneCount(beats);
});

test('cut off from the register, a leader stops by itself before another one begins', async (t) => {
  const bus = backbeatBus(new LocalChannel(0));
  const register = new MemoryRegister();
  const own = new MemoryRegister();
  const { beats } = followed(t, bus);
  const link: LeaseRegister = {
    read: async () => {
      await own.read();
      return register.read();
    },
    write: async (record, expected) => {
      await own.read();
      return register.write(record, expected);
    },
  };
  const a = station(t, bus, link);
  await until(() => a.pulse.isLeading);
  const b = station(t, bus, register);
  own.isReachable = false;
  await until(() => {
    assert.ok(!(a.pulse.isLeading && b.pulse.isLeading), 'never both');
    return b.pulse.isLeading;
  });
  own.isReachable = true;
  await until(() => beats.filter((beat) => tokenOf(beat) === 2).length >= 5);
  assert.equal(a.pulse.isLeading, false);
  assertOneCount(beats);
});

test('a renewal whose answer is lost costs nothing, and a register that is lost is written anew', async (t) => {
  const bus = backbeatBus(new LocalChannel(0));
  const register = new MemoryRegister();
  const { beats } = followed(t, bus);
  const a = station(t, bus, register, { timing: patient });
  await until(() => a.pulse.isLeading);
  register.isAnswerLost = true;
  const revision = register.entry?.revision ?? 0;
  await until(() => (register.entry?.revision ?? 0) > revision);
  register.isAnswerLost = false;
  await until(() => (register.entry?.revision ?? 0) > revision + 1);
  register.entry = undefined;
  await until(() => register.entry !== undefined);
  assert.equal(a.pulse.isLeading, true);
  assert.ok(beats.every((beat) => tokenOf(beat) === 1));
  assertOneCount(beats);
});

async function openChannel(t: TestContext, server: NatsServer): Promise<NatsChannel> {
  const servers = [server.url];
  const channel = new NatsChannel({
    servers,
    clusterId,
    subjects: subjectsOf(clusterId),
    name: 'test',
    clock,
  });
  t.after(() => channel[Symbol.asyncDispose]());
  await until(() => channel.state().connected);
  return channel;
}

test('over NATS: killed, frozen with a frame in its hands, back again: one count goes on', {
  skip,
}, async (t) => {
  const server = await startNats(t, { storeDir: await natsStore(t) });
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => openChannel(t, server)));
  assert(one !== undefined && two !== undefined && three !== undefined);
  const { beats, tempo } = followed(t, backbeatBus(three));
  const first = backbeatBus(one);
  const a = station(t, first, one);
  await until(() => beats.length >= 3);
  const b = station(t, backbeatBus(two), two);
  a.kill();
  const stale: BeatFrame = { ...(beats.at(-1) ?? assert.fail()).frame };
  await until(() => {
    assert.ok(!(a.pulse.isLeading && b.pulse.isLeading));
    return tokenOf(beats.at(-1) ?? assert.fail()) === 2;
  });
  first.publishBeat({ ...stale, beat_index: stale.beat_index + 100_000 });
  await until(() => tempo.counters().fenced === 1);
  const again = station(t, first, one);
  const count = beats.length;
  await until(() => beats.length > count + 20);
  assert.equal(again.pulse.isLeading, false, 'the one that came back waits');
  assertOneCount(beats);
  const window = new Set(beats.map(({ frame }) => frame.window_id));
  assert.equal(window.size, new Set(beats.map((beat) => Math.floor(indexOf(beat) / 8))).size);
});
