// What the embedded Pulse says at each beat: pure, from its durable record and the time.

import { toHex, uint64 } from '../core/bytes.ts';
import { preimage, sha256 } from '../core/hash.ts';
import { type BeatFrame, beatFrameType, beatMs, formatHlc, type Hlc, type Phase } from './beat.ts';

export interface PulseSettings {
  readonly clusterId: string;
  /** 0.1…1000 in steps of 0.1. The local cluster beats 60 times a minute. */
  readonly tempoBpm: number;
  /** Beats in a bar, from 1. Upstream's default is 120. */
  readonly barBeats: number;
}

/** What Pulse keeps over a restart. */
export interface PulseRecord {
  /** Random, made once: another one means another count. 32 bytes. */
  readonly epoch: Uint8Array;
  /** No beat with this index or a higher one has been sent. */
  readonly nextIndex: number;
}

export function frameAt(
  settings: PulseSettings,
  record: PulseRecord,
  index: number,
  hlc: Hlc,
  now: number,
): BeatFrame {
  const inBar = index % settings.barBeats;
  return {
    type: beatFrameType,
    cluster_id: settings.clusterId,
    beat_index: index,
    downbeat: inBar === 0,
    phase: phaseAt(inBar, settings.barBeats),
    hlc: formatHlc(hlc),
    deadline_at: new Date(now + beatMs(settings.tempoBpm)).toISOString(),
    tempo_bpm: settings.tempoBpm,
    window_id: windowOf(record.epoch, Math.floor(index / settings.barBeats)),
    metadata: { pulse_version: 'holdfast-1' },
  };
}

/** A bar is planned, executed and reviewed in thirds. */
function phaseAt(inBar: number, barBeats: number): Phase {
  const third = (3 * inBar) / barBeats;
  if (third < 1) return 'plan';
  return third < 2 ? 'execute' : 'review';
}

/** The same bar has the same window also after a restart; another epoch has others. */
function windowOf(epoch: Uint8Array, bar: number): string {
  return toHex(sha256(preimage('holdfast/pulse-window/v1', epoch, uint64(bar))).subarray(0, 16));
}
