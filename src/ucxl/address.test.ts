import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isHoldfastError } from '../core/errors.ts';
import {
  canonicalKey,
  formatAddress,
  parseAddress,
  type UcxlAddress,
  withPath,
  withVersion,
} from './address.ts';
import type { TemporalSegment } from './temporal.ts';

const strict = { profile: 'strict' } as const;
const lenient = { profile: 'lenient' } as const;

/** The addresses seen upstream that every read must accept, part by part. */
const seenUpstream: readonly [
  text: string,
  strict: boolean,
  parts: readonly string[],
  temporal: TemporalSegment,
][] = [
  [
    'ucxl://chorus-agent:arbiter@backbeat:tempo-calibration/*^/decisions/tempo-1bpm',
    true,
    ['chorus-agent', 'arbiter', 'backbeat', 'tempo-calibration', 'decisions/tempo-1bpm'],
    { type: 'latest' },
  ],
  [
    'ucxl://whoosh:policy@global:roles/#/policy/v1',
    false,
    ['whoosh', 'policy', 'global', 'roles', 'policy/v1'],
    { type: 'latest' },
  ],
  [
    'ucxl://gpt4:architect@bzzz:v2-migration/*^/decisions/protocol-choice.json',
    true,
    ['gpt4', 'architect', 'bzzz', 'v2-migration', 'decisions/protocol-choice.json'],
    { type: 'latest' },
  ],
  [
    'ucxl://any:any@chorus:*/*~/planning/requirements.md',
    false,
    ['any', 'any', 'chorus', 'any', 'planning/requirements.md'],
    { type: 'any' },
  ],
  [
    'ucxl://claude:reviewer@bzzz:auth-system/2025-08-07T14:30:00/code-review.json',
    false,
    ['claude', 'reviewer', 'bzzz', 'auth-system', 'code-review.json'],
    { type: 'instant', instant: Date.UTC(2025, 7, 7, 14, 30) },
  ],
];

for (const [text, isStrict, parts, temporal] of seenUpstream) {
  test(`accepts ${text}`, () => {
    const address = parseAddress(text, lenient);
    const { agent, role, project, task, path } = address;
    assert.deepEqual([agent, role, project, task, path], parts);
    assert.deepEqual(address.temporal_segment, temporal);
    assert.equal(address.raw, text);
    if (isStrict) assert.deepEqual(parseAddress(text, strict), address);
    else refused(text, strict);
  });
}

test('lenient forms: dots, query, fragment, no temporal segment, counts of one', () => {
  const read = (text: string) => parseAddress(text, lenient);
  assert.equal(read('ucxl://a:r@hold.fast:2.0.0/*^/x').task, '2.0.0');
  assert.equal(read('ucxl://a:r@hold.fast:2.0.0/*^/x').project, 'hold.fast');
  const decorated = read('ucxl://a:r@p:t/*~3/docs/x.md?a=/b#c/d');
  assert.equal(decorated.path, 'docs/x.md');
  assert.equal(decorated.raw, 'ucxl://a:r@p:t/*~3/docs/x.md?a=/b#c/d');
  for (const [text, path] of [
    ['ucxl://a:r@p:t/docs/x.md', 'docs/x.md'],
    ['ucxl://a:r@p:t', ''],
    ['ucxl://a:r@p:t/', ''],
    ['ucxl://a:r@p:t?q', ''],
    ['ucxl://a:r@p:t#f', ''],
    ['ucxl://a:r@p:t/#', ''],
    ['ucxl://a:r@p:t/#f/x', ''],
    ['ucxl://a:r@p:t/#/x#f', 'x'],
    ['ucxl://a:r@p:t/2025-08-07/x', '2025-08-07/x'],
  ] as const) {
    assert.equal(read(text).path, path, text);
    assert.deepEqual(read(text).temporal_segment, { type: 'latest' }, text);
  }
  assert.deepEqual(read('ucxl://a:r@p:t/~~/x').temporal_segment, {
    type: 'relative',
    direction: 'backward',
    count: 1,
  });
});

test('canonical keys: one for every spelling of an address, none for a wildcard', () => {
  const key = 'ucxl://a:r@p:t/*^/docs/x';
  for (const temporal of ['*^', '*~', '*~4', '~~1', '#', '~~', '2025-08-07T14:30:00Z']) {
    assert.equal(canonicalKey(parseAddress(`ucxl://a:r@p:t/${temporal}/docs/x#f`, lenient)), key);
  }
  assert.equal(canonicalKey(parseAddress('ucxl://a:r@p:t/docs/x?q', lenient)), key);
  assert.equal(canonicalKey(parseAddress('ucxl://a:r@p:t/*^', strict)), 'ucxl://a:r@p:t/*^/');
  assert.equal(canonicalKey(parseAddress('ucxl://a:r@p.q:2.0.0/x', lenient)), 'ucxl://a:r@p.q:2.0.0/*^/x');
  for (const text of [
    'ucxl://any:r@p:t/*^/x',
    'ucxl://a:*@p:t/*^/x',
    'ucxl://a:r@p:any/*^/x',
    'ucxl://a:r@*:t/*^/x',
  ]) {
    assert.throws(
      () => canonicalKey(parseAddress(text, lenient)),
      (error) => isHoldfastError(error, 'ADDRESS_WILDCARD'),
    );
  }
});

