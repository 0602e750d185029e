import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareEpochs, type Epoch, ownerOf, slicesCount } from '../core/epoch.ts';
import {
  afterRound,
  defaultShareTiming as timing,
  mayAct,
  type NodeEpoch,
  proposal,
  type ShareState,
  startShares,
} from './shares.ts';

const slices = Array.from({ length: slicesCount }, (_, slice) => slice);

test('rendezvous: a member that leaves or joins moves only its own shares, and shares are about even', () => {
  const members = ['a', 'b', 'c', 'd', 'e'];
  for (const gone of members) {
    const rest = members.filter((each) => each !== gone);
    for (const slice of slices) {
      const before = ownerOf(slice, members);
      if (before !== gone) assert.equal(ownerOf(slice, rest), before);
      else assert.ok(rest.includes(ownerOf(slice, rest) ?? ''));
    }
    const share = slices.filter((slice) => ownerOf(slice, members) === gone).length;
    assert.ok(share > 25 && share < 80, `${gone} has ${share}`);
  }
  assert.equal(ownerOf(1, []), undefined);
});

test('one steward in the membership needs neither epochs nor a majority', () => {
  const world = new World(1, 5);
  assert.ok(world.acting(0, 7));
  world.run(60_000);
  assert.ok(world.acting(0, 7));
  assert.deepEqual(
    world.nodes.map(({ held }) => held),
    world.nodes.map(() => undefined),
  );
});

test('a second steward that is gone for good: the one that is left goes above its tokens', () => {
  const world = new World(2, 5);
  world.run(60_000);
  const before = world.nodes[0]?.held;
  assert.equal(before?.members.length, 2);
  world.stewards.pop();
  world.run(60_000);
  assert.ok(compareEpochs(before, world.nodes[0]?.held) < 0);
  assert.deepEqual(world.nodes[0]?.held?.members, ['steward-0']);
});

test('an owner dies: within twenty seconds every slice has an owner again, and only its slices moved', () => {
  const world = new World(3, 5);
  world.run(30_000);
  const owners = world.owners();
  assert.ok(owners.every(({ length }) => length === 1));
  world.kill(1);
  world.run(20_000);
  for (const [slice, [owner]] of world.owners().entries()) {
    assert.ok(owner !== undefined, `slice ${slice}`);
    if (owners[slice]?.[0] !== 1) assert.equal(owner, owners[slice]?.[0]);
  }
});

test('the small side of a partition does nothing; the large side does everything', () => {
  const world = new World(2, 5);
  world.run(30_000);
  world.reach = (steward, node) => (steward === 0) === node < 2;
  world.run(20_000);
  assert.ok(world.owners().every(([owner, ...others]) => owner === 1 && others.length === 0));
  world.reach = () => true;
  world.run(30_000);
  assert.ok(world.owners().every(({ length }) => length === 1));
  assert.ok(new Set(world.owners().flat()).size === 2);
});

test('proposals that crossed and left no epoch with a majority are followed by another', () => {
  const world = new World(2, 5);
  world.run(30_000);
  const held = world.nodes[0]?.held;
  assert.ok(held);
  for (const [at, node] of world.nodes.entries()) node.held = { ...held, n: held.n + 1 + (at % 3) };
  world.run(30_000);
  assert.ok(world.owners().every(({ length }) => length === 1));
});

test('whatever is lost, delayed, killed or cut off: never two owners of a slice, no order under an older token obeyed, and all is owned once it is quiet', () => {
  const event = fc.record({
    at: fc.integer({ min: 0, max: 90_000 }),
    kind: fc.constantFrom('kill', 'start', 'cut', 'mend', 'kill-node', 'start-node', 'slow', 'quick'),
    steward: fc.nat(2),
    node: fc.nat(4),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), fc.integer(), (events, seed) => {
      const world = new World(3, 5, seed);
      const rising = events.toSorted((a, b) => a.at - b.at);
      for (const { at, kind, steward, node } of rising) {
        world.run(at - world.now);
        world.happen(kind, steward, node);
      }
      world.calm();
      world.run(40_000);
      for (const owners of world.owners()) assert.equal(owners.length, 1);
    }),
    { numRuns: 60 },
  );
});

interface SimulatedSteward {
  state: ShareState;
  alive: boolean;
  /** What its clock makes of a second. */
  rate: number;
  nextRound: number;
  wasActing: boolean[];
}

interface SimulatedNode {
  held: Epoch | undefined;
  alive: boolean;
  heard: Map<string, number>;
}

/** Stewards with clocks of their own, nodes that keep what they hold, and a network with a will of its own. */
class World {
  readonly stewards: SimulatedSteward[];
  readonly nodes: SimulatedNode[];
  now = 0;
  reach: (steward: number, node: number) => boolean = () => true;
  #delayMs = 5;
  #chance: () => number;

