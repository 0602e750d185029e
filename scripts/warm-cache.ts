// Loads all modules of the program once, so that its first start finds them compiled: `npm ci` runs this at its end.
// A failure costs a slower first start and nothing else.

import { globSync } from 'node:fs';
import { join } from 'node:path';
import { saveProgramCache, useProgramCache } from '../src/local/program-cache.ts';

useProgramCache();
const root = join(import.meta.dirname, '..');
const modules = globSync('src/*/**/*.ts', {
  cwd: root,
  exclude: ['**/*.test.ts', '**/*.child.ts', '**/*.worker.ts'],
});
for (const path of modules) await import(join(root, path));
saveProgramCache();
