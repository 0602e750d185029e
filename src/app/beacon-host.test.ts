import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { MemoryLog } from '../beacon/memory.ts';
import { openView } from './beacon-host.ts';

test('a view of an earlier edition is set aside and folded again, one of a later edition left alone', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const parent = await mkdtemp(join(tmpdir(), 'holdfast-host-'));
  t.after(() => rm(parent, { recursive: true }));
  const mark = (version: number): string => JSON.stringify({ format: 'holdfast/beacon-view', version });
  {
    await using log = new MemoryLog();
    await using view = await openView(parent);
    await view.apply([await log.append(someAppend('addr/a'))]);
  }
  await writeFile(join(parent, 'view', 'born.json'), mark(99));
  await assert.rejects(openView(parent), { code: 'DATA_DIR_NEWER' });
  await writeFile(join(parent, 'view', 'born.json'), mark(0));
  {
    await using view = await openView(parent);
    assert.equal(view.position().revision, 0);
  }
  assert.match((await readdir(parent)).sort().join(' '), /^view view\.earlier-\d+$/);
});
