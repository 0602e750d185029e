// The ledger and the view of objects against a dumb model of both: plain maps, everything recomputed.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ClassicLevel } from 'classic-level';
import * as fc from 'fast-check';
import { type CID, cborBlock, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import type { CatalogueObject } from './catalogue.ts';
import { blockClasses, classify, makeSight, type SightState, type Wanted } from './classes.ts';
import { merged } from './demand.ts';
import { DigestSum } from './digest-sum.ts';
import { LevelLedgerStore } from './ledger-level.ts';
import { Ledger } from './ledger.ts';
import { livenessOf } from './liveness.ts';
import { objectStatuses } from './status.ts';
import { ObjectView } from './view.ts';

const blocks = Array.from(
  { length: 12 },
  (_, at) => (at % 3 === 0 ? cborBlock({ at }) : rawBlock(utf8(`${at}`))).cid,
);
const zones = ['a', 'a', 'b', 'c'];
const states: readonly SightState[] = ['up', 'suspect', 'down', 'unknown'];
const now = 1_790_000_000_000;

type Command =
  | { readonly do: 'hold' | 'unhold' | 'bad' | 'prove'; readonly block: number; readonly node: number }
  | { readonly do: 'state'; readonly node: number; readonly state: SightState }
  | {
      readonly do: 'object';
      readonly name: number;
      readonly root: number | null;
      readonly records: number[];
      readonly min: number;
    };

const block = fc.nat(blocks.length - 1);
const node = fc.nat(zones.length - 1);
const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    fc.record({
      do: fc.constantFrom(
        'hold' as const,
        'hold' as const,
        'unhold' as const,
        'bad' as const,
        'prove' as const,
      ),
      block,
      node,
    }),
    fc.record({ do: fc.constant('state' as const), node, state: fc.constantFrom(...states) }),
    fc.record({
      do: fc.constant('object' as const),
      name: fc.nat(3),
      root: fc.option(block),
      records: fc.array(block, { maxLength: 3 }),
      min: fc.integer({ min: 1, max: 3 }),
    }),
  ),
  { maxLength: 60 },
);

/** What the ledger and the view ought to say, recomputed from nothing at every question. */
class Model {
  readonly held = new Map<string, Set<number>>();
  readonly bad = new Map<string, Set<number>>();
  readonly proven = new Map<string, Set<number>>();
  readonly objects = new Map<
    number,
    { root: CID | null; records: CID[]; policy: CatalogueObject['policy'] }
  >();
  readonly states: SightState[] = zones.map(() => 'up');

  sight(): ReturnType<typeof makeSight> {
    return makeSight(
      zones.map((zone, at) => ({ zone, state: this.states[at] ?? 'up', accepting: at !== 3 })),
      0,
    );
  }

  cidsOf(name: number): Map<string, CID> {
    const object = this.objects.get(name);
    const list = [...(object?.records ?? []), ...(object?.root ? [object.root] : [])];
    return new Map(list.map((cid) => [cid.toString(), cid]));
  }

  wanted(cid: CID): Wanted | undefined {
    const asked = [...this.objects.keys()]
      .filter((name) => this.cidsOf(name).has(cid.toString()))
      .map((name) => this.objects.get(name)?.policy ?? { min: 0, max: 0, zones: 0 })
      .map((policy) => ({ ...policy, target: cid.code === 0x55 ? policy.min : policy.max }));
    const first = asked[0];
    return first === undefined ? undefined : asked.reduce(merged, first);
  }

  classOf(cid: CID): string {
    const wanted = this.wanted(cid);
    const holders = [...(this.held.get(cid.toString()) ?? [])].sort((a, b) => a - b);
    if (wanted === undefined) return holders.length === 0 ? 'none' : 'unreferenced';
    const bad = this.bad.get(cid.toString());
    const proven = this.proven.get(cid.toString());
    const claimed = new Set(holders.filter((node) => proven?.has(node) !== true));
    return classify(holders, bad?.size ? bad : undefined, claimed, wanted, this.sight(), false).class;
  }
}

