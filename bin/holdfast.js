#!/usr/bin/env node
// The command. JavaScript, for two reasons: Node has its compile cache before it meets TypeScript, and need not load
// what strips the types (a quarter of the time of a short command); and an older Node, which knows none, gets a sentence.

import module from 'node:module';
import { fileURLToPath } from 'node:url';

if (process.features.typescript === undefined || process.features.typescript === false) {
  console.error(
    `holdfast: needs Node 24 and this is ${process.version}; \`npm ci\` brings it, \`npx holdfast\` and \`npm start\` use it`,
  );
  process.exit(1);
}
// As src/local/program-cache.ts says, which adds to it.
if (process.env.NODE_COMPILE_CACHE === undefined)
  module.enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/holdfast', import.meta.url)));
await import('../src/main.ts');
