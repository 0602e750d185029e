import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

const program = join(import.meta.dirname, 'support/ends-with-us.child.ts');

test('what a test started is killed when the test is, and what had ended before is left alone', async (t) => {
  const over = spawn('sleep', ['600']);
  const bound = spawn('sleep', ['600']);
  t.after(() => [over, bound].map((each) => each.kill()));
  const words = [program, String(over.pid), String(bound.pid)];
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  assert.equal(bound.exitCode ?? bound.signalCode, null);
  child.kill('SIGKILL');
  const [, signal] = (await once(bound, 'exit')) as [unknown, unknown];
  assert.equal(signal, 'SIGKILL');
  // They are killed in the order in which they were told.
  assert.equal(over.exitCode ?? over.signalCode, null);
});
