// Two Pulses and one register, on virtual time: whoever is frozen, cut off or killed, never do both count.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isHoldfastError } from '../core/errors.ts';
import {
  encodeLease,
  isLeading,
  type LeaseEntry,
  type LeaseRecord,
  type LeaseState,
  parseLease,
  takeOver,
  watch,
} from './lease.ts';

const timing = { ttlMs: 6000, everyMs: 2000 };
const seed = { epoch: new Uint8Array(32).fill(9), nextIndex: 0 };
const record = (fields: Partial<LeaseRecord> = {}): LeaseRecord => ({
  token: 3,
  pulse: 'ab'.repeat(8),
  released: false,
  epoch: seed.epoch,
  nextIndex: 40,
  ...fields,
});

test('a record comes back as it went; anything else is refused', () => {
  assert.deepEqual(parseLease(encodeLease(record())), record());
  const text = encodeLease(record());
  for (const bad of [
    '',
    '{}',
    'null',
    text.replace('"v":1', '"v":2'),
    text.replace('"token":3', '"token":0'),
  ])
    assert.throws(
      () => parseLease(bad),
      (error) => isHoldfastError(error, 'RECORD_INVALID'),
    );
});

test('a record that changes is waited for, one that stands still is taken over, one given back at once', () => {
  const start = { kind: 'watching', revision: 0, seenAt: 0 } as const;
  const first = watch(start, { record: record(), revision: 5 }, 1000, timing);
  assert.deepEqual(first, { state: { kind: 'watching', revision: 5, seenAt: 1000 }, mayTake: false });
  const still = { record: record(), revision: 5 };
  assert.equal(watch(first.state, still, 8499, timing).mayTake, false);
  assert.equal(watch(first.state, still, 8500, timing).mayTake, true);
  assert.equal(watch(first.state, { record: record(), revision: 6 }, 8500, timing).mayTake, false);
  assert.equal(watch(start, { record: record({ released: true }), revision: 6 }, 1, timing).mayTake, true);
  assert.equal(watch(start, undefined, 7499, timing).mayTake, false);
  assert.equal(watch(start, undefined, 7500, timing).mayTake, true);
});

test('taking over raises the token and goes on behind what the one before may have used', () => {
  const taken = takeOver({ record: record(), revision: 5 }, seed, 'cd'.repeat(8), 100);
  assert.deepEqual(taken, record({ token: 4, pulse: 'cd'.repeat(8), nextIndex: 140 }));
  assert.equal(takeOver(undefined, { ...seed, nextIndex: 7 }, 'cd'.repeat(8), 1).nextIndex, 8);
  assert.equal(takeOver(undefined, seed, 'cd'.repeat(8), 1).token, 1);
});

/** What happens to one Pulse in a step of a quarter of a second. */
const fate = fc.constantFrom('runs', 'runs', 'runs', 'runs', 'frozen', 'cut-off', 'answer-lost', 'restarts');

test('under any mix of freezing, cutting off, lost answers and restarts at most one may send', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fate, fate), { minLength: 50, maxLength: 400 }), (steps) => {
      const register = new Register();
      const pulses = [new Model('aa', register), new Model('bb', register)];
      const used = new Map<number, number>();
      steps.forEach((fates, step) => {
        const now = step * 250;
        fates.forEach((what, which) => pulses[which]?.step(what, now));
        const leading = pulses.filter((pulse) => pulse.mayBeat(now));
        assert.ok(leading.length <= 1, `both at ${now}`);
        for (const pulse of leading) {
          const { token, index } = pulse.beat();
          assert.ok(!used.has(index), `index ${index} twice`);
          for (const [before, other] of used) assert.ok(other !== token || before < index);
          assert.ok(
            [...used.values()].every((other) => other <= token),
            'a token went back',
          );
          used.set(index, token);
        }
      });
    }),
    { numRuns: 60 },
  );
});

test('one that runs alone leads after a while and goes on leading', () => {
  const pulse = new Model('aa', new Register());
  for (let step = 0; step < 200; step++) pulse.step('runs', step * 250);
  assert.ok(pulse.mayBeat(50_000));
});

class Register {
  entry: LeaseEntry | undefined;

  write(next: LeaseRecord, expected: number): number | undefined {
    if ((this.entry?.revision ?? 0) !== expected) return undefined;
    this.entry = { record: next, revision: expected + 1 };
    return expected + 1;
  }
}

/** The decisions of `SharedLease`, one look every two seconds of virtual time. */
class Model {
  readonly #name: string;
  readonly #register: Register;
  #state: LeaseState = { kind: 'watching', revision: 0, seenAt: 0 };
  #lives = 0;
  #next = 0;
  #lookAt = 0;
  #isFrozen = false;

  constructor(name: string, register: Register) {
    this.#name = name;
    this.#register = register;
  }

  step(what: string, now: number): void {
    this.#isFrozen = what === 'frozen';
    if (what === 'restarts') {
      this.#lives++;
      this.#state = { kind: 'watching', revision: 0, seenAt: now };
    }
    if (this.#isFrozen || what === 'cut-off' || now < this.#lookAt) return;
    this.#lookAt = now + timing.everyMs;
    this.#look(what === 'answer-lost', now);
  }

  mayBeat(now: number): boolean {
    return !this.#isFrozen && isLeading(this.#state, now) && this.#next < this.#state.record.nextIndex;
  }

  beat(): { readonly token: number; readonly index: number } {
    assert(this.#state.kind === 'leading');
    return { token: this.#state.record.token, index: this.#next++ };
  }

  #look(isAnswerLost: boolean, now: number): void {
    const found = this.#register.entry;
    if (this.#state.kind === 'leading') return this.#renew(this.#state, isAnswerLost, now);
    const { state, mayTake } = watch(this.#state, found, now, timing);
    this.#state = state;
    if (!mayTake) return;
    const pulse = `${this.#name}${this.#lives.toString(16).padStart(14, '0')}`;
    const record = takeOver(found, seed, pulse, 30);
    const revision = this.#register.write(record, found?.revision ?? 0);
    if (revision === undefined || isAnswerLost) return;
    const firstIndex = found?.record.nextIndex ?? 0;
    this.#next = firstIndex;
    this.#state = { kind: 'leading', record, revision, firstIndex, until: now + timing.ttlMs };
  }

  #renew(state: Extract<LeaseState, { kind: 'leading' }>, isAnswerLost: boolean, now: number): void {
    if (now >= state.until) {
      this.#state = { kind: 'watching', revision: 0, seenAt: now };
      return;
    }
    const record = { ...state.record, nextIndex: Math.max(state.record.nextIndex, this.#next + 30) };
    const revision = this.#register.write(record, state.revision);
    if (isAnswerLost) return;
    if (revision !== undefined) this.#state = { ...state, record, revision, until: now + timing.ttlMs };
    else {
      const found = this.#register.entry;
      const isOurs = found?.record.token === record.token && found.record.pulse === record.pulse;
      this.#state =
        found !== undefined && isOurs
          ? { ...state, record: found.record, revision: found.revision }
          : { kind: 'watching', revision: 0, seenAt: now };
    }
  }
}
