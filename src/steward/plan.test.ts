// The planner against a small world: seven nodes that are killed, return, are wiped and rot, within a
// budget of faults. Belief (the ledger) is told late; truth is checked after every step.
//
// Watched: no block without a good copy, copies converge to what is wanted, flaps move nothing that has
// its minimum, deletions never go below the target or the zones. Not watched: the network, disks, time-outs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type CID, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { makeSight, type SightState } from './classes.ts';
import { type Plan, plan, type PlanAction, type PlanBudget, type PlanNode, type PlanView } from './plan.ts';
import { defaultStewardSettings } from './settings.ts';
import { ObjectView } from './view.ts';

const budget: PlanBudget = { ...defaultStewardSettings.budget, leaseMs: 60_000 };
const policy = { min: 3, max: 5, zones: 3 };
const zoneNames = ['a', 'a', 'a', 'b', 'b', 'c', 'c'];
const graceMs = 10_000;
const suspectMs = 3_000;

interface SimNode {
  readonly name: string;
  readonly zone: string;
  up: boolean;
  heardAt: number;
  /** True blocks: name to whether the bytes are good. */
  readonly disk: Map<string, boolean>;
}

/** One cluster in memory: truth on the nodes, belief in the view, and a step that is one beat. */
class World {
  readonly view = new ObjectView();
  readonly cids = new Map<string, CID>();
  readonly nodes: SimNode[];
  now = 1_790_000_000_000;
  round = 0;
  copies = 0;
  last: Plan | undefined;

  constructor(blocks: number, zones: readonly string[] = zoneNames) {
    this.nodes = zones.map((zone, at) => ({
      name: `n${at}`,
      zone,
      up: true,
      heardAt: this.now,
      disk: new Map(),
    }));
    for (const node of this.nodes) this.view.ledger.node(node.name);
    for (let at = 0; at < blocks; at++) this.put(`block ${at}`, at);
  }

  /** Stores one block on three nodes of three zones, as the put path does, and registers it. */
  put(text: string, salt: number): void {
    const { cid } = rawBlock(utf8(text));
    this.cids.set(cid.toString(), cid);
    const zones = [...new Set(this.nodes.map((node) => node.zone))];
    for (const zone of zones.slice(0, policy.min)) {
      const inZone = this.nodes.filter((node) => node.zone === zone && node.up);
      inZone[salt % inZone.length]?.disk.set(cid.toString(), true);
    }
    this.view.apply(
      {
        manifest: cid,
        address: text,
        version: 1,
        type: 'object',
        policy,
        root: cid,
        records: [],
        sizeBytes: 1,
      },
      this.now,
    );
  }

  beat(): Plan {
    this.now += 1_000;
    this.round++;
    this.#listen();
    const states = this.nodes.map((node) => this.#state(node));
    const sight = makeSight(
      this.nodes.map((node, at) => ({ zone: node.zone, accepting: true, state: states[at] ?? 'down' })),
      0,
    );
    this.view.ledger.doubtAll();
    while (!this.view.ledger.settle(sight, this.now)) continue;
    const decided = plan(this.planView(states), this.now, budget);
    assert.deepEqual(plan(this.planView(states), this.now, budget), decided, 'same input, same output');
    for (const action of decided.actions) this.#apply(action);
    this.last = decided;
    return decided;
  }

  planView(states: readonly SightState[]): PlanView {
    const nodes: PlanNode[] = this.nodes.map((node, at) => ({
      peer: node.name,
      name: node.name,
      zone: node.zone,
      host: node.name,
      state: states[at] ?? 'down',
      since: node.heardAt,
      freeBytes: 1e9,
    }));
    return {
      ledger: this.view.ledger,
      nodes,
      round: this.round,
      mine: () => true,
      stewards: 1,
      catalogueDoubt: undefined,
      underway: () => [],
      backoff: () => undefined,
    };
  }

  good(id: string): SimNode[] {
    return this.nodes.filter((node) => node.disk.get(id) === true);
  }

  #state(node: SimNode): SightState {
    const silent = this.now - node.heardAt;
    if (silent < suspectMs) return 'up';
    return silent < graceMs ? 'suspect' : 'down';
  }

