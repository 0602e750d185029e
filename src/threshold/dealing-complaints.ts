// Complaints about dealings, and answers to them.
//
// A complaint does not have to be believed: the accused shows the share and how it was sealed. If that fits the
// commitments and reproduces the sealed bytes, the accuser lied, and learned nothing it had not; if not, or if
// no answer comes, the dealer is out. An accuser whose own prekey is broken counts as one that lied: its share
// of the next generation is known to all who read the answers.

import { concat, sameBytes } from '../core/bytes.ts';
import type { Signer } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import { type Dealer, type Dealing, dealtAgain, isShareOf, sealShare, sentCommitments } from './dealing.ts';
import type { DealingSession } from './dealing-session.ts';
import type { Fault } from './fault.ts';
import { type Group, type Scalar, scalarBytes } from './group.ts';
import { hpkeKeyBytes } from './hpke.ts';
import { requireMember } from './key-set.ts';
import { collectSteps, type SignedStep, signStep } from './signed-step.ts';
import { counted, parse, uint8 } from './wire.ts';
/** A signed complaint of recipient `index` about dealers whose share did not open or fit. */
export function complain(
  session: DealingSession,
  index: number,
  signer: Signer,
  dealers: readonly number[],
): Uint8Array {
  requireMember(index, session.to.recipients.length);
  return signStep(signer, session.id, 'complain', index, counted(dealers.map(uint8)));
}

/**
 * The signed answer of an accused dealer: the accusers' shares in the open. They are no secret any more to
 * whoever lied, and the dealer is out otherwise.
 * @param seed what `deal` returned
 * @param complaints the log of that step
 * @returns undefined when nobody complained about this dealer
 */
export function answer(
  group: Group,
  session: DealingSession,
  dealer: Dealer,
  seed: Uint8Array,
  complaints: readonly Uint8Array[],
): Uint8Array | undefined {
  const { accusations } = readComplaints(session, complaints);
  const accusers = accusations.filter((row) => row.dealer === dealer.index).map((row) => row.accuser);
  if (accusers.length === 0) return undefined;
  const rows = accusers.map((accuser) => {
    const { share, sealing } = dealtAgain(group, session, dealer, seed, accuser);
    return concat(uint8(accuser), share, sealing);
  });
  return signStep(dealer.signer, session.id, 'answer', dealer.index, counted(rows));
}

export interface Accusation {
  readonly accuser: number;
  readonly dealer: number;
  readonly bytes: Uint8Array;
}

/** Who accused whom, out of the log of that step. */
export function readComplaints(
  session: DealingSession,
  log: readonly Uint8Array[],
): { readonly accusations: readonly Accusation[]; readonly faults: readonly Fault[] } {
  const sigPks = session.to.recipients.map(({ sigPk }) => sigPk);
  const { steps, faults } = collectSteps(sigPks, session.id, 'complain', log, 'member');
  const found: Fault[] = [...faults];
  const accusations = steps.flatMap(({ from, body, bytes }): Accusation[] => {
    const dealers = parse(body, (reader) => {
      const count = reader.uint32(0, custodiansMax);
      return Array.from({ length: count }, () => reader.uint8(1, session.from.keys.n));
    });
    if (dealers === undefined) {
      found.push({ culprit: from, as: 'member', reason: 'malformed', evidence: bytes });
    }
    return [...new Set(dealers)].map((dealer) => ({ accuser: from, dealer, bytes }));
  });
  return { accusations, faults: found };
}

/** True when the answer shows that the sealed bytes in the dealing were a right share for the accuser. */
export function refutes(
  group: Group,
  session: DealingSession,
  dealing: Dealing,
  accuser: number,
  reply: SignedStep | undefined,
): boolean {
  const shown = readAnswer(session, reply?.body ?? new Uint8Array(0)).find((row) => row.to === accuser);
  const sealed = dealing.sealed[accuser - 1];
  if (shown === undefined || sealed === undefined) return false;
  if (!isShareOf(group, dealing, accuser, shown.share)) return false;
  const sent = sentCommitments(session, dealing.C);
  const again = sealShare(session, sent, dealing.dealer, accuser, shown.share, shown.sealing);
  return sameBytes(again.enc, sealed.enc) && sameBytes(again.ct, sealed.ct);
}

function readAnswer(
  session: DealingSession,
  body: Uint8Array,
): readonly { readonly to: number; readonly share: Scalar; readonly sealing: Uint8Array }[] {
  const rows = parse(body, (reader) => {
    const count = reader.uint32(0, custodiansMax);
    return Array.from({ length: count }, () => ({
      to: reader.uint8(1, session.to.recipients.length),
      share: reader.take(scalarBytes),
      sealing: reader.take(hpkeKeyBytes),
    }));
  });
  return rows ?? [];
}
