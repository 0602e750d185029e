// Runs every test in one go: the pure ones beside their files, then the ones that start processes.
//
//   node scripts/test.ts [name part …]   only files whose path contains one of the parts
//
// Files that repeat for longer what another test shows once are left out, unless they are named or HOLDFAST_FULL=1
// (as .ci/run sets it): `npm test` is to stay under ten minutes on two cores, and says what it did not run. The slowest
// are for a release: only when they are named, or with HOLDFAST_ALL=1, because .ci/run has its limit too.
//
// Groups follow each other: of those that start ten processes two run at a time, of the others four, because each waits
// now and then for disks, leases and bars. What only computes for minutes goes beside the former, at the lowest priority:
// it takes the time in which they wait. What is held against a clock or a number of bytes comes last, alone but for what
// mostly waits. Tests of pure rooms share a process: to load the program for each file takes longer than its tests.
//
// A skipped test is named at the end; with HOLDFAST_STRICT=1 (as .ci/run sets it) it counts as failed, unless its
// reason begins with 'optional:', which is for a server that no Debian package brings.

import { globSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { programCache, useProgramCache } from '../src/local/program-cache.ts';

interface Group {
  readonly name: string;
  readonly files: readonly string[];
  readonly concurrency: number;
  /** What runs meanwhile: in each lane one after the other, each a file, or many that share a process. */
  readonly beside?: readonly (readonly (readonly string[])[])[];
}

interface Outcome {
  passed: number;
  failed: string[];
  skipped: string[];
}

const strict = process.env['HOLDFAST_STRICT'] === '1';
const wanted = process.argv.slice(2);
const isAll = process.env['HOLDFAST_ALL'] === '1';
const isFull = isAll || process.env['HOLDFAST_FULL'] === '1';
const slowest = ['test/cluster/any-one.test.ts', 'test/cluster/custody-tools.test.ts'];
const long = [
  'src/custody/ceremony-crash.test.ts',
  'src/custody/rotation-crash.test.ts',
  'test/cluster/custodian-loss.test.ts',
  'test/cluster/custody-new-group.test.ts',
  'test/cluster/custody-rotate.test.ts',
  'test/cluster/damaged-stream.test.ts',
  'test/cluster/hygiene.test.ts',
  'test/cluster/key-providers.test.ts',
  'test/cluster/memory.test.ts',
  'test/cluster/migrate-killed.test.ts',
  'test/cluster/soak.test.ts',
  'test/cluster/stewards.test.ts',
  'test/cluster/stranded.test.ts',
];
/** They only compute, for minutes. */
const computing = globSync('src/custody/{rotation,ceremony}-crash.test.ts');
/** A process or two each: they go with the rooms. */
const light = globSync('test/cluster/{late-node,secrecy}.test.ts');
/** A minute or more each, in which they mostly wait: two lanes of them. */
const patient = [
  globSync('test/cluster/{damaged-stream,replicated-beacon}.test.ts').map((file) => [file]),
  [globSync('test/cluster/stewards.test.ts')],
];
const measured = globSync('test/cluster/{dht-gates,memory,peers,soak}.test.ts');
const ofClusters = globSync('test/cluster/*.test.ts', {
  exclude: [...measured, ...light, ...patient.flat(2)],
});
/** Of each group, so that none of them is begun when all else is done. */
const first = [
  'src/app/beacon-moves.test.ts',
  'src/app/beacon-next.test.ts',
  ...light,
  ...globSync(['src/beacon/jetstream*.test.ts', 'test/power-cut.test.ts', 'src/custody/rotation.test.ts']),
  'test/cluster/custody-new-group.test.ts',
  'test/cluster/cli.test.ts',
  'test/cluster/stranded.test.ts',
  'test/cluster/custody-rotate.test.ts',
  'test/cluster/promise.test.ts',
  // What is held against a clock comes when what runs beside it has started.
  'test/cluster/memory.test.ts',
  'test/cluster/soak.test.ts',
];
/** Rooms whose tests leave a process as they found it. Those of custody that take long are better beside each other. */
const pure = [
  globSync('src/threshold/*.test.ts'),
  globSync('src/{core,ucxl,manifest,envelope,flows,steward,http}/*.test.ts'),
  globSync('src/custody/*.test.ts', {
    exclude: globSync(
      'src/custody/{ballot,ceremony*,first-key,messages,pkcs11*,policy-change,rotation*,sequences,split*,transit*}.test.ts',
    ),
  }),
];
const rooms = globSync(['src/**/*.test.ts', 'test/*.test.ts'], { exclude: [...pure.flat(), ...computing] });
const groups: readonly Group[] = [
  { name: 'rooms', files: [...rooms, ...light], concurrency: 3, beside: [pure] },
  { name: 'cluster', files: ofClusters, concurrency: 2, beside: [computing.map((file) => [file])] },
  { name: 'measured', files: measured, concurrency: 1, beside: patient },
];

// What one test has compiled and looked up, the next one finds, and each process that a test starts.
useProgramCache();
const cache = programCache();
if (cache !== undefined) process.env['NODE_COMPILE_CACHE'] = cache;
const withCache = join(import.meta.dirname, 'with-cache.ts');
const together = join(import.meta.dirname, 'together.ts');
const patiently = join(import.meta.dirname, 'patiently.ts');

const outcome: Outcome = { passed: 0, failed: [], skipped: [] };
const elapsedMs = new Map<string, number>();
let filesCount = 0;
for (const { name, files, concurrency, beside = [] } of groups) {
  const alone = chosen(files);
  const aside = beside.map((lane) => lane.map(chosen).filter((batch) => batch.length > 0));
  const count = alone.length + aside.flat(2).length;
  if (count === 0) continue;
  filesCount += count;
  console.log(`${name}: ${count} test files`);
  const startedMs = performance.now();
  await Promise.all([runFiles(alone, { concurrency }), ...aside.map(runBatches)]);
  elapsedMs.set(`all ${name}`, performance.now() - startedMs);
}
if (filesCount === 0) outcome.failed.push(`no test file matches ${wanted.join(' ')}`);

const times = [...elapsedMs].sort(([, a], [, b]) => b - a).slice(0, 12);
for (const [file, ms] of times) console.log(`${(ms / 1000).toFixed(1).padStart(6)} s  ${file}`);
if (wanted.length === 0) {
  for (const file of isFull ? [] : long) console.log(`not run without HOLDFAST_FULL=1: ${file}`);
  for (const file of isAll ? [] : slowest) console.log(`not run without HOLDFAST_ALL=1: ${file}`);
}
for (const name of outcome.skipped) console.log(`skipped: ${name}`);
for (const name of outcome.failed) console.log(`FAILED: ${name}`);
const missed = strict ? outcome.skipped.filter((name) => !name.includes('(optional: ')).length : 0;
const failures = outcome.failed.length + missed;
console.log(`${outcome.passed} passed, ${failures} failed, ${outcome.skipped.length - missed} skipped`);
process.exitCode = failures === 0 ? 0 : 1;

/** Those that are to run, in their order. */
function chosen(files: readonly string[]): string[] {
  return files
    .filter((file) => (wanted.length === 0 ? !isLeftOut(file) : isWanted(file)))
    .toSorted()
    .toSorted((a, b) => rank(a) - rank(b));
}

function isLeftOut(file: string): boolean {
  return (!isFull && long.includes(file)) || (!isAll && slowest.includes(file));
}

function isWanted(file: string): boolean {
  return wanted.some((part) => file.includes(part));
}

function rank(file: string): number {
  const at = first.indexOf(file);
  return at === -1 ? first.length : at;
}

async function runBatches(batches: readonly (readonly string[])[]): Promise<void> {
  for (const batch of batches)
    if (batch.length === 1) await runFiles(batch, { concurrency: 1 });
    else await runFiles([together], { concurrency: 1, argv: batch.map((file) => resolve(file)) });
}

async function runFiles(
  files: readonly string[],
  { concurrency, argv = [] }: { concurrency: number; argv?: readonly string[] },
): Promise<void> {
  if (files.length === 0) return;
  const isLast = files.every((file) => computing.includes(file));
  const stream = run({
    files,
    argv,
    concurrency,
    timeout: isLast ? 900_000 : 420_000,
    execArgv: [
      '--no-warnings=ExperimentalWarning',
      `--import=${withCache}`,
      ...(isLast ? [`--import=${patiently}`] : []),
    ],
  });
  for await (const event of stream) {
    const { type, data } = event as { type: string; data: TestEvent };
    const file = relative(process.cwd(), data.file ?? '');
    if (type === 'test:stderr') process.stderr.write(data.message ?? '');
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const name = `${file}: ${data.name}`;
    if (data.nesting === 0)
      elapsedMs.set(file, (elapsedMs.get(file) ?? 0) + (data.details?.duration_ms ?? 0));
    if (data.skip !== undefined && data.skip !== false)
      outcome.skipped.push(`${name} (${String(data.skip)})`);
    else if (type === 'test:pass') outcome.passed += data.details?.type === 'suite' ? 0 : 1;
    else {
      const why = reason(data.details?.error);
      outcome.failed.push(`${name}: ${why.split('\n', 1)[0]}`);
      console.log(`\n✗ ${name} (${Math.round(data.details?.duration_ms ?? 0)} ms)\n${why}\n`);
    }
  }
}

interface TestEvent {
  readonly name?: string;
  readonly file?: string;
  readonly message?: string;
  /** 0 for what a file calls itself. */
  readonly nesting?: number;
  readonly skip?: boolean | string;
  readonly details?: { readonly type?: string; readonly duration_ms?: number; readonly error?: unknown };
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner = error.cause instanceof Error ? error.cause : error;
  return inner.stack ?? inner.message;
}
