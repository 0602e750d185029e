// Holds the house rules: who may import whom, which files are pure, where a third-party family lives.
// Every rule also has a test that shows it biting; a rule nobody has seen bite proves nothing.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

/** Room → rooms it may import from. Its own is always allowed. A table to change in review, not a wall. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  core: [],
  api: [],
  files: ['core'],
  net: [],
  ucxl: ['core'],
  manifest: ['core', 'ucxl'],
  envelope: ['core'],
  threshold: ['core'],
  custody: ['core', 'envelope', 'manifest', 'threshold', 'net'],
  backbeat: ['core', 'files'],
  beacon: ['core', 'files', 'ucxl', 'manifest', 'envelope', 'custody'],
  steward: ['core', 'ucxl', 'manifest', 'backbeat'],
  node: ['core', 'files', 'manifest'],
  flows: ['core', 'ucxl', 'manifest', 'envelope', 'custody'],
  client: ['api', 'core', 'files', 'ucxl', 'manifest', 'envelope', 'custody', 'flows', 'net'],
  agent: ['core', 'files', 'ucxl', 'manifest', 'envelope', 'custody', 'flows', 'client', 'local', 'net'],
  http: [
    'api',
    'core',
    'ucxl',
    'manifest',
    'envelope',
    'custody',
    'beacon',
    'backbeat',
    'flows',
    'steward',
    'net',
  ],
  local: ['core', 'files', 'net'],
  cli: ['api', 'core', 'files', 'ucxl', 'client', 'custody', 'local'],
  app: [
    'api',
    'core',
    'files',
    'ucxl',
    'manifest',
    'envelope',
    'threshold',
    'custody',
    'backbeat',
    'beacon',
    'steward',
    'node',
    'flows',
    'http',
    'local',
  ],
};

/** Rooms that may know the types of another one, and nothing that runs: answers that come over HTTP. */
const typesOnly: Readonly<Record<string, readonly string[]>> = {
  beacon: ['api'],
  cli: ['steward', 'flows'],
};

/** Files that join rooms, beside the table: each names what it may reach into. */
const joiners: Readonly<Record<string, readonly string[]>> = {
  'src/main.ts': Object.keys(rooms),
  'src/local/layout-create.ts': ['node'],
  'src/local/grants.ts': ['node', 'custody', 'backbeat'],
  'src/local/first-key.ts': ['node', 'custody'],
  'src/cli/connect.ts': ['node'],
  'src/agent/run.ts': ['node'],
};

/** Rooms and files that decide without doing: no IO, no clock, no chance. */
const pure: readonly RegExp[] = [
  /^src\/core\//,
  /^src\/ucxl\//,
  /^src\/manifest\//,
  /^src\/envelope\//,
  /^src\/threshold\//,
  /^src\/flows\//,
  /^src\/custody\/(agreed-records|answer|authorise|ballot|birth|book|budget|canary|capability|capability-file|carried|certificate|default-policy|directory|directory-pin|feed|freshness|misconduct|object-key|order|policy|policy-change|policy-document|proposal)\.ts$/,
  /^src\/custody\/migrate\.ts$/,
  /^src\/custody\/(record-head|refusal|release|replay|request|revocation|scope|signed-map|tally)\.ts$/,
  /^src\/beacon\/(log|fold|rows|records|queries|custody-chain|jetstream-(message|place|settings)|level-(cursor|filter|format|keys|manifest|rows|sweep|tables)|snappy)\.ts$/,
  /^src\/backbeat\/(bar-report|beat|bus|channel|claim|fields|job-schedule|lease|reverb|schedule|status-claim|subjects|tempo|tempo-report|tempo-tracker)\.ts$/,
  /^src\/steward\/(catalogue|class-lists|classes|demand|digest-sum|holdings|jobs|ledger|ledger-queries|liveness|place|plan|shares|slot-queue|slot-table|status|view|wire)\.ts$/,
  /^src\/node\/(der|membership|rpc-frames|provider-wire|provider-schedule|keeper-schedule)\.ts$/,
];

