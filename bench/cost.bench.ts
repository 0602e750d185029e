// Processor time that one operation costs, over all processes of a local cluster and by process:
//
//   node bench/cost.bench.ts [small objects, default 600] [large objects of 16 MiB, default 16]
//
// Where other work shares the machine, times on the wall say little and these still say something. Read from
// /proc/PID/stat around each phase, the threads of each process included; the client is this process. What the
// cluster uses while nothing is asked of it is measured first and taken off. A busy machine also makes each
// millisecond worth less: so a fixed piece of work is timed beside every phase, and its time is printed.

import { randomFillSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { mapInOrder } from '../src/core/concurrency.ts';
import { allHealthy, TestCluster } from '../test/helpers/cluster.ts';
import { sealingClient } from '../test/helpers/sealing-client.ts';

const mebibyte = 1_048_576;
const objectBytes = 16 * mebibyte;
const smallCount = Number(process.argv[2] ?? 600);
const largeCount = Number(process.argv[3] ?? 16);
/** Of the clock that /proc counts in. */
const tickMs = 10;
const content = new Uint8Array(objectBytes);
randomFillSync(content);

await using cluster = await TestCluster.start({ settings: { graceMs: 2000 } });
await using client = await sealingClient(cluster);
const address = (name: string): string => `ucxl://bench:writer@cluster:run/*^/${name}`;
const control = await cluster.control();

const putSmall = (name: string, index: number): Promise<unknown> =>
  client.put(address(`${name}-${index}`), [content.subarray(index, index + 1024)]);
const get = async (name: string): Promise<void> => {
  const { bytes } = await client.get(address(name));
  for await (const chunk of bytes) void chunk;
};
await phase('', 200, 16, (index) => putSmall('warm', index)); // compile first
await cluster.until('all healthy', allHealthy, 120_000);
let idlePerSecond = new Map<string, number>();
idlePerSecond = await phase('idle, each second', 10, 1, () => sleep(1000));
await phase('put 1 KiB, 16 at once', smallCount, 16, (index) => putSmall('small', index));
await phase('get 1 KiB, 16 at once', smallCount, 16, (index) => get(`small-${index}`));
await phase('put 1 KiB, 1 at once', smallCount / 4, 1, (index) => putSmall('single', index));
await phase('put 16 MiB, 4 at once, each MiB', largeCount, 4, (index) =>
  client.put(address(`large-${index}`), [content]),
);
await phase('get 16 MiB, 4 at once, each MiB', largeCount, 4, (index) => get(`large-${index}`));

async function phase(
  name: string,
  count: number,
  width: number,
  work: (index: number) => Promise<unknown>,
): Promise<Map<string, number>> {
  const yardsticks: number[] = [yardstickMs()];
  const beside = setInterval(() => yardsticks.push(yardstickMs()), 2000);
  const before = await processorMs();
  const started = performance.now();
  for await (const _ of mapInOrder(Array(count).keys(), width, work));
  const seconds = (performance.now() - started) / 1000;
  const after = await processorMs();
  clearInterval(beside);
  const units = name.includes('MiB') ? count * 16 : count;
  const costs = [...after].map(([who, ms]) => {
    const used = ms - (before.get(who) ?? 0) - seconds * (idlePerSecond.get(who) ?? 0);
    const own = who === 'client' ? yardsticks.reduce((total, each) => total + each, 0) : 0;
    return [who, (used - own) / units] as const;
  });
  if (name === '') return new Map(costs);
  const sum = costs.reduce((total, [, ms]) => total + ms, 0);
  console.log(
    `${name.padEnd(34)} ${(units / seconds).toFixed(1).padStart(7)} /s ${sum.toFixed(2).padStart(7)} ms: ` +
      costs.map(([who, ms]) => `${who} ${ms.toFixed(2)}`).join(', ') +
      `; yardstick ${(yardsticks.toSorted((a, b) => a - b)[yardsticks.length >> 1] ?? 0).toFixed(1)} ms`,
  );
  return new Map(costs);
}

/** Processor time of a fixed piece of work: objects made, written as text and read again. */
function yardstickMs(): number {
  const begun = process.cpuUsage();
  for (let round = 0; round < 20; round++)
    JSON.parse(JSON.stringify(Array.from({ length: 500 }, (_, index) => ({ index, text: `item ${index}` }))));
  const { user, system } = process.cpuUsage(begun);
  return (user + system) / 1000;
}

/** Processor time that each process has used, ms. */
async function processorMs(): Promise<Map<string, number>> {
  const used = new Map([['client', await processorMsOf('self')]]);
  for (const { name, pid } of (await control.state()).processes)
    if (pid !== undefined) used.set(name, await processorMsOf(String(pid)));
  return used;
}

async function processorMsOf(pid: string): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // Behind the name, which may hold anything: state is the third field, user and system time the 14th and 15th.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return tickMs * (Number(fields[11]) + Number(fields[12]));
}
