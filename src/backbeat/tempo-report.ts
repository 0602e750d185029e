// What is told to people about the tempo: plain values, for JSON and DAG-CBOR alike.

import type { BarReport } from './bar-report.ts';
import type { BusStatus } from './bus.ts';
import type { ReverbCounters } from './reverb.ts';
import type { TrackerCounters } from './tempo-tracker.ts';
import type { TempoState } from './tempo.ts';

export interface TempoReport {
  readonly state: TempoState;
  /** Wall clock ms since when. */
  readonly since: number;
  /** Whether the beats of the cluster come from this process now. */
  readonly isLeading: boolean;
  /** How what was heard was taken: beats, lost, late, duplicates, resets, refused for their token. */
  readonly beats: TrackerCounters;
  /** The connection, and per kind of message what was accepted, mapped, refused. */
  readonly bus: BusStatus;
  /** Of the last bar that anybody reported; null before the first. */
  readonly lastBar: BarReport | null;
  readonly claims: ReverbCounters | null;
}
