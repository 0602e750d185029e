// Agreeing on a dealing: complaints, answers, who qualified, the new generation and its certificate.
//
//   deal ▸ complain ▸ answer ▸ certify ▸ active          one step a beat, all on one ordered log
//
// Everything here but `complete` is a function of the log alone, so all who read the same log come to the same
// result, and the certificates say whether they did. Complaints and answers are in dealing-complaints.ts.

import { concat, sameBytes, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { Dealing, DealtShare } from './dealing.ts';
import { readComplaints, refutes } from './dealing-complaints.ts';
import { type DealingSession, domainOf } from './dealing-session.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import { type Group, type Point, type Scalar, samePoint } from './group.ts';
import { type KeySet, keySetOf, requireMember } from './key-set.ts';
import { lagrange } from './polynomial.ts';
import { collectSteps, signStep } from './signed-step.ts';
import { transcriptHash } from './transcript.ts';
import { counted, uint8 } from './wire.ts';

/** Who qualified and what the next generation is. Public, and the same for all who saw the same log. */
export interface Settled {
  /** Dealers whose dealings count, ascending. */
  readonly qual: readonly number[];
  readonly dealings: readonly Dealing[];
  readonly keys: KeySet;
  /** SHA-512 over session, QUAL, commitments, new verification shares and generations. */
  readonly transcript: Uint8Array;
  /** Who broke the protocol without stopping it. */
  readonly faults: readonly Fault[];
}

/**
 * The result of the log.
 * @param dealings from `readDealings`
 * @param complaints,answers the logs of those steps, in any order
 * @returns faults only when fewer than the old threshold qualified: the generation stays as it is
 */
export function settle(
  group: Group,
  session: DealingSession,
  dealings: readonly Dealing[],
  complaints: readonly Uint8Array[],
  answers: readonly Uint8Array[],
): Outcome<Settled> {
  const { accusations, faults } = readComplaints(session, complaints);
  const replies = collectSteps(session.from.sigPks, session.id, 'answer', answers, 'dealer');
  const found: Fault[] = [...faults, ...replies.faults];
  const out = new Set<number>();
  for (const { accuser, dealer, bytes } of accusations) {
    const dealing = dealings.find((row) => row.dealer === dealer);
    if (dealing === undefined) continue;
    const reply = replies.steps.find(({ from }) => from === dealer);
    if (refutes(group, session, dealing, accuser, reply)) {
      found.push({ culprit: accuser, as: 'member', reason: 'complaint', evidence: bytes });
    } else if (!out.has(dealer)) {
      out.add(dealer);
      const evidence = concat(dealing.bytes, bytes, reply?.bytes ?? new Uint8Array(0));
      found.push({ culprit: dealer, as: 'dealer', reason: 'share', evidence });
    }
  }
  const qualified = dealings.filter(({ dealer }) => !out.has(dealer));
  if (qualified.length < session.from.keys.t) {
    return failure([...found, ...missing(session, dealings)]);
  }
  const qual = qualified.map(({ dealer }) => dealer);
  const keys = nextKeys(group, session, qualified);
  const transcript = transcriptHash(
    domainOf(session),
    utf8('transcript'),
    session.id,
    uint64(session.from.gen),
    uint64(session.from.gen + 1),
    counted(qual.map(uint8)),
    ...qualified.map(({ C }) => counted(C)),
    counted(keys.C),
    counted(keys.Yi),
  );
  return success({ qual, dealings: qualified, keys, transcript, faults: found });
}

/**
 * Our share of the next generation.
 * @param own our new index, the shares that `openDealt` returned (zeroed here), and in a refresh the present share
 * @returns the share: secret, the caller stores it beside the old one and zeroes it
 */
export function complete(
  group: Group,
  session: DealingSession,
  settled: Settled,
  own: { readonly index: number; readonly shares: readonly DealtShare[]; readonly present?: Scalar },
): Outcome<Scalar> {
  const { scalar } = group;
  const { index, shares, present } = own;
  if ((session.kind === 'refresh') !== (present !== undefined)) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the present share is needed in a refresh, and only there');
  }
  let total = present === undefined ? scalar.fromInt(0) : Uint8Array.from(present);
  const lacking: Fault[] = [];
  for (const dealer of settled.qual) {
    const share = shares.find((row) => row.dealer === dealer)?.share;
    if (share === undefined) lacking.push({ culprit: dealer, as: 'dealer', reason: 'missing' });
    else total = addTo(group, total, share, weightOf(group, session, settled.qual, dealer));
  }
  for (const { share } of shares) share.fill(0);
  const expected = settled.keys.Yi[index - 1];
  if (lacking.length === 0 && expected !== undefined && samePoint(group.base(total), expected)) {
    return success(total);
  }
  total.fill(0);
  // Every dealt share was checked, so what does not fit is the present share: of another generation, or damaged.
  return failure(lacking.length > 0 ? lacking : [{ culprit: index, as: 'member', reason: 'share' }]);
}

