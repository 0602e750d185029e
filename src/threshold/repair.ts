// Giving a member its lost share again (Laing and Stinson, "A Survey and Refinement of Repairable Threshold
// Schemes", eprint 2017/1155): t helpers each cut their part of it into pieces for each other and pass on only
// sums, so that no helper learns the share, and the member learns none of theirs.
//
//   split   helper i: λᵢ·xᵢ = Σⱼ δᵢⱼ, piece δᵢⱼ sealed to helper j, δᵢⱼ·G public      → message 1
//   pass    helper j: σⱼ = Σᵢ δᵢⱼ, sealed to the member                               → message 2
//   restore the member: x = Σⱼ σⱼ
//
// λᵢ interpolates at the member's index instead of at zero. The public multiples are our addition: Σⱼ δᵢⱼ·G must
// be λᵢ·Yᵢ and σⱼ·G must be Σᵢ δᵢⱼ·G, so whoever sends something else is named.

import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import { type Group, type Point, type RandomBytes, type Scalar, samePoint } from './group.ts';
import { hpkeKeyBytes, type HpkeSealed, openWith, sealTo } from './hpke.ts';
import { lagrange } from './polynomial.ts';
import { collectHelpers, readSplits, type RepairSession, sealedBytes } from './repair-session.ts';
import { type SignedStep, signStep } from './signed-step.ts';
import { DST, lp } from './transcript.ts';
import { parse, uint8 } from './wire.ts';

const viewBytes = 64;

/** A helper or the member in need. `share`, `prekey` (secret part) stay the caller's. */
export interface Helper {
  readonly index: number;
  readonly share: Scalar;
  readonly signer: Signer;
}

/** Step 1 of a helper: its part, cut into sealed pieces. Throws ARGUMENT_INVALID for an unusable prekey. */
export function split(group: Group, session: RepairSession, own: Helper, random: RandomBytes): Uint8Array {
  const weight = lagrange(group, session.helpers, own.index, session.lost);
  const part = group.scalar.mul(weight, own.share);
  const pieces = cut(group, part, session.helpers.length, random);
  part.fill(0);
  const D = pieces.map((piece) => group.base(piece));
  const sealed = session.helpers.map((helper, at) => {
    const piece = pieces[at] ?? group.scalar.fromInt(0);
    const { enc, ct } = sealTo(
      prekeyOf(session, helper),
      infoOf(session, 'split', own.index, helper),
      concat(...D),
      piece,
      random,
    );
    piece.fill(0);
    return concat(enc, ct);
  });
  return signStep(own.signer, session.id, 'split', own.index, concat(...D, ...sealed));
}

/**
 * Step 2 of a helper: the sum of the pieces for it, sealed to the member in need.
 * @param prekey our secret prekey; stays the caller's
 * @param log messages of step 1
 */
export function pass(
  group: Group,
  session: RepairSession,
  own: Pick<Helper, 'index' | 'signer'> & { readonly prekey: Uint8Array },
  log: readonly Uint8Array[],
  random: RandomBytes,
): Outcome<Uint8Array> {
  const read = readSplits(group, session, log);
  if (!read.ok) return read;
  const at = session.helpers.indexOf(own.index);
  const faults: Fault[] = [];
  let sum: Scalar = group.scalar.fromInt(0);
  for (const { helper, D, sealed } of read.value.splits) {
    const piece = open(own.prekey, sealed[at], infoOf(session, 'split', helper, own.index), concat(...D));
    const expected = D[at];
    if (piece === undefined) faults.push({ culprit: helper, reason: 'sealed' });
    else if (expected === undefined || !isLogOf(group, piece, expected)) {
      faults.push({ culprit: helper, reason: 'share' });
    } else {
      const next = group.scalar.add(sum, piece);
      sum.fill(0);
      sum = next;
    }
    piece?.fill(0);
  }
  if (faults.length > 0) {
    sum.fill(0);
    return failure(faults);
  }
  const { view } = read.value;
  const info = infoOf(session, 'pass', own.index, session.lost);
  const { enc, ct } = sealTo(prekeyOf(session, session.lost), info, view, sum, random);
  sum.fill(0);
  return success(signStep(own.signer, session.id, 'pass', own.index, concat(view, enc, ct)));
}

