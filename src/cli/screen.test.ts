import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { bytesText, durationText, progressLine, Screen, table } from './screen.ts';

test('bytes and durations read as people say them', () => {
  assert.deepEqual([0, 1023, 1024, 1_572_864, 200 * 1024 * 1024].map(bytesText), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 MiB',
    '200 MiB',
  ]);
  assert.deepEqual([0.44, 12, 200, 7500].map(durationText), ['0.4 s', '12 s', '3 min 20 s', '2 h 5 min']);
});

test('progress tells bytes, rate and time left, as far as they are known', () => {
  const mib = 1024 * 1024;
  assert.equal(progressLine('x', 12 * mib, 24 * mib, 4), 'x  12.0 MiB of 24.0 MiB · 3.0 MiB/s · 4.0 s left');
  assert.equal(progressLine('x', 12 * mib, undefined, 4), 'x  12.0 MiB · 3.0 MiB/s');
  assert.equal(progressLine('x', 0, 5, 0), 'x  0 B of 5 B');
});

test('columns line up whatever the colours; numbers to the right', () => {
  assert.deepEqual(
    table(
      [
        ['a', '\u001B[31m1\u001B[39m', 'x'],
        ['bcd', '100', ''],
      ],
      [1],
    ),
    ['a      \u001B[31m1\u001B[39m  x', 'bcd  100'],
  );
});

test('progress stays silent where nobody watches, and with --json', () => {
  for (const [isTTY, json, drawn] of [
    [false, false, false],
    [true, true, false],
    [true, false, true],
  ] as const) {
    const stderr = Object.assign(new PassThrough(), { isTTY });
    const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr };
    const progress = new Screen(streams, { json }).progress('x', 10);
    progress.add(5);
    assert.equal(stderr.read() !== null, drawn);
  }
});
