// A cluster that goes on when its terminal closes.

import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { minute, second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { connectControl } from './control.ts';
import type { ClusterState } from './control-types.ts';
import { layoutPaths } from './layout.ts';
import { lastLines, withLogFile } from './log-file.ts';
import { readStartError } from './run-file.ts';

export interface DetachOptions {
  /** Program and arguments that run the supervisor of this directory in the foreground. */
  readonly command: readonly string[];
  /** Gives up after this long, milliseconds. Default 180,000. */
  readonly readyMs?: number;
  /** Gives up when it aborts; the supervisor is stopped. */
  readonly signal?: AbortSignal;
}

const pollMs = 100;

/**
 * Starts a supervisor for `dir` that outlives this process, and resolves when the cluster runs. Its output
 * goes to logs/supervisor.log. Throws what kept it from starting, TIMEOUT, or the reason of `signal`.
 */
export async function startDetached(dir: string, options: DetachOptions): Promise<ClusterState> {
  const log = layoutPaths(dir).log('supervisor');
  const [program = '', ...rest] = options.command;
  const supervisor = withLogFile(log, (descriptor) =>
    spawn(program, rest, { stdio: ['ignore', descriptor, descriptor], detached: true }),
  );
  const ending = watchEnding(supervisor);
  try {
    return await untilRunning(dir, supervisor, ending, options);
  } catch (error) {
    if (ending.how === undefined) supervisor.kill('SIGTERM');
    throw error;
  } finally {
    supervisor.unref();
  }
}

async function untilRunning(
  dir: string,
  supervisor: ChildProcess,
  ending: Ending,
  { readyMs = 3 * minute, signal }: DetachOptions,
): Promise<ClusterState> {
  const deadline = performance.now() + readyMs;
  for (;;) {
    signal?.throwIfAborted();
    if (ending.how !== undefined) throw await whyEnded(dir, supervisor.pid ?? 0, ending.how);
    const state = await stateIfRunning(dir);
    if (state?.pid === supervisor.pid && state?.phase === 'running') return state;
    if (performance.now() >= deadline) {
      throw new HoldfastError('TIMEOUT', `the cluster in ${dir} did not start in ${readyMs / second} s`);
    }
    await sleep(pollMs);
  }
}

async function stateIfRunning(dir: string): Promise<ClusterState | undefined> {
  try {
    return await (await connectControl(dir)).state();
  } catch (error) {
    if (isHoldfastError(error, 'CLUSTER_NOT_RUNNING')) return undefined;
    throw error;
  }
}

async function whyEnded(dir: string, pid: number, how: string): Promise<HoldfastError> {
  const { run, log } = layoutPaths(dir);
  const told = await readStartError(run, pid);
  return (
    told ?? new HoldfastError('INTERNAL', `the supervisor ended with ${how}: ${lastLines(log('supervisor'))}`)
  );
}

interface Ending {
  /** Set when it has ended. */
  how: string | undefined;
}

function watchEnding(process: ChildProcess): Ending {
  const ending: Ending = { how: undefined };
  process.once('error', (error) => {
    ending.how = error.message;
  });
  process.once('exit', (code, signal) => {
    ending.how = signal === null ? `code ${code}` : `signal ${signal}`;
  });
  return ending;
}
