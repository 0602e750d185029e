// Whether a custodian answers, item by item. Pure but for the two counts it is handed: ids used and keys given.
//
//   the whole request:   sealed? clock? group, version, generation? dated for now? revocations fresh?
//                        asked before? policy there? capability chain?
//   each item:           label, policy family, project, class, operation, time, approvals, key agent, budget
//
// A custodian sees what the label says: group, key version, branch key, project, class, writer, window, policy.
// It does not see addresses, paths or content. So it enforces project and class; a capability that is narrower
// than that (a path prefix) opens no branch key here, since a branch key opens every path of its project: such a
// capability is honoured by a key agent, which asks under one of its own.
//
// Nothing here proves that a wrap is sound: the custodian verifies each granted one before its share touches it.

import type { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { BkLabel } from '../envelope/label.ts';
import type { Budgets } from './budget.ts';
import { checkChain, type Grant } from './capability.ts';
import { listsWrap, type RotationCertificate } from './certificate.ts';
import { type BeatNow, datedProblem } from './freshness.ts';
import type { ClassRule, PolicyBody } from './policy.ts';
import { isRefusal, refusal, type Refusal } from './refusal.ts';
import type { ReplaySet } from './replay.ts';
import type { OpenedRequest, Purpose, RequestItem } from './request.ts';
import type { Revocations } from './revocation.ts';
import { canaryProject, classWithin, matchesProject, type Operation } from './scope.ts';

/** What a custodian knows when it is asked. */
export interface CustodyTerms {
  /** Newest record of the key version asked for; undefined when the group has none such. */
  readonly kek: TdecKek | undefined;
  /** Generations whose shares are held: the present one, and the one before while both overlap. */
  readonly generations: readonly number[];
  /** First version of the policy family of the group, and the newest one. */
  readonly policyRoot: CID | null;
  /** The same of groups before it, whose content it has taken over. */
  readonly takenOver?: readonly CID[];
  readonly policy: PolicyBody | undefined;
  readonly revocations: Revocations;
  readonly now: BeatNow;
  /** Longest life of a request, how far it may be dated ahead, and how old revocations may be, beats. Plan for 2. */
  readonly windowBeats: number;
  /** True from `custody seal` to `custody unseal`. */
  readonly sealed: boolean;
  /** Why the group does nothing any more, in words: another one is in its place. */
  readonly ended?: string | undefined;
  readonly replay: ReplaySet;
  readonly budgets: Budgets;
  /** A rotation certificate by the CID of its record, its signature verified; undefined when it is not known. */
  certificate(cid: CID): RotationCertificate | undefined;
}

export interface Permitted {
  readonly granted: true;
}

/** One for each item. A refusal of the whole request refuses every item alike. */
export interface Decision {
  readonly items: readonly (Permitted | Refusal)[];
  /** What the chain gave; undefined when the request was refused before. For the audit log. */
  readonly grant: Grant | undefined;
}

/** Decides, remembers the id of the request and counts what it grants. Never throws for what a stranger sent. */
export function authorise(opened: OpenedRequest, terms: CustodyTerms): Decision {
  const { request } = opened;
  const grant = requestProblem(opened, terms) ?? chainOf(opened, terms);
  if (isRefusal(grant)) return { items: request.items.map(() => grant), grant: undefined };
  terms.replay.remember(request.reqId, request.exp);
  const items = request.items.map((item, index) =>
    decideItem(item, opened.labels[index], opened, terms, grant),
  );
  return { items, grant };
}

function requestProblem({ request }: OpenedRequest, terms: CustodyTerms): Refusal | undefined {
  const { kek, now, windowBeats, revocations } = terms;
  if (terms.ended !== undefined) return refusal('group', terms.ended);
  if (terms.sealed) return refusal('sealed', 'this custodian is sealed; an operator must unseal it');
  if (now.lost !== undefined) return refusal('clock', `time is not known: ${now.lost}`);
  if (kek === undefined && revocations.checkedBeat === undefined)
    return refusal('unread', `the records of ${request.cg} were not read to their end yet`);
  const problem = keyProblem(request.cg, request.kekVer, request.shareGen, terms);
  if (problem !== undefined || kek === undefined) return problem ?? refusal('group', 'no such key');
  const dated = datedProblem(request, now.beat, windowBeats);
  if (dated !== undefined) return refusal('stale', `the request is ${dated}`);
  if (!revocations.isFresh(now.beat, windowBeats))
    return refusal(
      'unread',
      `revocations were last compared at beat ${revocations.checkedBeat ?? 'never'}, now is ${now.beat}`,
    );
  if (revocations.has({ what: 'key', id: request.by }))
    return refusal('revoked', 'the key that asks was revoked');
  const known = terms.replay.look(request.reqId, now.beat);
  if (known === 'seen') return refusal('replayed', 'this request was answered before; ask with a new id');
  return known === 'full' ? refusal('overloaded', 'too many requests in a short while') : undefined;
}

function keyProblem(cg: string, kekVer: number, shareGen: number, terms: CustodyTerms): Refusal | undefined {
  const { kek, generations } = terms;
  if (kek === undefined || kek.cg !== cg || kek.ver !== kekVer)
    return refusal('group', `version ${kekVer} of the key of custody group ${cg} is not held here`);
  if (!isServing(kek, terms.now.beat))
    return refusal('group', `version ${kekVer} of the key of ${cg} is ${kek.state} and opens nothing`);
  if (generations.includes(shareGen)) return undefined;
  return refusal(
    'generation',
    `shares of generation ${shareGen} are not held; the present one is ${kek.shareGen}`,
  );
}

/**
 * True while a version opens wraps. It does from its first beat of use on, whether or not the record that says
 * `active` has come here yet: who wraps may have read it a moment before.
 */
function isServing({ state, activateBeat }: TdecKek, beat: number): boolean {
  if (state === 'pre-active') return beat >= activateBeat;
  return state === 'active' || state === 'decrypt-only';
}

function chainOf({ request, chain }: OpenedRequest, terms: CustodyTerms): Grant | Refusal {
  const { policy, now, revocations } = terms;
  if (policy === undefined || policy.cg !== request.cg)
    return refusal('policy', `the policy of custody group ${request.cg} is not known here`);
  const { authorities } = policy;
  const grant = checkChain(chain, request.chain, {
    cg: request.cg,
    requester: request.by,
    authorities,
    beat: now.beat,
    revocations,
  });
  if (isRefusal(grant)) return grant;
  if (grant.scope.prefix === '') return grant;
  return refusal(
    'capability',
    `the capability is for paths under ${grant.scope.prefix}; a branch key opens every path: ask a key agent`,
  );
}

/** What each purpose needs leave for. Whoever wraps a key anew has had it open, so that needs leave to read too. */
const operationsOf: Readonly<Record<Purpose, readonly Operation[]>> = {
  read: ['read'],
  rewrap: ['read', 'write'],
  canary: ['audit'],
  recovery: ['read'],
};

/** Signatures that a recovery needs whatever the class says. */
const recoveryApprovals = 2;

function decideItem(
  item: RequestItem,
  label: BkLabel | undefined,
  opened: OpenedRequest,
  terms: CustodyTerms,
  grant: Grant,
): Permitted | Refusal {
  const { policy } = terms;
  if (label === undefined || policy === undefined) return refusal('wrap', 'no label');
  const rule = policy.classes[label.cls];
  const approvals = approvalsOf(rule, opened.approvers, terms.revocations);
  const problem =
    labelProblem(item, label, opened, terms) ??
    ruleProblem(label, rule, opened, policy, terms.now.beat) ??
    grantProblem(label, opened.request.purpose, grant) ??
    approvalProblem(label, rule, opened.request.purpose, approvals) ??
    terms.budgets.take(
      { requester: opened.request.by, project: label.project, cls: label.cls },
      { requesterMax: grant.max, projectMax: rule.maxItemsPerBar, allMax: policy.maxItemsPerBar },
      terms.now.bar,
      approvals > 0,
    );
  return problem ?? { granted: true };
}

/** The label is what the wrap's own proof covers: everything is decided by it, nothing by what the request says beside it. */
function labelProblem(
  { bkId, wrap }: RequestItem,
  label: BkLabel,
  { request }: OpenedRequest,
  terms: CustodyTerms,
): Refusal | undefined {
  if (label.cg !== request.cg || label.kekVer !== request.kekVer)
    return refusal('wrap', `wrapped for version ${label.kekVer} of group ${label.cg}`);
  if (!sameBytes(label.bkId, bkId)) return refusal('wrap', 'the label is of another branch key');
  const roots = [terms.policyRoot, ...(terms.takenOver ?? [])];
  if (!roots.some((root) => isSameFamily(label.policy, root)))
    return refusal('policy', 'the wrap is bound to a policy that is not the group’s');
  if (wrap.t === 'tdec') return undefined;
  const certificate = terms.certificate(wrap.cert);
  // It may be filed and not read here yet: who asks tries again.
  if (certificate === undefined) return refusal('group', 'the certificate of its rotation is not known here');
  return listsWrap(certificate, bkId, wrap)
    ? undefined
    : refusal('wrap', 'the certificate of its rotation does not list it');
}

/** Whether the policy lets anybody do `ops` with content of this project and class now. */
export function contentProblem(
  { project, cls }: Pick<BkLabel, 'project' | 'cls'>,
  rule: ClassRule,
  ops: readonly Operation[],
  policy: PolicyBody,
  beat: number,
): Refusal | undefined {
  if (!matchesProject(policy.projects, project))
    return refusal('policy', `the policy is for ${policy.projects}, not for project ${project}`);
  const op = ops.find((each) => !rule.ops.includes(each));
  if (op !== undefined) return refusal('policy', `the policy allows no ${op} of ${cls} content`);
  if (rule.notBefore !== null && beat < rule.notBefore)
    return refusal('policy', `${cls} content opens at beat ${rule.notBefore}, now is ${beat}`);
  if (rule.notAfter !== null && beat > rule.notAfter)
    return refusal('policy', `${cls} content closed after beat ${rule.notAfter}, now is ${beat}`);
  return undefined;
}

function ruleProblem(
  label: BkLabel,
  rule: ClassRule,
  { request }: OpenedRequest,
  policy: PolicyBody,
  beat: number,
): Refusal | undefined {
  const problem = contentProblem(label, rule, operationsOf[request.purpose], policy, beat);
  if (problem !== undefined) return problem;
  if (request.purpose === 'recovery' && policy.recovery === 'none')
    return refusal('policy', 'the policy knows no recovery');
  if (!rule.keyAgentOnly || policy.keyAgents.some((key) => sameBytes(key, request.by))) return undefined;
  return refusal('policy', `${label.cls} keys are given to key agents only; ask one of them for the object`);
}

function grantProblem(label: BkLabel, purpose: Purpose, grant: Grant): Refusal | undefined {
  // Leave to try the custodians is no leave to open what somebody stored.
  if (purpose === 'canary' && label.project !== canaryProject)
    return refusal('capability', `a canary is in project ${canaryProject}, not in ${label.project}`);
  return scopeProblem(label, operationsOf[purpose], grant);
}

/** Whether a grant reaches to `wanted` with content of this project and class. */
export function scopeProblem(
  { project, cls }: Pick<BkLabel, 'project' | 'cls'>,
  wanted: readonly Operation[],
  { scope, ops }: Grant,
): Refusal | undefined {
  const op = wanted.find((each) => !ops.includes(each));
  if (op !== undefined) return refusal('capability', `the capability allows ${ops.join(', ')}, not ${op}`);
  if (!matchesProject(scope.project, project))
    return refusal('capability', `the capability is for project ${scope.project}, not for ${project}`);
  if (classWithin(scope.cls, cls)) return undefined;
  return refusal('capability', `the capability reaches up to ${scope.cls}, the content is ${cls}`);
}

function approvalProblem(
  label: BkLabel,
  rule: ClassRule,
  purpose: Purpose,
  approvals: number,
): Refusal | undefined {
  const needed = Math.max(rule.approvals.k, purpose === 'recovery' ? recoveryApprovals : 0);
  if (approvals >= needed) return undefined;
  return refusal(
    'approval',
    `${label.cls} content needs ${needed} approvals for this, the request brings ${approvals}`,
  );
}

/** Approvers whom the rule lists and nobody revoked. */
function approvalsOf(rule: ClassRule, approvers: readonly Uint8Array[], revocations: Revocations): number {
  const counts = (by: Uint8Array): boolean =>
    rule.approvals.of.some((key) => sameBytes(key, by)) && !revocations.has({ what: 'key', id: by });
  return approvers.filter(counts).length;
}

function isSameFamily(bound: CID | null, root: CID | null): boolean {
  return bound === null || root === null ? bound === root : sameBytes(bound.bytes, root.bytes);
}
