// The proof under a page of switched wraps: one Schnorr proof for all items, over sums with random weights.
//
//   ΣwR = ρ*G      λⱼYⱼ = aG      ΣwW = ρ*Y' − a·ΣwU          secrets ρ* = Σwρ and a = λⱼxⱼ
//
// The weights are hashed from everything in the page and the contribution, so they are not known before all
// points are fixed. If one item is wrong, the sums fit for one in 2^128 of the weights.

import assert from 'node:assert/strict';
import { sameBytes, uint32 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { type Group, type Point, type RandomBytes, type Scalar, scalarBytes } from './group.ts';
import type { Contribution, SwitchPage } from './key-switch.ts';
import { lagrange } from './polynomial.ts';
import { DST, hashToScalar, transcriptHash } from './transcript.ts';
import { counted, uint8 } from './wire.ts';

const weightBytes = 16;

/** Challenge and the responses for ρ* and a. */
export type SwitchProof = readonly [Scalar, Scalar, Scalar];

/** Proves a contribution from its secrets: one ρ for each item, and a. They stay the caller's. */
export function proveSwitch(
  group: Group,
  page: SwitchPage,
  { index, R, W }: Contribution,
  secrets: { readonly rhos: readonly Scalar[]; readonly a: Scalar },
  random: RandomBytes,
): SwitchProof {
  const { a } = secrets;
  const { seed, weights } = weightsOf(page, index, R, W);
  const rho = weighted(group, weights, secrets.rhos);
  const U = group.msm(
    weights,
    page.items.map((item) => item.U),
  );
  // Who knows ρ* and a needs no sums of R and W: two multiplications each wrap that only the verifier makes.
  const shifted = group.mul(rho, page.Ynew);
  const unmasked = group.mul(a, U);
  const sums = { R: group.base(rho), W: group.sub(shifted, unmasked), U };
  const proof = prove(group, page, { index, seed, ...sums, A: group.base(a) }, { rho, a }, random);
  for (const secret of [shifted, unmasked, rho]) secret.fill(0);
  return proof;
}

/** True when the contribution's member knows ρ for each item and used its share. Points and scalars are canonical. */
export function verifySwitch(
  group: Group,
  page: SwitchPage,
  contribution: Contribution,
  proof: readonly Scalar[],
): boolean {
  return verify(group, page, statementOf(group, page, contribution), proof);
}

/** λⱼ of a member of the page's quorum. Throws ARGUMENT_INVALID for anybody else. */
export function weightOf(group: Group, page: SwitchPage, index: number): Scalar {
  if (!page.quorum.includes(index)) {
    throw new HoldfastError('ARGUMENT_INVALID', `member ${index} is not in the quorum of this page`);
  }
  return lagrange(group, page.quorum, index);
}

/** All public values of one custodian's proof, added up by the weights. */
interface Statement {
  readonly index: number;
  readonly seed: Uint8Array;
  readonly R: Point;
  readonly W: Point;
  readonly U: Point;
  /** λⱼYⱼ. */
  readonly A: Point;
}

function statementOf(group: Group, page: SwitchPage, { index, R, W }: Contribution): Statement {
  const { seed, weights } = weightsOf(page, index, R, W);
  const Yj = page.keys.Yi[index - 1] ?? group.identity;
  const [sumR, sumW, sumU] = group.msms(weights, [R, W, page.items.map((item) => item.U)]);
  assert(sumR !== undefined && sumW !== undefined && sumU !== undefined, 'three sums');
  return {
    index,
    seed,
    R: sumR,
    W: sumW,
    U: sumU,
    A: group.mul(weightOf(group, page, index), Yj),
  };
}

/** 128-bit weights that depend on everything in the page and the contribution. */
function weightsOf(
  page: SwitchPage,
  index: number,
  R: readonly Point[],
  W: readonly Point[],
): { readonly seed: Uint8Array; readonly weights: readonly Scalar[] } {
  const seed = transcriptHash(DST.ksSeed, page.id, uint8(index), counted(R), counted(W));
  const weights = R.map((_, at) => {
    const weight = new Uint8Array(scalarBytes);
    weight.set(transcriptHash(DST.ksRho, seed, uint32(at)).subarray(0, weightBytes));
    return weight;
  });
  return { seed, weights };
}

/** Schnorr over the three equations with two secrets: challenge, and a response for each. */
function prove(
  group: Group,
  page: SwitchPage,
  statement: Statement,
  witness: { readonly rho: Scalar; readonly a: Scalar },
  random: RandomBytes,
): SwitchProof {
  const { scalar } = group;
  const k = scalar.random(random);
  const l = scalar.random(random);
  const T3 = group.sub(group.mul(k, page.Ynew), group.mul(l, statement.U));
  const c = challenge(group, page, statement, [group.base(k), group.base(l), T3]);
  const products = [scalar.mul(c, witness.rho), scalar.mul(c, witness.a)] as const;
  const responses = [scalar.add(k, products[0]), scalar.add(l, products[1])] as const;
  for (const secret of [k, l, ...products]) secret.fill(0);
  return [c, ...responses];
}

function verify(group: Group, page: SwitchPage, statement: Statement, proof: readonly Scalar[]): boolean {
  const [c, z, y] = proof;
  if (c === undefined || z === undefined || y === undefined) return false;
  const T1 = group.sub(group.base(z), group.mul(c, statement.R));
  const T2 = group.sub(group.base(y), group.mul(c, statement.A));
  const shown = group.sub(group.mul(z, page.Ynew), group.mul(y, statement.U));
  const T3 = group.sub(shown, group.mul(c, statement.W));
  return sameBytes(challenge(group, page, statement, [T1, T2, T3]), c);
}

function challenge(group: Group, page: SwitchPage, statement: Statement, T: readonly Point[]): Scalar {
  const { index, seed, R, W, U, A } = statement;
  return hashToScalar(group, DST.ks, page.id, uint8(index), seed, page.Ynew, R, W, U, A, ...T);
}

/** Σ w·k; the caller zeroes it. */
function weighted(group: Group, weights: readonly Scalar[], ks: readonly Scalar[]): Scalar {
  let total = group.scalar.fromInt(0);
  for (const [at, weight] of weights.entries()) {
    const product = group.scalar.mul(weight, ks[at] ?? weight);
    const next = group.scalar.add(total, product);
    for (const used of [product, total]) used.fill(0);
    total = next;
  }
  return total;
}
