// Whether a key agent hands out the key of one object. The same rules as a custodian's, by the same policy, and one
// more that only somebody who sees the address can hold: the path prefix of the capability.

import { sameBytes } from '../core/bytes.ts';
import type { ContentClass } from '../envelope/aad.ts';
import { contentProblem, scopeProblem } from './authorise.ts';
import type { Budgets } from './budget.ts';
import { checkChain, type Grant } from './capability.ts';
import { type BeatNow, datedProblem } from './freshness.ts';
import type { OpenedKeyRequest } from './object-key.ts';
import type { PolicyBody } from './policy.ts';
import { refusal, type Refusal } from './refusal.ts';
import type { ReplaySet } from './replay.ts';
import type { Revocations } from './revocation.ts';

/** What the sealed content itself says it is. */
export interface AskedContent {
  readonly project: string;
  readonly cls: ContentClass;
  /** UCXL path, without a slash at either end. */
  readonly path: string;
}

export interface ReleaseTerms {
  readonly cg: string;
  /** Ed25519 key of the agent. */
  readonly agent: Uint8Array;
  readonly policy: PolicyBody | undefined;
  readonly revocations: Revocations;
  readonly now: BeatNow;
  /** Longest life of a request, and how far it may be dated ahead, beats. */
  readonly windowBeats: number;
  readonly replay: ReplaySet;
  readonly budgets: Budgets;
}

/**
 * What the chain of a request gives that is for this agent and for now; its id is remembered. Before anything is looked
 * up for it.
 */
export function admitRequest({ request, chain }: OpenedKeyRequest, terms: ReleaseTerms): Grant | Refusal {
  const { cg, now, policy, windowBeats, replay, revocations } = terms;
  if (now.lost !== undefined) return refusal('clock', `time is not known: ${now.lost}`);
  if (!sameBytes(request.agent, terms.agent)) return refusal('group', 'the request is for another key agent');
  if (request.cg !== cg)
    return refusal('group', `the request is for custody group ${request.cg}, this agent serves ${cg}`);
  if (policy === undefined) return refusal('policy', `the policy of custody group ${cg} is not known`);
  const dated = datedProblem(request, now.beat, windowBeats);
  if (dated !== undefined) return refusal('stale', `the request is ${dated}`);
  if (revocations.has({ what: 'key', id: request.by }))
    return refusal('revoked', 'the key that asks was revoked');
  const known = replay.look(request.reqId, now.beat);
  if (known === 'seen') return refusal('replayed', 'this request was answered before; ask with a new id');
  if (known === 'full') return refusal('overloaded', 'too many requests in a short while');
  replay.remember(request.reqId, request.exp);
  const { authorities } = policy;
  const held = { cg, requester: request.by, authorities, beat: now.beat, revocations };
  return checkChain(chain, request.chain, held);
}

/** Why the key of `content` is not for who asks under `grant`; undefined when it is, counted in its budget. */
export function releaseProblem(
  requester: Uint8Array,
  content: AskedContent,
  grant: Grant,
  { policy, now, cg, budgets }: ReleaseTerms,
): Refusal | undefined {
  if (policy === undefined) return refusal('policy', `the policy of custody group ${cg} is not known`);
  const rule = policy.classes[content.cls];
  return (
    contentProblem(content, rule, ['read'], policy, now.beat) ??
    scopeProblem(content, ['read'], grant) ??
    prefixProblem(content, grant) ??
    approvalProblem(content, rule.approvals.k) ??
    budgets.take(
      { requester, project: content.project, cls: content.cls },
      { requesterMax: grant.max, projectMax: rule.maxItemsPerBar, allMax: policy.maxItemsPerBar },
      now.bar,
      false,
    )
  );
}

/** The beginning of the path, letter by letter: a prefix that ends with a slash means what lies below it. */
function prefixProblem({ path }: AskedContent, { scope }: Grant): Refusal | undefined {
  const prefix = scope.prefix.replace(/^\//, '');
  if (path.startsWith(prefix)) return undefined;
  return refusal('capability', `the capability is for paths under ${scope.prefix}`);
}

function approvalProblem({ cls }: AskedContent, needed: number): Refusal | undefined {
  if (needed === 0) return undefined;
  return refusal(
    'approval',
    `${cls} content needs ${needed} approvals, which a key agent cannot bring: ask the custodians`,
  );
}
