import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  formatTemporal,
  parseInstant,
  parseTemporal,
  resolveTemporal,
  type TemporalSegment,
  type VersionSpan,
} from './temporal.ts';

const strictSpellings: readonly [string, TemporalSegment][] = [
  ['*^', { type: 'latest' }],
  ['*~', { type: 'any' }],
  ['*~7', { type: 'specific', count: 7 }],
  ['~~2', { type: 'relative', direction: 'backward', count: 2 }],
  ['^^3', { type: 'relative', direction: 'forward', count: 3 }],
  ['*~9007199254740991', { type: 'specific', count: Number.MAX_SAFE_INTEGER }],
];

const lenientSpellings: readonly [string, TemporalSegment][] = [
  ['#', { type: 'latest' }],
  ['~~', { type: 'relative', direction: 'backward', count: 1 }],
  ['^^', { type: 'relative', direction: 'forward', count: 1 }],
  ['2025-08-07T14:30:00', { type: 'instant', instant: Date.UTC(2025, 7, 7, 14, 30) }],
];

test('strict spellings read the same in both profiles', () => {
  for (const [text, parsed] of strictSpellings) {
    assert.deepEqual(parseTemporal(text, 'strict'), parsed, text);
    assert.deepEqual(parseTemporal(text, 'lenient'), parsed, text);
    assert.equal(formatTemporal(parsed), text);
  }
});

test('lenient spellings are lenient only', () => {
  for (const [text, parsed] of lenientSpellings) {
    assert.equal(parseTemporal(text, 'strict'), undefined, text);
    assert.deepEqual(parseTemporal(text, 'lenient'), parsed, text);
  }
});

test('what spells nothing', () => {
  const bad = [
    '',
    '*',
    '^',
    '*^1',
    '*~0',
    '*~01',
    '~~-1',
    '^^1.5',
    '~~ 1',
    '*~9007199254740992',
    `*~${'9'.repeat(400)}`,
  ];
  for (const text of bad) {
    assert.equal(parseTemporal(text, 'strict'), undefined, text);
    assert.equal(parseTemporal(text, 'lenient'), undefined, text);
  }
});

test('instants: zones, fractions, and dates that no calendar has', () => {
  const noon = Date.UTC(2025, 0, 31, 12);
  for (const text of [
    '2025-01-31T12:00Z',
    '2025-01-31T12:00:00.000Z',
    '2025-01-31T14:00:00+02:00',
    '2025-01-31T06:30-0530',
  ]) {
    assert.equal(parseInstant(text), noon, text);
  }
  assert.equal(parseInstant('2025-01-31T12:00:00.1239Z'), noon + 123);
  assert.equal(parseInstant('2024-02-29T00:00:00Z'), Date.UTC(2024, 1, 29));
  const bad = [
    '2025-02-29T00:00:00Z',
    '2025-13-01T00:00:00Z',
    '2025-01-31T24:00:00Z',
    '2025-01-31T12:00:60Z',
  ];
  const odd = [
    '2025-01-31',
    '20250131T120000Z',
    '2025-01-31T12',
    '2025-01-31T12:00:00+24:00',
    '0000-01-01T00:00:00+01:00',
  ];
  for (const text of [...bad, ...odd]) assert.equal(parseInstant(text), undefined, text);
});

test('resolving against a history', () => {
  const span: VersionSpan = { first: { version: 1, at: 1000 }, latest: { version: 9, at: 9000 } };
  const resolve = (text: string, from?: number) => {
    const temporal = parseTemporal(text, 'lenient');
    assert(temporal !== undefined, text);
    return resolveTemporal(temporal, span, from);
  };
  assert.equal(resolve('*^'), 9);
  assert.equal(resolve('#', 3), 9);
  assert.equal(resolve('*~'), 1);
  assert.equal(resolve('*~9'), 9);
  assert.equal(resolve('*~10'), undefined);
  assert.equal(resolve('~~'), 8);
  assert.equal(resolve('~~8'), 1);
  assert.equal(resolve('~~9'), undefined);
  assert.equal(resolve('^^'), undefined);
  assert.equal(resolve('^^2', 5), 7);
  assert.equal(resolve('~~2', 5), 3);
});

test('an instant means the version current then', () => {
  const span: VersionSpan = {
    first: { version: 1, at: 1000 },
    latest: { version: 9, at: 9000 },
    current: { version: 4, at: 4000 },
  };
  const at = (instant: number) => resolveTemporal({ type: 'instant', instant }, span);
  assert.equal(at(999), undefined);
  assert.equal(at(1000), 1);
  assert.equal(at(4000), 4);
  assert.equal(at(8999), 4);
  assert.equal(at(9000), 9);
  assert.equal(at(Number.MAX_SAFE_INTEGER), 9);
});

const count = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const temporals: fc.Arbitrary<TemporalSegment> = fc.oneof(
  fc.constant<TemporalSegment>({ type: 'latest' }),
  fc.constant<TemporalSegment>({ type: 'any' }),
  count.map((count): TemporalSegment => ({ type: 'specific', count })),
  fc
    .tuple(fc.constantFrom('backward' as const, 'forward' as const), count)
    .map(([direction, count]): TemporalSegment => ({ type: 'relative', direction, count })),
  fc
    .date({
      min: new Date('0000-01-01T00:00:00Z'),
      max: new Date('9999-12-31T23:59:59.999Z'),
      noInvalidDate: true,
    })
    .map((date): TemporalSegment => ({ type: 'instant', instant: date.getTime() })),
);

test('format then parse gives the same segment', () => {
  fc.assert(
    fc.property(temporals, (temporal) => {
      assert.deepEqual(parseTemporal(formatTemporal(temporal), 'lenient'), temporal);
    }),
  );
});

test('a resolved version lies in the history', () => {
  fc.assert(
    fc.property(temporals, fc.nat(1000), fc.nat(1000), fc.nat(), (temporal, first, more, from) => {
      const span = { first: { version: first, at: 0 }, latest: { version: first + more, at: more } };
      const version = resolveTemporal(temporal, span, from);
      assert(version === undefined || (version >= first && version <= first + more));
    }),
  );
});
