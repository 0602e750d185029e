// The order to make the first key of a custody group, with the policy that the group begins by.

import type { Signer } from '../core/hash.ts';
import { signRecord } from '../manifest/record.ts';
import type { RandomBytes } from '../threshold/group.ts';
import type { InitArgs, Seat } from './ceremony-plan.ts';
import { defaultPolicy } from './default-policy.ts';
import { signOrder } from './order.ts';
import { parsePolicy, type PolicyBody, policyFamilyBytes } from './policy.ts';
import type { InPlaceOf } from './succession.ts';

export interface FirstKeyChoice {
  readonly cg: string;
  /** In the order of their indices. */
  readonly members: readonly Seat[];
  /** Default: more than half. */
  readonly t?: number | undefined;
  /** Allows groups that one loss or one thief ends. */
  readonly development?: boolean;
  /** The group that ends with the new one, and why. */
  readonly inPlaceOf?: InPlaceOf;
  /** A policy whose rules the group begins by. Default `defaultPolicy`. */
  readonly rules?: PolicyBody | undefined;
  /**
   * Last beat at which it may be begun. Default none: the order for the first key of a cluster is good until it has been
   * followed, however long a first start takes; after that it is of no effect.
   */
  readonly exp?: number;
}

/** Custodians needed of `n`: more than half, so that two halves that do not see each other never both work. */
export function thresholdOf(n: number): number {
  return Math.floor(n / 2) + 1;
}

/** Signed by the operator, who is also the first authority. Throws RECORD_INVALID for what cannot be ordered. */
export function firstKeyOrder(choice: FirstKeyChoice, operator: Signer, random: RandomBytes): Uint8Array {
  const { cg, members, development = false, inPlaceOf, exp = Number.MAX_SAFE_INTEGER } = choice;
  const by = operator.publicKey;
  const policy = firstPolicy(choice, by, random(policyFamilyBytes));
  const args: InitArgs = {
    ver: 1,
    t: choice.t ?? thresholdOf(members.length),
    members,
    policy: signRecord(policy, operator).block.bytes,
    refreshEveryBars: policy.refreshEveryBars,
    development,
    ...(inPlaceOf === undefined ? {} : { inPlaceOf }),
  };
  return signOrder(
    { v: 1, cg, op: 'init', args: { ...args }, nonce: random(32), beat: 0, exp, by },
    operator,
  );
}

/** Version 1, of a family of its own. */
function firstPolicy({ cg, rules }: FirstKeyChoice, writer: Uint8Array, family: Uint8Array): PolicyBody {
  if (rules === undefined) return defaultPolicy({ cg, family, writer, authorities: [writer] });
  return parsePolicy({ ...rules, cg, family, writer, ver: 1, prev: null, frostSig: null });
}
