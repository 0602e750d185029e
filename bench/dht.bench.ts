// Announcements per second by the batch lane and by stock provide(), and blocks per second by the exchange,
// all in one run on loopback: compare the rows with each other, not with other machines.
//
//   node bench/dht.bench.ts

import { randomBytes } from 'node:crypto';
import { rawBlock } from '../src/core/block.ts';
import { utf8 } from '../src/core/bytes.ts';
import { startCluster } from '../test/helpers/dht-cluster.ts';

const batchCount = 50_000;
const stockCount = 100;
const blocksCount = 256;
const blockBytes = 262_144;

await using cluster = await startCluster({ names: ['bench-1', 'bench-2', 'bench-3', 'bench-4', 'bench-5'] });
const [publisher, receiver] = cluster.nodes;
if (publisher === undefined || receiver === undefined) throw new RangeError('two nodes needed');
await publisher.node.reconciled;

const cids = Array.from({ length: batchCount }, (_, i) => rawBlock(utf8(`batch ${i}`)).cid);
await report(`batch lane, ${batchCount} CIDs to 4 holders`, 'CIDs/s', batchCount, async () => {
  await publisher.node.providers.add(cids);
  await publisher.node.providers.settled();
});

// Stock provide() walks the network and sends one message on a fresh stream to each peer.
await report(
  `stock provide(), ${stockCount} CIDs to 4 holders, 8 at once`,
  'CIDs/s',
  stockCount,
  async () => {
    const queue = Array.from({ length: stockCount }, (_, i) => rawBlock(utf8(`stock ${i}`)).cid);
    const work = async () => {
      for (let cid = queue.shift(); cid !== undefined; cid = queue.shift()) {
        for await (const _ of publisher.peer.dht.provide(cid));
      }
    };
    await Promise.all(Array.from({ length: 8 }, work));
  },
);

const finds = cids.slice(0, 2000);
await report(`find, ${finds.length} CIDs, one at a time`, 'finds/s', finds.length, async () => {
  for (const cid of finds) await receiver.node.providers.find(cid, { enough: 1 });
});

const blocks = Array.from({ length: blocksCount }, () => rawBlock(randomBytes(blockBytes)));
const mebibytes = (blocksCount * blockBytes) / 1_048_576;
await report(`write ${mebibytes} MiB of 256 KiB blocks to one disk`, 'MiB/s', mebibytes, () =>
  Promise.all(blocks.map(({ cid, bytes }) => publisher.blocks.put(cid, bytes))),
);
for (const [width, what] of [
  [1, 'one at a time'],
  [blocksCount, 'all at once'],
] as const) {
  await report(`fetch ${mebibytes} MiB, verified, ${what}`, 'MiB/s', mebibytes, async () => {
    const queue = [...blocks];
    const work = async () => {
      for (let block = queue.shift(); block !== undefined; block = queue.shift()) {
        await receiver.node.exchange.fetchBlock(block.cid, [publisher.peer.name], { sizeBytes: blockBytes });
      }
    };
    await Promise.all(Array.from({ length: width }, work));
  });
}

async function report(
  what: string,
  unit: string,
  amount: number,
  work: () => Promise<unknown>,
): Promise<void> {
  const begun = performance.now();
  const cpu = process.cpuUsage();
  await work();
  const seconds = (performance.now() - begun) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const rate = (amount / seconds).toFixed(0);
  console.log(
    `${what}: ${rate} ${unit} (${seconds.toFixed(2)} s, ${((user + system) / 1e6).toFixed(2)} s CPU)`,
  );
}