test('Unicode in a path is one key in NFC', () => {
  const decomposed = parseAddress('ucxl://a:r@p:t/*^/@types/re\u0301union notes.md', lenient);
  const composed = parseAddress('ucxl://a:r@p:t/*^/@types/r\u00e9union notes.md', lenient);
  assert.equal(canonicalKey(decomposed), canonicalKey(composed));
  assert.equal(decomposed.raw, 'ucxl://a:r@p:t/*^/@types/re\u0301union notes.md');
  refused(composed.raw, strict, 'path');
});

test('what is refused, and the field that is blamed', () => {
  const cases = [
    ['', 'address'],
    ['http://a:r@p:t/*^/x', 'address'],
    ['UCXL://a:r@p:t/*^/x', 'address'],
    [' ucxl://a:r@p:t/*^/x', 'address'],
    ['ucxl://a:r/*^/x', 'address'],
    ['ucxl://a:r@p:t@q/*^/x', 'address'],
    ['ucxl://a@p:t/*^/x', 'role'],
    ['ucxl://a:r@p/*^/x', 'task'],
    ['ucxl://a:r:s@p:t/*^/x', 'role'],
    ['ucxl://:r@p:t/*^/x', 'agent'],
    ['ucxl://a:@p:t/*^/x', 'role'],
    ['ucxl://a.b:r@p:t/*^/x', 'agent'],
    ['ucxl://a:r@p p:t/*^/x', 'project'],
    ['ucxl://a:r@p:t\u00e9/*^/x', 'task'],
    [`ucxl://${'a'.repeat(257)}:r@p:t/*^/x`, 'agent'],
    [`ucxl://a:r@p:${'t'.repeat(257)}/*^/x`, 'task'],
    [`ucxl://a:r@p:t/*^/${'x'.repeat(257)}`, 'path'],
    [`ucxl://a:r@p:t/*^/${'é'.repeat(129)}`, 'path'],
    [`ucxl://a:r@p:t/*^/${'x/'.repeat(2040)}x`, 'address'],
    ['ucxl://a:r@p:t/*^1/x', 'temporal'],
    ['ucxl://a:r@p:t/*~0/x', 'temporal'],
    ['ucxl://a:r@p:t/~~x/x', 'temporal'],
    ['ucxl://a:r@p:t/*^//x', 'path'],
    ['ucxl://a:r@p:t//x', 'path'],
    ['ucxl://a:r@p:t/*^/x//y', 'path'],
    ['ucxl://a:r@p:t/*^/x/', 'path'],
    ['ucxl://a:r@p:t/*^/./x', 'path'],
    ['ucxl://a:r@p:t/*^/x/..', 'path'],
    ['ucxl://a:r@p:t/*^/x/*', 'path'],
    ['ucxl://a:r@p:t/*^/x\0', 'address'],
    ['ucxl://a:r@p:t/*^/x#\u0007', 'address'],
    ['ucxl://a:r@p:t/*^/x\u202ey', 'address'],
    ['ucxl://a:r@p:t/*^/x\ud800', 'address'],
  ] as const;
  for (const [text, field] of cases) refused(text, lenient, field);
  for (const text of ['ucxl://a:r@p:t', 'ucxl://a:r@p:t/x', 'ucxl://a:r@p:t/#/x'])
    refused(text, strict, 'temporal');
  refused('ucxl://a:r@p:2.0/*^/x', strict, 'task');
  refused('ucxl://a:r@p:t/*^/x#f', strict, 'path');
  refused('ucxl://a:r@p:t#f', strict, 'address');
});

test('limits are met exactly', () => {
  const part = 'x'.repeat(256);
  assert.equal(parseAddress(`ucxl://${part}:${part}@${part}:${part}/*^/${part}`, strict).agent, part);
  const start = 'ucxl://a:r@p:t/*^/';
  const path = `${`${'y'.repeat(255)}/`.repeat(15)}${'z'.repeat(4096 - start.length - 15 * 256)}`;
  assert.equal(canonicalKey(parseAddress(start + path, strict)).length, 4096);
  refused(`${start}${path}z`, strict, 'address');
});

test('a key longer than its address is refused when it is made', () => {
  const address = parseAddress(
    `ucxl://a:r@p:t/${`${'y'.repeat(255)}/`.repeat(15)}${'z'.repeat(241)}`,
    lenient,
  );
  assert.throws(
    () => canonicalKey(address),
    (error) => isHoldfastError(error, 'ADDRESS_INVALID'),
  );
});

