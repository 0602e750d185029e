// A whole move from some key providers to another, while everybody reads and writes. Of two kinds: a provider that can
// wrap given keys gets the branch keys themselves (custody/migrate.ts); threshold custody gets the objects under new
// ones (move-objects.ts). Either can be interrupted at any time and begun again.

import {
  isUnder,
  type Migration,
  type MigrationState,
  migratePage,
  newMigration,
} from '../custody/migrate.ts';
import { legsOf } from '../custody/legs.ts';
import { type KekProvider, type UnwrapRequest, wrapsGivenKeys } from '../custody/provider.ts';
import type { KeyRegistry } from './key-registry.ts';
import { moveObjects } from './move-objects.ts';

export interface NamedProvider {
  readonly name: string;
  readonly provider: KekProvider;
}

export interface KeyMove {
  readonly registry: KeyRegistry;
  readonly from: readonly NamedProvider[];
  readonly to: NamedProvider;
  /** A request with purpose `rewrap` of now: a long move makes many. */
  readonly request: () => Promise<UnwrapRequest>;
  /** Leaves the old wraps where they are, beside the new ones. */
  readonly keep: boolean;
  /** Where it is kept how far the move is; absent: an interrupted one looks through all keys again. */
  readonly progress?: KeptProgress;
  /** Told of each page. Must not throw. */
  readonly onPage?: (step: MoveStep, from: string, state: MigrationState) => void;
}

export interface KeptProgress {
  load(): Promise<KeptMove | undefined>;
  save(kept: KeptMove): Promise<void>;
  clear(): Promise<void>;
}

/** `rewrap`: objects go under new keys. */
export type MoveStep = 'add' | 'drop' | 'rewrap';

export interface KeptMove {
  readonly to: string;
  readonly from: string;
  readonly step: MoveStep;
  readonly state: MigrationState;
}

export interface MoveReport {
  /** Branch keys, or objects where these go under new keys. */
  readonly moved: number;
  readonly dropped: number;
  readonly failed: number;
  readonly failures: MigrationState['failures'];
}

const nothing: MoveReport = { moved: 0, dropped: 0, failed: 0, failures: [] };
/** Somebody who changes the same key at the same time leaves it to the next pass. */
const passesMax = 5;

/** Throws what the door and a provider that fails altogether throw; a key that cannot be moved is in the report. */
export async function moveKeys(move: KeyMove): Promise<MoveReport> {
  const { to } = move;
  let report = nothing;
  if (!wrapsGivenKeys(to.provider)) {
    for (const from of move.from)
      report = added(report, 'moved', await untilSettled(() => rewrapFrom(move, from)));
  } else {
    const { provider } = to;
    for (const step of move.keep ? (['add'] as const) : (['add', 'drop'] as const))
      for (const from of move.from) {
        const state = await untilSettled(() => runStep(move, { from, step, provider }));
        report = added(report, step === 'add' ? 'moved' : 'dropped', state);
      }
  }
  await move.progress?.clear();
  return report;
}

/** Of all wrapped keys, how many are under each of `providers`, and under none of them. */
export async function countKeys(
  registry: KeyRegistry,
  providers: readonly NamedProvider[],
): Promise<{
  readonly total: number;
  readonly under: Readonly<Record<string, number>>;
  readonly elsewhere: number;
}> {
  const under = new Map(providers.map(({ name }) => [name, 0]));
  let [total, elsewhere] = [0, 0];
  let cursor: string | undefined;
  do {
    const { keys, next } = await registry.page(cursor, 256);
    for (const { body } of keys) {
      const names = providers.filter(({ provider }) => legsOf(body).some((leg) => isUnder(provider, leg)));
      for (const { name } of names) under.set(name, (under.get(name) ?? 0) + 1);
      total++;
      if (names.length === 0) elsewhere++;
    }
    cursor = next;
  } while (cursor !== undefined);
  return { total, under: Object.fromEntries(under), elsewhere };
}

interface Step {
  readonly from: NamedProvider;
  readonly step: Migration['step'];
  readonly provider: Migration['to'];
}

async function runStep(move: KeyMove, { from, step, provider }: Step): Promise<MigrationState> {
  const { registry, to, progress } = move;
  const place = { to: to.name, from: from.name, step };
  let state = await resumed(progress, place);
  const ports = registry.ports(provider, async (after) => {
    await progress?.save({ ...place, state: after });
  });
  while (!state.done) {
    const request = await move.request();
    const writer = request.requester;
    state = await migratePage({ from: from.provider, to: provider, step, request, writer }, ports, state);
    move.onPage?.(step, from.name, state);
  }
  await progress?.clear();
  return state;
}

async function rewrapFrom(move: KeyMove, { name, provider }: NamedProvider): Promise<MigrationState> {
  const { registry, to } = move;
  const state = await moveObjects({
    registry,
    reader: provider,
    from: [provider],
    to: to.provider,
    request: await move.request(),
  });
  move.onPage?.('rewrap', name, state);
  return state;
}

/** From where an interrupted run of the same step stopped. */
async function resumed(
  progress: KeptProgress | undefined,
  place: Omit<KeptMove, 'state'>,
): Promise<MigrationState> {
  const kept = await progress?.load();
  const isSame = kept?.to === place.to && kept.from === place.from && kept.step === place.step;
  return isSame && !kept.state.done ? kept.state : newMigration;
}

/** Pass after pass until none of the keys was changed by somebody else meanwhile. */
async function untilSettled(pass: () => Promise<MigrationState>): Promise<MigrationState> {
  let moved = 0;
  for (let count = 1; ; count++) {
    const state = await pass();
    moved += state.moved;
    if (state.conflicts === 0 || count >= passesMax) return { ...state, moved };
  }
}

function added(report: MoveReport, as: 'moved' | 'dropped', state: MigrationState): MoveReport {
  return {
    ...report,
    [as]: report[as] + state.moved,
    failed: report.failed + state.failed,
    failures: [...report.failures, ...state.failures].slice(0, 100),
  };
}
