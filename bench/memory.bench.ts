// Memory of a process that pushes blocks to three nodes, and of the nodes: what passes through must not stay.
//
//   MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 node --max-semi-space-size=2 bench/memory.bench.ts [MiB, default 2048]
//
// Blocks are buffers that live for a moment. V8 frees them with the objects of its young generation, which by
// default may grow until many of them wait; and glibc, after the first large buffer was freed, keeps the memory of
// the next ones in its heaps. So run it with and without the three settings. The nodes inherit them.

import { type ChildProcess, fork } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rawBlock } from '../src/core/block.ts';
import { createExchange } from '../src/node/exchange.ts';
import { startPeer } from '../src/node/peer.ts';
import {
  freePorts,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
} from '../test/support/peers.ts';

const mebibyte = 1_048_576;
const totalBytes = Number(process.argv[2] ?? 2048) * mebibyte;
const blockBytes = 262_144;
const inFlight = 32;

async function memoryOf(child: ChildProcess): Promise<{ memory: NodeJS.MemoryUsage; rssMax: number }> {
  child.send({ report: true });
  const [report] = await once(child, 'message');
  return report;
}

function show(what: string, { memory, rssMax }: { memory: NodeJS.MemoryUsage; rssMax: number }): void {
  const figure = (bytes: number): string => `${Math.round(bytes / mebibyte)} MiB`.padStart(10);
  const { rss, heapUsed, external, arrayBuffers } = memory;
  process.stdout.write(
    `${what.padEnd(12)}${[rssMax, rss, heapUsed, external, arrayBuffers].map(figure).join('')}\n`,
  );
}

function own(): { memory: NodeJS.MemoryUsage; rssMax: number } {
  return { memory: process.memoryUsage(), rssMax: process.resourceUsage().maxRSS * 1024 };
}

const dir = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
const [identity] = await testIdentities(1);
if (identity === undefined) throw new Error('no identity');
const ports = await freePorts(4);
const children = [0, 1, 2].map((index) =>
  fork(join(import.meta.dirname, '../test/support/memory.child.ts'), [
    join(dir, `node-${index}`),
    String(ports[index]),
  ]),
);
const names = await Promise.all(
  children.map(async (child) => String((await once(child, 'message'))[0].name)),
);
const members = [...names, identity.name].map((name, index) => ({
  name,
  addrs: [`/ip4/127.0.0.1/tcp/${ports[index]}`],
}));
for (const child of children) child.send({ members });
await Promise.all(children.map((child) => once(child, 'message')));
const membership = testMembership(
  members.map(({ name, addrs }, index) => ({
    ...testMember(name, index, addrs),
    roles: [index === 3 ? 'door' : 'node'],
  })),
);
const peer = await startPeer({
  identity,
  membership,
  listen: { host: '127.0.0.1', port: ports[3] ?? 0 },
  dht: 'client',
});
await untilConnected(peer, 3);
const exchange = createExchange(peer.rpc);

process.stdout.write(
  `${''.padEnd(12)}${['RSS max', 'RSS', 'heap', 'external', 'buffers'].map((t) => t.padStart(10)).join('')}\n`,
);
show('idle', own());
const started = performance.now();
let pushed = 0;
let shown = 0;
const stop = new AbortController();
const worker = async (): Promise<void> => {
  while (pushed < totalBytes) {
    pushed += blockBytes;
    const block = rawBlock(randomFillSync(new Uint8Array(blockBytes)));
    await Promise.all(names.map((name) => exchange.pushBlock(name, block, { signal: stop.signal })));
    if (pushed - shown >= totalBytes / 8) {
      shown = pushed;
      show(`${pushed / mebibyte} MiB`, own());
    }
  }
};
await Promise.all(Array.from({ length: inFlight }, worker));
const seconds = (performance.now() - started) / 1000;
process.stdout.write(
  `${Math.round(totalBytes / 1e6 / seconds)} MB/s to each of three, ${inFlight} blocks in flight\n`,
);
show('sender', own());
for (const [index, child] of children.entries()) show(`receiver ${index}`, await memoryOf(child));

await peer[Symbol.asyncDispose]();
for (const child of children) child.kill('SIGKILL');
await rm(dir, { recursive: true });
