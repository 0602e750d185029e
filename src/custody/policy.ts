// What a custody group allows: one family of records, each a version signed by the group itself.
//
// A label binds the CID of the family's first version; whoever decides goes by the newest version there is. So a
// rule that is tightened holds for old content too, and nobody can answer by an older one. The first version has
// no signature of the group, because the group has no key before it is made: it counts because the group's KEK
// record, which t custodians signed, names its CID.

import { encodeCbor } from '../core/block.ts';
import { preimage, verifySignature } from '../core/hash.ts';
import { addressPartBytesMax } from '../core/limits.ts';
import { type ContentClass, contentClasses } from '../envelope/aad.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import type { RecordBody } from '../manifest/record.ts';
import { readCustodyHead } from './record-head.ts';
import { type Operation, readOperations } from './scope.ts';

/** Signatures over one request by others than who makes it. */
export interface Approvals {
  /** How many are needed; 0 for none. */
  readonly k: number;
  /** Ed25519 public keys of who may give one. A burst over the budget needs at least one of them. */
  readonly of: readonly Uint8Array[];
}

/** What holds for one class of content. */
export interface ClassRule {
  readonly ops: readonly Operation[];
  /** Keys that one project may be given in one bar, and one requester of it. */
  readonly maxItemsPerBar: number;
  readonly approvals: Approvals;
  /** Only who is listed under `keyAgents` is given branch keys of this class. */
  readonly keyAgentOnly: boolean;
  /** Beats between which the class may be opened; null: from ever, for ever. */
  readonly notBefore: number | null;
  readonly notAfter: number | null;
}

export interface PolicyBody extends RecordBody {
  readonly kind: 'policy';
  /** Custody group. */
  readonly cg: string;
  /** 16 random bytes. */
  readonly family: Uint8Array;
  /** From 1. */
  readonly ver: number;
  /** A project, or the first characters of one and `*`. */
  readonly projects: string;
  /** Ed25519 public keys that may grant capabilities, revoke, and command the custodians. */
  readonly authorities: readonly Uint8Array[];
  /** Ed25519 public keys of services that hand out single content keys. */
  readonly keyAgents: readonly Uint8Array[];
  readonly classes: Readonly<Record<ContentClass, ClassRule>>;
  /** Keys that one custodian gives to all together in one bar before it stops: the circuit breaker. */
  readonly maxItemsPerBar: number;
  /** `any`: branch keys may also be wrapped to an offline recovery key. */
  readonly recovery: 'none' | 'any';
  /** 0: never by itself. */
  readonly refreshEveryBars: number;
  readonly rotateEveryBars: number;
  /** By the group's FROST key over `policyPreimage`; null in version 1. */
  readonly frostSig: Uint8Array | null;
}

export const policyFamilyBytes = 16;
const authoritiesMax = 16;
const keyAgentsMax = 64;
const approversMax = 16;
/** Fields that say what is allowed; all others say which version of which policy it is. */
export const policyRules = [
  'projects',
  'authorities',
  'keyAgents',
  'classes',
  'maxItemsPerBar',
  'recovery',
  'refreshEveryBars',
  'rotateEveryBars',
] as const;
const names = ['kind', 'v', 'writer', 'prev', 'cg', 'family', 'ver', ...policyRules, 'frostSig'];
/** The same of one class. */
export const classRules = [
  'ops',
  'maxItemsPerBar',
  'approvals',
  'keyAgentOnly',
  'notBefore',
  'notAfter',
] as const;

/** Checks the body of a policy record. Throws RECORD_INVALID naming the field. */
export function parsePolicy(body: unknown): PolicyBody {
  const fields = fieldsOf(body, 'policy', names);
  const policy: PolicyBody = {
    ...readCustodyHead(fields, 'policy'),
    cg: readGroup(fields, 'cg'),
    family: fields.bytes('family', policyFamilyBytes),
    ver: fields.integer('ver', 1),
    projects: fields.text('projects', addressPartBytesMax),
    authorities: distinct(fields, 'authorities', fields.bytesList('authorities', 32, 1, authoritiesMax)),
    keyAgents: distinct(fields, 'keyAgents', fields.bytesList('keyAgents', 32, 0, keyAgentsMax)),
    classes: readClasses(fields.map('classes', contentClasses)),
    maxItemsPerBar: fields.integer('maxItemsPerBar', 0),
    recovery: fields.oneOf('recovery', ['none', 'any']),
    refreshEveryBars: fields.integer('refreshEveryBars', 0),
    rotateEveryBars: fields.integer('rotateEveryBars', 0),
    frostSig: fields.bytesOrNull('frostSig', 64),
  };
  if ((policy.ver === 1) !== (policy.frostSig === null))
    fields.refuse('frostSig', 'null in version 1, a signature of the group from version 2 on expected');
  if ((policy.ver === 1) !== (policy.prev === null))
    fields.refuse('prev', 'null in version 1 and only there expected');
  return policy;
}

/** The bytes that the custody group signs: all fields but `writer`, who may be anybody, and the signature. */
export function policyPreimage(policy: Omit<PolicyBody, 'writer' | 'frostSig'>): Uint8Array {
  const { kind, v, prev, cg, family, ver, projects, authorities, keyAgents, classes } = policy;
  const { maxItemsPerBar, recovery, refreshEveryBars, rotateEveryBars } = policy;
  const rules = { projects, authorities, keyAgents, classes, maxItemsPerBar, recovery };
  const signed = { kind, v, prev, cg, family, ver, ...rules, refreshEveryBars, rotateEveryBars };
  return preimage('CHORUS-SLURP-POLICY-v1', encodeCbor(signed));
}

/** True when version 2 or later carries the signature of the group whose key is `frostPk`. */
export function verifyPolicy(policy: PolicyBody, frostPk: Uint8Array): boolean {
  return policy.frostSig !== null && verifySignature(frostPk, policyPreimage(policy), policy.frostSig);
}

/** Bars between refreshes, 0 for never: the newest policy says it; the record of the key what it was made with. */
export function refreshBars(
  kek: { readonly refreshEveryBars: number },
  policy: Pick<PolicyBody, 'refreshEveryBars'> | undefined,
): number {
  return policy?.refreshEveryBars ?? kek.refreshEveryBars;
}

function readClasses(fields: Fields): PolicyBody['classes'] {
  return {
    public: readRule(fields, 'public'),
    internal: readRule(fields, 'internal'),
    confidential: readRule(fields, 'confidential'),
    restricted: readRule(fields, 'restricted'),
  };
}

function readRule(classes: Fields, name: ContentClass): ClassRule {
  const fields = classes.map(name, classRules);
  return {
    ops: readOperations(fields, 'ops'),
    maxItemsPerBar: fields.integer('maxItemsPerBar', 0),
    approvals: readApprovals(fields.map('approvals', ['k', 'of'])),
    keyAgentOnly: fields.boolean('keyAgentOnly'),
    notBefore: fields.integerOrNull('notBefore', 0),
    notAfter: fields.integerOrNull('notAfter', 0),
  };
}

function readApprovals(fields: Fields): Approvals {
  const of = distinct(fields, 'of', fields.bytesList('of', 32, 0, approversMax));
  return { k: fields.integer('k', 0, of.length), of };
}

/** A key listed twice would count twice. */
function distinct(fields: Fields, field: string, keys: readonly Uint8Array[]): readonly Uint8Array[] {
  if (new Set(keys.map(String)).size !== keys.length) fields.refuse(field, 'different keys expected');
  return keys;
}
