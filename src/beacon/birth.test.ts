import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setAside } from './birth.ts';

test('the last few damaged copies stay, and nothing else goes', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'holdfast-birth-'));
  try {
    await mkdir(join(parent, 'view-of-another.damaged-1'));
    for (const at of [999, 1000, 1001, 1002, 1003]) {
      await mkdir(join(parent, 'view'));
      await writeFile(join(parent, 'view', 'x'), String(at));
      assert.equal(await setAside(join(parent, 'view'), at), join(parent, `view.damaged-${at}`));
    }
    assert.deepEqual((await readdir(parent)).sort(), [
      'view-of-another.damaged-1',
      'view.damaged-1001',
      'view.damaged-1002',
      'view.damaged-1003',
    ]);
  } finally {
    await rm(parent, { recursive: true });
  }
});
