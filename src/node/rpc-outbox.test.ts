import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { emptyBytes, type Frame, frameBytes, frameTypes } from './rpc-frames.ts';
import { Outbox } from './rpc-outbox.ts';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

function frameOf(id: number, bodyBytes: number): Frame {
  return { type: frameTypes.request, id, head: emptyBytes, body: new Uint8Array(bodyBytes).fill(id) };
}

/** An outbox on a stream that is full after `writesBeforeFull` writes, until it is drained. */
function outboxOn(write: (bytes: Uint8Array) => boolean): Outbox {
  return new Outbox({ write, flushing: () => undefined, failed: assert.fail });
}

test('frames leave in the order they came, urgent ones first', async () => {
  const written: Uint8Array[] = [];
  const outbox = outboxOn((bytes) => written.push(bytes) > 0);
  const frames = [frameOf(1, 10), frameOf(2, 100_000), frameOf(3, 10)];
  for (const frame of frames) outbox.push(frame);
  const urgent = frameOf(4, 0);
  outbox.pushUrgent(urgent);
  await turn();
  assert.deepEqual(Buffer.concat(written), Buffer.concat([urgent, ...frames].map(frameBytes)));
});

test('a frame that was written is not held, though the stream is always full and others wait behind it', async () => {
  const outbox = outboxOn(() => false);
  const bodies: WeakRef<Uint8Array>[] = [];
  const push = (id: number): void => {
    const frame = frameOf(id, 65_536);
    bodies.push(new WeakRef(frame.body));
    outbox.push(frame);
  };
  let id = 0;
  while (id < 8) push(id++);
  // As with a large upload: the queue never runs empty, one frame goes at every drain.
  for (; id < 500; id++) {
    push(id);
    outbox.drained();
    await turn();
  }
  collectGarbage();
  await turn();
  collectGarbage();
  const held = bodies.filter((body) => body.deref() !== undefined).length;
  assert.ok(held <= 16, `${held} of ${id} bodies are held, at most 9 wait`);
});

test('whenever the stream is full, every byte is written once and every callback called once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(0, 1, 3000, 32_768, 40_000), { maxLength: 60 }),
      fc.infiniteStream(fc.boolean()),
      async (sizes, room) => {
        const written: Uint8Array[] = [];
        const outbox = outboxOn((bytes) => {
          written.push(bytes.slice());
          return room.next().value;
        });
        const frames = sizes.map((size, index) => frameOf(index, size));
        const called: number[] = [];
        for (const frame of frames) outbox.push(frame, () => called.push(frame.id));
        while (called.length < frames.length) {
          await turn();
          outbox.drained();
        }
        assert.deepEqual(Buffer.concat(written), Buffer.concat(frames.map(frameBytes)));
        assert.deepEqual(
          called,
          frames.map(({ id: each }) => each),
        );
      },
    ),
    { numRuns: 50 },
  );
});
