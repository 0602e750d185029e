// The Merkle tree of transparency logs (RFC 6962 section 2.1, proofs as in RFC 9162 section 2.1): SHA-256,
// leaves and nodes hashed with different first bytes so that a node can never be shown as a leaf.
//
// The tree over n leaves splits at the largest power of two below n, so every log is a row of perfect trees
// (its peaks), largest first. That row is all a growing log has to keep; proofs need the leaf hashes again.
//
//          root                  7 leaves = peaks of 4, 2 and 1
//         /    \
//        4     .
//       / \   / \
//      .   . 2   1

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';

/** Length of every hash in the tree. */
export const merkleHashBytes = 32;
/** No proof is longer: sizes are safe integers, below 2^53. */
const proofHashesMax = 53;

/** SHA-256(0x00 ‖ data): the hash of one entry. */
export function leafHash(data: Uint8Array): Uint8Array {
  return prefixed(0, data);
}

/** SHA-256(0x01 ‖ left ‖ right): the hash of two subtrees. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  const both = new Uint8Array(left.length + right.length);
  both.set(left);
  both.set(right, left.length);
  return prefixed(1, both);
}

/** Root over leaf hashes in order; the root of no leaves is SHA-256 of the empty string. */
export function rootOf(leaves: readonly Uint8Array[]): Uint8Array {
  return rootOfFrontier(leaves.reduce(appendLeaf, emptyFrontier));
}

/** What a growing log keeps: its size and the roots of its perfect subtrees, largest first. A value: never changed. */
export interface Frontier {
  readonly size: number;
  readonly peaks: readonly Uint8Array[];
}

export const emptyFrontier: Frontier = { size: 0, peaks: [] };

/** The frontier with one leaf hash more. At most log₂(size) hashes, two on average. */
export function appendLeaf(frontier: Frontier, leaf: Uint8Array): Frontier {
  const peaks = frontier.peaks.slice();
  let top = leaf;
  for (let size = frontier.size; size % 2 === 1; size = (size - 1) / 2) {
    top = nodeHash(peaks.pop() ?? top, top);
  }
  return { size: frontier.size + 1, peaks: [...peaks, top] };
}

/** Root of the log that `frontier` stands for. */
export function rootOfFrontier(frontier: Frontier): Uint8Array {
  const [last, ...rest] = frontier.peaks.toReversed();
  if (last === undefined) return sha256(new Uint8Array(0));
  return rest.reduce((right, left) => nodeHash(left, right), last);
}

/** Inclusion proof for one leaf of a list; for more than one, build a `MerkleTree` once. Throws as its method does. */
export function inclusionProof(leaves: readonly Uint8Array[], index: number): Uint8Array[] {
  return treeOf(leaves).inclusionProof(index);
}

/** Consistency proof between the first `size` leaves of a list and all of it. Throws as the method of `MerkleTree`. */
export function consistencyProof(leaves: readonly Uint8Array[], size: number): Uint8Array[] {
  return treeOf(leaves).consistencyProof(size);
}

export function treeOf(leaves: readonly Uint8Array[]): MerkleTree {
  const tree = new MerkleTree();
  for (const leaf of leaves) tree.append(leaf);
  return tree;
}

/**
 * A growing tree that keeps the hashes of its perfect subtrees (about 64 B per leaf), so that roots and proofs
 * for its present and every earlier size cost log₂(size) hashes.
 */
export class MerkleTree {
  /** Level l, position i: root over leaves i·2^l … (i+1)·2^l − 1. */
  readonly #levels: Uint8Array[][] = [[]];

  get size(): number {
    return this.#levels[0]?.length ?? 0;
  }

  /** Adds a leaf hash (`leafHash` of the entry). */
  append(leaf: Uint8Array): void {
    let hash = leaf;
    for (let level = 0; ; level++) {
      const row = this.#levels[level] ?? [];
      this.#levels[level] = row;
      row.push(hash);
      const left = row.at(-2);
      if (row.length % 2 === 1 || left === undefined) return;
      hash = nodeHash(left, hash);
    }
  }

  /**
   * Root when the tree had `size` leaves (default: now).
   * @throws HoldfastError ARGUMENT_INVALID unless 0 ≤ size ≤ this.size
   */
  root(size: number = this.size): Uint8Array {
    this.#requireSize(size);
    return size === 0 ? sha256(new Uint8Array(0)) : this.#range(0, size);
  }

