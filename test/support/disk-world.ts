// What the power-cut tests write, and what must be found again: the same in the process that writes and in the test.

import { rawBlock, type Block } from '../../src/core/block.ts';
import { sha256 } from '../../src/core/hash.ts';
import { utf8 } from '../../src/core/bytes.ts';
import type { Append } from '../../src/beacon/log.ts';
import type { BlockStoreOptions } from '../../src/node/block-options.ts';
import { putAppend, someAddress, someId, someManifest } from '../suites/beacon-records.ts';

export const owner = { node: 'node-1', peer: 'peer-1', cluster: 'cluster-1' };
export const blockOptions: BlockStoreOptions = {
  segmentBytes: 24 * 1024,
  indexBufferBytes: 64 * 1024,
  reserveBytes: 0,
  probeMs: 20,
};

/** Block `index`: every fourth gets a file of its own, the others share segments. */
export function numberedBlock(index: number): Block {
  const sizeBytes = index % 4 === 3 ? 65_536 + index : 900 + 100 * index;
  const seed = sha256(utf8(`block ${index}`));
  return rawBlock(Uint8Array.from({ length: sizeBytes }, (_, at) => (seed[at % 32] ?? 0) ^ (at >>> 5)));
}

const bk = someId('bk');

/** Append `index`, known by its id, so that it may be sent again. */
export function numberedAppend(index: number): Append {
  return { ...putAppend(someManifest(someAddress(`p/${index}`)), bk), id: someId(`append ${index}`) };
}
