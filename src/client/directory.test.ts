import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { utf8 } from '../core/bytes.ts';
import { DirectoryWriter, readDirectory, readFileBytes, writeFileWhole } from './directory.ts';

test('every file is listed, sorted, with what was left out', async (t) => {
  const dir = await scratch(t);
  await mkdir(join(dir, 'b/c'), { recursive: true });
  for (const name of ['b/c/z', 'b.txt', 'a']) await writeFile(join(dir, name), name);
  await symlink('/etc/passwd', join(dir, 'link'));
  const { files, skipped, sizeBytes } = await readDirectory(dir);
  assert.deepEqual(
    files.map(({ name }) => name),
    ['a', 'b.txt', 'b/c/z'],
  );
  assert.deepEqual(
    skipped.map(({ name }) => name),
    ['link'],
  );
  assert.equal(sizeBytes, 11);
  assert.equal(await text(files[2]?.open() ?? pieces([])), 'b/c/z');
});

test('a directory or file that is not there, or no longer, is named', async (t) => {
  const dir = await scratch(t);
  await writeFile(join(dir, 'a'), 'x');
  const { files } = await readDirectory(dir);
  await rm(join(dir, 'a'));
  await assert.rejects(text(files[0]?.open() ?? pieces([])), {
    code: 'FILE_NOT_FOUND',
    message: /\/a does not/,
  });
  await assert.rejects(readDirectory(join(dir, 'none')), { code: 'FILE_NOT_FOUND' });
  await assert.rejects(text(readFileBytes(dir)), { code: 'FILE_UNREADABLE' });
});

test('a file that its owner may not read is named before anything is read', async (t) => {
  const dir = await scratch(t);
  await writeFile(join(dir, 'open'), 'x');
  await writeFile(join(dir, 'closed'), 'x', { mode: 0 });
  await chmod(dir, 0o755);
  await withoutPrivileges(async () => {
    await assert.rejects(readDirectory(dir), { code: 'FILE_UNREADABLE', message: /\/closed cannot be read/ });
  });
});

test('a file swapped for a link after the listing is not followed', async (t) => {
  const dir = await scratch(t);
  await writeFile(join(dir, 'a'), 'x');
  const { files } = await readDirectory(dir);
  await rm(join(dir, 'a'));
  await symlink('/etc/passwd', join(dir, 'a'));
  await assert.rejects(text(files[0]?.open() ?? pieces([])), { code: 'FILE_UNREADABLE' });
});

test('a file appears whole or not at all, and replaces another only by force', async (t) => {
  const dir = await scratch(t);
  const path = join(dir, 'a');
  await writeFileWhole(path, pieces(['one']));
  await assert.rejects(writeFileWhole(path, pieces(['two'])), { code: 'FILE_EXISTS' });
  await assert.rejects(writeFileWhole(path, pieces(['two'], new Error('broke')), { force: true }), /broke/);
  assert.equal(await readFile(path, 'utf8'), 'one');
  await writeFileWhole(path, pieces(['two', 'three']), { force: true });
  assert.equal(await readFile(path, 'utf8'), 'twothree');
  assert.deepEqual(await readdir(dir), ['a'], 'no half file is left');
});

test('nothing made meanwhile is replaced', async (t) => {
  const path = join(await scratch(t), 'a');
  async function* racing(): AsyncGenerator<Uint8Array> {
    await writeFile(path, 'first');
    yield utf8('second');
  }
  await assert.rejects(writeFileWhole(path, racing()), { code: 'FILE_EXISTS' });
  assert.equal(await readFile(path, 'utf8'), 'first');
});

test('a tree is written below its target and nowhere else', async (t) => {
  const dir = await scratch(t);
  const target = join(dir, 'target');
  await mkdir(join(dir, 'outside'));
  const writer = await DirectoryWriter.open(target);
  await writer.write('a/b/c', pieces(['x']));
  await symlink(join(dir, 'outside'), join(target, 'door'));
  await assert.rejects(writer.write('door/c', pieces(['x'])), { code: 'FILE_UNREADABLE' });
  await assert.rejects(writer.write('../c', pieces(['x'])), { code: 'RECORD_INVALID' });
  await assert.rejects(writer.write('a/../../c', pieces(['x'])), { code: 'RECORD_INVALID' });
  assert.equal(await readFile(join(target, 'a/b/c'), 'utf8'), 'x');
  assert.deepEqual(await readdir(join(dir, 'outside')), []);
  assert.deepEqual((await readdir(dir)).sort(), ['outside', 'target']);
});

test('a target that holds something is used only by force, and then a link in it is replaced, not followed', async (t) => {
  const dir = await scratch(t);
  const [target, outside] = [join(dir, 'target'), join(dir, 'outside')];
  await mkdir(target);
  await writeFile(outside, 'mine');
  await symlink(outside, join(target, 'a'));
  await assert.rejects(DirectoryWriter.open(target), { code: 'FILE_EXISTS' });
  await (await DirectoryWriter.open(target, { force: true })).write('a', pieces(['x']));
  assert.equal(await readFile(outside, 'utf8'), 'mine');
  assert.equal(await readFile(join(target, 'a'), 'utf8'), 'x');
});

async function scratch(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-directory-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

async function* pieces(parts: readonly string[], end?: Error): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield utf8(part);
  if (end !== undefined) throw end;
}

async function text(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(bytes)).toString();
}

/** Root reads everything: as root, the work is done as nobody would see it, by owner and mode alone. */
async function withoutPrivileges(work: () => Promise<void>): Promise<void> {
  const root = process.geteuid?.() === 0;
  if (!root) return work();
  process.seteuid?.(65_534);
  try {
    await work();
  } finally {
    process.seteuid?.(0);
  }
}
