// Blocks that LevelDB compresses are what the tests of level-give.ts and level-check.ts read. Here: every kind of tag, and
// bytes that are none.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { unsnap } from './snappy.ts';

const text = 'abcdefghijklmnopqrstuvwxyz';

for (const [what, tags, expected] of [
  ['nothing', [0], ''],
  ['bytes as they are', [5, 4 << 2, ...bytes('abcde')], 'abcde'],
  [
    'many of them, with their number behind the tag',
    [70, 60 << 2, 69, ...bytes(text.repeat(3).slice(0, 70))],
    text.repeat(3).slice(0, 70),
  ],
  [
    'the same with a longer number',
    [70, 61 << 2, 69, 0, ...bytes(text.repeat(3).slice(0, 70))],
    text.repeat(3).slice(0, 70),
  ],
  ['a near copy', [9, 4 << 2, ...bytes('abcde'), 1, 5], 'abcdeabcd'],
  ['a copy of what it is writing', [12, 0, ...bytes('a'), (10 << 2) | 2, 1, 0], 'a'.repeat(12)],
  ['the same with three bytes', [12, 2 << 2, ...bytes('abc'), (8 << 2) | 2, 3, 0], 'abc'.repeat(4)],
  ['the same with five bytes', [15, 4 << 2, ...bytes('abcde'), (9 << 2) | 2, 5, 0], 'abcde'.repeat(3)],
  [
    'a copy of seven bytes and of eight, over and over',
    [40, 6 << 2, ...bytes('abcdefg'), (14 << 2) | 2, 7, 0, 7 << 2, ...bytes('ABCDEFGH'), (9 << 2) | 2, 8, 0],
    'abcdefgabcdefgabcdefgaABCDEFGHABCDEFGHAB',
  ],
  [
    'more bytes than are moved one by one, and then the last few',
    [...size(203), 60 << 2, 199, ...bytes('y'.repeat(200)), 2 << 2, ...bytes('abc')],
    `${'y'.repeat(200)}abc`,
  ],
  ['a copy with four bytes of distance', [8, 3 << 2, ...bytes('abcd'), (3 << 2) | 3, 4, 0, 0, 0], 'abcdabcd'],
  [
    'a copy from far behind',
    [...size(304), 61 << 2, 43, 1, ...bytes('x'.repeat(300)), 0x21, 44],
    'x'.repeat(304),
  ],
] as const)
  it(`gives ${what}`, () => {
    assert.equal(Buffer.from(unsnap(Uint8Array.from(tags))).toString(), expected);
  });

for (const [what, tags] of [
  ['has no size', []],
  ['has a size without end', [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
  ['claims more than it can hold', [0xff, 0xff, 0xff, 0x7f, 0]],
  ['ends before its size', [9, 4 << 2, ...bytes('abcde')]],
  ['gives more than its size', [4, 4 << 2, ...bytes('abcde')]],
  ['ends in the middle of bytes', [5, 4 << 2, ...bytes('abcd')]],
  ['ends in the middle of a tag', [9, 4 << 2, ...bytes('abcde'), 1]],
  ['copies what is not there', [9, 4 << 2, ...bytes('abcde'), 1, 6]],
  ['copies from nowhere', [9, 4 << 2, ...bytes('abcde'), 1, 0]],
] as const)
  it(`refuses what ${what}`, () => {
    assert.throws(() => unsnap(Uint8Array.from(tags)), RangeError);
  });

it('ends with bytes or a RangeError, whatever it is given', () =>
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (input) => {
      try {
        assert(unsnap(input).length <= 64 * input.length);
      } catch (error) {
        assert(error instanceof RangeError);
        assert.match(error.message, /does not decompress/);
      }
    }),
    { numRuns: 2000 },
  ));

function bytes(of: string): number[] {
  return [...Buffer.from(of)];
}

function size(value: number): number[] {
  return [(value & 0x7f) | 0x80, value >>> 7];
}
