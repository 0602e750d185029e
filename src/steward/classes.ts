// How endangered one block is, given who holds it and how those nodes are: the judgement under everything
// the steward shows and does. Only proven copies on nodes that answer count as live. A copy that a node only lists,
// and a node not heard since start, are given the benefit of the doubt (`unchecked`): they count as no copy, and
// hold off healing until they were asked. One that fell silent is not where the minimum is at
// stake, and is where only comfort is: a flap moves nothing that still has its minimum.

/** In the order in which they matter; each block is in exactly one. */
export const blockClasses = [
  'none',
  /** No copy on any node that may still answer. */
  'lost',
  /** One live copy, or none but a silent holder that may return. */
  'lastCopy',
  'belowMin',
  /** Below the minimum, or in too few zones, and no node left to change that. */
  'short',
  /** Enough copies, and one that is proven wrong. */
  'corrupt',
  'belowTarget',
  /** Enough copies in fewer zones than could be. */
  'misplaced',
  'surplus',
  /** No live object needs it. */
  'unreferenced',
  /** A node that may hold it has not been heard yet, or the block was first named a moment ago. */
  'unchecked',
  'healthy',
] as const;
export type BlockClass = (typeof blockClasses)[number];

/** Copies wanted of one block. `target` is what healing aims at: min for content, max for records. */
export interface Wanted {
  readonly min: number;
  readonly target: number;
  readonly max: number;
  readonly zones: number;
}

export type SightState = 'absent' | 'unknown' | 'up' | 'suspect' | 'down';

/** How every node is at this moment, by node number. Build it with `makeSight`. */
export interface Sight {
  readonly states: readonly SightState[];
  /** Zone numbers by node. */
  readonly zones: readonly number[];
  /** Up, and takes new copies. */
  readonly eligible: readonly boolean[];
  readonly eligibleCount: number;
  readonly eligibleZones: ReadonlySet<number>;
  /** Storage nodes of the membership, whatever their state. */
  readonly memberCount: number;
  /** Nodes that list blocks and leave challenges about them unanswered: by node. */
  readonly doubted: readonly boolean[];
  /** Some member's inventory is not known up to now: nothing is called lost. */
  readonly incomplete: boolean;
  /** A block first named less than this ago is not judged yet. */
  readonly settleMs: number;
}

export interface SightNode {
  readonly state: SightState;
  readonly zone: string;
  readonly accepting: boolean;
  /** It leaves challenges unanswered: what it only lists holds off no healing. Default false. */
  readonly doubted?: boolean;
}

export function makeSight(nodes: readonly SightNode[], settleMs: number): Sight {
  const names = [...new Set(nodes.map((node) => node.zone))];
  const zones = nodes.map((node) => names.indexOf(node.zone));
  const eligible = nodes.map((node) => node.state === 'up' && node.accepting);
  return {
    states: nodes.map((node) => node.state),
    zones,
    eligible,
    eligibleCount: eligible.filter(Boolean).length,
    eligibleZones: new Set(zones.filter((_, node) => eligible[node])),
    memberCount: nodes.filter((node) => node.state !== 'absent').length,
    doubted: nodes.map((node) => node.doubted ?? false),
    incomplete: nodes.some((node) => node.state === 'unknown' || node.state === 'suspect'),
    settleMs,
  };
}

export interface Verdict {
  readonly class: BlockClass;
  /** Copies to make (misplaced: zones to add). */
  readonly missing: number;
}

/**
 * @param holders node numbers that list the block
 * @param bad those of them whose copy is proven wrong
 * @param claimed those of them that only list it: no proof has shown that they have the bytes
 * @param newborn the block was first named a moment ago: its copies may not have been reported yet
 */
export function classify(
  holders: readonly number[],
  bad: ReadonlySet<number> | undefined,
  claimed: ReadonlySet<number> | undefined,
  wanted: Wanted,
  sight: Sight,
  newborn: boolean,
): Verdict {
  const copies = countCopies(holders, bad, claimed, sight);
  const { live, unknown, silent } = copies;
  const possible = live + sight.eligibleCount - copies.eligibleHolding;
  const goal = Math.max(wanted.min, Math.min(wanted.target, possible));
  const missing = Math.max(wanted.min - live - unknown, goal - live - unknown - silent, 0);
  if (live >= wanted.min) return judgeStored(copies, bad, wanted, sight, possible, missing);
  if (newborn || live + unknown >= wanted.min) return { class: 'unchecked', missing: 0 };
  if (live + unknown + silent === 0) {
    return { class: sight.incomplete ? 'unchecked' : 'lost', missing: 0 };
  }
  if (possible <= live && sight.memberCount < wanted.min) return { class: 'short', missing: 0 };
  if (live + unknown <= 1) return { class: 'lastCopy', missing: Math.min(missing, possible - live) };
  if (possible <= live) return { class: 'short', missing: 0 };
  return { class: 'belowMin', missing: Math.min(missing, possible - live) };
}

/** At least the minimum is live: is it enough, and is it well spread? */
function judgeStored(
  copies: Copies,
  bad: ReadonlySet<number> | undefined,
  wanted: Wanted,
  sight: Sight,
  possible: number,
  missing: number,
): Verdict {
  if (bad !== undefined) return { class: 'corrupt', missing };
  if (missing > 0) return { class: 'belowTarget', missing: Math.min(missing, possible - copies.live) };
  const zones = copies.zones.size;
  if (zones < wanted.zones) {
    const reachable = Math.min(wanted.zones, zones + newZones(copies.zones, sight));
    if (zones < reachable) return { class: 'misplaced', missing: reachable - zones };
    if (copies.live <= wanted.max) return { class: 'short', missing: 0 };
  }
  return { class: copies.live > wanted.max ? 'surplus' : 'healthy', missing: 0 };
}

interface Copies {
  /** Proven, on nodes that answer. */
  live: number;
  /** On nodes not heard since start, or only listed and about to be challenged. */
  unknown: number;
  /** On nodes that fell silent and are within their grace, or only listed by a node that leaves challenges unanswered. */
  silent: number;
  eligibleHolding: number;
  /** Zones of all copies but those on nodes given up. */
  readonly zones: Set<number>;
}

function countCopies(
  holders: readonly number[],
  bad: ReadonlySet<number> | undefined,
  claimed: ReadonlySet<number> | undefined,
  sight: Sight,
): Copies {
  const copies: Copies = { live: 0, unknown: 0, silent: 0, eligibleHolding: 0, zones: new Set() };
  for (const node of holders) {
    if (sight.eligible[node] === true) copies.eligibleHolding++;
    if (bad?.has(node) === true) continue;
    const state = sight.states[node];
    const isClaim = claimed?.has(node) === true;
    if (state === 'up' && !isClaim) copies.live++;
    else if (state === 'unknown' || (state === 'up' && sight.doubted[node] !== true)) copies.unknown++;
    else if (state === 'up') copies.silent++;
    else if (state === 'suspect') copies.silent++;
    else continue;
    copies.zones.add(sight.zones[node] ?? -1);
  }
  return copies;
}

function newZones(used: ReadonlySet<number>, sight: Sight): number {
  let count = 0;
  for (const zone of sight.eligibleZones) if (!used.has(zone)) count++;
  return count;
}
