import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type CID, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { hour, minute } from '../core/clock.ts';
import { Leases } from './leases.ts';
import { Receipts } from './receipts.ts';

test('a lease is renewed every five minutes while its upload lasts, so that its receipt stays good', async (t) => {
  const rig = new Rig(t);
  const [cid] = cids(1);
  await rig.leases.lease([cid]);
  rig.receipts.add(cid, 3);
  await rig.minutes(59);
  assert.equal(rig.staged.length, 1 + 11);
  assert.ok(rig.staged.every((each) => each.length === 1 && each[0]?.equals(cid)));
  assert.equal(rig.receipts.copies(cid), 3);
});

test('what is registered is renewed no more', async (t) => {
  const rig = new Rig(t);
  const [cid] = cids(1);
  rig.receipts.add(cid, 3);
  rig.receipts.settle([cid]);
  await rig.minutes(30);
  assert.deepEqual(rig.staged, []);
});

test('without a steward a receipt counts for less than a lease, and again once there is one', async (t) => {
  const rig = new Rig(t);
  const [cid] = cids(1);
  rig.receipts.add(cid, 3);
  rig.stewardIsAway = true;
  await rig.minutes(9);
  assert.equal(rig.receipts.copies(cid), 3);
  await rig.minutes(1);
  assert.equal(
    rig.receipts.copies(cid),
    undefined,
    'a lease of 15 minutes may have ended: the nodes are asked',
  );
  rig.stewardIsAway = false;
  await rig.minutes(1);
  assert.equal(rig.receipts.copies(cid), 3);
});

test('an upload of more than six hours is let go of', async (t) => {
  const rig = new Rig(t);
  const [cid] = cids(1);
  rig.receipts.add(cid, 3);
  await rig.minutes((6 * hour) / minute + 6);
  const before = rig.staged.length;
  await rig.minutes(30);
  assert.equal(rig.staged.length, before);
  assert.equal(rig.receipts.copies(cid), undefined);
});

test('requests of the same moment share a call, and no call names more than the steward takes', async (t) => {
  const rig = new Rig(t);
  const many = cids(1500);
  await Promise.all([rig.leases.lease(many.slice(0, 700)), rig.leases.lease(many.slice(700))]);
  assert.deepEqual(
    rig.staged.map(({ length }) => length),
    [1024, 476],
  );
});

test('requests that come while a call is under way share the next one, and wait for it', async (t) => {
  const rig = new Rig(t);
  const answered = Promise.withResolvers<void>();
  rig.answer = answered.promise;
  const [a, b, c] = cids(3);
  let isLeased = false;
  const first = rig.leases.lease([a]);
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  assert.ok(b !== undefined && c !== undefined);
  const later = Promise.all([rig.leases.lease([b]), rig.leases.lease([c])]).then(() => (isLeased = true));
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  assert.deepEqual([rig.staged, isLeased], [[[a]], false]);
  answered.resolve();
  await Promise.all([first, later]);
  assert.deepEqual(rig.staged, [[a], [b, c]]);
});

/** Leases at a steward that only writes down what it is asked, under a clock that the test moves. */
class Rig {
  readonly staged: (readonly CID[])[] = [];
  readonly receipts: Receipts;
  readonly leases: Leases;
  readonly #t: TestContext;
  stewardIsAway = false;
  /** What the steward does before it answers. */
  answer: Promise<void> = Promise.resolve();
  #now = 0;

  constructor(t: TestContext) {
    t.mock.timers.enable({ apis: ['setInterval'] });
    t.mock.method(console, 'error', () => undefined);
    this.#t = t;
    this.receipts = new Receipts(() => this.#now);
    this.leases = new Leases(async (some) => {
      if (this.stewardIsAway) throw new Error('away');
      this.staged.push(some);
      await this.answer;
    }, this.receipts);
    const stack = new AsyncDisposableStack();
    this.leases.keep(stack);
    t.after(() => stack.disposeAsync());
  }

  async minutes(count: number): Promise<void> {
    for (let at = 0; at < count; at++) {
      this.#now += minute;
      this.#t.mock.timers.tick(minute);
      for (let turn = 0; turn < 3; turn++) await nextTurn();
    }
  }
}

function cids(count: number): [CID, ...CID[]] {
  const cid = (at: number): CID => rawBlock(utf8(String(at))).cid;
  return [cid(0), ...Array.from({ length: count - 1 }, (_, at) => cid(at + 1))];
}
