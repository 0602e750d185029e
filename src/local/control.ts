// How commands reach the running supervisor of a directory.

import { setTimeout as sleep } from 'node:timers/promises';
import { minute } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { ClusterState, ControlClient, NodeAction, ProcessState } from './control-types.ts';
import { errnoOf } from '../files/whole.ts';
import { isMap } from '../core/shape.ts';
import { layoutPaths } from './layout.ts';
import { callLoopback } from './loopback.ts';
import { readRunFile, type RunFile } from './run-file.ts';

const downMsMax = 2 * minute;
const pollMs = 50;

/** Finds the supervisor of the cluster in `dir`. Throws CLUSTER_NOT_RUNNING when none runs. */
export async function connectControl(dir: string): Promise<ControlClient> {
  const { root, run } = layoutPaths(dir);
  const file = await readRunFile(run);
  if (file === undefined) throw notRunning(root);
  const state = async (): Promise<ClusterState> => asClusterState(await call(root, file, 'GET', '/state'));
  const act = async (name: string, action: NodeAction): Promise<ProcessState> =>
    asProcessState(await call(root, file, 'POST', `/node/${encodeURIComponent(name)}/${action}`));
  return {
    state,
    stopNode: (name) => act(name, 'stop'),
    killNode: (name) => act(name, 'kill'),
    startNode: (name) => act(name, 'start'),
    wipeNode: (name) => act(name, 'wipe'),
    async down() {
      await call(root, file, 'POST', '/down');
      await untilGone(root, run, file);
    },
  };
}

async function untilGone(root: string, run: string, file: RunFile): Promise<void> {
  for (let waitedMs = 0; waitedMs < downMsMax; waitedMs += pollMs) {
    if ((await readRunFile(run))?.token !== file.token) return;
    await sleep(pollMs);
  }
  throw new HoldfastError(
    'TIMEOUT',
    `the cluster in ${root} has not stopped; its supervisor is process ${file.supervisor.pid}`,
  );
}

async function call(root: string, file: RunFile, method: string, path: string): Promise<unknown> {
  try {
    return await callLoopback(file, method, path);
  } catch (error) {
    if (isHoldfastError(error)) throw error;
    const gone = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    if (gone) throw notRunning(root, error);
    throw new HoldfastError('TIMEOUT', `the supervisor of ${root} does not answer`, { cause: error });
  }
}

// The answers come from our own supervisor, found by its token: what is checked is that it is the same version.
function asClusterState(body: unknown): ClusterState {
  if (isClusterState(body)) return body;
  throw new HoldfastError(
    'INTERNAL',
    'the running supervisor speaks another version; use the program that started it',
  );
}

function asProcessState(body: unknown): ProcessState {
  if (isProcessState(body)) return body;
  throw new HoldfastError(
    'INTERNAL',
    'the running supervisor speaks another version; use the program that started it',
  );
}

function isClusterState(value: unknown): value is ClusterState {
  if (!isMap(value) || typeof value['phase'] !== 'string' || typeof value['pid'] !== 'number') return false;
  return Array.isArray(value['processes']) && value['processes'].every(isProcessState);
}

function isProcessState(value: unknown): value is ProcessState {
  return (
    isMap(value) && ['name', 'role', 'zone', 'status', 'text'].every((key) => typeof value[key] === 'string')
  );
}

function notRunning(root: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    'CLUSTER_NOT_RUNNING',
    `no cluster is running in ${root}; start it with \`holdfast up --data ${root}\``,
    {
      details: { path: root },
      cause,
    },
  );
}
