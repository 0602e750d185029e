// One page of wraps on their way to a newer key: what custodians and coordinator say to each other about it, and
// what both compute alike.

import { type CID, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { custodiansMax, unwrapItemsMax } from '../core/limits.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { branchKeyIdBytes, encodeLabel, parseLabel, switchedLabel } from '../envelope/label.ts';
import { parseWrap, type SwitchedWrap, type TdecWrap } from '../envelope/wraps.ts';
import type { Group, HashGroup } from '../threshold/group.ts';
import { openPage, provenItem, type SwitchItem, type SwitchPage } from '../threshold/key-switch.ts';
import { leafHash, treeOf } from '../threshold/merkle.ts';
import { listsWrap, type RotationCertificate, switchedLeaf } from './certificate.ts';

/** A wrap that is to be switched, of the branch key or the object's own key with this id. */
export interface PageItem {
  readonly bkId: Uint8Array;
  readonly wrap: TdecWrap | SwitchedWrap;
}

/** A page before anything is done about it. */
export interface RotationPage {
  readonly cg: string;
  readonly fromVer: number;
  readonly toVer: number;
  /** Number of the certificate that it will have, and the record which that follows. */
  readonly n: number;
  readonly prev: CID | null;
  readonly beat: number;
  /** Indices of the custodians of the old key that switch it: exactly as many as it needs, rising. */
  readonly quorum: readonly number[];
  readonly items: readonly PageItem[];
}

/** Bytes of one contribution, with its proof: more than the largest page has. */
export const contributionBytesMax = 64 * unwrapItemsMax + 256;
/** Encoded items of one page: it travels as one message of an RPC, with room for what is around it. */
const pageBytesMax = 200 * 1024;
const names = ['cg', 'fromVer', 'toVer', 'n', 'prev', 'beat', 'quorum', 'items'];

/** The page as a value that travels. */
export function encodePage(page: RotationPage): Readonly<Record<string, unknown>> {
  const { cg, fromVer, toVer, n, prev, beat, quorum, items } = page;
  return {
    cg,
    fromVer,
    toVer,
    n,
    prev,
    beat,
    quorum,
    items: items.map(({ bkId, wrap }) => ({ bkId, wrap })),
  };
}

/** Reads a page. Throws RECORD_INVALID. */
export function parsePage(value: unknown): RotationPage {
  const fields = fieldsOf(value, 'page', names);
  const fromVer = fields.integer('fromVer', 1);
  return {
    cg: fields.text('cg', 64),
    fromVer,
    toVer: fields.integer('toVer', fromVer + 1),
    n: fields.integer('n', 1),
    prev: fields.cidOrNull('prev'),
    beat: fields.integer('beat', 0),
    quorum: readQuorum(fields),
    items: fields.list('items', unwrapItemsMax).map((item, at) => {
      const one = fieldsOf(item, `page.items[${at}]`, ['bkId', 'wrap']);
      const wrap = parseWrap(one.any('wrap'), `page.items[${at}].wrap`);
      if (wrap.t !== 'tdec' && wrap.t !== 'tdec-ks')
        return one.refuse('wrap', 'a wrap of the group expected');
      return { bkId: one.bytes('bkId', branchKeyIdBytes), wrap };
    }),
  };
}

function readQuorum(fields: Fields): number[] {
  const list = fields.list('quorum', custodiansMax);
  return list.map((i) =>
    typeof i === 'number' && Number.isInteger(i) ? i : fields.refuse('quorum', 'indices expected'),
  );
}

/** As many of the first `items` as fit into one page. */
export function firstPage<T extends PageItem>(items: readonly T[]): T[] {
  let room = pageBytesMax;
  const page: T[] = [];
  for (const item of items.slice(0, unwrapItemsMax)) {
    room -= encodeCbor({ bkId: item.bkId, wrap: item.wrap }).length;
    if (room < 0 && page.length > 0) break;
    page.push(item);
  }
  return page;
}

/** What an item is held against. */
export interface PageTerms {
  readonly group: HashGroup;
  readonly from: TdecKek;
  readonly to: TdecKek;
  /** A rotation certificate whose signature was verified, by the CID of its record. */
  readonly certificate: (cid: CID) => RotationCertificate | undefined;
  /** Policies of groups before this one (`CustodyBook.takenOver`). Default none. */
  readonly takenOver?: readonly CID[];
}

/**
 * The item that may be switched: proven by its own proof, or listed in a certificate of the group. Its new label says
 * the same as the old one but for the version. Throws RECORD_INVALID saying what is wrong with it.
 */
export function switchable(
  { group, from, to, certificate, takenOver = [] }: PageTerms,
  { bkId, wrap }: PageItem,
): SwitchItem {
  const refuse = (why: string): never => {
    throw new HoldfastError('RECORD_INVALID', `rotation: ${why}`);
  };
  const label = parseLabel(wrap.label);
  const isOurs =
    wrap.cg === from.cg && label.cg === from.cg && wrap.kekVer === from.ver && label.kekVer === from.ver;
  if (!isOurs) refuse(`a wrap that is not under version ${from.ver} of group ${from.cg}`);
  if (!sameBytes(label.bkId, bkId)) refuse('a label of another branch key');
  if (![to.policyRoot, ...takenOver].some((root) => sameCid(label.policy, root)))
    refuse('a wrap that is bound to another policy than the group’s');
  const next = encodeLabel(switchedLabel(label, to.ver));
  if (wrap.t === 'tdec')
    return (
      provenItem(group, from.Y, wrap.label, wrap, bkId, next) ?? refuse('a wrap whose proof does not verify')
    );
  const listed = certificate(wrap.cert);
  if (listed === undefined || !listsWrap(listed, bkId, wrap))
    refuse('a switched wrap without its certificate');
  if (!group.isPoint(wrap.U) || !group.isPoint(wrap.V)) refuse('a wrap that is no group element');
  return { bkId, label: next, U: wrap.U, V: wrap.V };
}

/** The page as its proofs are about it. Throws ARGUMENT_INVALID for a quorum or keys that do not fit. */
export function switchPage(
  group: Group,
  page: RotationPage,
  from: TdecKek,
  to: TdecKek,
  items: readonly SwitchItem[],
): SwitchPage {
  const { t, n, Y, C, Yi } = from;
  return openPage(group, {
    cg: page.cg,
    fromVer: page.fromVer,
    fromGen: from.shareGen,
    toVer: page.toVer,
    page: page.n,
    keys: { t, n, Y, C, Yi },
    quorum: page.quorum,
    Ynew: to.Y,
    items,
  });
}

/** What the new group signs about a switched page, and each wrap's way to its root. */
export interface CertifiedPage {
  readonly certificate: Omit<RotationCertificate, 'writer' | 'frostSig'>;
  readonly proofs: readonly (readonly Uint8Array[])[];
}

/** @param contributions of the whole quorum, as they were sent */
export function certifiedPage(
  page: RotationPage,
  switched: readonly SwitchItem[],
  contributions: readonly { readonly index: number; readonly bytes: Uint8Array }[],
): CertifiedPage {
  const tree = treeOf(switched.map((item) => leafHash(switchedLeaf(item.bkId, item))));
  const rising = contributions.toSorted((a, b) => a.index - b.index);
  return {
    certificate: {
      kind: 'certificate',
      v: 1,
      prev: page.prev,
      cg: page.cg,
      ver: page.toVer,
      n: page.n,
      beat: page.beat,
      what: 'rotation',
      fromVer: page.fromVer,
      count: switched.length,
      root: tree.root(),
      contributions: rising.map(({ index, bytes }) => ({ i: index, digest: sha256(bytes) })),
    },
    proofs: switched.map((_, at) => tree.inclusionProof(at)),
  };
}

function sameCid(a: CID | null, b: CID | null): boolean {
  return a === null || b === null ? a === b : sameBytes(a.bytes, b.bytes);
}