/** "I have the share of the next generation and it is stored": recipient `index` signs the transcript. */
export function certify(
  session: DealingSession,
  index: number,
  signer: Signer,
  transcript: Uint8Array,
): Uint8Array {
  requireMember(index, session.to.recipients.length);
  return signStep(signer, session.id, 'certify', index, transcript);
}

/**
 * The next generation is active when `quorum` members certified the same transcript.
 * @param quorum between t' and n'; with b members that may lie, t' + b leaves t' true ones
 * @returns who certified; or who did not, and who certified something else (a split view, or a lie)
 */
export function activate(
  session: DealingSession,
  transcript: Uint8Array,
  certificates: readonly Uint8Array[],
  quorum: number,
): Outcome<readonly number[]> {
  const n = session.to.recipients.length;
  if (!Number.isInteger(quorum) || quorum < session.to.t || quorum > n) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `quorum ${quorum}: between ${session.to.t} and ${n} expected`,
    );
  }
  const sigPks = session.to.recipients.map(({ sigPk }) => sigPk);
  const { steps, faults } = collectSteps(sigPks, session.id, 'certify', certificates, 'member');
  const agreeing = steps.filter(({ body }) => sameBytes(body, transcript)).map(({ from }) => from);
  if (agreeing.length >= quorum) return success(agreeing);
  const named = faults.map(({ culprit }) => culprit);
  const others = steps
    .filter(({ from }) => !agreeing.includes(from))
    .map(
      ({ from, bytes }): Fault => ({
        culprit: from,
        as: 'member',
        reason: 'certificate',
        evidence: bytes,
      }),
    );
  const silent = sigPks
    .map((_, at) => at + 1)
    .filter((index) => ![...steps.map(({ from }) => from), ...named].includes(index))
    .map((culprit): Fault => ({ culprit, as: 'member', reason: 'missing' }));
  return failure([...faults, ...others, ...silent]);
}

/** Commitments of the next generation: added to the present ones, or weighted to keep the key. */
function nextKeys(group: Group, session: DealingSession, qualified: readonly Dealing[]): KeySet {
  const qual = qualified.map(({ dealer }) => dealer);
  const term = (k: number): Point => {
    const dealt = qualified.map(({ C }) => C[k] ?? group.identity);
    if (session.kind === 'refresh') return group.sum([session.from.keys.C[k] ?? group.identity, ...dealt]);
    return group.msm(
      qual.map((dealer) => lagrange(group, qual, dealer)),
      dealt,
    );
  };
  const keys = keySetOf(
    group,
    Array.from({ length: session.to.t }, (_, k) => term(k)),
    session.to.recipients.length,
  );
  if (samePoint(keys.Y, session.from.keys.Y)) return keys;
  throw new HoldfastError('INTERNAL', 'a dealing that passed all checks changed the public key');
}

/** Undefined for a refresh, where shares are added as they are. */
function weightOf(
  group: Group,
  session: DealingSession,
  qual: readonly number[],
  dealer: number,
): Scalar | undefined {
  return session.kind === 'refresh' ? undefined : lagrange(group, qual, dealer);
}

/** total + weight·share; zeroes `total`. */
function addTo(group: Group, total: Scalar, share: Scalar, weight: Scalar | undefined): Scalar {
  const term = weight === undefined ? Uint8Array.from(share) : group.scalar.mul(weight, share);
  const next = group.scalar.add(total, term);
  total.fill(0);
  term.fill(0);
  return next;
}

function missing(session: DealingSession, dealings: readonly Dealing[]): Fault[] {
  return session.from.sigPks
    .map((_, at) => at + 1)
    .filter((index) => !dealings.some(({ dealer }) => dealer === index))
    .map((culprit): Fault => ({ culprit, as: 'dealer', reason: 'missing' }));
}
