// Is a node up? From when it was last heard, and nothing else: no clock, no guess.

import type { NodeLiveness } from './status.ts';

export interface LivenessSettings {
  /** Silent for this long: the minimum of what it holds is no longer taken as given. A few beats. */
  readonly suspectMs: number;
  /** Silent for this long: given up. Shorter absences move nothing that still has its minimum. */
  readonly graceMs: number;
}

export interface Hearing {
  /** When the steward began to listen to this node. */
  readonly listeningSince: number;
  /** Last answer, undefined when never. */
  readonly heardAt: number | undefined;
  /** Its inventory is known up to its last answer. */
  readonly listed: boolean;
}

export function livenessOf(hearing: Hearing, now: number, settings: LivenessSettings): NodeLiveness {
  const { heardAt, listeningSince, listed } = hearing;
  if (heardAt === undefined) return now - listeningSince < settings.graceMs ? 'unknown' : 'down';
  const silentMs = now - heardAt;
  if (silentMs >= settings.graceMs) return 'down';
  if (silentMs >= settings.suspectMs) return 'suspect';
  return listed ? 'up' : 'listing';
}
