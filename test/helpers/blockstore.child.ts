// Puts blocks as fast as it can and says which were acknowledged, until it is killed.
//
//   node blockstore.child.ts <data directory> <seed>
//
// Prints one line "<cid>" per acknowledged put and "-<cid>" before each deletion, written at once.

import { writeSync } from 'node:fs';
import { rawBlock } from '../../src/core/block.ts';
import { openBlockStore } from '../../src/node/blockstore.ts';
import { openDataDir } from '../../src/node/stores.ts';

const [path = '', seed = ''] = process.argv.slice(2);
const dir = await openDataDir(path, { node: 'crash', peer: 'peer', cluster: 'cluster' });
const store = await openBlockStore(dir, { segmentBytes: 256 * 1024, indexBufferBytes: 64 * 1024 });
writeSync(1, 'open\n');

let next = 0;
await Promise.all(Array.from({ length: 16 }, work));

async function work(): Promise<void> {
  for (;;) {
    const number = next++;
    const { cid, bytes } = rawBlock(Buffer.alloc(number % 4 === 0 ? 70_000 : 900, `${seed}/${number}/`));
    await store.put(cid, bytes);
    writeSync(1, `${cid.toString()}\n`);
    if (number % 5 !== 0) continue;
    writeSync(1, `-${cid.toString()}\n`);
    await store.delete(cid);
  }
}
