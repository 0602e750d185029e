import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createWhole, writeWhole } from './whole.ts';

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-whole-'));
});
after(() => rm(dir, { recursive: true, force: true }));

test('a file is replaced whole, with the mode asked for, and nothing is left beside it', async () => {
  const path = join(dir, 'a');
  await writeWhole(path, 'first', 0o600);
  await writeWhole(path, pieces('sec', 'ond'), 0o600);
  assert.equal(await readFile(path, 'utf8'), 'second');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(dir), ['a']);
});

test('what breaks off in the middle leaves the file as it was', async () => {
  const path = join(dir, 'b');
  await writeWhole(path, 'whole', 0o600);
  await assert.rejects(writeWhole(path, breaking(), 0o600), /the source broke/);
  assert.equal(await readFile(path, 'utf8'), 'whole');
  assert.deepEqual((await readdir(dir)).sort(), ['a', 'b']);
});

test('creating never replaces: of many at once one wins', async () => {
  const path = join(dir, 'c');
  const tries = await Promise.allSettled(
    Array.from({ length: 8 }, (_, index) => createWhole(path, String(index), 0o600)),
  );
  const won = tries.flatMap((each, index) => (each.status === 'fulfilled' ? [index] : []));
  assert.equal(won.length, 1);
  assert.equal(await readFile(path, 'utf8'), String(won[0]));
  await assert.rejects(createWhole(path, 'late', 0o600), { code: 'FILE_EXISTS' });
});

test('errors of the disk have names and a cause', async () => {
  await assert.rejects(writeWhole(join(dir, 'nowhere', 'd'), 'x', 0o600), { code: 'FILE_NOT_FOUND' });
  await writeFile(join(dir, 'plain'), '');
  await assert.rejects(
    writeWhole(join(dir, 'plain', 'd'), 'x', 0o600),
    (error: Error) =>
      'code' in error &&
      error.code === 'FILE_UNREADABLE' &&
      /\(ENOTDIR\)/.test(error.message) &&
      error.cause !== undefined,
  );
  await mkdir(join(dir, 'folder'));
  await assert.rejects(writeWhole(join(dir, 'folder'), 'x', 0o600), { code: 'FILE_UNREADABLE' });
});

async function* pieces(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

async function* breaking(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('half');
  throw new Error('the source broke');
}
