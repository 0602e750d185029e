// What makes one policy the next version of another, and which way each rule moves. Custodians judge a change by the
// first; people read the second before they give it.

import type { CID } from '../core/block.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { contentClasses } from '../envelope/aad.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { canonical } from './signed-map.ts';
import { type PolicyBody, parsePolicy } from './policy.ts';
import { matchesProject } from './scope.ts';

/** The newest version of a policy and the CID of its record. */
export interface PolicyHead {
  readonly body: PolicyBody;
  readonly cid: CID;
}

/** A policy that the group has not signed yet. */
export type ProposedPolicy = Omit<PolicyBody, 'frostSig'>;

const proposedBytesMax = 24_576;
const unsignedYet = new Uint8Array(64);

/** Reads `args` of an order `policy`: the next version as CBOR, all fields but writer and signature. Throws RECORD_INVALID. */
export function readProposed(args: Readonly<Record<string, unknown>>, writer: Uint8Array): ProposedPolicy {
  const bytes = fieldsOf(args, 'order.args', ['policy']).bytesUpTo('policy', proposedBytesMax);
  const body = canonical(bytes, 'policy');
  const { frostSig: _, ...proposed } = parsePolicy({ ...Object(body), writer, frostSig: unsignedYet });
  return proposed;
}

/** Why `next` may not follow `head`, in words; undefined when it may. */
export function policyStepProblem(head: PolicyHead, next: ProposedPolicy): string | undefined {
  const { body, cid } = head;
  if (next.cg !== body.cg) return `it is for group ${next.cg}, this is ${body.cg}`;
  if (!sameBytes(next.family, body.family))
    return 'it is of another family: what is sealed stays bound to the one that there is';
  if (next.ver <= body.ver)
    return `version ${body.ver} is in force: nobody goes back to version ${next.ver}, or makes another one of it`;
  if (next.ver !== body.ver + 1) return `version ${body.ver + 1} is next, not ${next.ver}`;
  if (next.prev === null || !sameBytes(next.prev.bytes, cid.bytes))
    return `it does not follow version ${body.ver} as it is known here: a version of the family is left out or another`;
  return undefined;
}

/** `tightens`: less is allowed than before. `widens`: more. `changes`: neither can be said. */
export type PolicyEffect = 'tightens' | 'widens' | 'changes';

export interface PolicyStep {
  /** Name of the rule, dotted. */
  readonly field: string;
  readonly effect: PolicyEffect;
  /** Before and after, for people and programs. */
  readonly from: PolicyValue;
  readonly to: PolicyValue;
}

type PolicyValue = string | number | boolean | null | readonly string[];

type Rules = Omit<PolicyBody, 'writer' | 'frostSig' | 'prev' | 'ver'>;

/** Every rule that is another in `after`, in the order of the document. */
export function policySteps(before: Rules, after: Rules): readonly PolicyStep[] {
  const steps: (PolicyStep | undefined)[] = [
    projectStep(before.projects, after.projects),
    listStep('authorities', hex(before.authorities), hex(after.authorities), 'widens'),
    listStep('keyAgents', hex(before.keyAgents), hex(after.keyAgents), 'widens'),
  ];
  for (const cls of contentClasses) {
    const [a, b] = [before.classes[cls], after.classes[cls]];
    const at = (name: string): string => `classes.${cls}.${name}`;
    steps.push(
      listStep(at('ops'), a.ops, b.ops, 'widens'),
      numberStep(at('maxItemsPerBar'), a.maxItemsPerBar, b.maxItemsPerBar, 'widens'),
      numberStep(at('approvals.k'), a.approvals.k, b.approvals.k, 'tightens'),
      listStep(at('approvals.of'), hex(a.approvals.of), hex(b.approvals.of), 'widens'),
      step(at('keyAgentOnly'), a.keyAgentOnly, b.keyAgentOnly, b.keyAgentOnly ? 'tightens' : 'widens'),
      beatStep(at('notBefore'), a.notBefore, b.notBefore, 0, 'tightens'),
      beatStep(at('notAfter'), a.notAfter, b.notAfter, Number.POSITIVE_INFINITY, 'widens'),
    );
  }
  steps.push(
    numberStep('maxItemsPerBar', before.maxItemsPerBar, after.maxItemsPerBar, 'widens'),
    step('recovery', before.recovery, after.recovery, after.recovery === 'any' ? 'widens' : 'tightens'),
    scheduleStep('refreshEveryBars', before.refreshEveryBars, after.refreshEveryBars),
    scheduleStep('rotateEveryBars', before.rotateEveryBars, after.rotateEveryBars),
  );
  return steps.filter((each) => each !== undefined);
}

function step(
  field: string,
  from: PolicyValue,
  to: PolicyValue,
  effect: PolicyEffect,
): PolicyStep | undefined {
  return from === to ? undefined : { field, effect, from, to };
}

/** `more`: what a larger number means. */
function numberStep(field: string, from: number, to: number, more: 'widens' | 'tightens') {
  const less = more === 'widens' ? 'tightens' : 'widens';
  return step(field, from, to, to > from ? more : less);
}

/** A bound in beats; `open` is what null stands for. `later`: what a later beat means. */
function beatStep(
  field: string,
  from: number | null,
  to: number | null,
  open: number,
  later: 'widens' | 'tightens',
) {
  const earlier = later === 'widens' ? 'tightens' : 'widens';
  return step(field, from, to, (to ?? open) > (from ?? open) ? later : earlier);
}

/** Renewing more often leaves a thief less time; 0 is never. */
function scheduleStep(field: string, from: number, to: number) {
  const often = (bars: number): number => (bars === 0 ? Number.POSITIVE_INFINITY : bars);
  return step(field, from, to, often(to) < often(from) ? 'tightens' : 'widens');
}

/** `added`: what one more entry means. */
function listStep(
  field: string,
  from: readonly string[],
  to: readonly string[],
  added: 'widens' | 'tightens',
): PolicyStep | undefined {
  const more = to.some((each) => !from.includes(each));
  const less = from.some((each) => !to.includes(each));
  if (!more && !less) return undefined;
  const removed = added === 'widens' ? 'tightens' : 'widens';
  return { field, from, to, effect: more && less ? 'changes' : more ? added : removed };
}

function projectStep(from: string, to: string): PolicyStep | undefined {
  const covers = (outer: string, inner: string): boolean =>
    outer.endsWith('*') ? matchesProject(outer, inner.replace(/\*$/, '')) : outer === inner;
  const effect = covers(from, to) ? 'tightens' : covers(to, from) ? 'widens' : 'changes';
  return step('projects', from, to, effect);
}

function hex(keys: readonly Uint8Array[]): readonly string[] {
  return keys.map(toHex);
}
