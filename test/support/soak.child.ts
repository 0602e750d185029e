// Three nodes in one process that put, find, fetch and delete without end; tells its heap after each collection.
//
// argv: seconds. Started with --expose-gc.

import { setTimeout } from 'node:timers/promises';
import { rawBlock } from '../../src/core/block.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { startCluster } from '../helpers/dht-cluster.ts';

const soakMs = Number(process.argv[2] ?? 30) * 1000;
/** Between two samples: enough rounds that a leak of a few hundred bytes per round shows. */
const sampleMs = soakMs / 30;
const blockBytes = 16_384;

const cluster = await startCluster({
  names: ['soak-1', 'soak-2', 'soak-3'],
  others: [{ name: 'soak-steward', role: 'steward' }],
  node: { tickMs: 500 },
});
const [steward] = cluster.others;
if (steward === undefined) throw new RangeError('no steward');

let rounds = 0;
async function round(): Promise<void> {
  const number = ++rounds;
  const [from, to, third] = [0, 1, 2].map((shift) => cluster.nodes[(number + shift) % 3]);
  if (from === undefined || to === undefined || third === undefined) throw new RangeError('three nodes');
  const block = rawBlock(utf8(`${number} `.padEnd(blockBytes, 'x')));
  await from.blocks.put(block.cid, block.bytes);
  await from.node.providers.add([block.cid]);
  await to.node.providers.find(block.cid);
  const head = { cid: block.cid, from: [from.peer.name] };
  await steward?.rpc.call(to.peer.name, 'block.pull', { head });
  await third.node.exchange.fetchBlock(block.cid, [to.peer.name, from.peer.name]);
  await third.node.exchange.hasBlocks(from.peer.name, [block.cid]);
  for (const node of [from, to])
    await steward?.rpc.call(node.peer.name, 'block.delete', { head: { cids: [block.cid], reason: 'soak' } });
}

async function worker(untilMs: number): Promise<void> {
  while (performance.now() < untilMs) await round();
}

/** What is left when everything that can go has gone: some of it needs a turn or two to be let go of. */
async function settledBytes(): Promise<{ heapBytes: number; bufferBytes: number }> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    await setTimeout(5);
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { heapBytes: heapUsed, bufferBytes: arrayBuffers };
}

const end = performance.now() + soakMs;
while (performance.now() < end) {
  const until = performance.now() + sampleMs;
  await Promise.all(Array.from({ length: 8 }, () => worker(until)));
  process.send?.({ rounds, ...(await settledBytes()) });
}
await cluster[Symbol.asyncDispose]();
process.disconnect?.();
