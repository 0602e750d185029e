// The rotation certificate of one page of switched wraps: the new group signs the root of a Merkle tree over
// them, and each wrap carries the path to it. A switched wrap without one is refused: it proves nothing by
// itself, and opening what anybody may have made would turn the custodians into an oracle.

import { concat, uint32, uint64, utf8 } from '../core/bytes.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import type { Group, Point } from './group.ts';
import type { SwitchItem, SwitchPage } from './key-switch.ts';
import { leafHash, merkleHashBytes, treeOf, verifyInclusion } from './merkle.ts';
import { DST, lp } from './transcript.ts';

/** What the new group signs. Public. */
export interface RotationStatement {
  readonly cg: string;
  readonly fromVer: number;
  readonly toVer: number;
  readonly page: number;
  /** Leaves of the tree. */
  readonly count: number;
  /** 32 bytes. */
  readonly root: Uint8Array;
  /** The page's id: its inputs, quorum and keys. 64 bytes. */
  readonly pageId: Uint8Array;
  /** `contributionsHash`, 64 bytes. */
  readonly contributions: Uint8Array;
}

/** The statement over a page's switched wraps, and the path of each to its root. */
export function certifyPage(
  page: SwitchPage,
  switched: readonly SwitchItem[],
  contributions: Uint8Array,
): { readonly statement: RotationStatement; readonly proofs: readonly (readonly Uint8Array[])[] } {
  const tree = treeOf(switched.map(leafOf));
  const { cg, fromVer, toVer } = page;
  const statement: RotationStatement = {
    cg,
    fromVer,
    toVer,
    page: page.page,
    count: switched.length,
    root: tree.root(),
    pageId: page.id,
    contributions,
  };
  return { statement, proofs: switched.map((_, at) => tree.inclusionProof(at)) };
}

/** The bytes to sign (FROST, by t custodians of the new key) and to verify with the group's signing key. */
export function rotationBytes(statement: RotationStatement): Uint8Array {
  return preimage(
    DST.rotation,
    utf8('statement'),
    utf8(statement.cg),
    uint64(statement.fromVer),
    uint64(statement.toVer),
    uint64(statement.page),
    uint32(statement.count),
    statement.root,
    statement.pageId,
    statement.contributions,
  );
}

/**
 * True when the wrap is leaf `index` of a statement whose signature the caller has verified. Never throws.
 */
export function isSwitched(
  group: Group,
  statement: Pick<RotationStatement, 'count' | 'root'>,
  index: number,
  proof: readonly Uint8Array[],
  item: SwitchItem,
): boolean {
  if (statement.count > unwrapItemsMax || statement.root.length !== merkleHashBytes) return false;
  if (!isElement(group, item.U) || !isElement(group, item.V)) return false;
  return verifyInclusion(leafOf(item), index, statement.count, proof, statement.root);
}

/** An item for the next rotation from a wrap that an earlier one made; undefined when it is not in the statement. */
export function switchedItem(
  group: Group,
  statement: Pick<RotationStatement, 'count' | 'root'>,
  index: number,
  proof: readonly Uint8Array[],
  item: SwitchItem,
  label: Uint8Array,
): SwitchItem | undefined {
  return isSwitched(group, statement, index, proof, item) ? { ...item, label } : undefined;
}

/** lp(bkId) ‖ lp(SHA-512(label)) ‖ U' ‖ V'. */
function leafOf({ bkId, label, U, V }: SwitchItem): Uint8Array {
  return leafHash(concat(lp(bkId), lp(sha512(label)), U, V));
}

function isElement(group: Group, point: Point): boolean {
  return group.isPoint(point);
}
