import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { MemoryLog } from './memory.ts';
import { exportLog, importLog } from './transfer.ts';

it('exports, goes on with an export, and imports the same history', async (t) => {
  const path = join(await temporary(t), 'log');
  await using log = await filled(30);
  assert.equal((await exportLog((from) => log.read(from), path)).entries, 30);
  for (let count = 0; count < 5; count++) await log.append(someAppend('later'));
  assert.equal((await exportLog((from) => log.read(from), path)).entries, 5);
  assert.equal((await exportLog((from) => log.read(from), path)).entries, 0);
  await using target = new MemoryLog();
  assert.equal((await importLog(path, target)).entries, 35);
  assert.deepEqual(await target.head(), await log.head());
  assert.equal((await importLog(path, target)).entries, 0);
});

it('takes up where it was interrupted', async (t) => {
  const path = join(await temporary(t), 'log');
  await using log = await filled(30);
  await exportLog((from) => log.read(from), path);
  const whole = await readFile(path);
  for (const length of [0, 5, 22, 300, whole.length - 1]) {
    await truncate(path, length);
    await using target = new MemoryLog();
    await assert.rejects(importLog(path, target), { code: 'UPLOAD_TRUNCATED' });
    await exportLog((from) => log.read(from), path);
    assert.deepEqual(await readFile(path), whole);
    await importLog(path, target); // goes on behind what the truncated file had brought
    assert.deepEqual(await target.head(), await log.head());
  }
});

it('takes nothing behind a damaged byte, wherever it is', async (t) => {
  const path = join(await temporary(t), 'log');
  await using log = await filled(8);
  await exportLog((from) => log.read(from), path);
  const whole = await readFile(path);
  for (let offset = 0; offset < whole.length; offset += 7) {
    const flipped = Buffer.from(whole);
    flipped.writeUInt8(flipped.readUInt8(offset) ^ 4, offset);
    await writeFile(path, flipped);
    await using target = new MemoryLog();
    await assert.rejects(importLog(path, target), /HoldfastError/, `offset ${offset}`);
    const { revision, chain } = await target.head();
    if (revision === 0) continue;
    for await (const entry of log.read(revision)) {
      assert.equal(Buffer.from(entry.chain).equals(chain), true);
      break;
    }
  }
});

it('refuses another history', async (t) => {
  const path = join(await temporary(t), 'log');
  await using log = await filled(4);
  await exportLog((from) => log.read(from), path);
  await using other = new MemoryLog();
  await other.append(someAppend('other'));
  await assert.rejects(importLog(path, other), { code: 'VERSION_CONFLICT' });
  await assert.rejects(
    exportLog((from) => other.read(from), path),
    { code: 'VERSION_CONFLICT' },
  );
  await using longer = await filled(5);
  await assert.rejects(importLog(path, longer), { code: 'VERSION_CONFLICT' });
  await assert.rejects(importLog(`${path}-none`, longer), { code: 'FILE_NOT_FOUND' });
});

async function filled(count: number): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (let index = 0; index < count; index++) await log.append(someAppend(`addr/${index}`));
  return log;
}

async function temporary(t: { after: (fn: () => Promise<void>) => void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-transfer-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}