  /** Belief follows truth of the nodes that answer; scrub and challenges find what is rotten. */
  #listen(): void {
    const { ledger } = this.view;
    for (const [number, node] of this.nodes.entries()) {
      if (!node.up) continue;
      node.heardAt = this.now;
      for (const [id, cid] of this.cids) {
        const slot = ledger.find(cid);
        const truth = node.disk.get(id);
        if (truth === undefined) {
          if (slot >= 0) ledger.unhold(slot, number);
          continue;
        }
        const held = ledger.hold(cid, number, 100, this.now);
        if (truth) ledger.prove(held, number, this.now);
        else ledger.markBad(held, number);
      }
    }
  }

  #apply(action: PlanAction): void {
    const id = action.cid.toString();
    const target = this.nodes[action.target];
    if (target?.up !== true) return; // nobody answers: nothing happens
    assert.notEqual(action.reason, '');
    if (action.kind === 'copy') {
      const source = action.sources
        .map((at) => this.nodes[at])
        .find((node) => node?.up && node.disk.get(id) === true);
      if (source === undefined) return;
      target.disk.set(id, true);
      this.copies++;
    } else if (action.kind === 'delete-corrupt') {
      assert.equal(target.disk.get(id), false, 'a good copy was deleted as corrupt');
      target.disk.delete(id);
    } else if (action.kind !== 'prove') {
      target.disk.delete(id);
      const left = this.good(id).filter((node) => node.up);
      assert.ok(action.kind === 'collect' || left.length >= policy.max, 'trimmed below the maximum');
      assert.ok(action.kind === 'collect' || new Set(left.map((node) => node.zone)).size >= policy.zones);
    }
  }
}

/** Steps until nothing is deficient, at most `beats`. */
function converge(world: World, beats = 60): void {
  for (let at = 0; at < beats; at++) {
    world.beat();
    if (at > 12 && world.last?.actions.length === 0) return;
  }
}

test('a killed node is healed: last copies before others, back to the minimum in three zones', () => {
  const world = new World(50);
  converge(world);
  assert.equal(world.copies, 0);
  assert.equal(world.view.countOf('healthy'), 50);
  const victim = world.nodes[3];
  assert.ok(victim);
  const held = victim.disk.size;
  assert.ok(held > 0);
  victim.up = false;
  victim.disk.clear();
  converge(world);
  assert.equal(world.copies, held);
  for (const id of world.cids.keys()) {
    assert.ok(world.good(id).length >= policy.min);
    assert.equal(new Set(world.good(id).map((node) => node.zone)).size, 3);
  }
  assert.equal(world.view.countOf('healthy'), 50);
});

test('order: the block with one copy comes before those with two', () => {
  const world = new World(20);
  converge(world);
  const id = [...world.cids.keys()][7] ?? '';
  for (const node of world.good(id).slice(1)) node.disk.delete(id);
  for (const other of world.cids.keys()) if (other !== id) world.good(other)[0]?.disk.delete(other);
  const { actions } = world.beat();
  assert.equal(actions[0]?.cid.toString(), id);
  assert.equal(actions[1]?.cid.toString(), id);
  assert.equal(actions[0]?.urgency, 'lastCopy');
  assert.match(actions[0]?.reason ?? '', /one copy left of at least 3/);
  assert.equal(actions.length, 2 + 19);
});

