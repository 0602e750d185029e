import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BlockClass, classify, makeSight, type SightState } from './classes.ts';

const content = { min: 3, target: 3, max: 5, zones: 3 };
const record = { ...content, target: 5 };
const zones = ['a', 'a', 'b', 'b', 'c'];

interface Situation {
  readonly states?: string;
  readonly holders: readonly number[];
  readonly bad?: readonly number[];
  /** Only listed. */
  readonly claimed?: readonly number[];
  /** Leave challenges unanswered. */
  readonly doubted?: readonly number[];
  readonly wanted?: typeof content;
  readonly full?: readonly number[];
  readonly newborn?: boolean;
}

const letters: Readonly<Record<string, SightState>> = {
  u: 'up',
  s: 'suspect',
  d: 'down',
  '?': 'unknown',
  x: 'absent',
};

/** `states` has a letter per node: up, suspect, down, ? unknown, x absent. */
function judged(situation: Situation): string {
  const states = (situation.states ?? 'uuuuu').split('').map((letter) => letters[letter] ?? 'absent');
  const nodes = states.map((state, at) => ({
    state,
    zone: zones[at] ?? '',
    accepting: situation.full?.includes(at) !== true,
    doubted: situation.doubted?.includes(at) === true,
  }));
  const bad = situation.bad === undefined ? undefined : new Set(situation.bad);
  const verdict = classify(
    situation.holders,
    bad,
    situation.claimed === undefined ? undefined : new Set(situation.claimed),
    situation.wanted ?? content,
    makeSight(nodes, 0),
    situation.newborn ?? false,
  );
  return `${verdict.class} ${verdict.missing}`;
}

const cases: readonly [string, Situation, `${BlockClass} ${number}`][] = [
  ['three copies in three zones', { holders: [0, 2, 4] }, 'healthy 0'],
  ['three copies in two zones', { holders: [0, 1, 2] }, 'misplaced 1'],
  ['the third zone is down', { holders: [0, 1, 2], states: 'uuuud' }, 'short 0'],
  ['two copies', { holders: [0, 2] }, 'belowMin 1'],
  ['one copy', { holders: [0] }, 'lastCopy 2'],
  ['no copy', { holders: [] }, 'lost 0'],
  ['no copy, but a node has not been heard', { holders: [], states: 'uuuu?' }, 'unchecked 0'],
  ['no copy, but a node is silent', { holders: [], states: 'uuuus' }, 'unchecked 0'],
  ['holders all given up', { holders: [2, 3], states: 'uuddu' }, 'lost 0'],
  ['the only holder is silent', { holders: [2], states: 'uusuu' }, 'lastCopy 3'],
  ['a holder not heard yet', { holders: [0, 2, 4], states: 'uu?uu' }, 'unchecked 0'],
  ['below the minimum at suspicion', { holders: [0, 2, 4], states: 'uusuu' }, 'belowMin 1'],
  ['at the minimum without the silent one', { holders: [0, 2, 3, 4], states: 'uusuu' }, 'healthy 0'],
  ['a record at suspicion', { holders: [0, 1, 2, 3, 4], states: 'uusuu', wanted: record }, 'healthy 0'],
  [
    'a record, one node given up: all that can be',
    { holders: [0, 1, 2, 3, 4], states: 'uuuud', wanted: record },
    'short 0',
  ],
  [
    'above the minimum, below the target only while one is silent',
    { holders: [0, 2, 4], states: 'uusuu', wanted: { ...content, min: 2, zones: 2 } },
    'healthy 0',
  ],
  ['a record on three of five', { holders: [0, 2, 4], wanted: record }, 'belowTarget 2'],
  ['a record, one short', { holders: [0, 1, 2, 4], wanted: record }, 'belowTarget 1'],
  ['one of four is wrong', { holders: [0, 2, 3, 4], bad: [3] }, 'corrupt 0'],
  ['one of three is wrong', { holders: [0, 2, 4], bad: [4] }, 'belowMin 1'],
  ['nobody has room', { holders: [0, 2], full: [1, 3, 4] }, 'short 0'],
  ['a cluster of one', { holders: [0], states: 'uxxxx' }, 'short 0'],
  ['the last of five', { holders: [0], states: 'udddd' }, 'lastCopy 0'],
  ['five copies of at most four', { holders: [0, 1, 2, 3, 4], wanted: { ...content, max: 4 } }, 'surplus 0'],
  ['one of three is a claim', { holders: [0, 2, 4], claimed: [4] }, 'unchecked 0'],
  ['three claims', { holders: [0, 2, 4], claimed: [0, 2, 4] }, 'unchecked 0'],
  ['two claims and nothing else', { holders: [0, 2], claimed: [0, 2] }, 'belowMin 1'],
  ['one copy and one claim', { holders: [0, 2], claimed: [2] }, 'belowMin 1'],
  ['one claim', { holders: [2], claimed: [2] }, 'lastCopy 2'],
  ['three copies and a claim', { holders: [0, 2, 3, 4], claimed: [3] }, 'healthy 0'],
  ['a record with two claims', { holders: [0, 1, 2, 3, 4], claimed: [1, 3], wanted: record }, 'healthy 0'],
  [
    'five of at most four, one a claim',
    { holders: [0, 1, 2, 3, 4], claimed: [1], wanted: { ...content, max: 4 } },
    'healthy 0',
  ],
  [
    'a claim of a node that does not answer',
    { holders: [0, 2, 4], claimed: [4], doubted: [4] },
    'belowMin 1',
  ],
  ['only claims of such nodes', { holders: [3, 4], claimed: [3, 4], doubted: [3, 4] }, 'lastCopy 3'],
  ['just named', { holders: [0], newborn: true }, 'unchecked 0'],
  ['just named and stored', { holders: [0, 2, 4], newborn: true }, 'healthy 0'],
];

for (const [name, situation, expected] of cases) {
  test(name, () => assert.equal(judged(situation), expected));
}
