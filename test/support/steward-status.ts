// Parts of a steward's status that several tests begin with.

import type { StewardStatus } from '../../src/steward/status.ts';

/** What a steward tells of a registry without objects, and of healing that has nothing to do. */
export const noObjects: StewardStatus['objects'] = {
  lost: 0,
  lastCopy: 0,
  belowMin: 0,
  short: 0,
  healing: 0,
  unchecked: 0,
  healthy: 0,
  total: 0,
};

export const noHealing: StewardStatus['healing'] = {
  pendingBytes: 0,
  bytesPerSecond: 0,
  etaMs: null,
  copiesDone: 0,
  copiesFailed: 0,
  blocksDeleted: 0,
};
