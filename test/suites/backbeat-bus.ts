// What every channel of BACKBEAT messages must do, run on the embedded one and on NATS alike.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type BarReport, barReportType } from '../../src/backbeat/bar-report.ts';
import { type BeatFrame, beatFrameType } from '../../src/backbeat/beat.ts';
import { type BackbeatBus, backbeatBus } from '../../src/backbeat/bus.ts';
import type { Channel, ChannelMessage } from '../../src/backbeat/channel.ts';
import { type StatusClaim, statusClaimType } from '../../src/backbeat/status-claim.ts';
import type { MessageKind } from '../../src/backbeat/subjects.ts';
import { toHex } from '../../src/core/bytes.ts';
import { signerFromSeed } from '../../src/core/hash.ts';
import { assertSchema } from '../support/backbeat-schemas.ts';

/** Opens channels to one medium of the test; `count` of them, which may be one and the same. */
export type OpenChannels = (t: TestContext, count: number) => Promise<Channel[]>;

const frame: BeatFrame = {
  type: beatFrameType,
  cluster_id: 'suite',
  beat_index: 7,
  downbeat: true,
  phase: 'plan',
  hlc: '7ffd:0001:beef',
  deadline_at: '2026-11-22T19:00:00.250Z',
  tempo_bpm: 2.3,
  window_id: '0123456789abcdef0123456789abcdef',
  metadata: { pulse_version: 'test', expected_agents: 2 },
};
const claim: StatusClaim = {
  type: statusClaimType,
  agent_id: 'holdfast:steward-1',
  task_id: 'heal',
  beat_index: 7,
  state: 'executing',
  beats_left: 3,
  progress: 0.25,
  notes: 'vier Blöcke – 🫀',
  hlc: '7ffd:0002:beef',
};
const report: BarReport = {
  type: barReportType,
  window_id: frame.window_id,
  from_beat: 0,
  to_beat: 7,
  agents_reporting: 3,
  on_time_reviews: 2,
  help_promises_fulfilled: 1,
  secret_rotations_ok: true,
  tempo_drift_ms: -1.5,
};

