// The order to make the first key of a custody group, with the policy that the group begins by.

import type { Signer } from '../core/hash.ts';
import { signRecord } from '../manifest/record.ts';
import type { RandomBytes } from '../threshold/group.ts';
import type { InitArgs, Seat } from './ceremony-plan.ts';
import { defaultPolicy } from './default-policy.ts';
import { signOrder } from './order.ts';
import { policyFamilyBytes } from './policy.ts';
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
}

/** Custodians needed of `n`: more than half, so that two halves that do not see each other never both work. */
export function thresholdOf(n: number): number {
  return Math.floor(n / 2) + 1;
}

/** Signed by the operator, who is also the first authority. Throws RECORD_INVALID for what cannot be ordered. */
export function firstKeyOrder(
  { cg, members, t = thresholdOf(members.length), development = false, inPlaceOf }: FirstKeyChoice,
  operator: Signer,
  random: RandomBytes,
): Uint8Array {
  const by = operator.publicKey;
  const policy = defaultPolicy({ cg, family: random(policyFamilyBytes), writer: by, authorities: [by] });
  const args: InitArgs = {
    ver: 1,
    t,
    members,
    policy: signRecord(policy, operator).block.bytes,
    refreshEveryBars: policy.refreshEveryBars,
    development,
    ...(inPlaceOf === undefined ? {} : { inPlaceOf }),
  };
  // It is good until it has been followed, however long a first start takes; after that it is of no effect.
  const exp = Number.MAX_SAFE_INTEGER;
  return signOrder(
    { v: 1, cg, op: 'init', args: { ...args }, nonce: random(32), beat: 0, exp, by },
    operator,
  );
}