test('flaps: absences shorter than suspicion move nothing, and shorter than grace nothing that has its minimum', () => {
  const world = new World(40);
  converge(world);
  for (let flap = 0; flap < 100; flap++) {
    const node = world.nodes[flap % world.nodes.length];
    assert.ok(node);
    node.up = false;
    world.beat();
    world.beat();
    node.up = true;
    world.beat();
  }
  assert.equal(world.copies, 0);
  for (const id of world.cids.keys()) {
    // one copy more than the minimum, so that an absence leaves the minimum
    world.nodes.find((node) => !node.disk.has(id))?.disk.set(id, true);
  }
  converge(world);
  const before = world.copies;
  for (let flap = 0; flap < 50; flap++) {
    const node = world.nodes[flap % world.nodes.length];
    assert.ok(node);
    node.up = false;
    for (let beat = 0; beat < 9; beat++) world.beat();
    node.up = true;
    world.beat();
  }
  assert.equal(world.copies, before);
});

test('surplus: a returned node makes more than the maximum; proven copies stay, the rest goes', () => {
  const world = new World(10);
  for (const id of world.cids.keys()) for (const node of world.nodes) node.disk.set(id, true);
  converge(world);
  for (const id of world.cids.keys()) {
    assert.equal(world.good(id).length, policy.max);
    assert.equal(new Set(world.good(id).map((node) => node.zone)).size, 3);
  }
  assert.equal(world.copies, 0);
});

test('surplus with old proofs: asked for first, nothing deleted; nor while a node is in doubt', () => {
  const world = new World(1);
  const { ledger } = world.view;
  const cid = [...world.cids.values()][0];
  assert.ok(cid);
  for (const node of world.nodes.keys()) ledger.hold(cid, node, 100, world.now);
  const decide = (states: readonly SightState[]): Plan => {
    const nodes = states.map((state, at) => ({ state, zone: zoneNames[at] ?? '', accepting: true }));
    ledger.doubtAll();
    while (!ledger.settle(makeSight(nodes, 0), world.now)) continue;
    return plan(world.planView(states), world.now, budget);
  };
  const up: SightState[] = zoneNames.map(() => 'up');
  assert.deepEqual(decide(up).actions, []); // what is only listed is no surplus either
  for (const node of world.nodes.keys())
    ledger.prove(ledger.find(cid), node, world.now - 2 * budget.proofAgeMsMax);
  assert.deepEqual(new Set(decide(up).actions.map((action) => action.kind)), new Set(['prove']));
  for (const node of world.nodes.keys()) ledger.prove(ledger.find(cid), node, world.now);
  assert.deepEqual(
    decide(up).actions.map((action) => action.kind),
    ['trim', 'trim'],
  );
  const doubtful = decide(up.with(6, 'suspect'));
  assert.deepEqual(doubtful.actions, []);
  assert.match(saidOf(doubtful), /trimming surplus: n6 is suspect/);
});

/** What a plan says it does not do. */
function saidOf({ summary }: Pick<Plan, 'summary'>): string {
  return summary.suspended.map(({ reason }) => reason).join();
}

test('only what normal work does not bring about is said to last', () => {
  const world = new World(1);
  const lasting = (...states: SightState[]): (boolean | undefined)[] => {
    const all = world.nodes.map((_, at): SightState => states[at] ?? 'up');
    const { summary } = plan(world.planView(all), world.now, budget);
    return ['deleting', 'trimming'].map((what) => {
      const found = summary.suspended.find(({ reason }) => reason.startsWith(what));
      return found === undefined ? undefined : !found.passing;
    });
  };
  assert.deepEqual(lasting(), [undefined, undefined]);
  assert.deepEqual(lasting('suspect', 'unknown'), [undefined, false]);
  // All unknown is how a steward starts; silence of what was heard before is another thing.
  assert.deepEqual(lasting(...zoneNames.map((): SightState => 'unknown')), [false, false]);
  assert.deepEqual(lasting('suspect', 'suspect', 'suspect'), [true, false]);
  assert.deepEqual(lasting('down', 'down', 'down'), [true, undefined]);
});

test('mass loss suspends deletions and says so', () => {
  const world = new World(10);
  for (const id of world.cids.keys()) for (const node of world.nodes) node.disk.set(id, true);
  for (const node of world.nodes.slice(0, 3)) node.up = false;
  for (const node of world.nodes.slice(0, 3)) node.heardAt = 0;
  const { actions, summary } = world.beat();
  assert.deepEqual(actions, []);
  assert.match(saidOf({ summary }), /3 of 7 nodes are not up/);
});