test('versions and paths of a parsed address', () => {
  const address = parseAddress('ucxl://a:r@p:2.0/docs#f', lenient);
  assert.equal(withVersion(address, 12), 'ucxl://a:r@p:2.0/*~12/docs');
  assert.equal(withPath(address, 'docs/a b.md').raw, 'ucxl://a:r@p:2.0/*^/docs/a b.md');
  for (const path of ['a#b', 'a?b', 'a*', '../x', 'a//b', '/a', 'a/', 'a\nb', 'x'.repeat(257)]) {
    assert.throws(
      () => withPath(address, path),
      (error) => isHoldfastError(error, 'ADDRESS_INVALID'),
      path,
    );
  }
});

test('hostile input is refused quickly and shown in short', () => {
  const started = performance.now();
  const hostile = [
    'ucxl://'.repeat(1_000_000),
    `ucxl://a:r@p:t/*^/${'\u0301'.repeat(3_000_000)}`,
    `ucxl://a:r@p:t/*^/x\u0301${'\u0301'.repeat(2000)}\0`,
    `ucxl://${'a:'.repeat(2000)}`,
    `ucxl://${'@'.repeat(4000)}`,
    `ucxl://a:r@p:t/${'/'.repeat(4000)}`,
    `ucxl://a:r@p:t/${'#/'.repeat(2000)}//`.replaceAll('#/', '*'),
    '\ud83d'.repeat(4096),
  ];
  for (const text of hostile) {
    const error = refused(text, lenient);
    assert(error.message.length < 1600);
    assert(String(error.details['raw']).isWellFormed());
  }
  assert(performance.now() - started < 500);
});

const word = fc.stringMatching(/^[a-zA-Z0-9_-]{1,40}$/);
const dotted = fc.stringMatching(/^[a-zA-Z0-9_.-]{1,40}$/);
const strictSegment = fc
  .stringMatching(/^[a-zA-Z0-9_.-]{1,40}$/)
  .filter((text) => text !== '.' && text !== '..');
const anySegment = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
  .map((text) => text.normalize('NFC'))
  .filter(
    (text) =>
      !/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069/*?#]/u.test(text) && text !== '.' && text !== '..',
  );
const strictTemporal = fc.constantFrom('*^', '*~', '*~1', '*~42', '~~3', '^^9');

test('strict: format is the inverse of parse', () => {
  const texts = fc
    .tuple(word, word, word, word, strictTemporal, fc.array(strictSegment, { maxLength: 6 }))
    .map(([a, r, p, t, temporal, path]) => `ucxl://${a}:${r}@${p}:${t}/${temporal}/${path.join('/')}`);
  fc.assert(
    fc.property(texts, (text) => {
      assert.equal(formatAddress(parseAddress(text, strict)), text);
      assert.deepEqual(parseAddress(text, lenient), parseAddress(text, strict));
    }),
  );
});

test('lenient: a stored key reads back as itself', () => {
  const texts = fc
    .tuple(word, word, dotted, dotted, fc.array(anySegment, { maxLength: 6 }))
    .filter(([a, r, p, t]) => ![a, r, p, t].includes('any'))
    .map(([a, r, p, t, path]) => `ucxl://${a}:${r}@${p}:${t}/*^/${path.join('/')}`);
  fc.assert(
    fc.property(texts, (text) => {
      const key = canonicalKey(parseAddress(text, lenient));
      assert.equal(canonicalKey(parseAddress(key, lenient)), key);
      assert.equal(key, text);
    }),
  );
});

test('any text is an address or a named refusal, and an address formats to itself', () => {
  const texts = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({
      unit: fc.constantFrom('ucxl://', ':', '@', '/', '*', '^', '~', '#', '?', 'a', '.', 'any', '1', 'é'),
      maxLength: 30,
    }),
    fc
      .string({ unit: fc.constantFrom(':', '@', '/', '*', '^', '~', '#', '?', 'a', '.', '1'), maxLength: 12 })
      .map((end) => `ucxl://a:r@p:t${end}`),
  );
  fc.assert(
    fc.property(texts, (text) => {
      let address: UcxlAddress;
      try {
        address = parseAddress(text, lenient);
      } catch (error) {
        assert(isHoldfastError(error, 'ADDRESS_INVALID'));
        assert.deepEqual(Object.keys(error.details), ['field', 'message', 'raw']);
        return;
      }
      const again = parseAddress(formatAddress(address), lenient);
      assert.deepEqual({ ...again, raw: '' }, { ...address, raw: '' });
    }),
    { numRuns: 1000 },
  );
});

function refused(text: string, options: { profile: 'strict' | 'lenient' }, field?: string) {
  try {
    parseAddress(text, options);
  } catch (error) {
    assert(isHoldfastError(error, 'ADDRESS_INVALID'), String(error));
    if (field !== undefined)
      assert.equal(error.details['field'], field, `${JSON.stringify(text.slice(0, 80))}: ${error.message}`);
    return error;
  }
  throw new assert.AssertionError({ message: `accepted ${JSON.stringify(text.slice(0, 80))}` });
}
