// A whole local cluster against the limits of the machine, all in one run:
//
//   node bench/cluster.bench.ts [objects of 16 MiB, default 64]
//
// The limits are measured first, each alone: AES-256-GCM, SHA-256, disk write and sync, raw TCP over loopback,
// synced LevelDB puts. Then the same machine runs seven processes that share its cores: a put costs three copies,
// so three times the network and the disk. Quote ratios.

import { createCipheriv, createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import { mapInOrder } from '../src/core/concurrency.ts';
import type { StewardStatus } from '../src/steward/status.ts';
import { allHealthy, TestCluster } from '../test/helpers/cluster.ts';
import { sealingClient } from '../test/helpers/sealing-client.ts';

const mebibyte = 1_048_576;
const objectBytes = 16 * mebibyte;
const objectsCount = Number(process.argv[2] ?? 64);
const smallCount = 1000;
const content = new Uint8Array(objectBytes);
randomFillSync(content);

console.log(`${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Node ${process.version}`);
console.log('\nlimits, each alone');
const limits = {
  aes: show('AES-256-GCM, 256 KiB', await rate(256, aesPass), 'MiB/s'),
  sha: show('SHA-256, 256 KiB', await rate(256, shaPass), 'MiB/s'),
  disk: show('write + fdatasync, 256 KiB files', await rate(64, diskPass), 'MiB/s'),
  tcp: show('raw TCP loopback', await rate(512, tcpPass), 'MiB/s'),
  level: show('LevelDB synced puts, 16 at once, 1 KiB', await levelPuts(), '/s'),
};

const startedMs = performance.now();
await using cluster = await TestCluster.start({ settings: { graceMs: 2000 } });
console.log('\ncluster: 5 nodes in 3 zones, steward, door');
show('start-up of all processes', (performance.now() - startedMs) / 1000, 's');
await using client = await sealingClient(cluster);
const address = (name: string): string => `ucxl://bench:writer@cluster:run/*^/${name}`;

await measured(32, 16, (index) => client.put(address(`warm-${index}`), [content.subarray(0, 1024)])); // compile first
const putSeconds = await measured(objectsCount, 4, (index) =>
  client.put(address(`large-${index}`), [content]),
);
const put = show(`put ${objectsCount} × 16 MiB, 4 at once`, (objectsCount * 16) / putSeconds, 'MiB/s');
const getSeconds = await measured(objectsCount, 4, async (index) => {
  const { bytes } = await client.get(address(`large-${index}`));
  for await (const chunk of bytes) void chunk;
});
const get = show(`get ${objectsCount} × 16 MiB, 4 at once`, (objectsCount * 16) / getSeconds, 'MiB/s');
const smallSeconds = await measured(smallCount, 16, (index) =>
  client.put(address(`small-${index}`), [content.subarray(index, index + 1024)]),
);
const small = show('put 1 KiB, 16 at once', smallCount / smallSeconds, '/s');
const smallGetSeconds = await measured(smallCount, 16, async (index) => {
  const { bytes } = await client.get(address(`small-${index}`));
  for await (const chunk of bytes) void chunk;
});
show('get 1 KiB, 16 at once', smallCount / smallGetSeconds, '/s');

await cluster.until('all healthy', allHealthy, 120_000);
const control = await cluster.control();
const lost = (await cluster.status()).steward?.nodes.find(({ name }) => name === 'node-5')?.bytes ?? 0;
const healStartMs = performance.now();
await control.wipeNode('node-5');
const bytesOfNode5 = ({ nodes }: StewardStatus): number =>
  nodes.find(({ name }) => name === 'node-5')?.bytes ?? 0;
await cluster.until('the loss was seen', (steward) => bytesOfNode5(steward) < lost / 2);
await cluster.until(
  'healed',
  (steward) => allHealthy(steward) && bytesOfNode5(steward) > 0.95 * lost,
  600_000,
);
const healSeconds = (performance.now() - healStartMs) / 1000;
const healedBytes = (await cluster.status()).steward?.nodes.find(({ name }) => name === 'node-5')?.bytes ?? 0;
show('heal a wiped node', healedBytes / mebibyte / healSeconds, 'MiB/s');
show('  of', lost / mebibyte, 'MiB it held before');

console.log('\nmemory after all of it (peak resident set)');
for (const { name, pid } of (await control.state()).processes)
  if (pid !== undefined) show(name, (await peakBytes(pid)) / mebibyte, 'MiB');

console.log('\nratios');
show('put to AES-GCM', put / limits.aes, '');
show('put to SHA-256', put / limits.sha, '');
show('put × 3 copies to disk write and sync', (3 * put) / limits.disk, '');
show('put × 3 copies to raw TCP', (3 * put) / limits.tcp, '');
show('get to SHA-256', get / limits.sha, '');
show('get to raw TCP', get / limits.tcp, '');
show('small puts to synced LevelDB puts', small / limits.level, '');

function show(what: string, value: number, unit: string): number {
  const text = value >= 100 ? value.toFixed(0) : value.toPrecision(3);
  console.log(`  ${what.padEnd(42)} ${text.padStart(8)} ${unit}`);
  return value;
}

/** Median MiB/s of five passes over `mebibytes`. */
async function rate(mebibytes: number, pass: (bytes: number) => Promise<void>): Promise<number> {
  const rates: number[] = [];
  for (let run = 0; run < 5; run++) {
    const started = performance.now();
    await pass(mebibytes * mebibyte);
    rates.push((mebibytes * 1000) / (performance.now() - started));
  }
  return rates.sort((a, b) => a - b)[2] ?? Number.NaN;
}

async function measured(
  count: number,
  width: number,
  work: (index: number) => Promise<unknown>,
): Promise<number> {
  const started = performance.now();
  for await (const _ of mapInOrder(Array(count).keys(), width, work));
  return (performance.now() - started) / 1000;
}

async function aesPass(bytes: number): Promise<void> {
  for (let done = 0; done < bytes; done += 262_144) {
    const cipher = createCipheriv('aes-256-gcm', content.subarray(0, 32), content.subarray(32, 44));
    cipher.update(content.subarray(0, 262_144));
    cipher.final();
  }
}

async function shaPass(bytes: number): Promise<void> {
  for (let done = 0; done < bytes; done += 262_144)
    createHash('sha256').update(content.subarray(0, 262_144)).digest();
}

async function diskPass(bytes: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
  await measured(bytes / 262_144, 8, async (index) => {
    await using file = await open(join(dir, String(index)), 'w');
    await file.write(content.subarray(0, 262_144));
    await file.datasync();
  });
  await rm(dir, { recursive: true });
}

async function tcpPass(bytes: number): Promise<void> {
  let received = 0;
  const done = Promise.withResolvers<void>();
  const server = createServer((socket) =>
    socket.on('data', (chunk: Uint8Array) => {
      received += chunk.length;
      if (received >= bytes) done.resolve();
    }),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const found = server.address();
  const socket = connect(typeof found === 'object' && found !== null ? found.port : 0, '127.0.0.1');
  for (let sent = 0; sent < bytes; sent += 262_144)
    if (!socket.write(content.subarray(0, 262_144))) await once(socket, 'drain');
  await done.promise;
  socket.destroy();
  server.close();
}

async function levelPuts(): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
  const level = new ClassicLevel<string, Uint8Array>(dir, { valueEncoding: 'view' });
  const value = content.subarray(0, 1024);
  const seconds = await measured(5000, 16, (index) => level.put(String(index), value, { sync: true }));
  await level.close();
  await rm(dir, { recursive: true });
  return 5000 / seconds;
}

async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN);
}
