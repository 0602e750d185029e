import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);
const root = join(import.meta.dirname, '../..');
const program = join(root, 'bin/holdfast.js');
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

test('what our modules import of packages leads to a bundle that exports the same', async () => {
  const directory = join(root, 'node_modules/.cache/holdfast');
  const table = JSON.parse(await readFile(await tableIn(directory), 'utf8')) as Record<string, [string]>;
  const bundled = Object.entries(table).filter(
    ([key, [path]]) => key.startsWith(' ') && path.includes('/packages-'),
  );
  const names = bundled.map(([key]) => key.slice(1));
  assert.ok(names.includes('libp2p') && names.includes('@libp2p/kad-dht'), names.join());
  // Without the cache each is found by Node.
  const list = `Promise.all(${JSON.stringify(names)}.map((name) => import(name))).then((all) =>
    console.log(JSON.stringify(all.map((each) => Object.keys(each)))))`;
  const { stdout } = await execFileAsync(process.execPath, ['-e', list], {
    cwd: root,
    env: { ...process.env, NODE_DISABLE_COMPILE_CACHE: '1' },
  });
  const expected = JSON.parse(stdout) as string[][];
  for (const [index, [, [path]]] of bundled.entries()) {
    const module = (await import(pathToFileURL(join(root, 'node_modules', path)).href)) as object;
    assert.deepEqual(Object.keys(module), expected[index], names[index]);
  }
});

test('without a directory that can be written the program starts all the same', async () => {
  const file = join(home, 'a-file');
  await writeFile(file, '');
  await started(join(file, 'cache'));
});

async function tableIn(directory: string): Promise<string> {
  const names = (await readdir(directory)).filter((each) => each.startsWith('resolutions-'));
  const newest = names.toSorted().at(-1); // each installation has a later date in it
  assert.ok(newest !== undefined);
  return join(directory, newest);
}

/** Resolves when the program came as far as to say that there is no cluster. */
async function started(directory: string): Promise<void> {
  const env = { ...process.env, NODE_COMPILE_CACHE: directory, HOLDFAST_DATA: join(home, 'nothing') };
  const said = await new Promise<string>((resolve) => {
    execFile(process.execPath, [program, 'status'], { env }, (_error, _stdout, stderr) => resolve(stderr));
  });
  if (!said.includes('no cluster in')) throw new Error(said);
}
