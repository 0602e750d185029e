// The policy that a new custody group begins with, and the capability that its first users are given.

import type { ContentClass } from '../envelope/aad.ts';
import type { CapabilityLink } from './capability.ts';
import { type ClassRule, type PolicyBody, parsePolicy } from './policy.ts';
import { operations } from './scope.ts';

export interface PolicyChoice {
  readonly cg: string;
  /** 16 random bytes. */
  readonly family: Uint8Array;
  /** Ed25519 key of who signs the record. */
  readonly writer: Uint8Array;
  /** Who may grant, revoke and order: in a local cluster its operator. */
  readonly authorities: readonly Uint8Array[];
  /** Default: every project. */
  readonly projects?: string;
  /** Who approves bursts and what is restricted. Default: the authorities. */
  readonly approvers?: readonly Uint8Array[];
  /** Approvals that restricted content needs. Default 0: everybody with a capability reads it alone. */
  readonly restrictedApprovals?: number;
  /** Default none. */
  readonly recovery?: 'none' | 'any';
}

/** Branch keys of one project and class in one bar; a key opens up to 4,096 objects. */
const itemsPerBar = 4096;
/** Restricted objects have a key each, so this many objects. */
const restrictedPerBar = 1024;
/** Of one custodian, all together. */
const breakerPerBar = 16_384;
const refreshEveryBars = 8;

/** Version 1 of a policy: open to whoever holds a capability, within budgets. Throws RECORD_INVALID for an impossible choice. */
export function defaultPolicy(choice: PolicyChoice): PolicyBody {
  const { cg, family, writer, authorities, projects = '*', recovery = 'none' } = choice;
  const of = choice.approvers ?? authorities;
  const rule = (maxItemsPerBar: number, k: number): ClassRule => ({
    ops: operations,
    maxItemsPerBar,
    approvals: { k, of },
    keyAgentOnly: false,
    notBefore: null,
    notAfter: null,
  });
  const common = rule(itemsPerBar, 0);
  const restricted = rule(restrictedPerBar, choice.restrictedApprovals ?? 0);
  return parsePolicy({
    kind: 'policy',
    v: 1,
    writer,
    prev: null,
    cg,
    family,
    ver: 1,
    projects,
    authorities,
    keyAgents: [],
    classes: { public: common, internal: common, confidential: common, restricted },
    maxItemsPerBar: breakerPerBar,
    recovery,
    refreshEveryBars,
    rotateEveryBars: 0,
    frostSig: null,
  } satisfies PolicyBody);
}

export interface GrantChoice {
  readonly cg: string;
  /** Key of the authority that grants, and of who is granted. */
  readonly iss: Uint8Array;
  readonly aud: Uint8Array;
  readonly nbf: number;
  readonly exp: number;
  /** Default: every project. */
  readonly project?: string;
  /** Default restricted: all classes. */
  readonly cls?: ContentClass;
}

/** A capability for everything that custodians do for the holder of one, to be signed by the authority. */
export function fullCapability({
  cg,
  iss,
  aud,
  nbf,
  exp,
  project = '*',
  cls = 'restricted',
}: GrantChoice): CapabilityLink {
  const scope = { project, cls, prefix: '' };
  return { v: 1, cg, iss, aud, scope, ops: operations, nbf, exp, max: itemsPerBar };
}