  /**
   * Proof that leaf `index` is in the tree of `size` leaves: sibling hashes from the leaf up.
   * @throws HoldfastError ARGUMENT_INVALID when there is no such leaf or size
   */
  inclusionProof(index: number, size: number = this.size): Uint8Array[] {
    this.#requireSize(size);
    if (!isSize(index) || index >= size) {
      throw new HoldfastError('ARGUMENT_INVALID', `leaf ${index} is not in a tree of ${size}`);
    }
    const path: Uint8Array[] = [];
    let [from, to] = [0, size];
    while (to - from > 1) {
      const middle = from + splitOf(to - from);
      if (index < middle) {
        path.push(this.#range(middle, to));
        to = middle;
      } else {
        path.push(this.#range(from, middle));
        from = middle;
      }
    }
    return path.toReversed();
  }

  /**
   * Proof that the tree of `older` leaves begins the tree of `size` leaves (default: now); empty when 0 or equal.
   * @throws HoldfastError ARGUMENT_INVALID unless 0 ≤ older ≤ size ≤ this.size
   */
  consistencyProof(older: number, size: number = this.size): Uint8Array[] {
    this.#requireSize(size);
    if (!isSize(older) || older > size) {
      throw new HoldfastError('ARGUMENT_INVALID', `size ${older} is not in a tree of ${size}`);
    }
    if (older === 0 || older === size) return [];
    const path: Uint8Array[] = [];
    let [from, to] = [0, size];
    while (older !== to) {
      const middle = from + splitOf(to - from);
      if (older <= middle) {
        path.push(this.#range(middle, to));
        to = middle;
      } else {
        path.push(this.#range(from, middle));
        from = middle;
      }
    }
    // The verifier knows the old root itself, so it is left out when the whole old tree is one perfect subtree.
    if (from !== 0) path.push(this.#range(from, to));
    return path.toReversed();
  }

  /** Root over the leaves from…to−1, where `from` is a multiple of the smallest power of two ≥ their number. */
  #range(from: number, to: number): Uint8Array {
    const count = to - from;
    const level = Math.log2(count);
    const stored = Number.isInteger(level) ? this.#levels[level]?.[from / count] : undefined;
    if (stored !== undefined) return stored;
    const middle = from + splitOf(count);
    return nodeHash(this.#range(from, middle), this.#range(middle, to));
  }

  #requireSize(size: number): void {
    if (!isSize(size) || size > this.size) {
      throw new HoldfastError('ARGUMENT_INVALID', `the tree has ${this.size} leaves, not ${size}`);
    }
  }
}

/** True when `proof` leads from `leaf` at `index` to `root` in a tree of `size` leaves. Never throws. */
export function verifyInclusion(
  leaf: Uint8Array,
  index: number,
  size: number,
  proof: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  if (!isSize(index) || !isSize(size) || index >= size || !isPath(proof) || !isHash(leaf)) return false;
  let at = index;
  let last = size - 1;
  let hash = leaf;
  for (const sibling of proof) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      hash = nodeHash(sibling, hash);
      // A last node without a right sibling rises unchanged until it is a right child.
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      hash = nodeHash(hash, sibling);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && sameBytes(hash, root);
}

/** True when `proof` shows that the tree of `size1` with `root1` begins the tree of `size2` with `root2`. Never throws. */
export function verifyConsistency(
  size1: number,
  root1: Uint8Array,
  size2: number,
  root2: Uint8Array,
  proof: readonly Uint8Array[],
): boolean {
  if (!isSize(size1) || !isSize(size2) || size1 > size2 || !isPath(proof)) return false;
  if (size1 === 0) return proof.length === 0 && sameBytes(root1, sha256(new Uint8Array(0)));
  if (size1 === size2) return proof.length === 0 && sameBytes(root1, root2);
  // The path starts at the largest perfect subtree that ends the old tree: the old root itself for a power of two.
  const path = splitOf(size1 + 1) === size1 ? [root1, ...proof] : proof;
  const [start, ...rest] = path;
  if (start === undefined || !isHash(start)) return false;
  let at = size1 - 1;
  let last = size2 - 1;
  while (at % 2 === 1) [at, last] = [half(at), half(last)];
  let older = start;
  let newer = start;
  for (const sibling of rest) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      older = nodeHash(sibling, older);
      newer = nodeHash(sibling, newer);
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      newer = nodeHash(newer, sibling);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && sameBytes(older, root1) && sameBytes(newer, root2);
}

/** The largest power of two smaller than `size` (≥ 2). Not by shifts: sizes may pass 2^32. */
function splitOf(size: number): number {
  let split = 1;
  while (split * 2 < size) split *= 2;
  return split;
}

function half(value: number): number {
  return Math.floor(value / 2);
}

function prefixed(first: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(1 + data.length);
  bytes[0] = first;
  bytes.set(data, 1);
  return sha256(bytes);
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function isHash(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === merkleHashBytes;
}

function isPath(proof: readonly unknown[]): boolean {
  return Array.isArray(proof) && proof.length <= proofHashesMax && proof.every(isHash);
}
