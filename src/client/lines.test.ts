import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { utf8 } from '../core/bytes.ts';
import { readEvents, readLines } from './lines.ts';

test('lines do not depend on how the bytes were cut', async () => {
  const line = fc
    .string({ unit: 'binary' })
    .filter((text) => text.isWellFormed() && !/[\r\n\uFEFF]/.test(text));
  await fc.assert(
    fc.asyncProperty(fc.array(line), fc.integer({ min: 1, max: 7 }), async (lines, size) => {
      const bytes = utf8(lines.map((each) => `${each}\n`).join(''));
      assert.deepEqual(await Array.fromAsync(readLines(pieces(bytes, size))), lines);
    }),
  );
});

test('a rest without an end is a line', async () => {
  assert.deepEqual(await Array.fromAsync(readLines(pieces(utf8('a\r\nb'), 1))), ['a', 'b']);
});

test('events carry id and data; comments and the unfinished last one are dropped', async () => {
  const text =
    'retry: 1000\n\n: here\n\nid: 7\nevent: version\ndata: {"a":\ndata: 1}\n\nid: 8\ndata: cut off';
  assert.deepEqual(await Array.fromAsync(readEvents(pieces(utf8(text), 3))), [
    { id: '7', event: 'version', data: '{"a":\n1}' },
  ]);
});

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}
