import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isHoldfastError } from '../core/errors.ts';
import { keyPrefix, matches, parsePattern } from './match.ts';

const yes: readonly [pattern: string, key: string][] = [
  ['ucxl://any:any@chorus:*/*~/planning/requirements.md', 'ucxl://a:r@chorus:t1/*^/planning/requirements.md'],
  ['ucxl://*:*@*:*', 'ucxl://a:r@p:t/*^/x/y'],
  ['ucxl://a:r@p:t', 'ucxl://a:r@p:t/*^/'],
  ['ucxl://a:r@p:t/*^/docs/', 'ucxl://a:r@p:t/*^/docs/x/y'],
  ['ucxl://a:r@p:t/*^/docs/**', 'ucxl://a:r@p:t/*^/docs'],
  ['ucxl://a:r@p:t/*^/docs/*.md', 'ucxl://a:r@p:t/*^/docs/x.md'],
  ['ucxl://a:r@p:t/*^/**/x.md', 'ucxl://a:r@p:t/*^/x.md'],
  ['ucxl://a:r@p:t/*^/**/b/**/d', 'ucxl://a:r@p:t/*^/a/b/b/c/d'],
  ['ucxl://a:r@p:t/docs/a*b*c', 'ucxl://a:r@p:t/*^/docs/abXbc'],
  ['ucxl://a:r@p:2.*/x'.replace('2.*', '2.0'), 'ucxl://a:r@p:2.0/*^/x'],
];

const no: readonly [pattern: string, key: string][] = [
  [
    'ucxl://any:any@chorus:*/*~/planning/requirements.md',
    'ucxl://a:r@chorus2:t1/*^/planning/requirements.md',
  ],
  ['ucxl://a:r@p:t/*^/docs', 'ucxl://a:r@p:t/*^/docs/x'],
  ['ucxl://a:r@p:t/*^/docs/*', 'ucxl://a:r@p:t/*^/docs/x/y'],
  ['ucxl://a:r@p:t/*^/docs/', 'ucxl://a:r@p:t/*^/docsX'],
  ['ucxl://A:r@p:t', 'ucxl://a:r@p:t/*^/x'],
  ['ucxl://a:r@p:t/*^/**/x.md', 'ucxl://a:r@p:t/*^/x.md/y'],
  ['ucxl://a:r@p:t', 'not a key'],
];

test('patterns that match', () => {
  for (const [pattern, key] of yes) assert(matches(parsePattern(pattern), key), `${pattern} ~ ${key}`);
});

test('patterns that do not', () => {
  for (const [pattern, key] of no) assert(!matches(parsePattern(pattern), key), `${pattern} ~ ${key}`);
});

test('the temporal segment is kept for the caller', () => {
  assert.deepEqual(parsePattern('ucxl://any:r@p:t/*~3/x').temporal_segment, { type: 'specific', count: 3 });
});

test('bad patterns name their field', () => {
  for (const [text, field] of [
    ['ucxl://a*:r@p:t/x', 'agent'],
    ['ucxl://a:r@p:t/*^//', 'path'],
    ['ucxl://a:r@p:t/*^/a/../b', 'path'],
    [`ucxl://a:r@p:t/*^/${'**/'.repeat(9)}x`, 'path'],
  ] as const) {
    assert.throws(
      () => parsePattern(text),
      (error) => isHoldfastError(error, 'ADDRESS_INVALID') && error.details['field'] === field,
      text,
    );
  }
});

test('a hostile pattern over hostile keys is quick', () => {
  const pattern = parsePattern(`ucxl://*:*@*:*/*^/${'**/*a*a*a*a*b/'.repeat(8)}z`);
  const key = `ucxl://a:r@p:t/*^/${`${'a'.repeat(255)}/`.repeat(15)}a`;
  const started = performance.now();
  for (let run = 0; run < 20; run++) assert(!matches(pattern, key));
  assert(performance.now() - started < 1000);
});

const segment = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 });
const glob = fc.oneof(
  fc.constant('**'),
  fc
    .string({ unit: fc.constantFrom('a', 'b', '*'), minLength: 1, maxLength: 4 })
    .filter((text) => text !== '**'),
);

test('agrees with a regular expression', () => {
  fc.assert(
    fc.property(
      fc.array(glob, { minLength: 1, maxLength: 5 }),
      fc.array(segment, { maxLength: 6 }),
      (pattern, path) => {
        const parsed = parsePattern(`ucxl://a:r@p:t/*^/${pattern.join('/')}`);
        assert.equal(
          matches(parsed, `ucxl://a:r@p:t/*^/${path.join('/')}`),
          expected(pattern, path),
          `${pattern.join('/')} ~ ${path.join('/')}`,
        );
      },
    ),
    { numRuns: 3000 },
  );
});

test('a match starts with the prefix', () => {
  for (const [pattern, key] of yes) assert(key.startsWith(keyPrefix(parsePattern(pattern))), pattern);
  assert.equal(keyPrefix(parsePattern('ucxl://a:any@p:t')), 'ucxl://a:');
  assert.equal(keyPrefix(parsePattern('ucxl://a:r@p:t/docs/x*')), 'ucxl://a:r@p:t/*^/docs/x');
  assert.equal(keyPrefix(parsePattern('ucxl://a:r@p:t/docs/x')), 'ucxl://a:r@p:t/*^/docs/x');
});

/** The dumb one: each segment ends in a slash, so that `**` is any number of them. */
function expected(pattern: readonly string[], path: readonly string[]): boolean {
  const source = pattern
    .map((part) => (part === '**' ? '(?:[^/]+/)*' : `${part.replaceAll('*', '[^/]*')}/`))
    .join('');
  return new RegExp(`^${source}$`).test(path.map((part) => `${part}/`).join(''));
}
