import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { isErrorCode } from '../client/failure.ts';
import { errorCatalogue, HoldfastError } from '../core/errors.ts';
import { reportError } from './main.ts';
import { Screen } from './screen.ts';

test('every error of the catalogue ends with its own status and says its message in one line', () => {
  for (const code of Object.keys(errorCatalogue).filter(isErrorCode)) {
    const { status, stderr } = report(
      new HoldfastError(code, 'first\n  second', { cause: new Error('why') }),
    );
    const { exit } = errorCatalogue[code];
    assert.equal(status, exit);
    assert.equal(stderr, exit === 2 ? 'holdfast: first second\n' : 'holdfast: first second: why\n');
  }
});

test('with --json the error is a value on standard output and standard error stays silent', () => {
  const error = new HoldfastError('VERSION_CONFLICT', 'late', { details: { current: 3 } });
  const { status, stdout, stderr } = report(error, true);
  assert.equal(status, 4);
  assert.deepEqual(JSON.parse(stdout), {
    error: { code: 'VERSION_CONFLICT', message: 'late', details: { current: 3 } },
  });
  assert.equal(stderr, '');
});

test('a fault of ours is named as one, with its stack on request', () => {
  const { status, stderr } = report(new RangeError('oops'), false, { HOLDFAST_DEBUG: '1' });
  assert.equal(status, 1);
  assert.match(stderr, /^holdfast: a fault in this program: oops\nRangeError: oops\n +at /);
});

function report(
  error: unknown,
  json = false,
  env: Record<string, string> = {},
): { status: number; stdout: string; stderr: string } {
  const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() };
  const status = reportError(new Screen(streams, { json }), error, json, env);
  return { status, stdout: String(streams.stdout.read() ?? ''), stderr: String(streams.stderr.read() ?? '') };
}
