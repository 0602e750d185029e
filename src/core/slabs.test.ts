import assert from 'node:assert/strict';
import { test } from 'node:test';
import { segmentBytes } from './limits.ts';
import { Slabs } from './slabs.ts';

test('a slab that was given back is lent again, by any part of it, and only once', () => {
  const slabs = new Slabs(2);
  const first = slabs.take(segmentBytes);
  assert.equal(first.length, segmentBytes);
  const second = slabs.take(100_000);
  assert.notEqual(second.buffer, first.buffer);
  slabs.give(first.subarray(36));
  slabs.give(first);
  const third = slabs.take(70_000);
  assert.equal(third.buffer, first.buffer);
  assert.notEqual(slabs.take(70_000).buffer, first.buffer);
});

test('what does not fit has memory of its own, and what was never lent is not taken in', () => {
  const slabs = new Slabs(2);
  for (const length of [0, 1000, 2 * segmentBytes]) {
    const bytes = slabs.take(length);
    assert.equal(bytes.buffer.byteLength, length);
    slabs.give(bytes);
    assert.notEqual(slabs.take(length).buffer, bytes.buffer);
  }
  const foreign = new Uint8Array(segmentBytes + 64);
  slabs.give(foreign);
  assert.notEqual(slabs.take(segmentBytes).buffer, foreign.buffer);
});

test('no more are kept than was said', () => {
  const slabs = new Slabs(1);
  const [first, second] = [slabs.take(segmentBytes), slabs.take(segmentBytes)];
  slabs.give(first);
  slabs.give(second);
  assert.equal(slabs.take(segmentBytes).buffer, first.buffer);
  assert.notEqual(slabs.take(segmentBytes).buffer, second.buffer);
});

test('none is kept that was free when all were let go of', () => {
  const slabs = new Slabs(2);
  const first = slabs.take(segmentBytes);
  slabs.give(first);
  slabs.clear();
  const second = slabs.take(segmentBytes);
  assert.notEqual(second.buffer, first.buffer);
  slabs.give(second);
  assert.equal(slabs.take(segmentBytes).buffer, second.buffer);
});