function run(view: ObjectView, model: Model, command: Command): void {
  if (command.do === 'state') {
    model.states[command.node] = command.state;
    view.ledger.doubtAll();
    return;
  }
  if (command.do === 'object') {
    const root = command.root === null ? null : (blocks[command.root] ?? null);
    const records = command.records.flatMap((at) => blocks[at] ?? []);
    const policy = { min: command.min, max: command.min + 1, zones: Math.min(2, command.min) };
    const manifest = rawBlock(utf8(`manifest ${command.name}`)).cid;
    model.objects.set(command.name, { root, records, policy });
    view.apply(
      {
        manifest,
        address: `${command.name}`,
        version: 1,
        type: 'object',
        policy,
        root,
        records,
        sizeBytes: 0,
      },
      now,
    );
    return;
  }
  const cid = blocks[command.block];
  assert.ok(cid);
  const id = cid.toString();
  const held = model.held.get(id) ?? new Set();
  const bad = model.bad.get(id) ?? new Set();
  model.held.set(id, held);
  model.bad.set(id, bad);
  const proven = model.proven.get(id) ?? new Set();
  model.proven.set(id, proven);
  if (command.do === 'hold') {
    held.add(command.node);
    view.ledger.hold(cid, command.node, 10, now);
  }
  const slot = view.ledger.find(cid);
  if (slot < 0 || !held.has(command.node)) return;
  if (command.do === 'unhold') {
    held.delete(command.node);
    bad.delete(command.node);
    proven.delete(command.node);
    view.ledger.unhold(slot, command.node);
  } else if (command.do === 'bad') {
    bad.add(command.node);
    proven.delete(command.node);
    view.ledger.markBad(slot, command.node);
  } else if (command.do === 'prove') {
    bad.delete(command.node);
    proven.add(command.node);
    view.ledger.prove(slot, command.node, now);
  }
}

function settle(view: ObjectView, model: Model): void {
  while (!view.ledger.settle(model.sight(), now)) continue;
}

test('ledger and view say what the model says, after any history', () => {
  fc.assert(
    fc.property(commands, fc.nat(5), (list, every) => {
      const view = new ObjectView();
      const model = new Model();
      for (const zone of zones.keys()) view.ledger.node(`n${zone}`);
      for (const [at, command] of list.entries()) {
        run(view, model, command);
        if (every > 0 && at % every === 0) settle(view, model);
      }
      settle(view, model);
      compare(view, model);
    }),
    { numRuns: 400 },
  );
});

function compare(view: ObjectView, model: Model): void {
  const { ledger } = view;
  const counts = new Map<string, number>();
  for (const cid of blocks) {
    const slot = ledger.find(cid);
    const expected = model.classOf(cid);
    assert.equal(slot < 0 ? 'none' : ledger.class(slot), expected, cid.toString());
    if (expected !== 'none') counts.set(expected, (counts.get(expected) ?? 0) + 1);
    if (slot >= 0)
      assert.deepEqual(
        ledger.holderNodes(slot),
        [...(model.held.get(cid.toString()) ?? [])].sort((a, b) => a - b),
      );
  }
  for (const name of blockClasses.slice(1)) {
    const pendingIndexes = counts.get(name) ?? 0;
    assert.equal(ledger.countOf(name), pendingIndexes, name);
  }
  for (const at of zones.keys()) {
    const mine = blocks.filter((cid) => model.held.get(cid.toString())?.has(at));
    const sum = new DigestSum();
    for (const cid of mine) sum.add(cid.multihash.digest);
    assert.deepEqual(ledger.totals(at), { blocks: mine.length, bytes: 10 * mine.length, sum: sum.bytes() });
  }
  const total = objectStatuses.reduce((sum, status) => sum + view.countOf(status), 0);
  assert.equal(total, model.objects.size);
  for (const name of model.objects.keys()) {
    const found = view.find(rawBlock(utf8(`manifest ${name}`)).cid);
    assert.deepEqual(
      new Set([...(found?.slots ?? [])].map((slot) => ledger.cid(slot).toString())),
      new Set(model.cidsOf(name).keys()),
    );
  }
}