/** Third-party family → where it may be imported. */
const families: readonly { readonly name: RegExp; readonly home: RegExp }[] = [
  {
    name: /^(libp2p|@libp2p\/|@multiformats\/multiaddr|datastore-level|interface-datastore)/,
    home: /^src\/node\//,
  },
  {
    name: /^classic-level$/,
    home: /^src\/(beacon\/(level|view-level|kv-level)|node\/[a-z.-]+|steward\/ledger-level)\.ts$/,
  },
  { name: /^(multiformats|@ipld\/)/, home: /^src\/(core\/(block|cbor)|node\/[a-z-]+|manifest\/car)\.ts$/ },
  { name: /^libsodium/, home: /^src\/threshold\// },
  // In tests only: the second opinion.
  { name: /^@noble\//, home: /^$/ },
  { name: /^prom-client$/, home: /^src\/http\// },
  { name: /^@nats-io\//, home: /^src\/(beacon\/jetstream-stream|backbeat\/nats)\.ts$/ },
  { name: /^koffi$/, home: /^src\/(custody\/pkcs11-binding|envelope\/gcm-openssl)\.ts$/ },
];

interface Source {
  readonly path: string;
  readonly text: string;
}

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

function importsOf(text: string): Import[] {
  const found: Import[] = [];
  const pattern = /^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
  for (const [, type, target] of text.matchAll(pattern)) {
    if (target !== undefined) found.push({ target, typeOnly: type !== undefined });
  }
  for (const [, target] of text.matchAll(/\bimport\('([^']+)'\)/g)) {
    if (target !== undefined) found.push({ target, typeOnly: false });
  }
  return found;
}

function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function brokenTable(source: Source): string[] {
  const room = roomOf(source.path);
  const allowed = [
    ...(room === undefined ? [] : [room, ...(rooms[room] ?? [])]),
    ...(joiners[source.path] ?? []),
  ];
  return importsOf(source.text)
    .filter(({ target }) => target.startsWith('.'))
    .map(({ target, typeOnly }) => ({ target: normalize(join(dirname(source.path), target)), typeOnly }))
    .filter(({ target, typeOnly }) => {
      const to = roomOf(target) ?? target;
      return !allowed.includes(to) && !(typeOnly && (typesOnly[room ?? ''] ?? []).includes(to));
    })
    .map(({ target }) => `${source.path} may not import ${target}`);
}

function brokenPurity(source: Source): string[] {
  if (!pure.some((pattern) => pattern.test(source.path))) return [];
  const broken = importsOf(source.text)
    .filter(
      ({ target }) => target.startsWith('node:') && !/^src\/(core|envelope|threshold)\//.test(source.path),
    )
    .map(({ target }) => `${source.path} is pure and may not import ${target}`);
  const io = importsOf(source.text).filter(
    ({ target, typeOnly }) =>
      !typeOnly && /^node:(fs|net|http|https|child_process|os|timers|worker_threads|process)/.test(target),
  );
  broken.push(...io.map(({ target }) => `${source.path} is pure and may not import ${target}`));
  const code = source.text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, '');
  for (const word of [
    'Date.now',
    'new Date()',
    'Math.random',
    'setTimeout',
    'setInterval',
    'performance.now',
    'process.',
  ]) {
    if (code.includes(word)) broken.push(`${source.path} is pure and may not use ${word}`);
  }
  return broken;
}

function brokenFamilies(source: Source): string[] {
  return importsOf(source.text).flatMap(({ target }) =>
    families
      .filter(({ name, home }) => name.test(target) && !home.test(source.path))
      .map(() => `${source.path} may not import ${target}: that family lives elsewhere`),
  );
}

function brokenShape(source: Source): string[] {
  const broken: string[] = [];
  if (/^export\s+default\b/m.test(source.text)) broken.push(`${source.path}: named exports only`);
  if (/^export\s+\*/m.test(source.text)) broken.push(`${source.path}: doors are explicit lists, no export *`);
  if (/\bfrom\s+'\.[^']*(?<!\.ts)'/.test(source.text))
    broken.push(`${source.path}: relative imports end in .ts`);
  return broken;
}

const rules = { table: brokenTable, purity: brokenPurity, families: brokenFamilies, shape: brokenShape };
const sources: Source[] = globSync('src/**/*.ts')
  .filter((path) => !path.endsWith('.test.ts') && !path.endsWith('.child.ts'))
  .map((path) => ({ path: path.replaceAll('\\', '/'), text: readFileSync(path, 'utf8') }));

for (const [name, rule] of Object.entries(rules)) {
  test(`${name}: the sources keep it`, () => {
    assert.ok(sources.length > 20, `only ${sources.length} sources found: the test looks in the wrong place`);
    assert.deepEqual(sources.flatMap(rule), []);
  });
}

test('every room under src is in the table', () => {
  const unknown = sources
    .map(({ path }) => roomOf(path))
    .filter((room) => room !== undefined && !(room in rooms));
  assert.deepEqual([...new Set(unknown)], []);
});

test('the rules bite', () => {
  const bites = (rule: (source: Source) => string[], path: string, text: string): void =>
    assert.notDeepEqual(rule({ path, text }), [], `${path}: ${text}`);
  bites(brokenTable, 'src/core/a.ts', "import { b } from '../ucxl/b.ts';");
  bites(brokenTable, 'src/steward/a.ts', "import type { b } from '../node/b.ts';");
  bites(brokenTable, 'src/cli/a.ts', "export { b } from '../beacon/b.ts';");
  bites(brokenTable, 'src/cli/a.ts', "import { b } from '../steward/b.ts';");
  bites(brokenPurity, 'src/steward/plan.ts', 'const now = Date.now();');
  bites(brokenPurity, 'src/steward/plan.ts', "import { readFile } from 'node:fs/promises';");
  bites(brokenPurity, 'src/flows/put.ts', "import { hash } from 'node:crypto';");
  bites(brokenPurity, 'src/core/clock.ts', "import { readFile } from 'node:fs/promises';");
  bites(brokenFamilies, 'src/http/a.ts', "import { createLibp2p } from 'libp2p';");
  bites(brokenFamilies, 'src/http/a.ts', "import {\n  ClassicLevel,\n} from 'classic-level';");
  bites(brokenFamilies, 'src/custody/a.ts', "import * as sodium from 'libsodium-wrappers-sumo';");
  bites(brokenFamilies, 'src/envelope/a.ts', "import { ed25519 } from '@noble/curves/ed25519.js';");
  bites(brokenTable, 'src/threshold/a.ts', "import { b } from '../envelope/b.ts';");
  bites(brokenPurity, 'src/threshold/a.ts', "import { readFile } from 'node:fs/promises';");
  bites(brokenFamilies, 'src/flows/a.ts', "const x = await import('@libp2p/tcp');");
  bites(brokenFamilies, 'src/custody/a.ts', "const koffi = await import('koffi');");
  bites(brokenShape, 'src/http/a.ts', 'export default 1;');
  bites(brokenShape, 'src/http/a.ts', "export * from './b.ts';");
  bites(brokenShape, 'src/http/a.ts', "import { b } from './b';");
});
