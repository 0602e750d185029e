// The way of appends into the log in force, which can be shut while the log is put elsewhere.

import type { Append, BeaconLog, LogEntry } from '../beacon/log.ts';
import { HoldfastError } from '../core/errors.ts';

export class BeaconGate {
  readonly #log: Pick<BeaconLog, 'append'>;
  readonly #underWay = new Set<Promise<unknown>>();
  #isShut = false;

  constructor(log: Pick<BeaconLog, 'append'>) {
    this.#log = log;
  }

  /** As the log's. While it is shut throws BEACON_UNAVAILABLE, details `moving`: sending it again soon helps. */
  async append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    if (this.#isShut)
      throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is being moved; try again in a moment', {
        details: { moving: true },
      });
    const appending = this.#log.append(append, options);
    this.#underWay.add(appending);
    try {
      return await appending;
    } finally {
      this.#underWay.delete(appending);
    }
  }

  /** Lets nothing in from now on, and resolves when what is under way has ended. */
  async shut(): Promise<void> {
    this.#isShut = true;
    await Promise.allSettled(this.#underWay);
  }

  open(): void {
    this.#isShut = false;
  }
}
