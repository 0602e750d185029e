import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const program = join(import.meta.dirname, '../../bin/holdfast.js');
let home = '';

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'holdfast-cache-'));
});
after(() => rm(home, { recursive: true, force: true }));

test('where imports lead is kept, used, and found again when it is damaged', async () => {
  const directory = join(home, 'cache');
  await started(directory);
  const path = await tableIn(directory);
  const table = await readFile(path, 'utf8');
  assert.ok(Object.keys(JSON.parse(table) as object).length > 0);
  // What stands there is believed: an import that leads nowhere would fail.
  await writeFile(path, table.replaceAll('.js"', '.gone"'));
  await assert.rejects(started(directory), /\.gone/);
  await writeFile(path, table.slice(0, 100));
  await started(directory);
  assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), JSON.parse(table));
});

test('without a directory that can be written the program starts all the same', async () => {
  const file = join(home, 'a-file');
  await writeFile(file, '');
  await started(join(file, 'cache'));
});

async function tableIn(directory: string): Promise<string> {
  const [name] = (await readdir(directory)).filter((each) => each.startsWith('resolutions-'));
  assert.ok(name !== undefined);
  return join(directory, name);
}

/** Resolves when the program came as far as to say that there is no cluster. */
async function started(directory: string): Promise<void> {
  const env = { ...process.env, NODE_COMPILE_CACHE: directory, HOLDFAST_DATA: join(home, 'nothing') };
  const said = await new Promise<string>((resolve) => {
    execFile(process.execPath, [program, 'status'], { env }, (_error, _stdout, stderr) => resolve(stderr));
  });
  if (!said.includes('no cluster in')) throw new Error(said);
}