test('digest sums: order does not matter, subtraction undoes', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 })), (digests) => {
      const sum = new DigestSum();
      for (const digest of digests) sum.add(digest);
      const expected = digests.reduce(
        (total, digest) => (total + BigInt(`0x${Buffer.from(digest).toString('hex')}`)) % 2n ** 256n,
        0n,
      );
      assert.equal(Buffer.from(sum.bytes()).toString('hex'), expected.toString(16).padStart(64, '0'));
      for (const digest of digests.toReversed()) sum.subtract(digest);
      assert.deepEqual(sum.bytes(), new Uint8Array(32));
    }),
  );
});

test('more than 32 nodes: masks widen and keep what they had', () => {
  const ledger = new Ledger();
  const cid = blocks[1];
  assert.ok(cid);
  for (let at = 0; at < 100; at++) ledger.hold(cid, ledger.node(`n${at}`), 10, now);
  assert.deepEqual(
    ledger.holderNodes(ledger.find(cid)),
    Array.from({ length: 100 }, (_, at) => at),
  );
});

test('liveness: unknown until heard or grace, suspect, down, and listing until the inventory is known', () => {
  const settings = { suspectMs: 3_000, graceMs: 10_000 };
  const never = { listeningSince: 0, heardAt: undefined, listed: false };
  assert.equal(livenessOf(never, 9_999, settings), 'unknown');
  assert.equal(livenessOf(never, 10_000, settings), 'down');
  const heard = { listeningSince: 0, heardAt: 20_000, listed: true };
  assert.equal(livenessOf({ ...heard, listed: false }, 20_001, settings), 'listing');
  assert.equal(livenessOf(heard, 22_999, settings), 'up');
  assert.equal(livenessOf(heard, 23_000, settings), 'suspect');
  assert.equal(livenessOf(heard, 30_000, settings), 'down');
});

test('the store brings back holders, proofs and positions; a flipped bit costs a listing, not a lie', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-ledger-'));
  t.after(() => rm(path, { recursive: true }));
  const ledger = new Ledger({ track: true });
  for (const [at, cid] of blocks.entries()) {
    const slot = ledger.hold(cid, ledger.node(`n${at % 3}`), 100 + at, now);
    if (at % 2 === 0) ledger.prove(slot, at % 3, now);
  }
  const positions = new Map([['n0', { epoch: 'e', seq: 7 }]]);
  const store = await LevelLedgerStore.open(path);
  await store.save(ledger, positions);
  const gone = ledger.find(blocks[4] ?? blocks[0] ?? assert.fail());
  for (const at of ledger.holderNodes(gone)) ledger.unhold(gone, at);
  while (!ledger.settle(makeSight([], 0), now)) continue;
  await store.save(ledger, positions);
  const again = new Ledger({ track: true });
  assert.deepEqual(await store.load(again, now), positions);
  for (const cid of blocks) {
    const slot = ledger.find(cid);
    const loaded = again.find(cid);
    assert.equal(loaded < 0, slot < 0);
    if (slot < 0) continue;
    assert.deepEqual(again.holders(loaded), ledger.holders(slot));
    assert.equal(again.sizeBytes(loaded), ledger.sizeBytes(slot));
  }
  assert.equal(again.size, blocks.length - 1);
  await store[Symbol.asyncDispose]();
  await flip(path);
  const damaged = await LevelLedgerStore.open(path);
  const third = new Ledger();
  assert.deepEqual(await damaged.load(third, now), new Map());
  assert.equal(third.size, blocks.length - 2);
  await damaged[Symbol.asyncDispose]();
});

/** Flips one bit in the value of one block. */
async function flip(path: string): Promise<void> {
  const db = new ClassicLevel<Uint8Array, Uint8Array>(path, { keyEncoding: 'view', valueEncoding: 'view' });
  for await (const [key, value] of db.iterator({ gte: Uint8Array.of(0x62), limit: 1 })) {
    value[10] = (value[10] ?? 0) ^ 1;
    await db.put(key, value);
  }
  await db.close();
}
