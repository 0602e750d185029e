// When to dial an absent member again. Pure: time and chance come in as numbers.
//
//   waiting ──due──▶ trying ──failed──▶ waiting (longer)
//      ▲                │
//      └──────down──── up ◀──opened by either side──
//
// There is no state for giving up: a member is dialled until it leaves the membership. Pauses double up to a
// bound, and chance spreads them, so that a cluster that starts at once does not knock at once. One that did not answer
// is dialled again late rather than soon: when it comes up it dials us itself, and two dials at once are one in vain.

export type DialState =
  | { readonly status: 'waiting'; readonly attempts: number; readonly dueAt: number }
  | { readonly status: 'trying'; readonly attempts: number }
  | { readonly status: 'up' };

export interface DialTimes {
  /** First pause, milliseconds. */
  readonly pauseMsMin: number;
  /** Longest pause, milliseconds. */
  readonly pauseMsMax: number;
}

/** Steps of doubling that the second dialler begins with, and an attempt that failed. */
const [secondStep, failedStep] = [2, 3];

/** A new member. The side that is `first` dials at once; the other waits a little, so that mostly one dial is made. */
export function dialNew(first: boolean, now: number, random: number, times: DialTimes): DialState {
  return { status: 'waiting', attempts: 0, dueAt: first ? now : now + pause(secondStep, random, times) };
}

/** waiting → waiting, due now: the peer showed itself. */
export function dialNow(state: DialState, now: number): DialState {
  return state.status === 'waiting' ? { ...state, dueAt: now } : state;
}

/** waiting → trying */
export function dialStarted(state: DialState): DialState {
  if (state.status !== 'waiting') throw new Error(`cannot start to dial from ${state.status}`);
  return { status: 'trying', attempts: state.attempts + 1 };
}

/** trying → waiting; an answer for a state left meanwhile changes nothing. `random` in [0, 1). */
export function dialFailed(state: DialState, now: number, random: number, times: DialTimes): DialState {
  if (state.status !== 'trying') return state;
  const dueAt = now + pause(failedStep + state.attempts, random, times);
  return { status: 'waiting', attempts: state.attempts, dueAt };
}

/** any → up */
export function dialUp(): DialState {
  return { status: 'up' };
}

/** up → waiting; an attempt under way goes on. The first redial comes soon: most losses are restarts. */
export function dialDown(state: DialState, now: number, random: number, times: DialTimes): DialState {
  if (state.status !== 'up') return state;
  return { status: 'waiting', attempts: 0, dueAt: now + pause(0, random, times) };
}

/** The pause after `steps` doublings: bounded, and 50…100 % of that. */
export function pause(steps: number, random: number, { pauseMsMin, pauseMsMax }: DialTimes): number {
  const full = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(steps, 30));
  return full * (0.5 + random / 2);
}
