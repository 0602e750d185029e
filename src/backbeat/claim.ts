// From what a background job is doing to the StatusClaim that says so.

import {
  beatsLeftMax,
  type ClaimState,
  cutNotes,
  type StatusClaim,
  statusClaimType,
} from './status-claim.ts';

/**
 * `idle`: nothing to do. `working`, and `checking` for jobs that look without changing: under way. `waiting`: cannot
 * go on for the reason in the notes. `failed`: the last run did, for that reason.
 */
export type JobActivity = 'idle' | 'working' | 'checking' | 'waiting' | 'failed';

export interface JobReport {
  /** `task_id` of the claim: 1 to 128 of `a-z A-Z 0-9 _ : -`. */
  readonly name: string;
  readonly activity: JobActivity;
  /** Part of the present work that is done, 0…1; undefined where that cannot be told. */
  readonly progress: number | undefined;
  /** Until it is done, or, for one that is idle, until it runs again; undefined where that cannot be told. */
  readonly beatsLeft: number | undefined;
  /** For people; cut to what a claim holds. */
  readonly notes: string;
}

export interface ClaimContext {
  readonly agentId: string;
  readonly beatIndex: number;
  readonly hlc: string;
}

/** A strict claim, whatever the numbers of the report are. */
export function claimOf(job: JobReport, { agentId, beatIndex, hlc }: ClaimContext): StatusClaim {
  const { progress, beatsLeft } = job;
  return {
    type: statusClaimType,
    agent_id: agentId,
    task_id: job.name,
    beat_index: beatIndex,
    state: states[job.activity],
    hlc,
    ...(beatsLeft === undefined ? {} : { beats_left: Math.ceil(within(beatsLeft, beatsLeftMax)) }),
    ...(progress === undefined ? {} : { progress: within(progress, 1) }),
    ...(job.notes === '' ? {} : { notes: cutNotes(job.notes) }),
  };
}

/** Any text as an id that the schema takes. */
export function idOf(text: string): string {
  return text.replaceAll(/[^a-zA-Z0-9_:-]/g, '_').slice(0, 128) || '_';
}

const states: Readonly<Record<JobActivity, ClaimState>> = {
  idle: 'idle',
  working: 'executing',
  checking: 'reviewing',
  waiting: 'blocked',
  failed: 'failed',
};

function within(value: number, max: number): number {
  return Number.isNaN(value) ? 0 : Math.min(max, Math.max(0, value));
}
