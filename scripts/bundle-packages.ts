// Makes some fifty files of the six hundred that the packages of this program are, for its own imports of them: to
// find, read and link a module takes longer than to run most of them. `npm ci` runs this before it warms the cache.
// A failure costs slower starts and nothing else.

import { createHash } from 'node:crypto';
import { globSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { basename, join, relative } from 'node:path';
import { build } from 'esbuild';
import {
  keepResolutions,
  programCache,
  saveProgramCache,
  useProgramCache,
} from '../src/local/program-cache.ts';

/** With code that is not JavaScript, which they look for beside themselves. */
const apart = ['classic-level', 'koffi', 'libsodium-wrappers-sumo'];
const root = join(import.meta.dirname, '..');
const common = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  metafile: true,
  outdir: 'packages',
  platform: 'node',
  target: 'esnext',
  write: false,
} as const;

useProgramCache();
const directory = programCache();
if (directory?.startsWith(join(root, 'node_modules')) === true) await bundle(directory);

async function bundle(cache: string): Promise<void> {
  const names = await imported();
  const { metafile, outputFiles } = await build({
    ...common,
    entryPoints: Object.fromEntries(names.map((name) => [fileOf(name), name])),
    external: apart,
    splitting: true,
    outExtension: { '.js': '.mjs' },
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  const hash = createHash('sha256');
  for (const { path, contents } of outputFiles) hash.update(path).update(contents);
  const home = join(cache, `packages-${hash.digest('hex').slice(0, 16)}`);
  const draft = `${home}.${process.pid}`;
  mkdirSync(draft, { recursive: true });
  for (const { path, contents } of outputFiles) writeFileSync(join(draft, basename(path)), contents);
  try {
    renameSync(draft, home);
  } catch {
    rmSync(draft, { recursive: true }); // it is there already
  }
  const below = relative(join(root, 'node_modules'), home);
  // What is not an ES module has lost the names of what it exports, and stays where it is.
  const whole = names.filter(
    (name) => metafile.outputs[`packages/${fileOf(name)}.mjs`]?.exports.join() !== 'default',
  );
  keepResolutions(whole.map((name) => [name, `${below}/${fileOf(name)}.mjs`]));
  saveProgramCache();
}

/** What modules of ours import of packages when they run, not only for its types. */
async function imported(): Promise<string[]> {
  const entryPoints = globSync('src/*/**/*.ts', { cwd: root, exclude: ['**/*.test.ts', '**/*.child.ts'] });
  const { metafile } = await build({ ...common, entryPoints, packages: 'external', logLevel: 'error' });
  const all = Object.values(metafile.inputs).flatMap(({ imports }) => imports);
  const names = all
    .filter(({ external, path }) => external === true && !isBuiltin(path))
    .map(({ path }) => path);
  return [...new Set(names)].filter((name) => !apart.includes(name)).toSorted();
}

function fileOf(name: string): string {
  return name.replaceAll('/', '+');
}