/**
 * The lost share.
 * @param prekey the member's secret prekey; stays the caller's
 * @param splits,passes the logs of steps 1 and 2
 * @returns the share: secret, the caller stores and zeroes it
 */
export function restore(
  group: Group,
  session: RepairSession,
  prekey: Uint8Array,
  splits: readonly Uint8Array[],
  passes: readonly Uint8Array[],
): Outcome<Scalar> {
  const read = readSplits(group, session, splits);
  if (!read.ok) return read;
  const { steps, faults } = collectHelpers(session, 'pass', passes);
  const found: Fault[] = [...faults];
  let total: Scalar = group.scalar.fromInt(0);
  for (const step of steps) {
    const at = session.helpers.indexOf(step.from);
    const expected = group.sum(read.value.splits.map(({ D }) => D[at] ?? group.identity));
    const sum = openSum(group, session, prekey, step, read.value.view, expected);
    if ('reason' in sum) {
      found.push(sum);
      continue;
    }
    const next = group.scalar.add(total, sum.value);
    for (const used of [total, sum.value]) used.fill(0);
    total = next;
  }
  const Y = session.keys.Yi[session.lost - 1];
  if (found.length === 0 && Y !== undefined && samePoint(group.base(total), Y)) return success(total);
  total.fill(0);
  return failure(found);
}

function openSum(
  group: Group,
  session: RepairSession,
  prekey: Uint8Array,
  step: SignedStep,
  view: Uint8Array,
  expected: Point,
): { readonly value: Scalar } | Fault {
  const evidence = step.bytes;
  const read = parse(step.body, (reader) => ({
    view: reader.take(viewBytes),
    sealed: { enc: reader.take(hpkeKeyBytes), ct: reader.take(sealedBytes) },
  }));
  if (read === undefined) return { culprit: step.from, reason: 'malformed', evidence };
  // Another view of step 1 than ours: the log showed two, so the helper may be honest.
  if (!sameBytes(read.view, view)) return { culprit: 0, reason: 'altered', evidence };
  const value = open(prekey, read.sealed, infoOf(session, 'pass', step.from, session.lost), view);
  if (value === undefined) return { culprit: step.from, reason: 'sealed', evidence };
  if (isLogOf(group, value, expected)) return { value };
  value.fill(0);
  return { culprit: step.from, reason: 'share', evidence };
}

/** `count` random scalars that add up to `total`; all secret. */
export function cut(group: Group, total: Scalar, count: number, random: RandomBytes): Scalar[] {
  const pieces = Array.from({ length: count - 1 }, () => group.scalar.random(random));
  let rest: Scalar = Uint8Array.from(total);
  for (const piece of pieces) {
    const next = group.scalar.sub(rest, piece);
    rest.fill(0);
    rest = next;
  }
  return [...pieces, rest];
}

function isLogOf(group: Group, k: Scalar, point: Point): boolean {
  return group.scalar.isScalar(k) && samePoint(group.base(k), point);
}

function open(
  prekey: Uint8Array,
  sealed: HpkeSealed | undefined,
  info: Uint8Array,
  aad: Uint8Array,
): Uint8Array | undefined {
  if (sealed === undefined) return undefined;
  try {
    return openWith(prekey, sealed.enc, info, aad, sealed.ct);
  } catch (error) {
    if (isHoldfastError(error, 'DECRYPT_FAILED')) return undefined;
    throw error;
  }
}

function prekeyOf(session: RepairSession, index: number): Uint8Array {
  return session.prekeys[index - 1] ?? new Uint8Array(0);
}

function infoOf(session: RepairSession, step: string, from: number, to: number): Uint8Array {
  return concat(lp(utf8(DST.repair)), lp(utf8(step)), session.id, uint8(from), uint8(to));
}
