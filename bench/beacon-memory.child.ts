// A process that has a Beacon log and its view open, has read all of the log and asked the view for entries anywhere, and
// says what memory that takes: `node --expose-gc beacon-memory.child.ts LOG VIEW`.

import { mkdir, readFile } from 'node:fs/promises';
import { LevelLog } from '../src/beacon/level.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';

export interface MemoryReport {
  readonly residentMiB: number;
  /** Of that, what is the process's own: the rest are files that it has mapped, which the kernel may drop. */
  readonly ownMiB: number;
  /** After a collection, with what buffers hold. */
  readonly heapMiB: number;
}

const lookups = 20_000;
const mebibyte = 2 ** 20;

const [logPath = '', viewPath = ''] = process.argv.slice(2);
for (const path of [logPath, viewPath]) await mkdir(path, { recursive: true });
await using log = await LevelLog.open(logPath);
await using view = await BeaconView.open(await LevelKv.open(viewPath));
const addresses: string[] = [];
let seen = 0;
for await (const { subject } of log.read(1)) {
  // A fair sample of bounded size.
  const at = seen < lookups ? seen : Math.floor(Math.random() * seen);
  if (at < lookups) addresses[at] = subject.slice('addr/'.length);
  seen++;
}
for (const address of addresses) await view.head(address);
globalThis.gc?.();
const { rss, heapUsed, external } = process.memoryUsage();
const report: MemoryReport = {
  residentMiB: Math.round(rss / mebibyte),
  ownMiB: Math.round((await ownKiB()) / 1024),
  heapMiB: Math.round((heapUsed + external) / mebibyte),
};
console.log(JSON.stringify(report));

async function ownKiB(): Promise<number> {
  const status = await readFile('/proc/self/status', 'utf8');
  return Number(/^RssAnon:\s*(\d+) kB$/m.exec(status)?.[1]);
}
