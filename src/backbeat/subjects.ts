// Names on the wire that upstream has not published: chosen here, all of them, and nowhere else.

import { HoldfastError } from '../core/errors.ts';

/** The three kinds of messages. */
export type MessageKind = 'beat' | 'status' | 'report';

/** Subjects of one cluster. `{cluster_id}` stands for its id. */
export type SubjectPatterns = Readonly<Record<MessageKind | 'lease', string>>;

export const defaultSubjects: SubjectPatterns = {
  beat: 'backbeat.{cluster_id}.beat',
  status: 'backbeat.{cluster_id}.status',
  report: 'backbeat.{cluster_id}.report',
  /** Ours alone: who of our Pulses leads. */
  lease: 'holdfast.{cluster_id}.pulse-lease',
};

export type Subjects = Readonly<Record<MessageKind | 'lease', string>>;

/** Headers of a signed message: Ed25519 over the exact bytes of the body, and the key, both in hex. */
export const signatureHeaders = { signature: 'Backbeat-Signature', key: 'Backbeat-Key' } as const;

/** Stream that keeps the lease records of a cluster. */
export function leaseStreamOf(clusterId: string): string {
  return `HOLDFAST_PULSE_${clusterId}`;
}

/** Subjects of `clusterId`. Throws ARGUMENT_INVALID for one that NATS would not take, or that catches more than its own. */
export function subjectsOf(clusterId: string, patterns: Partial<SubjectPatterns> = {}): Subjects {
  const all = { ...defaultSubjects, ...patterns };
  return {
    beat: subject(all.beat, clusterId),
    status: subject(all.status, clusterId),
    report: subject(all.report, clusterId),
    lease: subject(all.lease, clusterId),
  };
}

function subject(pattern: string, clusterId: string): string {
  const text = pattern.replaceAll('{cluster_id}', clusterId);
  if (/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(text) && text.length <= 255) return text;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `the subject ${JSON.stringify(pattern.slice(0, 80))} is not words of letters, digits, _ and - with dots between`,
  );
}
