import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { utf8 } from '../core/bytes.ts';
import type { Reply } from './answer.ts';
import { IdempotencyKeys } from './idempotency.ts';

async function* bodyOf(...parts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield utf8(part);
}

/** A write that reads its body and counts how often it happened. */
function writer() {
  const writes: string[] = [];
  const work = async (body: AsyncIterable<Uint8Array>): Promise<Reply> => {
    let text = '';
    for await (const chunk of body) text += Buffer.from(chunk).toString();
    writes.push(text);
    return { status: 201, message: `write ${writes.length}` };
  };
  return { writes, work };
}

const messageOf = (reply: Reply): string => ('message' in reply ? reply.message : '');

test('the same key and request twice is one write and one answer, however the body is cut', async () => {
  const keys = new IdempotencyKeys(() => 0);
  const { writes, work } = writer();
  const first = await keys.once('k', 'PUT /a', bodyOf('some', 'thing'), work);
  const again = await keys.once('k', 'PUT /a', bodyOf('so', 'mething'), work);
  assert.equal(again, first);
  assert.deepEqual(writes, ['something']);
});

test('without a key every request is a write', async () => {
  const keys = new IdempotencyKeys(() => 0);
  const { writes, work } = writer();
  for (let n = 0; n < 2; n++) await keys.once(undefined, 'PUT /a', bodyOf('x'), work);
  assert.equal(writes.length, 2);
});

describe('the same key with another request is refused', () => {
  for (const [name, facts, body] of [
    ['another body', 'PUT /a', 'other'],
    ['a longer body', 'PUT /a', 'x!'],
    ['another target', 'PUT /b', 'x'],
  ] as const)
    test(name, async () => {
      const keys = new IdempotencyKeys(() => 0);
      const { writes, work } = writer();
      await keys.once('k', 'PUT /a', bodyOf('x'), work);
      await assert.rejects(keys.once('k', facts, bodyOf(body), work), { code: 'IDEMPOTENCY_MISMATCH' });
      assert.equal(writes.length, 1);
    });
});

test('while the first is under way the second is asked to wait', async () => {
  const keys = new IdempotencyKeys(() => 0);
  const hold = Promise.withResolvers<void>();
  const first = keys.once('k', 'PUT /a', bodyOf('x'), async () => {
    await hold.promise;
    return { status: 201, message: 'first' };
  });
  const { writes, work } = writer();
  await assert.rejects(keys.once('k', 'PUT /a', bodyOf('x'), work), { code: 'RATE_LIMITED' });
  assert.equal(messageOf(await keys.once('other', 'PUT /a', bodyOf('x'), work)), 'write 1');
  hold.resolve();
  assert.equal(messageOf(await first), 'first');
  assert.equal(writes.length, 1);
});

test('a write that failed may be tried again under its key', async () => {
  const keys = new IdempotencyKeys(() => 0);
  await assert.rejects(
    keys.once('k', 'PUT /a', bodyOf('x'), async () => {
      throw new Error('no nodes');
    }),
    /no nodes/,
  );
  const { writes, work } = writer();
  await keys.once('k', 'PUT /a', bodyOf('x'), work);
  assert.equal(writes.length, 1);
});

test('an answer is remembered for an hour', async () => {
  let now = 0;
  const keys = new IdempotencyKeys(() => now);
  const { writes, work } = writer();
  await keys.once('k', 'PUT /a', bodyOf('x'), work);
  now = 3_600_000;
  await keys.once('k', 'PUT /a', bodyOf('x'), work);
  assert.equal(writes.length, 1);
  now++;
  await keys.once('k', 'PUT /a', bodyOf('x'), work);
  assert.equal(writes.length, 2);
});

test('a key of more than 256 characters is refused', async () => {
  const keys = new IdempotencyKeys(() => 0);
  await assert.rejects(keys.once('k'.repeat(257), '', bodyOf(), writer().work), { code: 'ARGUMENT_INVALID' });
});