/** Registers the suite under `name`; `skip` is for media that are not there. */
export function backbeatBusSuite(name: string, open: OpenChannels, skip: string | false = false): void {
  test(`${name}: each kind arrives as it was sent, at the sender too, and satisfies its schema`, {
    skip,
  }, async (t) => {
    const [first, second] = await open(t, 2);
    assert(first !== undefined && second !== undefined);
    const [sender, receiver] = [backbeatBus(first), backbeatBus(second)];
    const raw = new Inbox<{ kind: MessageKind; message: ChannelMessage }>();
    for (const kind of ['beat', 'status', 'report'] as const)
      second.subscribe(kind, (message) => raw.take({ kind, message }));
    for (const bus of [sender, receiver]) {
      const heard = new Inbox<BeatFrame | StatusClaim | BarReport>();
      const stops = [
        bus.onBeat((message) => heard.take(message)),
        bus.onClaim((message) => heard.take(message)),
        bus.onReport((message) => heard.take(message)),
      ];
      await untilHeard(first, bus);
      heard.clear();
      sender.publishBeat(frame);
      sender.publishClaim(claim);
      sender.publishReport(report);
      assert.deepEqual(sorted(await heard.next(3)), sorted([frame, claim, report]));
      for (const stop of stops) stop();
    }
    const sent = await raw.next(6);
    for (const { kind, message } of sent) assertSchema(kind, message.text);
  });

  test(`${name}: a burst arrives whole and in order`, { skip }, async (t) => {
    const [first, second] = await open(t, 2);
    assert(first !== undefined && second !== undefined);
    const receiver = backbeatBus(second);
    const heard = new Inbox<number>();
    receiver.onClaim(({ beat_index }) => heard.take(beat_index));
    await untilHeard(first, receiver);
    heard.clear();
    const sender = backbeatBus(first);
    for (let index = 0; index < 500; index++) sender.publishClaim({ ...claim, beat_index: index });
    assert.deepEqual(
      await heard.next(500),
      Array.from({ length: 500 }, (_, index) => index),
    );
  });

  test(`${name}: lenient input is mapped and counted, nonsense is counted and harms nobody`, {
    skip,
  }, async (t) => {
    const [first, second] = await open(t, 2);
    assert(first !== undefined && second !== undefined);
    const receiver = backbeatBus(second);
    const heard = new Inbox<StatusClaim>();
    receiver.onClaim((message) => heard.take(message));
    await untilHeard(first, receiver);
    heard.clear();
    const before = receiver.status().counters.status;
    const send = (text: string): void => first.publish('status', { text, headers: {} });
    send('{');
    send(JSON.stringify({ ...claim, beat_index: -1 }));
    send(JSON.stringify({ ...claim, state: 'waiting', progress: 45, notes: 'n'.repeat(300), colour: 'red' }));
    const [mapped] = await heard.next(1);
    assert.equal(mapped?.state, 'blocked');
    assert.equal(mapped?.progress, 1);
    assert.equal(mapped?.notes?.length, 256);
    assert.deepEqual(mapped?.metadata, { colour: 'red' });
    const after = receiver.status().counters.status;
    assert.equal(after.refused - before.refused, 2);
    assert.deepEqual(
      [after['state-mapped'], after['number-clamped'], after['notes-cut'], after['extra-field']],
      [1, 1, 1, 1],
    );
  });

  test(`${name}: a signed message tells its key; one that was changed is not heard`, { skip }, async (t) => {
    const [first, second] = await open(t, 2);
    assert(first !== undefined && second !== undefined);
    const signer = signerFromSeed(new Uint8Array(32).fill(7));
    const receiver = backbeatBus(second);
    const heard = new Inbox<string | undefined>();
    receiver.onClaim((_, { key }) => heard.take(key));
    const caught = new Inbox<ChannelMessage>();
    second.subscribe('status', (message) => caught.take(message));
    await untilHeard(first, receiver);
    heard.clear();
    caught.clear();
    backbeatBus(first, { signer }).publishClaim(claim);
    assert.deepEqual(await heard.next(1), [toHex(signer.publicKey)]);
    const [message] = await caught.next(1);
    assert(message !== undefined);
    first.publish('status', { ...message, text: message.text.replace('executing', 'completed') });
    first.publish('status', {
      ...message,
      headers: { 'Backbeat-Key': message.headers['Backbeat-Key'] ?? '' },
    });
    backbeatBus(first).publishClaim(claim);
    assert.deepEqual(await heard.next(1), [undefined]);
    assert.equal(receiver.status().counters.status.forged, 2);
  });

  test(`${name}: what breaks the schema is not sent`, { skip }, async (t) => {
    const [channel] = await open(t, 1);
    assert(channel !== undefined);
    const bus = backbeatBus(channel);
    assert.throws(() => bus.publishBeat({ ...frame, cluster_id: 'a b' }), /cluster_id/);
    assert.throws(() => bus.publishClaim({ ...claim, progress: 2 }), /number-clamped/);
    assert.throws(() => bus.publishReport({ ...report, to_beat: -1 }), /to_beat/);
  });
}

/** Sends claims until one is heard: subscriptions of a network take effect at some time. */
async function untilHeard(from: Channel, by: BackbeatBus): Promise<void> {
  const heard = new Inbox<true>();
  const stop = by.onClaim(({ task_id }) => {
    if (task_id === 'are-you-there') heard.take(true);
  });
  const asking = setInterval(
    () => backbeatBus(from).publishClaim({ ...claim, task_id: 'are-you-there' }),
    20,
  );
  backbeatBus(from).publishClaim({ ...claim, task_id: 'are-you-there' });
  await heard.next(1);
  clearInterval(asking);
  // One more, sent last: when it is there, nothing of the asking is under way any more.
  const last = new Inbox<true>();
  const stopLast = by.onClaim(({ task_id }) => {
    if (task_id === 'last') last.take(true);
  });
  backbeatBus(from).publishClaim({ ...claim, task_id: 'last' });
  await last.next(1);
  stop();
  stopLast();
}

/** What came, in order, to be waited for. */
class Inbox<Item> {
  #items: Item[] = [];
  #wake: () => void = () => undefined;

  take(item: Item): void {
    this.#items.push(item);
    this.#wake();
  }

  clear(): void {
    this.#items = [];
  }

  async next(count: number): Promise<Item[]> {
    while (this.#items.length < count)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#items.splice(0, count);
  }
}

function sorted<Message extends { readonly type: string }>(messages: readonly Message[]): Message[] {
  return messages.toSorted((a, b) => (a.type < b.type ? -1 : 1));
}
