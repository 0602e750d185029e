// Who belongs to the cluster: one document, signed by the operator, with a version that only rises.
//
// The document is the whole allow-list: a peer id that is not in it can neither connect nor be dialled.
// It is JSON so that an operator can read it; the signature does not cover JSON's spelling but the
// canonical DAG-CBOR of the value, and unknown fields are refused, so that two readings of one file
// cannot differ. Pure: files and watching are in membership-file.ts.

import { encodeCbor } from '../core/block.ts';
import { fromUtf8, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, type Signer, verifySignature } from '../core/hash.ts';
import { membersMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';

export const memberRoles = ['node', 'steward', 'door', 'custodian', 'operator'] as const;
export type MemberRole = (typeof memberRoles)[number];

export interface Member {
  /** Short name for people, unique in the cluster: `node-1`. */
  readonly name: string;
  /** Text peer id, unique in the cluster. */
  readonly peer: PeerName;
  readonly roles: readonly MemberRole[];
  /** Failure domain for placement. */
  readonly zone: string;
  /** Machine it runs on: members of one host fail together. */
  readonly host: string;
  /** Multiaddrs to dial, without the `/p2p/` part; `/dns4/…` is resolved anew on every dial. May be empty: it dials us. */
  readonly addrs: readonly string[];
}

export interface Membership {
  readonly v: 1;
  /** Name of the cluster, part of its protocol names: lower case letters, digits and `-`. */
  readonly cluster: string;
  /** Rises by at least 1 with every change. From 1. */
  readonly version: number;
  readonly members: readonly Member[];
}

/** Bytes of one signed membership file. 256 members of about 600 B, with room. */
export const membershipBytesMax = 1_048_576;
const addrsPerMemberMax = 16;
const domain = 'holdfast/membership/v1';

/** The file of `membership`, signed. Throws ARGUMENT_INVALID naming the first field that is wrong. */
export function signMembership(membership: Membership, operator: Signer): Uint8Array {
  const checked = parseMembership(membership, 'ARGUMENT_INVALID');
  const file = {
    membership: checked,
    operator: toHex(operator.publicKey),
    signature: toHex(operator.sign(signedBytes(checked))),
  };
  return utf8(`${JSON.stringify(file, null, 2)}\n`);
}

/** Reads a signed file. Throws RECORD_INVALID when it is malformed or not signed by `operatorKey` (32 bytes). */
export function openMembership(bytes: Uint8Array, operatorKey: Uint8Array): Membership {
  if (bytes.length > membershipBytesMax) throw invalid(`larger than ${membershipBytesMax} bytes`);
  const file = asObject(parseJson(bytes), 'file', ['membership', 'operator', 'signature']);
  const operator = text(file['operator'], 'operator', hexOf(32));
  const signature = text(file['signature'], 'signature', hexOf(64));
  if (operator !== toHex(operatorKey)) {
    throw invalid(`signed by operator ${operator}, but this cluster's operator is ${toHex(operatorKey)}`);
  }
  const membership = parseMembership(file['membership'], 'RECORD_INVALID');
  if (!verifySignature(operatorKey, signedBytes(membership), Buffer.from(signature, 'hex'))) {
    throw invalid('the signature does not verify: the file was changed after it was signed');
  }
  return membership;
}

/**
 * `candidate` if it may follow `current`, `current` if both are the same version and equal.
 * Throws RECORD_INVALID for another cluster, a lower version, or two documents of one version.
 */
export function nextMembership(current: Membership, candidate: Membership): Membership {
  if (candidate.cluster !== current.cluster) {
    throw invalid(`belongs to cluster ${candidate.cluster}, not ${current.cluster}`);
  }
  if (candidate.version > current.version) return candidate;
  if (candidate.version < current.version) {
    throw invalid(
      `version ${candidate.version} is older than version ${current.version}, which was seen already`,
    );
  }
  if (toHex(signedBytes(candidate)) !== toHex(signedBytes(current))) {
    throw invalid(
      `two different documents carry version ${current.version}: raise the version to change anything`,
    );
  }
  return current;
}

export function memberOf(membership: Membership, peer: PeerName): Member | undefined {
  return membership.members.find((member) => member.peer === peer);
}

/** True when `peer` is a member with `role`: what handlers ask before they obey. */
export function hasRole(membership: Membership, peer: PeerName, role: MemberRole): boolean {
  return memberOf(membership, peer)?.roles.includes(role) ?? false;
}

/**
 * True when two members connect at all. Storage nodes and custodians have nothing to say to each other: a stolen node
 * does not reach those who keep a share, and a cluster has a link less for each such pair.
 */
export function areNeighbours(membership: Membership, one: PeerName, other: PeerName): boolean {
  const [a, b] = [memberOf(membership, one), memberOf(membership, other)];
  if (a === undefined || b === undefined) return false;
  return !(isOnly(a, 'node') && isOnly(b, 'custodian')) && !(isOnly(a, 'custodian') && isOnly(b, 'node'));
}

function isOnly({ roles }: Member, role: MemberRole): boolean {
  return roles.length === 1 && roles[0] === role;
}

function signedBytes(membership: Membership): Uint8Array {
  return preimage(domain, encodeCbor(membership));
}

type Code = 'ARGUMENT_INVALID' | 'RECORD_INVALID';

function parseMembership(value: unknown, code: Code): Membership {
  const fields = asObject(value, 'membership', ['v', 'cluster', 'version', 'members'], code);
  if (fields['v'] !== 1) throw invalid(`membership.v is ${JSON.stringify(fields['v'])}, 1 expected`, code);
  const version = fields['version'];
  if (typeof version !== 'number' || !Number.isSafeInteger(version) || version < 1) {
    throw invalid('membership.version must be a whole number from 1', code);
  }
  const list = fields['members'];
  if (!Array.isArray(list)) throw invalid('membership.members must be a list', code);
  if (list.length > membersMax)
    throw invalid(`${list.length} members, at most ${membersMax} are allowed`, code);
  const members = list.map((member, index) => parseMember(member, `members[${index}]`, code));
  refuseDuplicates(members, code);
  return {
    v: 1,
    cluster: text(fields['cluster'], 'membership.cluster', namePattern, code),
    version,
    members,
  };
}

function parseMember(value: unknown, where: string, code: Code): Member {
  const fields = asObject(value, where, ['name', 'peer', 'roles', 'zone', 'host', 'addrs'], code);
  const roles = list(fields['roles'], `${where}.roles`, memberRoles.length, code).map((role, index) => {
    const known = memberRoles.find((each) => each === role);
    if (known === undefined) {
      throw invalid(
        `${where}.roles[${index}] is ${JSON.stringify(role)}, one of ${memberRoles.join(', ')} expected`,
        code,
      );
    }
    return known;
  });
  return {
    name: text(fields['name'], `${where}.name`, namePattern, code),
    peer: text(fields['peer'], `${where}.peer`, peerPattern, code),
    roles,
    zone: text(fields['zone'], `${where}.zone`, namePattern, code),
    host: text(fields['host'], `${where}.host`, hostPattern, code),
    addrs: list(fields['addrs'], `${where}.addrs`, addrsPerMemberMax, code).map((addr, index) =>
      text(addr, `${where}.addrs[${index}]`, addrPattern, code),
    ),
  };
}

// Ed25519 peer ids only: their text form always begins with 12D3KooW (identity multihash of the key).
const peerPattern = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/;
const namePattern = /^[a-z0-9](?:[a-z0-9-]{0,62})$/;
const hostPattern = /^[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,252})$/;
const addrPattern = /^\/(?:ip4|ip6|dns|dns4|dns6)\/[A-Za-z0-9.:_-]{1,253}\/tcp\/\d{1,5}$/;

