// Somebody who is being started: not connected, then connected, then answering.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type ErrorCode, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { onceUp } from './coming-up.ts';

const patienceMs = 1000;
const stepMs = 100;

describe('who is being started', () => {
  test('is called once it is connected', async () => {
    const site = new Site({ connectedAtMs: 300, answersAtMs: 300 });
    assert.equal(await site.order(), 'done');
    assert.deepEqual(site.calledAtMs, [300]);
  });

  test('is called again until it answers such calls', async () => {
    const site = new Site({ connectedAtMs: 200, answersAtMs: 500 });
    assert.equal(await site.order(), 'done');
    assert.deepEqual(site.calledAtMs, [200, 300, 400, 500]);
  });

  test('and does not come to it in time, has refused', async () => {
    const site = new Site({ connectedAtMs: 0, answersAtMs: Infinity });
    await assert.rejects(site.order(), (error) => isHoldfastError(error, 'PEER_REFUSED'));
    assert.equal(site.calledAtMs.at(-1), patienceMs);
  });

  test('and is never there, is called at the end', async () => {
    const site = new Site({ connectedAtMs: Infinity, answersAtMs: 0, failure: 'PEER_UNREACHABLE' });
    await assert.rejects(site.order(), (error) => isHoldfastError(error, 'PEER_UNREACHABLE'));
    assert.deepEqual(site.calledAtMs, [patienceMs]);
  });

  test('is not given a second time what it may have carried out', async () => {
    for (const failure of ['TIMEOUT', 'PEER_UNREACHABLE', 'PEER_REFUSED'] as const) {
      const site = new Site({ connectedAtMs: 0, answersAtMs: 0, failure });
      await assert.rejects(site.order(), (error) => isHoldfastError(error, failure));
      assert.deepEqual(site.calledAtMs, [0]);
    }
  });
});

interface Course {
  readonly connectedAtMs: number;
  readonly answersAtMs: number;
  /** Instead of an answer. */
  readonly failure?: ErrorCode;
}

class Site {
  readonly calledAtMs: number[] = [];
  readonly #course: Course;
  #nowMs = 0;

  constructor(course: Course) {
    this.#course = course;
  }

  order(): Promise<string> {
    const ports = {
      isConnected: () => this.#nowMs >= this.#course.connectedAtMs,
      now: () => this.#nowMs,
      pause: async () => {
        this.#nowMs += stepMs;
      },
    };
    return onceUp(ports, patienceMs, async () => this.#call());
  }

  #call(): string {
    const { answersAtMs, failure } = this.#course;
    this.calledAtMs.push(this.#nowMs);
    if (this.#nowMs < answersAtMs)
      throw new HoldfastError('PEER_REFUSED', 'no calls of that name', { details: { method: 'order' } });
    if (failure !== undefined) throw new HoldfastError(failure, 'it did not work');
    return 'done';
  }
}
