import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sayNowAndThen } from './say-seldom.ts';

test('the same trouble is told once a minute, another one at once', () => {
  const told: string[] = [];
  let ms = 0;
  const tell = sayNowAndThen('door', { now: () => ms, say: (text) => told.push(text) });
  for (; ms < 60_000; ms += 1000) tell(new Error('away'));
  assert.deepEqual(told, ['door: away']);
  tell(new Error('away'));
  assert.deepEqual(told, ['door: away', 'door: away']);
  ms += 1000;
  tell(new Error('refused'));
  tell(new Error('refused'));
  tell(new Error('away'));
  assert.deepEqual(told.slice(2), ['door: refused', 'door: away']);
});
