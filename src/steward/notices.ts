// What the steward has to say beside its figures: alarms, which last, and problems, which happened.

import type { Clock } from '../core/clock.ts';
import type { StewardAlarm, StewardProblem } from './status.ts';

const problemsMax = 50;
/** A reason may quote what a peer sent. */
const reasonLengthMax = 500;

interface Raised extends StewardAlarm {
  /** How long it must hold before it is shown, ms. */
  readonly patienceMs: number;
}

export class Notices {
  readonly #clock: Clock;
  readonly #raised = new Map<string, Raised>();
  #problems: readonly StewardProblem[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get alarms(): readonly StewardAlarm[] {
    const now = this.#clock.now();
    return [...this.#raised.values()]
      .filter(({ since, patienceMs }) => now - since >= patienceMs)
      .map(({ name, text, since }) => ({ name, text, since }));
  }

  /** Newest last; the oldest are forgotten. */
  get problems(): readonly StewardProblem[] {
    return this.#problems;
  }

  problem(what: string, reason: string): void {
    const problem = { at: this.#clock.now(), what, reason: reason.slice(0, reasonLengthMax) };
    this.#problems = [...this.#problems, problem].slice(-problemsMax);
  }

  /**
   * Raises the alarm or changes its text; an empty text ends it. With `patienceMs` it is shown once it has held
   * that long without a break.
   */
  alarm(name: string, text: string, patienceMs = 0): void {
    if (text === '') {
      this.#raised.delete(name);
      return;
    }
    const since = this.#raised.get(name)?.since ?? this.#clock.now();
    this.#raised.set(name, { name, text, since, patienceMs });
  }
}
