import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { assertSchema } from '../../test/support/backbeat-schemas.ts';
import { isHoldfastError } from '../core/errors.ts';
import { claimOf, idOf } from './claim.ts';
import { cutNotes, encodeClaim, parseClaim, parseClaimText, type StatusClaim } from './status-claim.ts';

const context = { agentId: 'holdfast:steward', beatIndex: 42, hlc: '0001:0002:0003' };

test('a job under way', () => {
  const job = {
    name: 'heal',
    activity: 'working',
    progress: 0.25,
    beatsLeft: 2.1,
    notes: '3 copies',
  } as const;
  assert.deepEqual(claimOf(job, context), {
    type: 'backbeat.statusclaim.v1',
    agent_id: 'holdfast:steward',
    task_id: 'heal',
    beat_index: 42,
    state: 'executing',
    hlc: '0001:0002:0003',
    beats_left: 3,
    progress: 0.25,
    notes: '3 copies',
  });
});

test('whatever a job says of itself, its claim satisfies the schema', () => {
  const number = fc.option(fc.oneof(fc.double(), fc.integer()), { nil: undefined });
  const job = fc.record({
    name: fc.string({ minLength: 1 }).map(idOf),
    activity: fc.constantFrom('idle', 'working', 'checking', 'waiting', 'failed'),
    progress: number,
    beatsLeft: number,
    notes: fc.string({ unit: 'grapheme', maxLength: 600 }),
  });
  fc.assert(fc.property(job, (report) => assertSchema('status', encodeClaim(claimOf(report, context)))));
});

test('notes are cut between characters', () => {
  assert.equal(cutNotes('🫀'.repeat(256)), '🫀'.repeat(256));
  assert.equal(cutNotes('🫀'.repeat(257)), `${'🫀'.repeat(255)}…`);
});

const claim: StatusClaim = claimOf(
  { name: 't', activity: 'idle', progress: 1, beatsLeft: 1, notes: 'n' },
  context,
);

test('limits: each required field outside its own is refused by name', () => {
  const bad: readonly (readonly [string, unknown])[] = [
    ['agent_id', ''],
    ['agent_id', 'a b'],
    ['agent_id', 'a'.repeat(129)],
    ['beat_index', -1],
    ['beat_index', 2 ** 53],
    ['state', 'dancing'],
    ['state', 'toString'],
    ['hlc', '0001:0002'],
    ['type', 'backbeat.statusclaim.v2'],
  ];
  for (const [field, value] of bad)
    assert.throws(
      () => parseClaim({ ...claim, [field]: value }),
      (error) => isHoldfastError(error, 'RECORD_INVALID') && error.details['field'] === field,
      `${field} ${JSON.stringify(value)}`,
    );
});

test('lenient: mapped states, clamped numbers, dropped members', () => {
  for (const [said, meant] of [
    ['waiting', 'blocked'],
    ['review', 'reviewing'],
    ['done', 'completed'],
  ] as const)
    assert.deepEqual(parseClaim({ ...claim, state: said }), {
      claim: { ...claim, state: meant },
      notes: ['state-mapped'],
    });
  const odd = {
    ...claim,
    beats_left: 1.5,
    progress: -1,
    dependencies: ['a', 3],
    resources: [],
    task_id: 'a b',
  };
  const { claim: read, notes } = parseClaim(odd);
  assert.deepEqual([read.beats_left, read.progress, read.dependencies], [2, 0, ['a']]);
  assert.ok(!('resources' in read) && !('task_id' in read));
  assert.deepEqual(notes.toSorted(), [
    'field-dropped',
    'field-dropped',
    'field-dropped',
    'number-clamped',
    'number-clamped',
  ]);
});

test('no text makes the parser throw anything but its own error', () => {
  const fields = Object.fromEntries(
    Object.keys({ ...claim, resources: 0, dependencies: 0, metadata: 0 }).map((name) => [
      name,
      fc.jsonValue(),
    ]),
  );
  fc.assert(
    fc.property(fc.record(fields, { requiredKeys: [] }), (value) => {
      try {
        const read = parseClaimText(JSON.stringify({ ...claim, ...value }));
        assertSchema('status', encodeClaim(read.claim));
      } catch (error) {
        assert.ok(isHoldfastError(error, 'RECORD_INVALID'), String(error));
      }
    }),
  );
});
