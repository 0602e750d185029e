import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HoldfastError } from '../core/errors.ts';
import { jsonLines } from './json-lines.ts';
import { errorEnvelope, tellable, withoutPaths } from './envelope.ts';

const inner = new Error('IO error: /srv/holdfast/door/view/db/000005.ldb: No such file or directory');
const facts = { requestId: 'r-1', path: '/ucxi/v1/beacon/export', nowMs: 0 };

test('an error says what is wrong and neither where on this machine nor what broke inside', () => {
  const damaged = new HoldfastError(
    'RECORD_CORRUPT',
    "the view's copy in /srv/holdfast/door/view is damaged",
    {
      details: { directory: '/srv/holdfast/door/view', revision: 7 },
      cause: inner,
    },
  );
  const wrapped = new HoldfastError(
    'BEACON_UNAVAILABLE',
    'the Beacon is damaged; run: holdfast beacon rebuild',
    {
      cause: damaged,
    },
  );
  const { status, body } = errorEnvelope(wrapped, facts);
  assert.equal(status, 503);
  assert.equal(body.error.message, 'the Beacon is damaged; run: holdfast beacon rebuild');
  assert.equal(body.error.request_id, 'r-1');
  assert.equal(body.error.cause, "the view's copy in (a file of the server) is damaged");
  const text = JSON.stringify([body, errorEnvelope(damaged, facts), errorEnvelope(inner, facts)]);
  assert.doesNotMatch(text, /srv|holdfast\/door\/view|ldb|IO error/);
  assert.match(text, /"revision":7/);
  assert.equal(tellable(inner), 'a fault in this program');
});

test('what a caller asked for and what is no file stays as it is', () => {
  for (const text of [
    'ucxl://ann:writer@holdfast:door/*^/a/b.md is at version 3; 3 does not follow it',
    'https://bao.example.org:8200/v1/transit does not answer',
    'env/00ff and 3/5 of them',
    '1 of 5 nodes and/or/nothing',
  ])
    assert.equal(withoutPaths(text), text);
  const missing = new HoldfastError('NOT_FOUND', 'no route /ucxi/v1/nothing; see /openapi.json');
  assert.equal(tellable(missing), missing.message);
});

test('work that fails before it says anything is answered as a request that failed', async () => {
  const faults: unknown[] = [];
  const request = { requestId: 'r-3', onFault: (error: unknown) => faults.push(error) };
  const refused = new HoldfastError('VERSION_CONFLICT', 'that plan is another one now');
  const broken = { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(refused) }) };
  await assert.rejects(Array.fromAsync(jsonLines(broken, request)), (error) => error === refused);
  assert.deepEqual(faults, [], 'whoever answers it writes it down');
});

test('work that breaks off in the middle says so in the same way, and the log gets all of it', async () => {
  const faults: unknown[] = [];
  const request = { requestId: 'r-2', onFault: (error: unknown) => faults.push(error) };
  for (const [error, message] of [
    [
      new HoldfastError('RATE_LIMITED', 'a rebuild is under way already', { cause: inner }),
      'a rebuild is under way already',
    ],
    [
      new HoldfastError('DISK_FULL', '/srv/holdfast/log takes no appends', { cause: inner }),
      '(a file of the server) takes no appends',
    ],
    [inner, 'a fault in this program'],
  ] as const) {
    async function* broken() {
      yield { progress: 'begun' };
      throw error;
    }
    const lines = await Array.fromAsync(jsonLines(broken(), request), (line) =>
      JSON.parse(Buffer.from(line).toString()),
    );
    assert.deepEqual(lines[0], { progress: 'begun' });
    assert.equal(lines[1].error.message, message);
    assert.equal(lines[1].error.request_id, 'r-2');
    assert.equal(faults.at(-1), error);
  }
});
