// One process of a cluster, from its configuration to its end.

import { HoldfastError } from '../core/errors.ts';
import type { ChildInfo } from '../local/control-types.ts';
import { loadProcessConfig } from '../local/layout.ts';
import { keepPassingMemorySmall } from '../local/passing-memory.ts';
import { saveProgramCache } from '../local/program-cache.ts';
import { superviseChild, type Supervision } from '../local/supervise-child.ts';

export interface RunningRole extends AsyncDisposable {
  readonly info: ChildInfo;
  /** Resolves when the role wants to end by itself, e.g. to be started again on other files. */
  readonly ended: Promise<void>;
}

/** Runs process `name` of the cluster in `dir` until it is told to stop. Returns the exit status. */
export function runDaemon(dir: string, name: string): Promise<number> {
  return run(name, async (supervision) => {
    const config = await loadProcessConfig(dir, name);
    const start = await roles[config.roles[0] ?? 'node']();
    saveProgramCache(); // at the first start the others wait for what this one has compiled
    await supervision.progress('loaded');
    return start(config);
  });
}

/**
 * Runs the custodian that the file `configPath` describes until it is told to stop. `init`: only makes its identity,
 * for the operator to put into the membership. Returns the exit status.
 */
export function runStandaloneCustodian(configPath: string, init: boolean): Promise<number> {
  return run('custodian', async () => {
    const { initStandalone, startStandalone } = await import('./standalone-custodian.ts');
    return init ? initStandalone(configPath) : startStandalone(configPath);
  });
}

async function run(name: string, start: (supervision: Supervision) => Promise<RunningRole>): Promise<number> {
  using supervision = superviseChild();
  process.title = `holdfast ${name}`;
  process.on('uncaughtException', (error) => {
    console.error('uncaught', error); // state is on disk; a clean start is safer than going on
    process.exit(1);
  });
  using _memory = keepPassingMemorySmall();
  try {
    await using role = await start(supervision);
    await supervision.ready(role.info);
    saveProgramCache(); // a process that is killed would not leave it for its next start
    await Promise.race([role.ended, aborted(supervision.stop)]);
    return 0;
  } catch (error) {
    console.error(error);
    await supervision.failed(error);
    return error instanceof HoldfastError ? 1 : 70;
  }
}

/** Loaded when needed: a door need not read the block store's code. */
const roles = {
  node: async () => (await import('./node-role.ts')).startNodeRole,
  steward: async () => (await import('./steward-role.ts')).startStewardRole,
  door: async () => (await import('./door-role.ts')).startDoorRole,
  custodian: async () => (await import('./custodian-role.ts')).startCustodianRole,
} as const;

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