function hexOf(bytes: number): RegExp {
  return new RegExp(`^[0-9a-f]{${bytes * 2}}$`);
}

function refuseDuplicates(members: readonly Member[], code: Code): void {
  const seen = new Set<string>();
  for (const { name, peer } of members) {
    for (const key of [`name ${name}`, `peer ${peer}`]) {
      if (seen.has(key)) throw invalid(`the ${key} occurs twice among the members`, code);
      seen.add(key);
    }
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(fromUtf8(bytes));
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', 'membership: not valid JSON', { cause });
  }
}

function asObject(
  value: unknown,
  where: string,
  keys: readonly string[],
  code: Code = 'RECORD_INVALID',
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${where} must be an object`, code);
  const fields: Record<string, unknown> = { ...value };
  for (const key of keys) if (!Object.hasOwn(fields, key)) throw invalid(`${where}.${key} is missing`, code);
  for (const key of Object.keys(fields)) {
    if (!keys.includes(key))
      throw invalid(`${where}.${key.slice(0, 64)} is not a field of this version`, code);
  }
  return fields;
}

function list(value: unknown, where: string, lengthMax: number, code: Code): readonly unknown[] {
  if (!Array.isArray(value) || value.length > lengthMax)
    throw invalid(`${where} must be a list of at most ${lengthMax}`, code);
  return value;
}

function text(value: unknown, where: string, pattern: RegExp, code: Code = 'RECORD_INVALID'): string {
  if (typeof value !== 'string' || !pattern.test(value)) {
    throw invalid(`${where} is ${JSON.stringify(value)?.slice(0, 120)}, ${pattern.source} expected`, code);
  }
  return value;
}

function invalid(message: string, code: Code = 'RECORD_INVALID'): HoldfastError {
  return new HoldfastError(code, `membership: ${message}`);
}
