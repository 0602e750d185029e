import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type CID, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { day, hour, second } from '../core/clock.ts';
import { scrubOwed, Scrubber, stepBytesMax } from './scrub.ts';

const mebibyte = 1_048_576;

/** A store of equal blocks of which each step checks as many as its budget allows, at least one. */
function storeOf(blocks: number, corrupt: readonly CID[] = []) {
  let position = 0;
  return {
    checked: 0,
    broken: false,
    usage: () => ({ blocks, bytes: blocks * mebibyte, freeBytes: 0, state: 'ready' as const }),
    async scrubStep(budgetBytes: number) {
      if (this.broken) throw new Error('no file handles');
      const count = Math.min(Math.max(1, Math.floor(budgetBytes / mebibyte)), blocks - position);
      position = (position + count) % blocks;
      this.checked += count;
      return { checked: count, checkedBytes: count * mebibyte, corrupt, cursor: '', done: position === 0 };
    },
  };
}

test('a pass takes its period: stepping every second for a day reads everything once', async () => {
  const store = storeOf(1000);
  const clock = { at: 0, now: () => 0, monotonic: () => clock.at };
  const scrubber = new Scrubber(store, clock, {}, async () => undefined);
  for (clock.at = 0; clock.at <= day; clock.at += 60 * second) await scrubber.step();
  assert.ok(Math.abs(store.checked - 1000) <= 1, `${store.checked} of 1000`);
});

test('at each beat so many blocks are checked at least, and no more if the clock was faster', async () => {
  const store = storeOf(1000);
  const clock = { at: 0, now: () => 0, monotonic: () => clock.at };
  const scrubber = new Scrubber(store, clock, { blocksPerBeat: 5 }, async () => undefined);
  await scrubber.beat();
  assert.equal(store.checked, 5);
  clock.at = hour;
  await scrubber.step();
  const byClock = store.checked - 5;
  assert.ok(byClock > 5);
  await scrubber.beat();
  assert.equal(store.checked, 5 + byClock);
});

test('damage is told and counted; a store that fails is shown and tried again', async () => {
  const { cid } = rawBlock(utf8('damaged'));
  const told: CID[] = [];
  const clock = { now: () => 7, monotonic: () => 0 };
  const store = storeOf(1, [cid]);
  const scrubber = new Scrubber(store, clock, {}, async (cids) => void told.push(...cids));
  await scrubber.beat();
  assert.deepEqual([told, scrubber.status().corruptCount, scrubber.status().passEndedAt], [[cid], 1, 7]);
  store.broken = true;
  await scrubber.beat();
  assert.equal(scrubber.status().trouble, 'no file handles');
  store.broken = false;
  await scrubber.beat();
  assert.equal(scrubber.status().trouble, null);
});

test('an empty store owes nothing and ends its beat', async () => {
  const store = { ...storeOf(0), scrubStep: () => assert.fail('nothing to read') };
  const scrubber = new Scrubber(store, { now: () => 0, monotonic: () => 0 }, {}, async () => undefined);
  await scrubber.beat();
  await scrubber.step();
  assert.equal(scrubber.status().trouble, null);
});

test('what is owed never exceeds one step, and never shrinks by waiting', () => {
  const amount = fc.double({ min: 0, max: 1e15, noNaN: true });
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: stepBytesMax, noNaN: true }),
      amount,
      amount,
      (owed, total, elapsed) => {
        const next = scrubOwed(owed, total, elapsed, day);
        assert.ok(next >= owed && next <= stepBytesMax);
      },
    ),
  );
});
