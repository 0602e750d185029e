import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { CID, cborBlock, encodeCbor, rawBlock } from '../core/block.ts';
import { isHoldfastError } from '../core/errors.ts';
import { decodeTree, encodeTree, type TreeEntry } from './tree.ts';

const manifest = cborBlock({ a: 1 }).cid;

function entry(name: string, change: object = {}) {
  return { name, address: 'ucxl://a:r@p:t/*^/docs/x', version: 1, manifest, size: 3, ...change };
}

test('entries come back sorted, and the bytes do not depend on their order', () => {
  const entries = ['b.md', 'a/é.md', 'a.md', 'a/b/c'].map((name) => entry(name));
  const bytes = encodeTree(entries);
  assert.deepEqual(
    decodeTree(bytes).map(({ name }) => name),
    ['a.md', 'a/b/c', 'a/é.md', 'b.md'],
  );
  assert.deepEqual(encodeTree(entries.toReversed()), bytes);
  assert.deepEqual(decodeTree(encodeTree([])), []);
  const [first] = decodeTree(bytes);
  assert(first !== undefined && first.manifest.equals(manifest));
  assert.deepEqual({ ...first, manifest }, entry('a.md'));
});

test('names that would leave the directory, or cannot all be written, are refused', () => {
  const bad = [
    '',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    '../a',
    'a/../b',
    './a',
    'a\0b',
    'a\nb',
    'a\\b',
    'C:a',
    'x'.repeat(4097),
  ];
  for (const name of bad) refused([entry(name)], 'name');
  assert.throws(
    () => encodeTree([entry('\ud800')]),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
  refused([entry('a'), entry('a')], 'name');
  refused([entry('a'), entry('a.x'), entry('a/b')], 'name');
  refused([entry('b'), entry('a')], 'name');
});

test('other fields are checked', () => {
  refused([entry('a', { address: 'ucxl://a:r@p:t/docs/x' })], 'address');
  refused([entry('a', { address: 'ucxl://any:r@p:t/*^/x' })], 'address');
  refused([entry('a', { version: 0 })], 'version');
  refused([entry('a', { manifest: rawBlock(new Uint8Array(1)).cid })], 'manifest');
  refused([entry('a', { size: 1.5 })], 'size');
  refused([entry('a', { mode: 1 })], 'e');
  refused([1], 'e');
  refused('x', 'e');
});

test('what is no tree', () => {
  for (const value of [null, [], {}, { t: 'tree', v: 2, e: [] }, { t: 'tree', v: 1, e: [], x: 1 }]) {
    assert.throws(
      () => decodeTree(encodeCbor(value)),
      (error) => isHoldfastError(error, 'RECORD_INVALID'),
    );
  }
  assert.throws(
    () => decodeTree(Uint8Array.of(0xff)),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
});

test('many entries are refused', () => {
  const entries = Array.from({ length: 100_001 }, (_, index) => entry(`n${index}`));
  assert.throws(
    () => encodeTree(entries),
    (error) => isHoldfastError(error, 'RECORD_INVALID') && error.details['field'] === 'e',
  );
});

test('any tree round trips', () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,3}\/[a-z. é]{1,4}[a-z]$/), { maxLength: 20 });
  fc.assert(
    fc.property(names, fc.nat(), (names, size) => {
      const entries: TreeEntry[] = names.map((name) => entry(name, { size }));
      const read = decodeTree(encodeTree(entries));
      assert.deepEqual(
        read.map(({ name, size }) => [name, size]),
        names.toSorted().map((name) => [name, size]),
      );
      assert(read.every((one) => one.manifest instanceof CID));
    }),
  );
});

/** By the reader; and by the writer too, unless it would only sort. */
function refused(entries: unknown, field: string): void {
  assert.throws(
    () => decodeTree(encodeCbor({ t: 'tree', v: 1, e: entries })),
    (error) => isHoldfastError(error, 'RECORD_INVALID') && error.details['field'] === field,
    JSON.stringify(entries),
  );
}
