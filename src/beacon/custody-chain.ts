// The rules of custody's records in the registry, beyond those of every chain: what a group signs verifies under
// the one key that its first KEK record brought, and no key, envelope or policy goes back on what it said.

import { sameBytes, toHex } from '../core/bytes.ts';
import { type CertificateBody, parseCertificate, verifyCertificate } from '../custody/certificate.ts';
import { parsePolicy, type PolicyBody, verifyPolicy } from '../custody/policy.ts';
import { parseRevocation, type RevocationBody } from '../custody/revocation.ts';
import { kekFirstProblem, kekStepProblem } from '../envelope/kek.ts';
import {
  type BranchKeyBody,
  branchKeyStepProblem,
  type EnvelopeBody,
  envelopeStepProblem,
} from '../envelope/records.ts';
import type { RecordKind } from '../manifest/record.ts';
import type { AnyBody } from './records.ts';
import { rowKey } from './rows.ts';

export type CustodyBody = PolicyBody | RevocationBody | CertificateBody;

const parsers = { policy: parsePolicy, revocation: parseRevocation, certificate: parseCertificate } as const;

/** Reads the body of a record of that kind; undefined when it is none of custody's own. Throws RECORD_INVALID. */
export function parseCustodyRecord(kind: RecordKind, body: unknown): CustodyBody | undefined {
  return kind === 'policy' || kind === 'revocation' || kind === 'certificate'
    ? parsers[kind](body)
    : undefined;
}

/** Where a record of custody stands: `pol/<family>`, `rev/<group>` or `cert/<group>/<version of the key>`. */
export function custodyPlaceOf(body: CustodyBody): { readonly chainId: string; readonly version: number } {
  if (body.kind === 'policy') return { chainId: `pol/${toHex(body.family)}`, version: body.ver };
  if (body.kind === 'revocation') return { chainId: `rev/${body.cg}`, version: body.n };
  return { chainId: `cert/${body.cg}/${body.ver}`, version: body.n };
}

/** Starts of the chain ids of records that are replicated for themselves, because no object brings them along. */
export const custodyPrefixes = ['kek/', 'pol/', 'rev/', 'cert/'] as const;

/** True for what custodians need to know: the records of threshold groups. */
export function isForCustodians(body: AnyBody): boolean {
  if (body.kind === 'kek') return body.provider === 'tdec';
  return body.kind === 'policy' || body.kind === 'revocation' || body.kind === 'certificate';
}

/** Versions of threshold keys that a record's wraps are under, as parts of row keys: group and version. */
export function wrappedUnder(body: EnvelopeBody | BranchKeyBody): ReadonlySet<string> {
  if (body.kind === 'envelope' && body.mode === 'branch') return new Set();
  const { wraps } = body.kind === 'envelope' ? body.key : body;
  const versions = wraps.flatMap((wrap) =>
    wrap.t === 'tdec' || wrap.t === 'tdec-ks' ? [keyVersionPart(wrap.cg, wrap.kekVer)] : [],
  );
  return new Set(versions);
}

/** One part of a row key; the name of a group holds no slash. */
export function keyVersionPart(group: string, version: number): string {
  return `${group}/${version}`;
}

/** The row that holds the signing key of a group. */
export function groupKeyRow(group: string): string {
  return rowKey('frst', group);
}

/** Rows that `custodyProblem` reads for this body. */
export function custodyReads(body: AnyBody): string[] {
  if (body.kind === 'kek' && body.provider === 'tdec')
    return [groupKeyRow(body.cg), rowKey('head', `kek/${body.cg}/${body.ver - 1}`)];
  if (body.kind === 'kek' || body.kind === 'policy' || body.kind === 'certificate')
    return [groupKeyRow(body.cg)];
  return [];
}

/**
 * Why `body` may not follow `before` in its chain (undefined: it begins it), in words; undefined when it may.
 * `gap`: versions in between are lost, so steps cannot be judged.
 */
export function custodyProblem(
  body: AnyBody,
  before: AnyBody | undefined,
  read: (key: string) => Uint8Array | undefined,
  gap: boolean,
): string | undefined {
  if (body.kind === 'manifest' || body.kind === 'revocation') return undefined;
  const signature = signatureProblem(body, read);
  if (signature !== undefined || gap) return signature;
  if (before === undefined) return firstProblem(body, read);
  if (body.kind === 'envelope' && before.kind === 'envelope') return envelopeStepProblem(before, body);
  if (body.kind === 'branch-key' && before.kind === 'branch-key') return branchKeyStepProblem(before, body);
  if (body.kind === 'kek' && before.kind === 'kek') return kekStepProblem(before, body);
  if (body.kind === 'policy' && before.kind === 'policy' && body.cg !== before.cg)
    return 'the group of a policy never changes';
  return undefined;
}

function signatureProblem(
  body: Exclude<AnyBody, { readonly kind: 'manifest' | 'revocation' }>,
  read: (key: string) => Uint8Array | undefined,
): string | undefined {
  if (body.kind === 'envelope' || body.kind === 'branch-key') return undefined;
  const pinned = read(groupKeyRow(body.cg));
  if (body.kind === 'kek') {
    if (body.provider !== 'tdec')
      return pinned === undefined ? undefined : `${body.cg} is a group of custodians already`;
    return pinned === undefined || sameBytes(pinned, body.frostPk)
      ? undefined
      : `signed with another key than that of group ${body.cg}`;
  }
  if (body.kind === 'policy' && body.ver === 1) return undefined; // counts when a KEK record names it
  if (pinned === undefined) return `group ${body.cg} has no key yet`;
  const verifies = body.kind === 'policy' ? verifyPolicy(body, pinned) : verifyCertificate(body, pinned);
  return verifies ? undefined : `the signature of group ${body.cg} does not verify`;
}

function firstProblem(body: AnyBody, read: (key: string) => Uint8Array | undefined): string | undefined {
  if (body.kind !== 'kek' || body.provider !== 'tdec') return undefined;
  const before = rowKey('head', `kek/${body.cg}/${body.ver - 1}`);
  if (body.ver > 1 && read(before) === undefined) return `version ${body.ver - 1} of the key is not there`;
  return kekFirstProblem(body);
}
