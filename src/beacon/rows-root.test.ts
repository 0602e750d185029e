import assert from 'node:assert/strict';
import { it } from 'node:test';
import * as fc from 'fast-check';
import { utf8 } from '../core/bytes.ts';
import type { KvRow } from './kv.ts';
import { judgeViews, parseRoot, rootOf, type RowsRoot, type ViewRoot } from './rows-root.ts';
import { compareKeys } from './view-memory.ts';

const rows: KvRow[] = [
  ['head\0a', utf8('one')],
  ['head\0b', utf8('two')],
  ['path\0a', utf8('')],
  ['pos', utf8('2')],
];

it('is the same for the same rows, and says in which kind others are unlike', async () => {
  const root = await of(rows);
  assert.deepEqual(
    root.kinds.map(({ kind, rows: count }) => [kind, count]),
    [
      ['head', 2],
      ['path', 1],
      ['pos', 1],
    ],
  );
  assert.deepEqual(await of(rows), root);
  assert.deepEqual(parseRoot(root), root);
  const changed = await of(rows.map(([key, value]) => [key, key === 'head\0b' ? utf8('too') : value]));
  const without = await of(rows.filter(([key]) => key !== 'path\0a'));
  assert.deepEqual(judge({ a: root, b: root, c: changed }).differing, [{ name: 'c', kinds: ['head'] }]);
  assert.deepEqual(judge({ a: without, b: root, c: root }).differing, [{ name: 'a', kinds: ['path'] }]);
});

it('tells any two sets of rows apart', async () => {
  const key = fc.constantFrom('a', 'a\0', 'a\0a', 'a\0b', 'ab', 'ab\0a', 'b\0a');
  const set = fc.dictionary(key, fc.constantFrom('', 'a', 'aa', 'b\0a'), { maxKeys: 4 });
  const sorted = (from: Record<string, string>): KvRow[] =>
    Object.keys(from)
      .toSorted(compareKeys)
      .map((name) => [name, utf8(from[name] ?? '')]);
  const text = (from: Record<string, string>): string =>
    JSON.stringify(sorted(from).map(([name]) => [name, from[name]]));
  await fc.assert(
    fc.asyncProperty(set, set, async (left, right) => {
      const isSame = text(left) === text(right);
      assert.equal((await of(sorted(left))).root === (await of(sorted(right))).root, isSame);
    }),
  );
});

it('names nobody right where no opinion has the most views, and keeps who was not heard apart', async () => {
  const [one, other] = [await of(rows), await of(rows.slice(1))];
  const tie = judge({ a: one, b: other });
  assert.deepEqual(tie.equal, []);
  assert.deepEqual(
    tie.differing.map(({ name, kinds }) => [name, kinds]),
    [
      ['a', ['head']],
      ['b', ['head']],
    ],
  );
  const heard: ViewRoot[] = [
    { name: 'a', root: one, reason: '' },
    { name: 'b', root: undefined, reason: 'away' },
  ];
  assert.deepEqual(judgeViews(heard), {
    equal: ['a'],
    differing: [],
    unknown: [{ name: 'b', reason: 'away' }],
  });
});

it('refuses what is no root', async () => {
  const { root, kinds } = await of(rows);
  const kind = kinds[0];
  for (const wrong of [
    undefined,
    { root },
    { root: 'x', kinds },
    { root, kinds: [{ ...kind, rows: 'many' }] },
    { root, kinds: Array.from({ length: 65 }, () => kind) },
  ])
    assert.throws(() => parseRoot(wrong), { code: 'RECORD_INVALID' });
});

async function of(some: readonly KvRow[]): Promise<RowsRoot> {
  return rootOf(
    (async function* () {
      yield* some;
    })(),
    0,
    new AbortController().signal,
  );
}

function judge(roots: Readonly<Record<string, RowsRoot>>): ReturnType<typeof judgeViews> {
  return judgeViews(Object.entries(roots).map(([name, root]) => ({ name, root, reason: '' })));
}
