import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { closest } from './provider-closest.ts';

const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

test('the closest peer is the one that shares the longest prefix', () => {
  const key = new Uint8Array(32);
  const near = { key: Uint8Array.from(key).fill(1, 31) };
  const far = { key: Uint8Array.from(key).fill(0x80, 0, 1) };
  assert.deepEqual(closest(key, [far, near], 1), [near]);
});

test('the same peers as sorting whole distances as numbers, whatever prefix the peers share', () => {
  fc.assert(
    fc.property(
      key32,
      fc.uniqueArray(key32, { maxLength: 40, selector: (key) => Buffer.from(key).toString('hex') }),
      fc.integer({ min: 0, max: 31 }),
      fc.integer({ min: 1, max: 25 }),
      (key, keys, sharedBytes, k) => {
        const peers = keys.map((each) => ({
          key: Uint8Array.from([...key.subarray(0, sharedBytes), ...each.subarray(sharedBytes)]),
        }));
        const dumb = [...peers].sort((a, b) => Number(sign(distance(key, a.key) - distance(key, b.key))));
        const found = closest(key, peers, k);
        assert.equal(found.length, Math.min(k, peers.length));
        assert.deepEqual(
          found.map((each) => distance(key, each.key)),
          dumb.slice(0, k).map((each) => distance(key, each.key)),
        );
      },
    ),
  );
});

function distance(a: Uint8Array, b: Uint8Array): bigint {
  return a.reduce((sum, byte, i) => sum * 256n + BigInt(byte ^ (b[i] ?? 0)), 0n);
}

function sign(value: bigint): bigint {
  return value > 0n ? 1n : value < 0n ? -1n : 0n;
}
