// What goes wrong again and again is told when it begins, when it becomes another, and now and then: a log that repeats
// one line each second hides the others.

import { minute } from '../core/clock.ts';
import { describeError } from '../core/errors.ts';

/** The same trouble is told once in so long, ms. */
const repeatMs = 1 * minute;

export interface SayPorts {
  /** Monotonic, ms. */
  readonly now: () => number;
  readonly say: (text: string) => void;
}

const standard: SayPorts = {
  now: () => performance.now(),
  say: (text) => console.error(text),
};

/** Tells errors of `what` in words on standard error, the same one at most once a minute. */
export function sayNowAndThen(what: string, { now, say }: SayPorts = standard): (error: unknown) => void {
  let said = '';
  let at = Number.NEGATIVE_INFINITY;
  return (error) => {
    const text = describeError(error);
    if (text === said && now() - at < repeatMs) return;
    [said, at] = [text, now()];
    say(`${what}: ${text}`);
  };
}