  constructor(stewards: number, nodes: number, seed = 1) {
    this.#chance = chanceOf(seed);
    const names = Array.from({ length: stewards }, (_, at) => nameOf(at));
    this.stewards = names.map((name, at) => ({
      state: startShares(name, names),
      alive: true,
      rate: 1 + (at - 1) / 50,
      nextRound: at * 100,
      wasActing: [],
    }));
    this.nodes = Array.from({ length: nodes }, () => ({ held: undefined, alive: true, heard: new Map() }));
  }

  /** Stewards that may act for each slice now. */
  owners(): number[][] {
    return slices.map((slice) => this.stewards.flatMap((_, at) => (this.acting(at, slice) ? [at] : [])));
  }

  acting(at: number, slice: number): boolean {
    const steward = this.stewards[at];
    if (steward === undefined || !steward.alive) return false;
    const owner = ownerIn(slice, steward.state.epoch);
    return mayAct(steward.state, owner, this.#clock(steward), timing);
  }

  kill(steward: number): void {
    const found = this.stewards[steward];
    if (found !== undefined) found.alive = false;
  }

  happen(kind: string, steward: number, node: number): void {
    const [one, other] = [this.stewards[steward], this.nodes[node]];
    assert.ok(one && other);
    if (kind === 'kill') one.alive = false;
    if (kind === 'start' && !one.alive) this.#start(steward);
    if (kind === 'kill-node') other.alive = false;
    if (kind === 'start-node') other.alive = true; // with what it held
    if (kind === 'cut') this.reach = (at, to) => at !== steward || to < node;
    if (kind === 'mend') this.reach = () => true;
    if (kind === 'slow') this.#delayMs = 4_000;
    if (kind === 'quick') this.#delayMs = 5;
  }

  calm(): void {
    this.reach = () => true;
    this.#delayMs = 5;
    for (const node of this.nodes) node.alive = true;
    for (const [at, { alive }] of this.stewards.entries()) if (!alive) this.#start(at);
  }

  run(ms: number): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now += 100;
      for (const [at, steward] of this.stewards.entries())
        if (steward.alive && this.now >= steward.nextRound) this.#round(at, steward);
      this.#check();
    }
  }

  /** Never two owners, and no steward that may act holds a token that a majority of nodes would refuse. */
  #check(): void {
    for (const slice of [0, 1, 2, 3, 77, 200, 255]) {
      const owners = this.stewards.flatMap((_, at) => (this.acting(at, slice) ? [at] : []));
      if (this.stewards.length > 1)
        assert.ok(owners.length <= 1, `slice ${slice} at ${this.now}: ${owners.join()}`);
    }
  }

  #round(at: number, steward: SimulatedSteward): void {
    const clock = this.#clock(steward);
    const proposed = proposal(steward.state, clock, timing);
    const name = nameOf(at);
    const answers: NodeEpoch[] = [];
    for (const [to, node] of this.nodes.entries()) {
      // A call, or only its answer, may be lost.
      if (!node.alive || !this.reach(at, to) || (this.#delayMs > 5 && this.#chance() < 0.3)) continue;
      node.heard.set(name, this.now);
      if (proposed !== undefined && compareEpochs(node.held, proposed) < 0) node.held = proposed;
      if (this.#delayMs > 5 && this.#chance() < 0.3) continue;
      const heard = [...node.heard].map(([peer, then]) => ({ peer, agoMs: this.now - then }));
      answers.push({ held: node.held, heard });
    }
    // What comes late was true when the round began; the state learns it at the end.
    const delay = Math.floor(this.#chance() * this.#delayMs);
    const stewards = this.stewards.map((_, each) => nameOf(each));
    const round = {
      startedAt: clock,
      endedAt: clock + delay,
      answers,
      nodesCount: this.nodes.length,
      stewards,
    };
    steward.state = afterRound(steward.state, round, timing);
    steward.nextRound = this.now + timing.roundMs + delay;
  }

  #start(at: number): void {
    const steward = this.stewards[at];
    if (steward === undefined) return;
    const names = this.stewards.map((_, each) => nameOf(each));
    Object.assign(steward, { alive: true, state: startShares(nameOf(at), names), nextRound: this.now });
  }

  #clock({ rate }: SimulatedSteward): number {
    return this.now * rate;
  }
}

function nameOf(at: number): string {
  return `steward-${at}`;
}

const tables = new Map<string, (string | undefined)[]>();

function ownerIn(slice: number, epoch: Epoch | undefined): string | undefined {
  const members = epoch?.members ?? [];
  const key = members.join();
  const table = tables.get(key) ?? slices.map((each) => ownerOf(each, members));
  tables.set(key, table);
  return table[slice];
}

function chanceOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 0x1_0000_0000;
  };
}
