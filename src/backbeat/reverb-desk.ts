// Reverb at work: hears the beats and claims of the cluster, and reports every bar that has ended.
//
// Every steward counts, so that whichever takes over in the middle of a bar has seen it; only the one whose Pulse leads
// reports.

import type { Clock } from '../core/clock.ts';
import type { BarReport } from './bar-report.ts';
import type { BackbeatBus } from './bus.ts';
import { Reverb, type ReverbCounters } from './reverb.ts';
import type { Beat, Tempo } from './tempo.ts';

export interface ReverbOptions {
  readonly bus: BackbeatBus;
  readonly tempo: Tempo;
  readonly clock: Clock;
  /** Whether this process is the one that reports. */
  readonly mayReport: () => boolean;
  /** Whether no rotation of keys is overdue or has failed. */
  readonly secretRotationsOk: () => boolean;
}

export class ReverbDesk implements Disposable {
  readonly #options: ReverbOptions;
  readonly #reverb = new Reverb();
  readonly #stops: readonly (() => void)[];
  #last: BarReport | undefined;

  constructor(options: ReverbOptions) {
    const { bus, tempo, clock } = options;
    this.#options = options;
    this.#stops = [
      tempo.onBeat((beat) => this.#hear(beat)),
      bus.onClaim((claim) => this.#reverb.hearClaim(claim, clock.now())),
      bus.onReport((report) => {
        this.#last = report;
      }),
    ];
  }

  /** Of the bar before this one, whoever made it. */
  get last(): BarReport | undefined {
    return this.#last;
  }

  get counters(): ReverbCounters {
    return this.#reverb.counters;
  }

  [Symbol.dispose](): void {
    for (const stop of this.#stops) stop();
  }

  #hear({ source, frame }: Beat): void {
    if (source === 'local') return; // a beat that nobody sent belongs to no bar
    const { bus, clock, mayReport, secretRotationsOk } = this.#options;
    const report = this.#reverb.hearBeat(frame, clock.now(), secretRotationsOk());
    if (report !== undefined && mayReport()) bus.publishReport(report);
  }
}
