// Half a minute of everything at once: what is done must not stay in memory.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

const soakSeconds = 30;
/**
 * Growth of the settled heap from the second to the last third. 1 KiB kept per round is above it, in the thousand and
 * more rounds between them. Without a leak it was 0.1 MB; a journal that kept its CIDs as objects made it 3.2 MB.
 */
const heapGrowthBytesMax = 1_000_000;
/** Buffers: a single block of 16 KiB kept in a hundred rounds shows. */
const bufferGrowthBytesMax = 1_000_000;

interface Sample {
  readonly rounds: number;
  readonly heapBytes: number;
  readonly bufferBytes: number;
}

test('the heap does not grow while nodes put, find, fetch and delete', { timeout: 120_000 }, async (t) => {
  const samples: Sample[] = [];
  const child = fork(join(import.meta.dirname, '../support/soak.child.ts'), [String(soakSeconds)], {
    execArgv: ['--expose-gc'],
  });
  child.on('message', (sample: Sample) => samples.push(sample));
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
  const third = Math.floor(samples.length / 3);
  const [second, last] = [samples.slice(third, 2 * third), samples.slice(2 * third)];
  const rounds = middle(last, 'rounds') - middle(second, 'rounds');
  const heapGrowth = middle(last, 'heapBytes') - middle(second, 'heapBytes');
  const bufferGrowth = middle(last, 'bufferBytes') - middle(second, 'bufferBytes');
  t.diagnostic(`${samples.at(-1)?.rounds} rounds, heap ${middle(last, 'heapBytes')} B`);
  t.diagnostic(`in ${rounds} rounds the heap grew by ${heapGrowth} B, buffers by ${bufferGrowth} B`);
  assert.ok(rounds > 100, `only ${rounds} rounds: too few to tell anything`);
  assert.ok(heapGrowth < heapGrowthBytesMax, `the heap grew by ${heapGrowth} B in ${rounds} rounds`);
  assert.ok(bufferGrowth < bufferGrowthBytesMax, `buffers grew by ${bufferGrowth} B in ${rounds} rounds`);
});

function middle(samples: readonly Sample[], field: keyof Sample): number {
  const sorted = samples.map((sample) => sample[field]).toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? assert.fail('no samples');
}
