// How long the steward thinks: a beat over a million blocks when nothing changed, and after one node is lost.
// Run: node bench/steward.bench.ts [blocks] [nodes]

import { randomFillSync } from 'node:crypto';
import { CID } from '../src/core/block.ts';
import { concat } from '../src/core/bytes.ts';
import { makeSight, type SightState } from '../src/steward/classes.ts';
import { plan, type PlanNode } from '../src/steward/plan.ts';
import { rankMembers } from '../src/steward/place.ts';
import { defaultStewardSettings } from '../src/steward/settings.ts';
import { ObjectView } from '../src/steward/view.ts';

const blocks = Number(process.argv[2] ?? 1_000_000);
const nodeCount = Number(process.argv[3] ?? 7);
const policy = { min: 3, max: 5, zones: 3 };
const zones = ['a', 'b', 'c'];
const names = Array.from({ length: nodeCount }, (_, at) => `12D3KooWnode${at}`);
const members = names.map((peer, at) => ({ peer, zone: zones[at % 3] ?? 'a', host: peer, freeBytes: 1e12 }));

const view = new ObjectView();
const { ledger } = view;
for (const name of names) ledger.node(name);
const now = 1_790_000_000_000;
report('fill', timed(fill));
report('resident', `${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`);
settle('first judgement of everything', allUp(), true);
for (let round = 0; round < 3; round++) settle('idle beat', allUp(), false);
report('healthy', `${view.countOf('healthy')} of ${view.objectCount}`);
const lost = allUp();
lost[1] = 'down';
settle('one node lost, everything judged again', lost, true);
report('endangered', `${ledger.countOf('belowMin')} blocks`);
for (let round = 0; round < 3; round++) settle('beat while healing', lost, false);

/** One object of one block each: the worst case for the view. */
function fill(): void {
  const digest = new Uint8Array(32);
  for (let at = 0; at < blocks; at++) {
    randomFillSync(digest);
    const cid = CID.decode(concat(Uint8Array.of(1, 0x55, 0x12, 0x20), digest));
    view.apply(
      {
        manifest: cid,
        address: `ucxl://a:r@p:t/*^/${at}`,
        version: 1,
        type: 'object',
        policy,
        root: cid,
        records: [],
        sizeBytes: 1,
      },
      now,
    );
    for (const { peer } of rankMembers(digest, members).slice(0, 3)) {
      const node = ledger.node(peer);
      ledger.prove(ledger.hold(cid, node, 262_144, now), node, now);
    }
  }
}

function settle(what: string, states: SightState[], all: boolean): void {
  const nodes = planNodes(states);
  const sight = makeSight(
    nodes.map(({ state, zone }) => ({ state, zone, accepting: true })),
    0,
  );
  if (all) ledger.doubtAll();
  let longest = 0;
  const total = timed(() => {
    for (;;) {
      const start = performance.now();
      const done = ledger.settle(sight, now);
      longest = Math.max(longest, performance.now() - start);
      if (done) break;
    }
    const { actions } = plan(
      {
        ledger,
        nodes,
        mine: () => true,
        stewards: 1,
        round: 1,
        catalogueDoubt: undefined,
        underway: () => [],
        backoff: () => undefined,
      },
      now,
      defaultStewardSettings.budget,
    );
    what += ` (${actions.length} actions)`;
  });
  report(what, `${total.toFixed(1)} ms, longest without giving way ${longest.toFixed(1)} ms`);
}

function allUp(): SightState[] {
  return names.map(() => 'up');
}

function planNodes(states: readonly SightState[]): PlanNode[] {
  return members.map((member, at) => ({
    ...member,
    name: member.peer,
    state: states[at] ?? 'up',
    since: now,
  }));
}

function timed(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

function report(what: string, value: number | string): void {
  console.log(`${what.padEnd(56)} ${typeof value === 'number' ? `${value.toFixed(0)} ms` : value}`);
}
