// Peak resident set of every process of a local cluster while one large object is put, got and healed:
//
//   node bench/memory.bench.ts [MiB, default 2048] [--trace]
//
// Each phase is measured by itself: before it the kernel's count is set back. What is printed is the peak of the
// phase; with --trace also what was resident, anonymous and of files, a few times a second.

import { writeFile } from 'node:fs/promises';
import type { StewardStatus } from '../src/steward/status.ts';
import { allHealthy, TestCluster } from '../test/helpers/cluster.ts';
import { madeContent, madeDigest, peaksOf, residentOf, runCli } from '../test/helpers/peak-memory.ts';

const mebibyte = 1_048_576;
const sizeMiB = Number(process.argv.slice(2).find((word) => /^\d+$/.test(word)) ?? 2048);
const totalBytes = sizeMiB * mebibyte;
const address = 'ucxl://bench:memory@cluster:run/*^/large';

await using cluster = await TestCluster.start({ settings: { graceMs: 2000 } });
const control = await cluster.control();
const rows: { readonly phase: string; readonly peaks: Map<string, number>; readonly seconds: number }[] = [];
using _tracing = process.argv.includes('--trace') ? trace() : undefined;

await new Promise((resolve) => setTimeout(resolve, 2000));
await phase('start', async () => undefined);
await phase('put', async () => runCli(['put', address, '-', '--data', cluster.dir], madeContent(totalBytes)));
await phase('get', async () => {
  const run = await runCli(['get', address, '--data', cluster.dir]);
  if (run.digest !== madeDigest(totalBytes)) throw new Error('other bytes came back');
  return run;
});
await cluster.until('all healthy', allHealthy, 600_000);
await phase('heal', heal);

const names = [...new Set(rows.flatMap(({ peaks }) => [...peaks.keys()]))];
console.log(`${sizeMiB} MiB; peak resident set in MiB`);
console.log(`${'phase'.padEnd(8)}${names.map((name) => name.padStart(9)).join('')}    MiB/s`);
for (const row of rows)
  console.log(
    row.phase.padEnd(8) +
      names.map((name) => (row.peaks.get(name)?.toFixed(0) ?? '').padStart(9)).join('') +
      (row.seconds === 0 ? '' : (sizeMiB / row.seconds).toFixed(1)).padStart(9),
  );

async function phase(
  name: string,
  work: () => Promise<{ readonly peak?: number; readonly seconds: number } | undefined>,
): Promise<void> {
  if (name !== 'start') await forgetPeaks();
  const done = await work();
  const peaks = await peaksOf(control);
  if (done?.peak !== undefined) peaks.set('client', done.peak);
  rows.push({ phase: name, peaks, seconds: done?.seconds ?? 0 });
  console.error(`${name}: ${[...peaks].map(([each, peak]) => `${each} ${peak.toFixed(0)}`).join(', ')}`);
}

async function heal(): Promise<{ readonly seconds: number }> {
  const bytesOf = ({ nodes }: StewardStatus): number =>
    nodes.find(({ name }) => name === 'node-5')?.bytes ?? 0;
  const { steward } = await cluster.status();
  const before = steward === null ? 0 : bytesOf(steward);
  const started = performance.now();
  await control.wipeNode('node-5');
  await cluster.until('the loss was seen', (status) => bytesOf(status) < before / 2, 120_000);
  await cluster.until('healed', (s) => allHealthy(s) && bytesOf(s) > 0.95 * before, 600_000);
  return { seconds: (((performance.now() - started) / 1000) * totalBytes) / before };
}

/** Sets the kernel's count of the most back to what is resident now. */
async function forgetPeaks(): Promise<void> {
  for (const { pid } of (await control.state()).processes)
    if (pid !== undefined) await writeFile(`/proc/${pid}/clear_refs`, '5');
}

function trace(): Disposable {
  const timer = setInterval(() => void traceLine(), 1000);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function traceLine(): Promise<void> {
  const parts: string[] = [];
  for (const { name, pid } of (await control.state()).processes) {
    const now = pid === undefined ? undefined : await residentOf(pid);
    if (now !== undefined) parts.push(`${name} ${now.anonymous.toFixed(0)}+${now.files.toFixed(0)}`);
  }
  console.error(`  ${parts.join('  ')}`);
}
