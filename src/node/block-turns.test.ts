import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { keyOfCid } from './block-key.ts';
import { BlockTurns, Operations } from './block-turns.ts';

const [one, other] = ['one', 'other'].map((text) => keyOfCid(rawBlock(utf8(text)).cid)) as [
  Uint8Array,
  Uint8Array,
];

/** Lets everything run that waits for nothing but a turn. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('whoever works alone waits for those under way, and holds back those who come', async () => {
  const operations = new Operations();
  const told: string[] = [];
  const first = Promise.withResolvers<void>();
  const alone = Promise.withResolvers<void>();
  const running = [
    operations.run(() => first.promise),
    operations.alone(async () => {
      told.push('alone');
      await alone.promise;
    }),
    operations.run(async () => void told.push('later')),
  ];
  await settle();
  assert.deepEqual(told, []);
  first.resolve();
  await settle();
  assert.deepEqual(told, ['alone']);
  alone.resolve();
  await Promise.all(running);
  assert.deepEqual(told, ['alone', 'later']);
});

test('those who wait are let in also when the work alone has failed', async () => {
  const operations = new Operations();
  const alone = operations.alone(() => Promise.reject(new Error('no disk')));
  const later = operations.run(async () => 'in');
  await assert.rejects(alone, /no disk/);
  assert.equal(await later, 'in');
});

test('after closing none begins, and what is under way can be waited for', async () => {
  const operations = new Operations();
  const work = Promise.withResolvers<string>();
  const running = operations.run(() => work.promise);
  operations.close();
  assert(operations.isClosed);
  await assert.rejects(
    operations.run(async () => undefined),
    { code: 'INTERNAL' },
  );
  let isSettled = false;
  const settled = operations.settled().then(() => (isSettled = true));
  await settle();
  assert(!isSettled);
  work.resolve('done');
  assert.equal(await running, 'done');
  await settled;
});

test('turns of one block follow each other, well or not; another block does not wait', async () => {
  const turns = new BlockTurns();
  const told: string[] = [];
  const gate = Promise.withResolvers<void>();
  const failing = turns.take(one, async () => {
    await gate.promise;
    throw new Error('no disk');
  });
  const next = turns.take(one, async () => told.push('next'));
  await turns.take(other, async () => told.push('other'));
  await settle();
  assert.deepEqual(told, ['other']);
  gate.resolve();
  await assert.rejects(failing, /no disk/);
  await next;
  assert.deepEqual(told, ['other', 'next']);
});
