// Who may take a place that belongs to a custody group. Any member with the role of a door may append, and any holder
// of its token can have it append, so a place is given for what the record proves and not for who brings it.
//
//   first KEK record of a group     the certificate of its birth comes along: all its custodians signed, and more than
//                                   half of those that the operator's membership names are among them
//   first version of a policy       the KEK record that names it comes along, or is there
//   revocation                      an authority of the group's policy signed it
//   KEK record of another provider  not under the name kept for the custody group of this cluster
//
// Everything later is signed with the key of the group, which the fold checks by itself (custody-chain.ts).

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { birthProblem } from '../custody/birth.ts';
import { type CertificateBody, verifyCertificate } from '../custody/certificate.ts';
import { isSuccessorName } from '../custody/group-name.ts';
import type { PolicyBody } from '../custody/policy.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { CID } from '../core/block.ts';
import type { Append } from './log.ts';
import type { BeaconQueries } from './queries.ts';
import { type OpenedRecord, openRecords } from './records.ts';

export interface Entitled {
  /** Name kept for the custody group of this cluster. */
  readonly group: string;
  /** Custodians that the operator's membership names now, with their Ed25519 keys. */
  custodians(): ReadonlyMap<PeerName, Uint8Array>;
}

/** Throws FORBIDDEN for a record that is not entitled to its place; RECORD_INVALID for one that is none. */
export async function checkEntitled(view: BeaconQueries, append: Append, entitled: Entitled): Promise<void> {
  if (!bringsCustody(append)) return;
  const records = openRecords(append);
  if (typeof records === 'string') throw new HoldfastError('RECORD_INVALID', records);
  for (const record of records) {
    const problem = await problemOf(record, records, view, entitled);
    if (problem !== undefined) throw new HoldfastError('FORBIDDEN', `${record.chainId}: ${problem}`);
  }
}

/** True when `checkEntitled` has something to look at. */
export function bringsCustody({ records }: Append): boolean {
  return records.some(({ key }) => ofCustody.test(key));
}

const ofCustody = /^(?:kek|pol|rev)\//;

async function problemOf(
  { body, cid }: OpenedRecord,
  beside: readonly OpenedRecord[],
  view: BeaconQueries,
  entitled: Entitled,
): Promise<string | undefined> {
  if (body.kind === 'kek' && body.provider === 'tdec') {
    if (body.ver > 1 || body.seq > 1 || (await view.kek(body.cg, 1))?.record.body.provider === 'tdec')
      return undefined;
    return foundingProblem(body, beside, entitled);
  }
  if (body.kind === 'kek')
    return body.cg === entitled.group || isSuccessorName(body.cg, entitled.group)
      ? 'the name is kept for the custodians of this cluster'
      : undefined;
  if (body.kind === 'policy' && body.ver === 1) {
    const isNamed =
      beside.some((other) => namesPolicy(other, body.cg, cid)) ||
      (await view.kek(body.cg).then((kek) => rootOf(kek?.record.body)?.equals(cid) === true));
    return isNamed ? undefined : `no key of group ${body.cg} names this policy`;
  }
  if (body.kind !== 'revocation') return undefined;
  const authorities = (await policyOf(view, body.cg))?.authorities ?? [];
  return authorities.some((key) => sameBytes(key, body.writer))
    ? undefined
    : `signed by no authority of the policy of group ${body.cg}`;
}

function foundingProblem(
  kek: TdecKek,
  beside: readonly OpenedRecord[],
  entitled: Entitled,
): string | undefined {
  const birth = beside.map(({ body }) => body).find((body) => isBirth(body) && body.cg === kek.cg);
  if (birth === undefined || !isBirth(birth)) return 'a first key comes with the certificate of its birth';
  if (!verifyCertificate(birth, kek.frostPk))
    return 'the certificate of its birth is not signed by the group';
  return birthProblem(kek, birth, entitled.custodians());
}

function isBirth(body: OpenedRecord['body']): body is CertificateBody & { readonly what: 'birth' } {
  return body.kind === 'certificate' && body.what === 'birth';
}

function namesPolicy({ body }: OpenedRecord, cg: string, policy: CID): boolean {
  return body.kind === 'kek' && body.cg === cg && rootOf(body)?.equals(policy) === true;
}

function rootOf(body: OpenedRecord['body'] | undefined): CID | null | undefined {
  return body?.kind === 'kek' && body.provider === 'tdec' ? body.policyRoot : undefined;
}

async function policyOf(view: BeaconQueries, cg: string): Promise<PolicyBody | undefined> {
  const root = rootOf((await view.kek(cg))?.record.body);
  return root === undefined || root === null ? undefined : policyFrom(view, root);
}

/** The newest version of the policy whose first one is `root`. */
export async function policyFrom(
  view: Pick<BeaconQueries, 'byCid' | 'policy'>,
  root: CID,
): Promise<PolicyBody | undefined> {
  const family = (await view.byCid(root)).items.find(({ as }) => as === 'policy')?.id;
  return family === undefined
    ? undefined
    : (await view.policy(new Uint8Array(Buffer.from(family, 'hex'))))?.record.body;
}
