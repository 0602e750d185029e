import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { cborBlock, rawBlock } from '../core/block.ts';
import { ChangeRing } from './block-journal.ts';
import type { BlockChange } from './block-ports.ts';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

function plain({ seq, cid, op, sizeBytes }: BlockChange): unknown {
  return [seq, cid.toString(), op, sizeBytes];
}

test('the last changes are told in order; what is forgotten is a reset', () => {
  const ring = new ChangeRing('epoch', 3);
  const { cid } = rawBlock(Uint8Array.of(1));
  const { cid: record } = cborBlock({ a: 1 });
  ring.add(cid, 'add', 1);
  ring.add(record, 'add', 4);
  ring.add(cid, 'corrupt', 1);
  ring.add(cid, 'del', 1);
  const since = ring.since(1);
  assert.ok(since !== 'reset');
  assert.deepEqual(since.changes.map(plain), [
    [2, record.toString(), 'add', 4],
    [3, cid.toString(), 'corrupt', 1],
    [4, cid.toString(), 'del', 1],
  ]);
  assert.equal(ring.since(0), 'reset');
  assert.equal(ring.since(5), 'reset');
});

test('compared with a list that forgets nothing', () => {
  const cids = Array.from({ length: 8 }, (_, i) => rawBlock(Uint8Array.of(i)).cid);
  const change = fc.tuple(
    fc.constantFrom(...cids),
    fc.constantFrom<BlockChange['op'][]>('add', 'del', 'corrupt'),
    fc.nat(2 ** 20),
  );
  fc.assert(
    fc.property(
      fc.array(change),
      fc.integer({ min: 1, max: 9 }),
      fc.nat(60),
      fc.nat(12),
      (list, size, from, limit) => {
        const ring = new ChangeRing('epoch', size);
        for (const each of list) ring.add(...each);
        const told = ring.since(from, limit);
        if (from > list.length || from < list.length - size) assert.equal(told, 'reset');
        else {
          assert.ok(told !== 'reset');
          const expected = list.map(([cid, op, sizeBytes], i) => ({ seq: i + 1, cid, op, sizeBytes }));
          assert.deepEqual(told.changes.map(plain), expected.slice(from, from + limit).map(plain));
        }
      },
    ),
  );
});

test('a full ring is a few megabytes: a change does not hold on to what the caller gave', () => {
  const count = 20_000;
  collectGarbage();
  const before = process.memoryUsage();
  const ring = new ChangeRing('epoch', count);
  for (let i = 0; i < count; i++) ring.add(rawBlock(Uint8Array.of(i, i >> 8)).cid, 'add', i);
  collectGarbage();
  const after = process.memoryUsage();
  const bytes = after.heapUsed - before.heapUsed + after.arrayBuffers - before.arrayBuffers;
  assert.ok(bytes < 100 * count, `${Math.round(bytes / count)} bytes per change`);
  assert.equal(ring.seq, count);
});
