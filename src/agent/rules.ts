// What a key agent decides by, as fresh as a custodian would want it: the beat and the records of custody, read from the
// registry through the door and believed link by link. When they cannot be read for a while, nothing is decided.

import { unlessAborted } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { BeatNow } from '../custody/freshness.ts';
import type { CustodySource } from '../custody/tdec.ts';
import type { AgentRules } from './key-agent.ts';

export interface RulesPorts {
  readonly source: CustodySource;
  /** The beat as the registry's door tells it. */
  readonly beat: (signal: AbortSignal) => Promise<number>;
  /** Monotonic, ms. */
  readonly now: () => number;
}

/** A beat and a reading that are younger than this are those of now, ms: about a beat. */
const freshMs = 1000;
/** One reading, for all who wait for it, is given up after this, ms. */
const readMs = 10_000;
/** Beats in a bar, for budgets and for how long a key is kept. */
export const barBeats = 60;

export class Rules {
  readonly #ports: RulesPorts;
  #atMs = Number.NEGATIVE_INFINITY;
  #beat = 0;
  #reading: Promise<void> | undefined;

  constructor(ports: RulesPorts) {
    this.#ports = ports;
  }

  /** The beat when it was last read; it never goes back. */
  get beat(): number {
    return this.#beat;
  }

  /** Throws KEY_UNAVAILABLE when the registry cannot be read now, or the group is not believed. */
  async read(signal: AbortSignal): Promise<AgentRules> {
    if (this.#ports.now() - this.#atMs > freshMs) {
      this.#reading ??= this.#read(AbortSignal.timeout(readMs)).finally(() => {
        this.#reading = undefined;
      });
      await unlessAborted(this.#reading, signal);
    }
    const directory = this.#ports.source.directory();
    if (directory.problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', directory.problem);
    return {
      cg: directory.cg,
      policy: directory.policy(),
      revocations: directory.revocations(),
      now: this.#now(),
    };
  }

  async #read(signal: AbortSignal): Promise<void> {
    const startedMs = this.#ports.now();
    try {
      const [beat] = await Promise.all([this.#ports.beat(signal), this.#ports.source.reload(signal)]);
      this.#beat = Math.max(this.#beat, beat);
      this.#atMs = startedMs;
    } catch (cause) {
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `the rules of custody cannot be read, and nothing is decided by old ones: ${describeError(cause)}`,
        { cause },
      );
    }
  }

  #now(): BeatNow {
    return { beat: this.#beat, bar: Math.floor(this.#beat / barBeats), silentBeats: 0, lost: undefined };
  }
}
