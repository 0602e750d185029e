// How many keys are given in one bar: to one requester, of one project and class, and to all together.
//
// The last is the circuit breaker: once it has tripped nothing more is given in this bar, whoever approves. A
// burst that breaks the other two needs the signature of an approver. Counts begin anew with each bar and never
// for an earlier one. Counters are bounded; where there is no room for another the answer is no.

import { toHex } from '../core/bytes.ts';
import { budgetCountersMax } from '../core/limits.ts';
import type { ContentClass } from '../envelope/aad.ts';
import { refusal, type Refusal } from './refusal.ts';

/** Whose count an item goes to. */
export interface Spender {
  readonly requester: Uint8Array;
  readonly project: string;
  readonly cls: ContentClass;
}

/** Keys per bar. */
export interface BudgetLimits {
  readonly requesterMax: number;
  readonly projectMax: number;
  readonly allMax: number;
}

export class Budgets {
  readonly #countersMax: number;
  #bar = -1;
  #all = 0;
  #counts = new Map<string, number>();

  constructor(countersMax: number = budgetCountersMax) {
    this.#countersMax = countersMax;
  }

  /** Counts one item in `bar`, or says why not. `burst`: an approver signed for more than the budget. */
  take(spender: Spender, limits: BudgetLimits, bar: number, burst: boolean): Refusal | undefined {
    this.#begin(bar);
    if (this.#all >= limits.allMax)
      return refusal(
        'breaker',
        `${limits.allMax} keys were given in this bar: the circuit breaker is open until the next`,
      );
    const problem = burst ? undefined : this.#problem(spender, limits);
    if (problem !== undefined) return problem;
    const keys = [requesterKey(spender), projectKey(spender)];
    const added = keys.filter((key) => !this.#counts.has(key)).length;
    if (this.#counts.size + added > this.#countersMax)
      return refusal('overloaded', 'too many different requesters in this bar');
    for (const key of keys) this.#counts.set(key, this.#count(key) + 1);
    this.#all++;
    return undefined;
  }

  /** Items given in the current bar, for status pages. */
  get given(): { readonly bar: number; readonly items: number } {
    return { bar: this.#bar, items: this.#all };
  }

  #begin(bar: number): void {
    if (bar <= this.#bar) return;
    this.#bar = bar;
    this.#all = 0;
    this.#counts = new Map();
  }

  #problem(spender: Spender, { requesterMax, projectMax }: BudgetLimits): Refusal | undefined {
    if (this.#count(requesterKey(spender)) >= requesterMax)
      return refusal('budget', `the capability gives ${requesterMax} keys per bar, and they are used up`);
    if (this.#count(projectKey(spender)) >= projectMax)
      return refusal(
        'budget',
        `the policy gives ${projectMax} ${spender.cls} keys of ${spender.project} per bar, and they are used up`,
      );
    return undefined;
  }

  #count(key: string): number {
    return this.#counts.get(key) ?? 0;
  }
}

function requesterKey({ requester }: Spender): string {
  return `r/${toHex(requester)}`;
}

function projectKey({ project, cls }: Spender): string {
  return `p/${cls}/${project}`;
}
