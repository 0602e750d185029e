// What V8's collector leaves behind of a secret that was zeroed: nothing, where its memory does not move.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import { cannotRead, searchProcess } from './support/process-memory.ts';

test('a secret in memory of its own is gone when it is zeroed, whatever the collector did before', async (t) => {
  const child = fork(join(import.meta.dirname, 'support/secret-memory.child.ts'), { execArgv: [] });
  t.after(() => child.kill('SIGKILL'));
  await once(child, 'message');
  const pid = child.pid ?? 0;
  const problem = await cannotRead(pid);
  if (problem !== undefined) return t.skip(problem);
  const group = await loadRistretto();
  const half = (name: string): Uint8Array => seed(name).subarray(0, 32);
  const found = await searchProcess(pid, [
    { name: 'made by its length', bytes: half('made by its length') },
    { name: 'a scalar', bytes: group.scalar.reduce(seed('a scalar')) },
    { name: 'a copy', bytes: half('a copy') },
    { name: 'a short encoding', bytes: half('a short encoding') },
  ]);
  // The first is not gone: the search sees what it is about.
  assert.deepEqual([...found.keys()], ['made by its length']);
});

function seed(name: string): Uint8Array {
  return createHash('sha512').update(name).digest();
}