test('too few nodes: short with the reason; none: lost with the reason', () => {
  const world = new World(3, ['a', 'b']);
  converge(world);
  assert.equal(world.view.countOf('short'), 3);
  assert.match(world.last?.unable[0]?.reason ?? '', /3 copies wanted, 2 live: 2 of 2 nodes/);
  assert.equal(world.last?.unable[0]?.state, 'short');
  const id = [...world.cids.keys()][0] ?? '';
  for (const node of world.nodes) node.disk.delete(id);
  world.beat();
  assert.equal(world.view.countOf('lost'), 1);
  assert.equal(world.last?.unable[0]?.state, 'lost');
});

test('garbage: collected after its lease, never before, never in doubt about the catalogue', () => {
  const world = new World(1);
  const orphan = rawBlock(utf8('orphan')).cid;
  world.cids.set(orphan.toString(), orphan);
  world.nodes[2]?.disk.set(orphan.toString(), true);
  for (let at = 0; at < 50; at++) world.beat();
  assert.equal(world.good(orphan.toString()).length, 1);
  const doubtful = {
    ...world.planView(world.nodes.map(() => 'up')),
    catalogueDoubt: { reason: 'behind', passing: true },
  };
  assert.deepEqual(plan(doubtful, world.now + 1e9, budget).actions, []);
  world.view.ledger.stage(orphan, world.now + 40_000, world.now);
  for (let at = 0; at < 30; at++) world.beat();
  assert.equal(world.good(orphan.toString()).length, 1);
  for (let at = 0; at < 60; at++) world.beat();
  assert.equal(world.good(orphan.toString()).length, 0);
});

type Fault = {
  readonly kind: 'kill' | 'flap' | 'wipe' | 'rot';
  readonly node: number;
  readonly beats: number;
};

const faults: fc.Arbitrary<Fault[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('kill' as const, 'flap' as const, 'wipe' as const, 'rot' as const),
    node: fc.nat(zoneNames.length - 1),
    beats: fc.integer({ min: 1, max: 40 }),
  }),
  { minLength: 1, maxLength: 10 },
);

test('random faults within the budget: nothing is lost, everything converges, no storm', () => {
  fc.assert(
    fc.property(faults, fc.integer({ min: 1, max: 12 }), (schedule, blocks) => {
      const world = new World(blocks);
      converge(world);
      let destroyed = 0;
      for (const fault of schedule) {
        destroyed += strike(world, fault);
        for (const id of world.cids.keys()) assert.ok(world.good(id).length >= 1, `${fault.kind}: lost`);
        converge(world);
      }
      for (const node of world.nodes) node.up = true;
      converge(world);
      for (const id of world.cids.keys()) {
        assert.ok(world.good(id).length >= policy.min && world.good(id).length <= policy.max);
        assert.equal(new Set(world.good(id).map((node) => node.zone)).size, 3);
      }
      assert.equal(world.view.countOf('healthy'), blocks);
      assert.ok(world.copies <= destroyed, `${world.copies} copies for ${destroyed} copies lost or away`);
    }),
    { numRuns: 60 },
  );
});

/** Applies a fault for its time, one node at a time. Returns how many copies it took away, for good or for a while. */
function strike(world: World, fault: Fault): number {
  const node = world.nodes[fault.node];
  assert.ok(node);
  const away = node.disk.size;
  if (fault.kind === 'wipe') node.disk.clear();
  if (fault.kind === 'rot') for (const id of node.disk.keys()) node.disk.set(id, false);
  if (fault.kind === 'kill' || fault.kind === 'flap') {
    node.up = false;
    for (let at = 0; at < (fault.kind === 'flap' ? 2 : fault.beats); at++) world.beat();
    node.up = true;
    if (fault.kind === 'flap') return 0;
  }
  return away;
}
