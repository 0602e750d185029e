// One object in detail, for `stat`.

import type { Ledger } from './ledger.ts';
import type { PlanNode, PlanUnable } from './plan.ts';
import type { ObjectReport } from './status.ts';
import type { ViewObject } from './view.ts';

export function objectReport(
  object: ViewObject,
  ledger: Ledger,
  nodes: readonly PlanNode[],
  unable: readonly PlanUnable[],
): ObjectReport {
  const classes = new Map<string, number>();
  const holders = new Map<number, ObjectReport['holders'][number]>();
  let copiesFewest = object.slots.size === 0 ? 0 : Number.MAX_SAFE_INTEGER;
  let zonesFewest = copiesFewest;
  for (const slot of object.slots) {
    const name = ledger.class(slot);
    classes.set(name, (classes.get(name) ?? 0) + 1);
    const zones = new Set<string>();
    let copies = 0;
    for (const { node, provenAt, bad } of ledger.holders(slot)) {
      const found = nodes[node];
      if (found === undefined || bad) continue;
      holders.set(node, withBlock(holders.get(node), found, provenAt));
      if (found.state !== 'up') continue;
      copies++;
      zones.add(found.zone);
    }
    copiesFewest = Math.min(copiesFewest, copies);
    zonesFewest = Math.min(zonesFewest, zones.size);
  }
  const reasons = new Set(unable.filter(({ slot }) => object.slots.has(slot)).map(({ reason }) => reason));
  return {
    manifest: object.manifest.toString(),
    address: object.address,
    version: object.version,
    status: object.status,
    policy: { min: object.policy.min, max: object.policy.max, zones: object.policy.zones },
    indexRead: object.indexRead,
    blocks: object.slots.size,
    classes: Object.fromEntries(classes),
    holders: [...holders.values()],
    copiesFewest,
    zonesFewest,
    reasons: [...reasons],
  };
}

type HolderReport = ObjectReport['holders'][number];

function withBlock(before: HolderReport | undefined, node: PlanNode, provenAt: number): HolderReport {
  const proven = provenAt > 0;
  return {
    node: node.peer,
    name: node.name,
    zone: node.zone,
    up: node.state === 'up',
    blocks: (before?.blocks ?? 0) + 1,
    provenBlocks: (before?.provenBlocks ?? 0) + (proven ? 1 : 0),
    provenOldest: proven
      ? Math.min(provenAt, before?.provenOldest ?? provenAt)
      : (before?.provenOldest ?? null),
    provenNewest: proven
      ? Math.max(provenAt, before?.provenNewest ?? provenAt)
      : (before?.provenNewest ?? null),
  };
}
