import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { collect, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { LevelLog } from './level.ts';

const isRoot = process.getuid?.() === 0;

it('is read-only while the disk is full, loses nothing, and goes on without a restart', {
  skip: !isRoot && 'a tmpfs of 8 MiB needs root',
}, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory]);
  t.after(async () => {
    execFileSync('umount', [directory]);
    await rm(directory, { recursive: true });
  });
  await using log = await LevelLog.open(join(directory, 'log'), { freeBytesMin: 1024 * 1024 });
  const big = (index: number) =>
    someAppend(`addr/${index}`, {
      id: new Uint8Array(16).fill(index),
      records: [{ key: 'k', bytes: new Uint8Array(60_000).fill(index) }],
    });
  const ballast = join(directory, 'ballast');
  await writeFile(ballast, new Uint8Array(6 * 1024 * 1024));
  let acknowledged = 0;
  const fill = async (): Promise<void> => {
    for (; acknowledged < 100; acknowledged++) await log.append(big(acknowledged + 1));
  };
  await assert.rejects(fill, { code: 'DISK_FULL' });
  assert.equal(log.health().state, 'read-only');
  await assert.rejects(log.append(big(101)), { code: 'DISK_FULL' });
  assert.equal((await collect(log.read(1))).length, acknowledged);
  await rm(ballast);
  // The one that failed is sent again: it counts once, whatever the full disk kept of it.
  const { revision } = await log.append(big(acknowledged + 1));
  assert.equal(revision, acknowledged + 1);
  assert.equal(log.health().state, 'ready');
  assert.equal((await collect(log.read(1))).length, acknowledged + 1);
});
