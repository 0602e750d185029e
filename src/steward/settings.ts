// How fast and how boldly a steward works.

import { day, minute } from '../core/clock.ts';
import type { LivenessSettings } from './liveness.ts';
import type { PlanBudget } from './plan.ts';

export interface StewardSettings extends LivenessSettings {
  /** One heartbeat call, ms. */
  readonly deadlineMs: number;
  /** A round does not wait longer than this for slow nodes, ms. */
  readonly patienceMs: number;
  /** A round comes after this long even without a beat, ms: healing must not wait for a slow tempo. */
  readonly roundMsMax: number;
  /** A block first named less than this ago is not judged, ms. */
  readonly settleMs: number;
  /** A node with less free space takes no copies, bytes. */
  readonly freeBytesMin: number;
  /** Challenges per node and round; 0 = none. */
  readonly challengesPerNode: number;
  readonly budget: PlanBudget;
}

/** For a local cluster at one beat per second. */
export const defaultStewardSettings: StewardSettings = {
  suspectMs: 3_000,
  graceMs: 10_000,
  deadlineMs: 2_000,
  patienceMs: 500,
  roundMsMax: 5_000,
  settleMs: 2_000,
  freeBytesMin: 64 * 1024 * 1024,
  challengesPerNode: 2,
  // A plan is made anew on every beat, and when its copies have begun: what more it held would be made for nothing,
  // live until the next one, and be the most of what the steward's heap grows by while it heals.
  budget: {
    copiesMax: 128,
    copiesPerTargetMax: 128,
    copiesPerSourceMax: 64,
    copyBytesMax: 32 * 1024 * 1024,
    deletesMax: 2048,
    provesMax: 64,
    leaseMs: 15 * minute,
    collects: true,
    proofAgeMsMax: day,
    massLossShare: 1 / 3,
    unableMax: 64,
  },
};
