import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HoldfastError } from '../core/errors.ts';
import { backoffMs, errorOfEnvelope, failureOfNetwork, mayRetry } from './failure.ts';

const refusal = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });

test('a refusal on this machine means that no cluster runs, elsewhere that the peer is away', () => {
  const here = failureOfNetwork(refusal, new URL('http://127.0.0.1:7440')).error;
  const there = failureOfNetwork(refusal, new URL('http://door.example:7440')).error;
  assert.ok(here instanceof HoldfastError && there instanceof HoldfastError);
  assert.equal(here.code, 'CLUSTER_NOT_RUNNING');
  assert.match(here.message, /127\.0\.0\.1:7440/);
  assert.equal(here.cause, refusal);
  assert.equal(there.code, 'PEER_UNREACHABLE');
});

test('an envelope comes back as the error that was thrown, with its details and cause', () => {
  const details = { reason: 'VERSION_CONFLICT', current: 3, missing: ['a', 1], deep: { no: 1 } };
  const error = errorOfEnvelope(409, { error: { message: 'late', details, cause: 'why' } }, 'http://x');
  assert.equal(error.code, 'VERSION_CONFLICT');
  assert.equal(error.message, 'late');
  assert.deepEqual(error.details, { current: 3, missing: ['a', '1'] });
  assert.ok(error.cause instanceof Error && error.cause.message === 'why');
});

test('what is no envelope becomes what its status stands for', () => {
  assert.equal(errorOfEnvelope(502, undefined, 'http://x').code, 'PEER_UNREACHABLE');
  assert.equal(errorOfEnvelope(401, '<html>', 'http://x').code, 'UNAUTHORIZED');
  assert.equal(errorOfEnvelope(418, {}, 'http://x').code, 'PEER_REFUSED');
  assert.equal(errorOfEnvelope(404, { error: { details: { reason: 'toString' } } }, 'x').code, 'NOT_FOUND');
});

test('only what cannot be done twice by mistake is tried again', () => {
  const lost = { kind: 'lost', error: new HoldfastError('PEER_UNREACHABLE', '') } as const;
  const answered = (code: 'RATE_LIMITED' | 'NOT_FOUND' | 'QUORUM_UNAVAILABLE') =>
    ({ kind: 'answered', error: new HoldfastError(code, '') }) as const;
  assert.equal(mayRetry(lost, true, true), true);
  assert.equal(mayRetry(lost, false, true), false, 'perhaps it was done');
  assert.equal(mayRetry(answered('RATE_LIMITED'), false, true), true, 'it was not begun');
  assert.equal(mayRetry(answered('QUORUM_UNAVAILABLE'), true, true), true);
  assert.equal(mayRetry(answered('NOT_FOUND'), true, true), false, 'it will not appear');
  assert.equal(mayRetry({ kind: 'refused', error: refusal }, false, false), false, 'nobody is there');
  assert.equal(mayRetry({ kind: 'refused', error: refusal }, false, true), true, 'somebody was');
});

test('pauses double and stay bounded', () => {
  assert.deepEqual([2, 3, 4, 5].map(backoffMs), [100, 200, 400, 800]);
  assert.equal(backoffMs(50), 2000);
});
