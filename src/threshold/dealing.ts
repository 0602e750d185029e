// Dealing shares: what a dealer sends, what everybody checks of it, what a recipient opens.
//
//   body   C (points) ‖ for each recipient: enc (32 B) ‖ sealed share (48 B)
//
// A refresh carries exactly t − 1 commitments: the constant is the identity because it cannot be said, so no
// dealer can shift the key. A reshare carries exactly t' of them, and the first must be the dealer's known
// verification share, so no dealer can bring in another value than the share it has.
//
// All of a dealer's chance comes from one seed of 32 bytes. With it the dealer can later show how a share was
// sealed (dealing-agreement.ts); it is secret like a share and zeroed when the generation is active.

import { concat } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { sha512, type Signer } from '../core/hash.ts';
import { type DealingSession, domainOf } from './dealing-session.ts';
import type { Fault } from './fault.ts';
import {
  type Group,
  type Point,
  pointBytes,
  type RandomBytes,
  type Scalar,
  samePoint,
  scalarBytes,
} from './group.ts';
import { hpkeKeyBytes, type HpkeSealed, hpkeTagBytes, openWith, sealTo } from './hpke.ts';
import { requireMember } from './key-set.ts';
import { commitments, evaluate, evaluateCommitment } from './polynomial.ts';
import { collectSteps, signStep } from './signed-step.ts';
import { lp } from './transcript.ts';
import { utf8 } from '../core/bytes.ts';
import { parse, uint32le, uint8 } from './wire.ts';

const seedBytes = 32;
const step = 'deal';

/** A dealing that everybody may check and that passed. Public. */
export interface Dealing {
  readonly dealer: number;
  /** Commitments, constant first; in a refresh the constant is the identity. */
  readonly C: readonly Point[];
  readonly sealed: readonly HpkeSealed[];
  /** The signed message. */
  readonly bytes: Uint8Array;
}

/** A member of the old generation that deals. `share` and `seed` are secret and stay the caller's. */
export interface Dealer {
  readonly index: number;
  readonly share: Scalar;
  readonly signer: Signer;
}

/** A share dealt to us. Secret: the caller zeroes it. */
export interface DealtShare {
  readonly dealer: number;
  readonly share: Scalar;
}

/**
 * Deals to all recipients.
 * @param dealer its present share (a refresh does not use it)
 * @returns the signed message for the log, and the seed: secret, kept until the session is over
 * @throws HoldfastError ARGUMENT_INVALID for an index that is no member's or an unusable prekey
 */
export function deal(
  group: Group,
  session: DealingSession,
  dealer: Dealer,
  random: RandomBytes,
): { readonly message: Uint8Array; readonly seed: Uint8Array } {
  requireMember(dealer.index, session.from.keys.n);
  const seed = random(seedBytes);
  const coeffs = coefficients(group, session, dealer.share, seed);
  const C = commitments(group, coeffs).slice(session.kind === 'refresh' ? 1 : 0);
  const sealed = session.to.recipients.map((_, at) => {
    const share = evaluate(group, coeffs, at + 1);
    const { enc, ct } = sealShare(session, C, dealer.index, at + 1, share, sealingSeed(seed, at + 1));
    share.fill(0);
    return concat(enc, ct);
  });
  for (const coeff of coeffs) coeff.fill(0);
  const body = concat(...C, ...sealed);
  return { message: signStep(dealer.signer, session.id, step, dealer.index, body), seed };
}

/**
 * What everybody checks: signature, form, commitments.
 * @param log messages in any order, from anybody
 */
export function readDealings(
  group: Group,
  session: DealingSession,
  log: readonly Uint8Array[],
): { readonly dealings: readonly Dealing[]; readonly faults: readonly Fault[] } {
  const { steps, faults } = collectSteps(session.from.sigPks, session.id, step, log, 'dealer');
  const read = steps.map(({ from, body, bytes }): Dealing | Fault => {
    const found = readBody(group, session, body);
    if (found === undefined) return { culprit: from, as: 'dealer', reason: 'malformed', evidence: bytes };
    const reason = refusedFor(group, session, from, found.C);
    if (reason !== undefined) return { culprit: from, as: 'dealer', reason, evidence: bytes };
    return { dealer: from, C: found.C, sealed: found.sealed, bytes };
  });
  return {
    dealings: read.filter((row) => 'dealer' in row),
    faults: [...faults, ...read.filter((row) => 'culprit' in row)],
  };
}

/**
 * Opens what was dealt to recipient `index`. `complaints` names dealers whose share does not open or is not on
 * their polynomial: what to do about them is in dealing-agreement.ts.
 * @param prekey our secret prekey of this epoch; stays the caller's
 */
