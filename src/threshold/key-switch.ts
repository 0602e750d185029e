// Moving wraps to another threshold key with nobody seeing what is in them: t custodians of the old key each
// take their part of the old mask away and put a part of a new mask on, in one step.
//
//   old (U, V) = (rG, M + rY)
//   custodian j, for each wrap:   R = ρG      W = ρY' − λⱼxⱼU        ρ random
//   new (U', V') = (ΣR, V + ΣW) = (ρ'G, M + ρ'Y')
//
// One proof covers a page: with weights hashed from everything in it, the custodian proves that it knows ρ* and
// a with  ΣwR = ρ*G,  λⱼYⱼ = aG  and  ΣwW = ρ*Y' − a·ΣwU. A page with one wrong item passes with probability
// 2^-128. A new wrap carries no proof of its own (nobody knows ρ'): the rotation certificate stands for it
// (rotation.ts). Only items whose old proof was verified may enter, hence `provenItem` and `switchedItem`.

import assert from 'node:assert/strict';
import { concat, uint32, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import {
  type Group,
  type HashGroup,
  type Point,
  pointBytes,
  type RandomBytes,
  type Scalar,
  scalarBytes,
} from './group.ts';
import { isKeySet, type KeySet } from './key-set.ts';
import { proveSwitch, verifySwitch, weightOf } from './key-switch-proof.ts';
import { type TdhWrap, verifyWrap } from './tdh2.ts';
import { DST, transcriptHash } from './transcript.ts';
import { counted, parse, uint8 } from './wire.ts';

const labelBytesMax = 4096;
const bkIdBytesMax = 64;

/** A wrap that may be switched, made by `provenItem` or `switchedItem`. */
export interface SwitchItem {
  readonly bkId: Uint8Array;
  /** The label of the new wrap. That it says the same as the old one but for the key's version is the caller's to check. */
  readonly label: Uint8Array;
  readonly U: Point;
  readonly V: Point;
}

export interface SwitchParams {
  readonly cg: string;
  readonly fromVer: number;
  readonly fromGen: number;
  readonly toVer: number;
  /** Number of this page in the rotation, from 0. */
  readonly page: number;
  /** The old key. */
  readonly keys: KeySet;
  /** Exactly t of its members, ascending. */
  readonly quorum: readonly number[];
  /**
   * The new public key. Whoever holds it opens the wraps, so a custodian takes it only from a record of the new
   * version that it has verified itself, never from whoever asks.
   */
  readonly Ynew: Point;
  /** 1…256. */
  readonly items: readonly SwitchItem[];
}

export interface SwitchPage extends SwitchParams {
  /** A hash of everything above. */
  readonly id: Uint8Array;
}

/** Of one custodian for one page, read from its message and proven. */
export interface Contribution {
  readonly index: number;
  readonly R: readonly Point[];
  readonly W: readonly Point[];
}

/**
 * An item from a wrap that its writer made.
 * @param oldLabel the label it was made with; `label` is the one of the new wrap
 * @returns undefined when the wrap's proof does not verify: a mauled one must not enter
 */
export function provenItem(
  group: HashGroup,
  Y: Point,
  oldLabel: Uint8Array,
  wrap: TdhWrap,
  bkId: Uint8Array,
  label: Uint8Array,
): SwitchItem | undefined {
  return verifyWrap(group, Y, oldLabel, wrap) ? { bkId, label, U: wrap.U, V: wrap.V } : undefined;
}

/** @throws HoldfastError ARGUMENT_INVALID saying which parameter does not fit */
export function openPage(group: Group, params: SwitchParams): SwitchPage {
  const { keys, quorum, items, Ynew } = params;
  const refuse = (what: string): never => {
    throw new HoldfastError('ARGUMENT_INVALID', `key switch: ${what}`);
  };
  if (!isKeySet(group, keys)) refuse('the old key set does not fit together');
  if (!group.isPoint(Ynew)) refuse('the new key is no group element');
  const ascending = quorum.every((index, at) => index > (quorum[at - 1] ?? 0) && index <= keys.n);
  if (quorum.length !== keys.t || !ascending) refuse(`exactly ${keys.t} members expected, ascending`);
  if (items.length < 1 || items.length > unwrapItemsMax) refuse(`1 to ${unwrapItemsMax} items expected`);
  const fits = ({ bkId, label }: SwitchItem): boolean =>
    bkId.length <= bkIdBytesMax && label.length <= labelBytesMax;
  const areElements = group.remembering(() => group.arePoints(items.flatMap(({ U, V }) => [U, V])));
  if (!items.every(fits) || !areElements) refuse('an item is out of bounds or no group element');
  const numbers = [params.fromVer, params.fromGen, params.toVer, params.page];
  if (!numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) {
    refuse('versions, generation and page are whole numbers from 0');
  }
  const id = transcriptHash(
    DST.rotation,
    utf8('page'),
    utf8(group.name),
    utf8(params.cg),
    ...numbers.map(uint64),
    counted(keys.C),
    uint32(keys.n),
    counted(quorum.map(uint8)),
    Ynew,
    ...items.flatMap(({ bkId, label, U, V }) => [bkId, label, U, V]),
  );
  return { ...params, id };
}

/**
 * What custodian `index` contributes: R ‖ W for each item, then the proof. Public.
 * @param share its secret share of the old key; stays the caller's
 */
export function contribute(
  group: Group,
  page: SwitchPage,
  index: number,
  share: Scalar,
  random: RandomBytes,
): Uint8Array {
  const { scalar } = group;
  const a = scalar.mul(weightOf(group, page, index), share);
  const rhos = page.items.map(() => scalar.random(random));
  const R = rhos.map((rho) => group.base(rho));
  const W = page.items.map(({ U }, at) => {
    const masked = group.mul(rhos[at] ?? a, page.Ynew);
    const unmasked = group.mul(a, U);
    const out = group.sub(masked, unmasked);
    for (const secret of [masked, unmasked]) secret.fill(0);
    return out;
  });
  const proof = group.remembering(() => proveSwitch(group, page, { index, R, W }, { rhos, a }, random));
  for (const secret of [...rhos, a]) secret.fill(0);
  return concat(...R.flatMap((point, at) => [point, W[at] ?? group.identity]), ...proof);
}

/** The contribution in `bytes`; undefined when it is malformed or its proof does not verify: its sender is at fault. */
export function readContribution(
  group: Group,
  page: SwitchPage,
  index: number,
  bytes: Uint8Array,
): Contribution | undefined {
  if (!page.quorum.includes(index)) return undefined;
  const read = parse(bytes, (reader) => ({
    pairs: page.items.map(() => reader.list(2, pointBytes)),
    proof: reader.list(3, scalarBytes),
  }));
  if (read === undefined) return undefined;
  const R = read.pairs.map(([first = group.identity]) => first);
  const W = read.pairs.map(([, second = group.identity]) => second);
  if ([...R, ...W].some((point) => group.isIdentity(point))) return undefined;
  if (!read.proof.every((scalar) => group.scalar.isScalar(scalar))) return undefined;
  try {
    // All points of a page are public. The same come up in the proof of each contribution, and in what is made of them.
    const isProven = group.remembering(() => verifySwitch(group, page, { index, R, W }, read.proof));
    return isProven ? { index, R, W } : undefined;
  } catch (error) {
    if (isHoldfastError(error, 'ARGUMENT_INVALID')) return undefined; // one of them is no point
    throw error;
  }
}

/**
 * The switched wraps, in the order of the items.
 * @param contributions of exactly the page's quorum, each from `readContribution` for this page
 * @throws HoldfastError ARGUMENT_INVALID when one is missing or too many
 */
export function applySwitch(
  group: Group,
  page: SwitchPage,
  contributions: readonly Contribution[],
): readonly SwitchItem[] {
  const given = contributions.map(({ index }) => index).toSorted((a, b) => a - b);
  if (given.join() !== page.quorum.join()) {
    throw new HoldfastError('ARGUMENT_INVALID', 'one contribution of each member of the quorum expected');
  }
  const { identity } = group;
  return group.remembering(() =>
    page.items.map(({ bkId, label, V: old }, at) => {
      const [U, V] = group.sums([
        // In this order each R stands beside its W, as it did when its contribution was verified.
        [...contributions.map(({ R }) => R[at] ?? identity), identity],
        [...contributions.map(({ W }) => W[at] ?? identity), old],
      ]);
      assert(U !== undefined && V !== undefined, 'two sums');
      return { bkId, label, U, V };
    }),
  );
}
