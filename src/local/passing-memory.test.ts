import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cachedDataVersionTag } from 'node:v8';
import { keepPassingMemorySmall } from './passing-memory.ts';

test('compiled code that others have kept is still good in a process that watches its memory', () => {
  const before = cachedDataVersionTag();
  using _memory = keepPassingMemorySmall();
  assert.equal(cachedDataVersionTag(), before);
});
