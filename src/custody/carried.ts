// What of a group that has ended holds in the one in its place. Rules are taken over with the policy. What was withdrawn
// stands in a list that is the old group's own: without more, a key that was revoked there would be good again here. And a
// capability names its group: each is signed anew, by who signed it, or it is worth nothing.
//
//   authorities that were revoked       are none in the first policy of the new group
//   other keys that were revoked        are revoked again, by the operator, before anybody has leave of the new group
//   capabilities that were good still   are signed anew with the same words (`grantedAnew`)

import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { type CapabilityLink, checkChain, parseCapability, signCapability } from './capability.ts';
import type { PolicyBody } from './policy.ts';
import { isRefusal } from './refusal.ts';
import type { Revocations } from './revocation.ts';

/**
 * The rules of `policy` without authorities that were revoked. Approvers and key agents stay listed: how many approvals are
 * needed must not fall, and neither counts for anything without leave that an authority gives.
 *
 * @throws VERSION_CONFLICT when no authority is left
 */
export function standingRules(policy: PolicyBody, revocations: Revocations): PolicyBody {
  const authorities = policy.authorities.filter((id) => !revocations.has({ what: 'key', id }));
  if (authorities.length > 0) return { ...policy, authorities };
  throw new HoldfastError(
    'VERSION_CONFLICT',
    `all ${policy.authorities.length} authorities of the policy of ${policy.cg} were revoked: nobody could grant anything in a group with its rules`,
  );
}

/** Keys that were revoked in the group before and are not yet in the one of now. */
export function uncarried(before: Revocations, now: Revocations): readonly Uint8Array[] {
  return before.keys().filter((id) => !now.has({ what: 'key', id }));
}

/** A group as far as it decides about capabilities. */
export interface Granting {
  readonly cg: string;
  readonly authorities: readonly Uint8Array[];
  readonly revocations: Revocations;
}

export interface AnewTerms {
  readonly before: Granting;
  readonly now: Granting;
  /** Beat of now. */
  readonly beat: number;
  /** Beat at which the key of the group of now was made: capabilities in it begin then at the earliest. */
  readonly since: number;
  /** Who signs here. */
  readonly signers: readonly Signer[];
}

/** A capability anew, or why there is none, for people. `wasGood`: the group before would still take it. */
export type Anew =
  | { readonly ok: true; readonly chain: readonly Uint8Array[] }
  | { readonly ok: false; readonly reason: string; readonly wasGood: boolean };

/**
 * The chain signed anew for the group of now, with everything that it said but the group: to the same keys, for the same,
 * to the same end. Only what the group before would take at this moment, and what the one of now takes. The same chain
 * gives the same bytes whenever it is asked for, so one that was revoked since does not come back.
 *
 * @throws RECORD_INVALID for a link that cannot be read
 */
export function grantedAnew(messages: readonly Uint8Array[], terms: AnewTerms): Anew {
  const links = messages.map(parseCapability);
  const held = problemOf(links, messages, terms.before, terms.beat);
  if (held !== undefined) return { ok: false, reason: held, wasGood: false };
  const chain: Uint8Array[] = [];
  for (const link of links) {
    const signer = terms.signers.find(({ publicKey }) => sameBytes(publicKey, link.iss));
    if (signer === undefined) {
      const reason = `the key ${toHex(link.iss)} signed it: who has that key grants it again`;
      return { ok: false, reason, wasGood: true };
    }
    const { now, since } = terms;
    chain.push(signCapability({ ...link, cg: now.cg, nbf: Math.max(link.nbf, since) }, signer));
  }
  const taken = problemOf(chain.map(parseCapability), chain, terms.now, terms.beat);
  if (taken === undefined) return { ok: true, chain };
  return { ok: false, reason: `in ${terms.now.cg}: ${taken}`, wasGood: true };
}

/** Why a group does not take a chain of whoever it is made out to. */
function problemOf(
  links: readonly CapabilityLink[],
  messages: readonly Uint8Array[],
  { cg, authorities, revocations }: Granting,
  beat: number,
): string | undefined {
  const requester = links.at(-1)?.aud ?? new Uint8Array(32);
  const found = checkChain(links, messages, { cg, requester, authorities, beat, revocations });
  return isRefusal(found) ? found.reason : undefined;
}
