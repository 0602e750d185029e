// A ledger of more blocks than there is room for at first: every table has grown, and none has forgotten anything.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { makeSight } from './classes.ts';
import { Ledger } from './ledger.ts';
import { slotsAtFirst } from './slot-table.ts';

const now = 1_790_000_000_000;
const blocksCount = 3 * slotsAtFirst;
const wanted = { min: 2, target: 2, max: 3, zones: 1 };
const cids = Array.from({ length: blocksCount }, (_, at) => rawBlock(utf8(`block ${at}`)).cid);
const nodes = ['one', 'two', 'three'];
const sight = makeSight(
  nodes.map((zone) => ({ state: 'up', zone, accepting: true })),
  0,
);

/** Block `at` is held and proven by one node more than `at` modulo 3, and every fourth is wanted by nobody. */
function filled(): Ledger {
  const ledger = new Ledger({ track: true });
  for (const name of nodes) ledger.node(name);
  for (const [at, cid] of cids.entries()) {
    for (let node = 0; node <= at % 3; node++)
      ledger.prove(ledger.hold(cid, node, 1000 + at, now), node, now + 1000 * at);
    if (at % 4 !== 0) ledger.reference(cid, wanted, now);
  }
  while (!ledger.settle(sight, now + 1));
  return ledger;
}

test('holders, proofs, sizes, policies and classes are what they were', () => {
  const ledger = filled();
  assert.equal(ledger.size, blocksCount);
  for (const [at, cid] of cids.entries()) {
    const slot = ledger.find(cid);
    assert.equal(ledger.cid(slot).toString(), cid.toString());
    assert.equal(ledger.sizeBytes(slot), 1000 + at);
    assert.deepEqual(ledger.holderNodes(slot), [0, 1, 2].slice(0, 1 + (at % 3)));
    assert.equal(ledger.provenAt(slot, at % 3), now + 1000 * at);
    assert.equal(ledger.references(slot), at % 4 === 0 ? 0 : 1);
    if (at % 4 !== 0) assert.deepEqual(ledger.wanted(slot), wanted);
    const expected = ['lastCopy', 'healthy', 'healthy'][at % 3] ?? '';
    assert.equal(ledger.class(slot), at % 4 === 0 ? 'unreferenced' : expected, `block ${at}`);
  }
});

test('every list of a class names its blocks once, and what is to be saved is all of them', () => {
  const ledger = filled();
  for (const name of ['unreferenced', 'lastCopy'] as const) {
    const slots = ledger.sample(name, 0, blocksCount);
    assert.equal(new Set(slots).size, ledger.countOf(name));
    assert.ok(slots.every((slot) => ledger.class(slot) === name));
  }
  assert.equal(ledger.countOf('unreferenced'), blocksCount / 4);
  const { slots } = ledger.takeTouched(Number.MAX_SAFE_INTEGER);
  assert.equal(slots.length, blocksCount, 'each once');
  assert.equal(new Set(slots).size, blocksCount);
});

test('what nobody holds any more is forgotten, and the rest is found', () => {
  const ledger = filled();
  const gone = cids.filter((_, at) => at % 4 === 0);
  for (const cid of gone) {
    const slot = ledger.find(cid);
    for (const node of ledger.holderNodes(slot)) ledger.unhold(slot, node);
  }
  while (!ledger.settle(sight, now + 2));
  assert.ok(gone.every((cid) => ledger.find(cid) === -1));
  assert.equal(ledger.size, blocksCount - gone.length);
  assert.equal(cids.filter((cid) => ledger.find(cid) >= 0).length, ledger.size);
  assert.equal(ledger.takeTouched(0).removed.length, gone.length);
});

test('a block is judged once, however often something happened to it', () => {
  const ledger = new Ledger();
  for (const name of nodes) ledger.node(name);
  for (const cid of cids) for (const node of nodes.keys()) ledger.hold(cid, node, 1000, now);
  assert.equal(ledger.settle(sight, now, blocksCount - 1), false, 'one is left');
  assert.equal(ledger.settle(sight, now, 1), true);
});
