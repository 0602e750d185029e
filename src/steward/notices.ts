// What the steward has to say beside its figures: alarms, which last, and problems, which happened.

import type { Clock } from '../core/clock.ts';
import type { StewardAlarm, StewardProblem } from './status.ts';

const problemsMax = 50;
/** A reason may quote what a peer sent. */
const reasonLengthMax = 500;

export class Notices {
  readonly #clock: Clock;
  readonly #alarms = new Map<string, StewardAlarm>();
  #problems: readonly StewardProblem[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get alarms(): readonly StewardAlarm[] {
    return [...this.#alarms.values()];
  }

  /** Newest last; the oldest are forgotten. */
  get problems(): readonly StewardProblem[] {
    return this.#problems;
  }

  problem(what: string, reason: string): void {
    const problem = { at: this.#clock.now(), what, reason: reason.slice(0, reasonLengthMax) };
    this.#problems = [...this.#problems, problem].slice(-problemsMax);
  }

  /** Raises the alarm or changes its text; an empty text ends it. */
  alarm(name: string, text: string): void {
    if (text === '') {
      this.#alarms.delete(name);
      return;
    }
    const since = this.#alarms.get(name)?.since ?? this.#clock.now();
    this.#alarms.set(name, { name, text, since });
  }
}
