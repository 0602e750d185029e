// The table against a map, over more blocks than there is room for at first.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { utf8 } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';
import { SlotTable, slotsAtFirst } from './slot-table.ts';

const blocksCount = 5 * slotsAtFirst;
const codec = 0x55;
const digests = Array.from({ length: blocksCount }, (_, at) => sha256(utf8(`block ${at}`)));
const digestOf = (at: number): Uint8Array => digests[at] ?? new Uint8Array(32);

test('finds what is in it and nothing else, after any history of stretches added and removed', {
  timeout: 60_000,
}, () => {
  const stretch = fc.record({ from: fc.nat(blocksCount), count: fc.nat(2000), isAdded: fc.boolean() });
  fc.assert(
    fc.property(fc.array(stretch, { maxLength: 12 }), (stretches) => {
      const table = new SlotTable(() => undefined);
      const model = new Map<number, number>();
      for (const { from, count, isAdded } of stretches) {
        for (let at = from; at < Math.min(from + count, blocksCount); at++) {
          const slot = model.get(at);
          if (isAdded && slot === undefined) model.set(at, table.add(digestOf(at), codec));
          if (isAdded || slot === undefined) continue;
          table.remove(slot);
          model.delete(at);
        }
      }
      assert.equal(table.count, model.size);
      assert.equal(new Set(model.values()).size, model.size, 'each block has a slot of its own');
      for (const [at, digest] of digests.entries()) {
        assert.equal(table.find(digest, codec), model.get(at) ?? -1);
        assert.equal(table.find(digest, codec + 1), -1, 'another codec is another block');
      }
    }),
    { numRuns: 30 },
  );
});

test('says how much room there is before it gives the first slot beyond', () => {
  const told: number[] = [];
  const table = new SlotTable((capacity) => told.push(capacity));
  let room = slotsAtFirst;
  for (const digest of digests) {
    const slot = table.add(digest, codec);
    room = told.at(-1) ?? room;
    assert.ok(slot < room, `slot ${slot} of ${room}`);
  }
  assert.deepEqual(
    told,
    [2, 4, 8].map((times) => times * slotsAtFirst),
  );
});

test('a slot that is given again knows nothing of the block that had it', () => {
  const table = new SlotTable(() => undefined);
  const slot = table.add(digestOf(0), codec);
  table.learnSize(slot, 7);
  table.learnSize(slot, 8);
  assert.equal(table.sizeBytes(slot), 7, 'the first size said stands');
  table.remove(slot);
  assert.equal(table.inUse(slot), false);
  assert.equal(table.add(digestOf(1), codec), slot);
  assert.equal(table.sizeBytes(slot), 0);
});
