// A repair: who helps whom, and what everybody can check of the helpers' first messages.

import { uint32, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import { type Group, type Point, pointBytes, samePoint, scalarBytes } from './group.ts';
import { hpkeKeyBytes, type HpkeSealed, hpkeTagBytes } from './hpke.ts';
import { isKeySet, type KeySet, requireMember } from './key-set.ts';
import { lagrange } from './polynomial.ts';
import { collectSteps, type SignedStep } from './signed-step.ts';
import { DST, transcriptHash } from './transcript.ts';
import { counted, parse, uint8 } from './wire.ts';

/** Length of a sealed scalar without `enc`. */
export const sealedBytes = scalarBytes + hpkeTagBytes;

export interface RepairParams {
  readonly cg: string;
  readonly ver: number;
  readonly gen: number;
  /** 32 bytes never used before. */
  readonly nonce: Uint8Array;
  readonly keys: KeySet;
  /** Exactly t members, ascending, the one in need not among them. */
  readonly helpers: readonly number[];
  /** The member whose share is lost. */
  readonly lost: number;
  /** Ed25519 and X25519 public keys of the members 1…n. */
  readonly sigPks: readonly Uint8Array[];
  readonly prekeys: readonly Uint8Array[];
}

export interface RepairSession extends RepairParams {
  readonly id: Uint8Array;
}

/** @throws HoldfastError ARGUMENT_INVALID saying which parameter does not fit */
export function openRepair(group: Group, params: RepairParams): RepairSession {
  const { keys, helpers, lost, sigPks, prekeys } = params;
  const refuse = (what: string): never => {
    throw new HoldfastError('ARGUMENT_INVALID', `repair: ${what}`);
  };
  if (!isKeySet(group, keys)) refuse('the key set does not fit together');
  for (const index of [...helpers, lost]) requireMember(index, keys.n);
  const ascending = helpers.every((helper, at) => at === 0 || helper > (helpers[at - 1] ?? 0));
  if (helpers.length !== keys.t || !ascending || helpers.includes(lost)) {
    refuse(`exactly ${keys.t} helpers expected, ascending, member ${lost} not among them`);
  }
  if (![sigPks, prekeys].every((list) => list.length === keys.n && list.every((key) => key.length === 32))) {
    refuse('a signing key and a prekey of every member expected');
  }
  if (params.nonce.length !== 32) refuse('a nonce of 32 bytes expected');
  const id = transcriptHash(
    DST.repair,
    utf8(group.name),
    utf8(params.cg),
    uint64(params.ver),
    uint64(params.gen),
    params.nonce,
    uint32(keys.n),
    counted(keys.C),
    counted(helpers.map(uint8)),
    uint8(lost),
    counted(sigPks),
    counted(prekeys),
  );
  return { ...params, id };
}

/** A helper's message of step 1. */
export interface Split {
  readonly helper: number;
  /** δᵢⱼ·G for the helpers in order. */
  readonly D: readonly Point[];
  readonly sealed: readonly HpkeSealed[];
}

/** All helpers' messages of step 1, checked as far as everybody can, and a hash of what was seen. */
export function readSplits(
  group: Group,
  session: RepairSession,
  log: readonly Uint8Array[],
): Outcome<{ readonly splits: readonly Split[]; readonly view: Uint8Array }> {
  const { steps, faults } = collectHelpers(session, 'split', log);
  const found: Fault[] = [...faults];
  const splits = steps.flatMap((step): Split[] => {
    const read = readSplit(session, step);
    const reason = read === undefined ? 'malformed' : refusedFor(group, session, read);
    if (read !== undefined && reason === undefined) return [read];
    found.push({ culprit: step.from, reason: reason ?? 'malformed', evidence: step.bytes });
    return [];
  });
  if (found.length > 0) return failure(found);
  const view = transcriptHash(DST.repair, session.id, ...steps.map(({ body }) => body));
  return success({ splits, view });
}

function readSplit(session: RepairSession, step: SignedStep): Split | undefined {
  const count = session.helpers.length;
  return parse(step.body, (reader) => ({
    helper: step.from,
    D: reader.list(count, pointBytes),
    sealed: Array.from({ length: count }, () => ({
      enc: reader.take(hpkeKeyBytes),
      ct: reader.take(sealedBytes),
    })),
  }));
}

function refusedFor(group: Group, session: RepairSession, read: Split): Fault['reason'] | undefined {
  if (!read.D.every((point) => group.isPoint(point))) return 'commitments';
  const Y = session.keys.Yi[read.helper - 1] ?? group.identity;
  const part = group.mul(lagrange(group, session.helpers, read.helper, session.lost), Y);
  return samePoint(group.sum(read.D), part) ? undefined : 'constant';
}

/** One message of every helper, or the faults: who sent none, two, or is no helper. */
export function collectHelpers(
  session: RepairSession,
  step: string,
  log: readonly Uint8Array[],
): { readonly steps: readonly SignedStep[]; readonly faults: readonly Fault[] } {
  const { steps, faults } = collectSteps(session.sigPks, session.id, step, log);
  const ofHelpers = steps.filter(({ from }) => session.helpers.includes(from));
  // What nobody signed is noise on the way; it stops the repair only where a message is missing for it.
  const named = faults.filter(({ culprit }) => session.helpers.includes(culprit));
  const heard = new Set([...steps.map(({ from }) => from), ...named.map(({ culprit }) => culprit)]);
  const silent = session.helpers
    .filter((helper) => !heard.has(helper))
    .map((culprit): Fault => ({ culprit, reason: 'missing' }));
  return { steps: ofHelpers, faults: [...named, ...silent] };
}
