// Says once a beat what every background job of this process is doing.

import type { Clock } from '../core/clock.ts';
import { formatHlc, type Hlc, nextHlc } from './beat.ts';
import type { BackbeatBus } from './bus.ts';
import { claimOf, type JobReport } from './claim.ts';
import { type BeatClock, type JobNow, moveClock, startBeatClock } from './job-schedule.ts';
import type { Beat, Tempo } from './tempo.ts';

export interface ClaimDeskOptions {
  readonly bus: BackbeatBus;
  readonly tempo: Tempo;
  readonly clock: Clock;
  /** `count` random bytes. */
  readonly random: (count: number) => Uint8Array;
  /** `agent_id` of the claims. */
  readonly agentId: string;
  /** The jobs as they stand, each with a name of its own. Must not throw. */
  readonly jobs: (now: JobNow) => readonly JobReport[];
}

export class ClaimDesk implements Disposable {
  readonly #options: ClaimDeskOptions;
  readonly #stop: () => void;
  #beats: BeatClock;
  #hlc: Hlc;

  constructor(options: ClaimDeskOptions) {
    this.#options = options;
    const node = options.random(2);
    this.#hlc = { wall: 0, logical: 0, node: ((node[0] ?? 0) << 8) | (node[1] ?? 0) };
    this.#beats = startBeatClock(options.clock.monotonic());
    this.#stop = options.tempo.onBeat((beat) => this.#hear(beat));
  }

  [Symbol.dispose](): void {
    this.#stop();
  }

  /** A beat that comes too early to be one, as from two Pulses at once, is answered with nothing. */
  #hear(beat: Beat): void {
    const { agentId, bus, clock, jobs } = this.#options;
    const before = this.#beats.beats;
    this.#beats = moveClock(this.#beats, beat, clock.monotonic());
    const { beats, bars } = this.#beats;
    if (beats === before) return;
    const at = clock.now();
    for (const job of jobs({ beats, bars, at })) {
      this.#hlc = nextHlc(this.#hlc, at);
      const context = { agentId, beatIndex: beat.frame.beat_index, hlc: formatHlc(this.#hlc) };
      bus.publishClaim(claimOf(job, context));
    }
  }
}
