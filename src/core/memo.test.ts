import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Memo } from './memo.ts';

test('the same bytes are made something of once, others anew, failures each time; no more than `max` are kept', () => {
  const memo = new Memo<object>(2);
  let made = 0;
  const of = (...bytes: number[]): object => memo.of(Uint8Array.from(bytes), () => ({ number: ++made }));
  assert.equal(of(1, 2), of(1, 2));
  assert.notEqual(of(1, 2), of(2, 1));
  assert.equal(made, 2);
  for (let times = 0; times < 2; times++)
    assert.throws(
      () =>
        memo.of(Uint8Array.of(200), () => {
          throw new RangeError(`${++made}`);
        }),
      { message: String(3 + times) },
    );
  of(128); // a third one: those before are forgotten
  assert.notEqual(of(128), of(200), 'bytes beyond ASCII are told apart');
  assert.equal(made, 6);
  of(1, 2);
  assert.equal(made, 7);
});

test('texts are told apart as wholes', () => {
  const memo = new Memo<string>(2);
  for (const text of [
    '',
    'a domain with many words',
    'a domain with many words more',
    'a domain with many words',
  ])
    assert.equal(
      memo.of(text, () => text),
      text,
    );
});
