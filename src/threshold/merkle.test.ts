import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import {
  appendLeaf,
  consistencyProof,
  emptyFrontier,
  inclusionProof,
  leafHash,
  nodeHash,
  rootOf,
  rootOfFrontier,
  treeOf,
  verifyConsistency,
  verifyInclusion,
} from './merkle.ts';

/** The definition of RFC 6962 section 2.1, word for word. */
function plainRoot(leaves: readonly Uint8Array[]): Uint8Array {
  const [only] = leaves;
  if (leaves.length === 1 && only !== undefined) return only;
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  return nodeHash(plainRoot(leaves.slice(0, split)), plainRoot(leaves.slice(split)));
}

function leavesOf(count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, at) => leafHash(utf8(`entry ${at}`)));
}

test('the roots that Certificate Transparency publishes', () => {
  // Entries and roots of the reference implementation's tests (google/certificate-transparency, merkle_tree_test).
  const entries = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657'];
  const roots = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  ];
  const leaves = entries.map((entry) => leafHash(Buffer.from(entry, 'hex')));
  assert.deepEqual(
    roots.map((_, at) => toHex(rootOf(leaves.slice(0, at + 1)))),
    roots,
  );
  assert.equal(toHex(rootOf([])), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
});

test('every inclusion and consistency proof up to 40 leaves verifies, and only for its own place', () => {
  const leaves = leavesOf(40);
  const tree = treeOf(leaves);
  const roots = leaves.map((_, at) => plainRoot(leaves.slice(0, at + 1)));
  const rootAt = (size: number) => roots[size - 1] ?? rootOf([]);
  for (let size = 1; size <= 40; size++) {
    assert.deepEqual(tree.root(size), rootAt(size));
    for (let index = 0; index < size; index++) {
      const proof = tree.inclusionProof(index, size);
      const leaf = leaves[index] ?? rootOf([]);
      assert.ok(verifyInclusion(leaf, index, size, proof, rootAt(size)));
      assert.ok(!verifyInclusion(leaf, index, size, proof, rootAt(size + 1)));
      assert.ok(!verifyInclusion(leaf, index, size, [...proof, leaf], rootAt(size)));
      if (size > 1) {
        assert.ok(!verifyInclusion(leaf, (index + 1) % size, size, proof, rootAt(size)));
        assert.ok(!verifyInclusion(leaf, index, size, proof.slice(1), rootAt(size)));
      }
    }
    for (let older = 0; older <= size; older++) {
      const proof = tree.consistencyProof(older, size);
      assert.ok(verifyConsistency(older, rootAt(older), size, rootAt(size), proof));
      if (older > 0 && older < size) {
        assert.ok(!verifyConsistency(older, rootAt(older - 1), size, rootAt(size), proof));
        assert.ok(!verifyConsistency(older, rootAt(older), size, rootAt(size - 1), proof));
        assert.ok(!verifyConsistency(older, rootAt(older), size, rootAt(size), proof.slice(1)));
      }
    }
  }
});

test('a flipped bit anywhere in a proof makes it fail', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 70 }), fc.nat(), fc.nat(), fc.nat(), (size, at, where, bit) => {
      const leaves = leavesOf(size);
      const index = at % size;
      const proof = inclusionProof(leaves, index);
      flip(proof, where, bit);
      assert.ok(!verifyInclusion(leaves[index] ?? rootOf([]), index, size, proof, rootOf(leaves)));
      const older = 1 + (at % (size - 1));
      const consistency = consistencyProof(leaves, older);
      flip(consistency, where, bit);
      assert.ok(!verifyConsistency(older, rootOf(leaves.slice(0, older)), size, rootOf(leaves), consistency));
    }),
    { numRuns: 60 },
  );
});

test('the frontier alone gives the same root', () => {
  let frontier = emptyFrontier;
  const leaves = leavesOf(66);
  for (const [at, leaf] of leaves.entries()) {
    frontier = appendLeaf(frontier, leaf);
    assert.deepEqual(rootOfFrontier(frontier), plainRoot(leaves.slice(0, at + 1)));
    assert.ok(frontier.peaks.length <= 7);
  }
});

test('places outside of the tree are refused; verifying never throws', () => {
  const tree = treeOf(leavesOf(3));
  for (const wrong of [
    () => tree.inclusionProof(3),
    () => tree.inclusionProof(-1),
    () => tree.inclusionProof(0, 4),
    () => tree.consistencyProof(4),
    () => tree.root(1.5),
  ]) {
    assert.throws(wrong, (error) => isHoldfastError(error, 'ARGUMENT_INVALID'));
  }
  const leaf = leafHash(utf8('a'));
  for (const odd of [-1, 0.5, Number.NaN, 2 ** 53]) {
    assert.ok(!verifyInclusion(leaf, odd, 3, [], leaf));
    assert.ok(!verifyConsistency(1, leaf, odd, leaf, []));
  }
  assert.ok(!verifyInclusion(leaf, 0, 2, [new Uint8Array(31)], leaf));
});

function flip(path: Uint8Array[], where: number, bit: number): void {
  const at = where % path.length;
  const changed = Uint8Array.from(path[at] ?? []);
  changed[bit % 32] = (changed[bit % 32] ?? 0) ^ (1 << (bit % 8));
  path[at] = changed;
}
