// What the steward tells people: DAG-CBOR and JSON alike, so no undefined, no bigint.

import type { TempoReport } from '../backbeat/tempo-report.ts';
import type { TempoState } from '../backbeat/tempo.ts';
import type { PeerName } from '../core/rpc.ts';

/** From worst to best. `unchecked`: too early to say, because a node that may hold it has not been heard yet. */
export const objectStatuses = [
  'lost',
  'lastCopy',
  'belowMin',
  'short',
  'healing',
  'unchecked',
  'healthy',
] as const;
export type ObjectStatus = (typeof objectStatuses)[number];

/**
 * `unknown`: not heard since this steward started. `listing`: heard, its inventory is still being read.
 * `suspect`: silent for a few beats. `down`: silent beyond the grace time.
 */
export type NodeLiveness = 'unknown' | 'listing' | 'up' | 'suspect' | 'down';

export interface NodeStatus {
  readonly name: string;
  readonly peer: PeerName;
  readonly zone: string;
  readonly host: string;
  readonly up: boolean;
  readonly liveness: NodeLiveness;
  /** Wall clock ms when `liveness` began. */
  readonly since: number;
  /** What the ledger counts there. */
  readonly blocks: number;
  readonly bytes: number;
  /** As last reported by the node; null when never heard. */
  readonly freeBytes: number | null;
  readonly state: 'ready' | 'read-only' | 'unknown';
  /** Why the node is not ready, else ''. */
  readonly reason: string;
  /** Milliseconds since the last answer; null when never heard. */
  readonly lastBeatMs: number | null;
  readonly lastError: string;
}

export interface StewardAlarm {
  /** Stable name, e.g. `objects-lost`, `mass-loss`, `beacon-stale`. */
  readonly name: string;
  readonly text: string;
  readonly since: number;
}

/** The log that this steward keeps, or keeps a copy of. */
export interface BeaconReport {
  readonly engine: 'leveldb' | 'jetstream';
  readonly text: string;
  /**
   * `waiting`: no server answers. `refused`: the stream or its servers are not set as they must be. `diverged`: the
   * stream lost or changed what was acknowledged. `damaged`: what is on this disk does not open. `closed`: it is being
   * moved, or was moved elsewhere.
   */
  readonly state: 'ready' | 'read-only' | 'waiting' | 'refused' | 'diverged' | 'damaged' | 'closed';
  /** Why it takes no appends, else ''. */
  readonly reason: string;
  /** Whether an answered append outlives what the engine promises (docs/beacon.md). */
  readonly durable: boolean;
  /** Settings that speak against it. */
  readonly problems: readonly string[];
  /** Absent before the first comparison. */
  readonly views?: ViewsReport;
}

/** Whether the views of stewards and doors had the same rows at one revision, as compared last (docs/beacon.md). */
export interface ViewsReport {
  readonly revision: number;
  /** Wall clock ms. */
  readonly at: number;
  /** Members whose views are alike; empty when none of several opinions has more views than each other one. */
  readonly equal: readonly string[];
  /** The others, each with the kinds of rows in which it is unlike. */
  readonly differing: readonly { readonly name: string; readonly kinds: readonly string[] }[];
  /** Not compared, and why. */
  readonly unknown: readonly { readonly name: string; readonly reason: string }[];
}

export interface StewardProblem {
  readonly at: number;
  readonly what: string;
  readonly reason: string;
}

/** How the work is divided, as the steward that answers sees it. */
export interface SharesStatus {
  /** Number of the epoch in force; null when none is known to be. */
  readonly epoch: number | null;
  /** For how long this steward may still act without another round that succeeds, ms. 0: it does nothing now. */
  readonly leaseMs: number;
  /** How long it still waits for the lease of whoever had its slices before, ms. */
  readonly waitMs: number;
  readonly stewards: readonly {
    readonly name: string;
    readonly peer: PeerName;
    readonly isSelf: boolean;
    /** Of 256. */
    readonly slices: number;
    /** Since a node last heard it, ms; null when never. */
    readonly heardMs: number | null;
  }[];
}

