// The steward's whole report, gathered from its parts. Nothing here decides anything.

import type { TempoReport } from '../backbeat/tempo-report.ts';
import type { Tempo } from '../backbeat/tempo.ts';
import type { CID } from '../core/block.ts';
import type { Clock } from '../core/clock.ts';
import type { CatalogueFollower } from './follower.ts';
import type { Healer } from './healer.ts';
import type { Ledger } from './ledger.ts';
import type { NodeWatch } from './node-watch.ts';
import type { Notices } from './notices.ts';
import type { Plan, PlanNode } from './plan.ts';
import type { Prover } from './prover.ts';
import type { Shares } from './share-keeper.ts';
import type { BeaconReport, HoldersReport, ObjectStatus, StewardStatus, ViewsReport } from './status.ts';
import type { ObjectView } from './view.ts';

export interface SummaryParts {
  readonly startedAt: number;
  readonly clock: Clock;
  readonly tempo: Tempo;
  readonly tempoReport: (() => TempoReport) | undefined;
  readonly beaconReport: (() => BeaconReport) | undefined;
  readonly follower: CatalogueFollower;
  readonly view: ObjectView;
  readonly watch: NodeWatch;
  readonly healer: Healer;
  readonly prover: Prover;
  readonly notices: Notices;
  readonly shares: Shares;
  /** The last plan; undefined before the first. */
  readonly plan: Plan | undefined;
  readonly timing: StewardStatus['timing'];
}

export function summaryOf(parts: SummaryParts): StewardStatus {
  const { view, healer, plan } = parts;
  const shares = parts.shares.status();
  return {
    at: parts.clock.now(),
    startedAt: parts.startedAt,
    beat: beatOf(parts.tempo),
    ...(parts.tempoReport === undefined ? {} : { backbeat: parts.tempoReport() }),
    ...(parts.beaconReport === undefined ? {} : { beacon: parts.beaconReport() }),
    catalogue: parts.follower.status(),
    objects: objectsOf(view),
    blocks: blocksOf(view.ledger),
    nodes: parts.watch.status(),
    ...(shares === undefined ? {} : { shares }),
    queue: { waiting: healer.waiting, underway: healer.underwayCount, backingOff: healer.backingOff },
    healing: healingOf(view.ledger, healer),
    proofs: parts.prover.counts,
    unable: unableOf(view, plan),
    unableTotal: view.ledger.countOf('lost') + view.ledger.countOf('short'),
    problems: parts.notices.problems,
    alarms: parts.notices.alarms,
    timing: parts.timing,
  };
}

/** Who holds each block, proven wrong copies left out. */
export function holdersOf(
  cids: readonly CID[],
  ledger: Ledger,
  nodes: readonly PlanNode[],
): HoldersReport['holders'] {
  return cids.map((cid) => {
    const slot = ledger.find(cid);
    const found = slot < 0 ? [] : ledger.holders(slot).filter((holder) => !holder.bad);
    return found.map(({ node, provenAt }) => ({
      node: ledger.peer(node),
      provenAt: provenAt === 0 ? null : provenAt,
      up: nodes[node]?.state === 'up',
    }));
  });
}

function beatOf(tempo: Tempo): StewardStatus['beat'] {
  const { state, beat, intervalMs } = tempo.current();
  return { index: beat?.frame.beat_index ?? null, sequence: beat?.sequence ?? 0, tempo: state, intervalMs };
}

function objectsOf(view: ObjectView): StewardStatus['objects'] {
  const count = (name: ObjectStatus): number => view.countOf(name);
  return {
    lost: count('lost'),
    lastCopy: count('lastCopy'),
    belowMin: count('belowMin'),
    short: count('short'),
    healing: count('healing'),
    unchecked: count('unchecked'),
    healthy: count('healthy'),
    total: view.objectCount,
  };
}

function blocksOf(ledger: Ledger): StewardStatus['blocks'] {
  const deficient = ['lost', 'lastCopy', 'belowMin', 'short', 'corrupt', 'belowTarget'] as const;
  return {
    total: ledger.size,
    deficient: deficient.reduce((sum, name) => sum + ledger.countOf(name), 0),
    misplaced: ledger.countOf('misplaced'),
    surplus: ledger.countOf('surplus'),
    unreferenced: ledger.countOf('unreferenced'),
  };
}

function healingOf(ledger: Ledger, healer: Healer): StewardStatus['healing'] {
  const { pendingBytes } = ledger;
  const bytesPerSecond = healer.rate();
  const etaMs = pendingBytes > 0 && bytesPerSecond > 0 ? (pendingBytes / bytesPerSecond) * 1000 : null;
  return { pendingBytes, bytesPerSecond, etaMs, ...healer.counts };
}

function unableOf(view: ObjectView, plan: Plan | undefined): StewardStatus['unable'] {
  return (plan?.unable ?? []).map(({ slot, cid, state, reason, since }) => ({
    cid: cid.toString(),
    address: view.addressOf(slot) ?? null,
    state,
    reason,
    since,
  }));
}

/** What an alarm says of views that are unlike; empty when all that could be compared are alike. */
export function viewsText({ revision, equal, differing }: ViewsReport): string {
  if (differing.length === 0) return '';
  const each = differing.map(({ name, kinds }) => `${name} in rows of ${kinds.join(', ')}`).join('; ');
  const rest = equal.length === 0 ? 'no opinion has the most views' : `alike are ${equal.join(', ')}`;
  return `views are unlike at revision ${revision}: ${each}; ${rest}. Each folds its log again, and drops rows that do not follow from it`;
}