export function openDealt(
  group: Group,
  session: DealingSession,
  index: number,
  prekey: Uint8Array,
  dealings: readonly Dealing[],
): { readonly shares: readonly DealtShare[]; readonly complaints: readonly number[] } {
  requireMember(index, session.to.recipients.length);
  const shares: DealtShare[] = [];
  const complaints: number[] = [];
  for (const dealing of dealings) {
    const share = openOne(group, session, index, prekey, dealing);
    if (share === undefined) complaints.push(dealing.dealer);
    else shares.push({ dealer: dealing.dealer, share });
  }
  return { shares, complaints };
}

/** True when `share` is the value of the dealing's polynomial for recipient `index`. */
export function isShareOf(group: Group, dealing: Pick<Dealing, 'C'>, index: number, share: Scalar): boolean {
  return (
    group.scalar.isScalar(share) && samePoint(group.base(share), evaluateCommitment(group, dealing.C, index))
  );
}

/** The share for recipient `to` again, from the seed: what a dealer shows to refute a complaint. Secret until then. */
export function dealtAgain(
  group: Group,
  session: DealingSession,
  dealer: Pick<Dealer, 'share'>,
  seed: Uint8Array,
  to: number,
): { readonly share: Scalar; readonly sealing: Uint8Array } {
  const coeffs = coefficients(group, session, dealer.share, seed);
  const share = evaluate(group, coeffs, to);
  for (const coeff of coeffs) coeff.fill(0);
  return { share, sealing: sealingSeed(seed, to) };
}

/** The sealed share as the dealer must have made it with this sealing seed. Zeroes `sealing`. */
export function sealShare(
  session: DealingSession,
  sent: readonly Point[],
  from: number,
  to: number,
  share: Scalar,
  sealing: Uint8Array,
): HpkeSealed {
  const prekey = session.to.recipients[to - 1]?.prekey ?? new Uint8Array(0);
  return sealTo(prekey, infoOf(session, from, to), concat(...sent), share, () => sealing);
}

/** The commitments as they were sent: a refresh leaves the constant out. */
export function sentCommitments(session: DealingSession, C: readonly Point[]): readonly Point[] {
  return session.kind === 'refresh' ? C.slice(1) : C;
}

function openOne(
  group: Group,
  session: DealingSession,
  index: number,
  prekey: Uint8Array,
  dealing: Dealing,
): Scalar | undefined {
  const sealed = dealing.sealed[index - 1];
  if (sealed === undefined) return undefined;
  const info = infoOf(session, dealing.dealer, index);
  const aad = concat(...sentCommitments(session, dealing.C));
  try {
    const share = openWith(prekey, sealed.enc, info, aad, sealed.ct);
    if (isShareOf(group, dealing, index, share)) return share;
    share.fill(0);
    return undefined;
  } catch (error) {
    if (isHoldfastError(error, 'DECRYPT_FAILED')) return undefined;
    throw error;
  }
}

function readBody(
  group: Group,
  session: DealingSession,
  body: Uint8Array,
): Pick<Dealing, 'C' | 'sealed'> | undefined {
  const constant = session.kind === 'refresh' ? [group.identity] : [];
  return parse(body, (reader) => ({
    C: [...constant, ...reader.list(session.to.t - constant.length, pointBytes)],
    sealed: session.to.recipients.map(() => ({
      enc: reader.take(hpkeKeyBytes),
      ct: reader.take(scalarBytes + hpkeTagBytes),
    })),
  }));
}

function refusedFor(
  group: Group,
  session: DealingSession,
  dealer: number,
  C: readonly Point[],
): Fault['reason'] | undefined {
  if (!sentCommitments(session, C).every((point) => group.isPoint(point))) return 'commitments';
  if (session.kind === 'refresh') return undefined;
  const [constant] = C;
  const known = session.from.keys.Yi[dealer - 1];
  return constant !== undefined && known !== undefined && samePoint(constant, known) ? undefined : 'constant';
}

/** Constant first: zero for a refresh, our share for a reshare. */
function coefficients(group: Group, session: DealingSession, share: Scalar, seed: Uint8Array): Scalar[] {
  const constant = session.kind === 'refresh' ? group.scalar.fromInt(0) : Uint8Array.from(share);
  const others = Array.from({ length: session.to.t - 1 }, (_, at) => {
    const wide = derived(seed, 'coefficient', at + 1);
    const coeff = group.scalar.reduce(wide);
    wide.fill(0);
    return coeff;
  });
  return [constant, ...others];
}

function sealingSeed(seed: Uint8Array, to: number): Uint8Array {
  return derived(seed, 'sealing', to).subarray(0, hpkeKeyBytes);
}

/** 64 bytes that look random to whoever does not know the seed. */
function derived(seed: Uint8Array, what: string, number: number): Uint8Array {
  const input = concat(lp(utf8('CHORUS-SLURP-DEALER-v1')), lp(seed), lp(utf8(what)), uint32le(number));
  const out = sha512(input);
  input.fill(0);
  return out;
}

function infoOf(session: DealingSession, from: number, to: number): Uint8Array {
  return concat(lp(utf8(domainOf(session))), session.id, uint8(from), uint8(to));
}