export interface StewardStatus {
  readonly at: number;
  readonly startedAt: number;
  readonly beat: {
    readonly index: number | null;
    readonly sequence: number;
    readonly tempo: TempoState;
    readonly intervalMs: number;
  };
  /** Where the beats come from, and what was heard and mapped. Absent from a steward that is told the beat otherwise. */
  readonly backbeat?: TempoReport;
  /** Absent from a steward that is told the registry otherwise. */
  readonly beacon?: BeaconReport;
  readonly catalogue: {
    readonly revision: number;
    readonly fresh: boolean;
    readonly reason: string;
    /** Objects whose index has not been read yet. */
    readonly indexesPending: number;
  };
  /** Objects by status. */
  readonly objects: Readonly<Record<ObjectStatus, number>> & { readonly total: number };
  /** Blocks of the ledger. `unreferenced` wait for their lease to end. */
  readonly blocks: {
    readonly total: number;
    readonly deficient: number;
    readonly misplaced: number;
    readonly surplus: number;
    readonly unreferenced: number;
  };
  readonly nodes: readonly NodeStatus[];
  /** Absent where the membership names one steward. */
  readonly shares?: SharesStatus;
  readonly queue: {
    /** Copies planned and not begun, and copies under way. */
    readonly waiting: number;
    readonly underway: number;
    /** Actions waiting out a back-off after a failure. */
    readonly backingOff: number;
  };
  readonly healing: {
    readonly pendingBytes: number;
    readonly bytesPerSecond: number;
    /** Null when nothing heals or no rate is known. */
    readonly etaMs: number | null;
    readonly copiesDone: number;
    readonly copiesFailed: number;
    readonly blocksDeleted: number;
  };
  readonly proofs: {
    readonly asked: number;
    readonly proven: number;
    readonly failed: number;
    readonly unanswered: number;
  };
  /** What cannot be done and why, worst first; bounded, `unableTotal` counts all. */
  readonly unable: readonly UnableStatus[];
  readonly unableTotal: number;
  /** Newest last; bounded. */
  readonly problems: readonly StewardProblem[];
  readonly alarms: readonly StewardAlarm[];
  /** Milliseconds the last round's planning and the whole round took. */
  readonly timing: { readonly planMs: number; readonly roundMs: number };
}

export interface UnableStatus {
  readonly cid: string;
  readonly address: string | null;
  readonly state: 'short' | 'lost' | 'waiting';
  readonly reason: string;
  readonly since: number;
}

/** Answer of `steward.object`. */
export interface ObjectReport {
  readonly manifest: string;
  readonly address: string;
  readonly version: number;
  readonly status: ObjectStatus;
  readonly policy: { readonly min: number; readonly max: number; readonly zones: number };
  readonly indexRead: boolean;
  readonly blocks: number;
  /** Blocks by class, only those that occur. */
  readonly classes: Readonly<Record<string, number>>;
  /** Every node that has at least one of its blocks. */
  readonly holders: readonly {
    readonly node: PeerName;
    readonly name: string;
    readonly zone: string;
    readonly up: boolean;
    readonly blocks: number;
    readonly provenBlocks: number;
    /** Wall clock ms of the oldest and newest possession proof; null when none. */
    readonly provenOldest: number | null;
    readonly provenNewest: number | null;
  }[];
  /** Of the block with the fewest live copies. */
  readonly copiesFewest: number;
  readonly zonesFewest: number;
  readonly reasons: readonly string[];
}

/** Answer of `steward.holders`, one entry per CID asked for, in the same order. */
export interface HoldersReport {
  readonly holders: readonly (readonly {
    readonly node: PeerName;
    /** Wall clock ms of the last possession proof; null when the node has only listed the block. */
    readonly provenAt: number | null;
    readonly up: boolean;
  }[])[];
}
