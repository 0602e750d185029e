// How commands reach the running supervisor of a directory.

import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { minute } from '../core/clock.ts';
import { type ErrorDetails, HoldfastError } from '../core/errors.ts';
import type { ClusterState, ControlClient, NodeAction, ProcessState } from './control-types.ts';
import { errnoOf } from '../files/whole.ts';
import { layoutPaths } from './layout.ts';
import { isErrorCode, readRunFile, type RunFile } from './run-file.ts';

const answerMsMax = 5 * minute;
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
  const { status, text } = await exchange(file, method, path).catch((cause: unknown) => {
    const gone = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(errnoOf(cause) ?? '');
    if (gone) throw notRunning(root, cause);
    throw new HoldfastError('TIMEOUT', `the supervisor of ${root} does not answer`, { cause });
  });
  const body: unknown = JSON.parse(text);
  if (status < 300) return body;
  throw remoteError(body, status);
}

function exchange(file: RunFile, method: string, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        port: file.port,
        method,
        path,
        agent: false,
        headers: { authorization: `Bearer ${file.token}` },
        signal: AbortSignal.timeout(answerMsMax),
      },
      (response) => {
        const parts: string[] = [];
        response.setEncoding('utf8');
        response.on('data', (part: string) => parts.push(part));
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: parts.join('') }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end();
  });
}

function remoteError(body: unknown, status: number): HoldfastError {
  const error = isObject(body) && isObject(body['error']) ? body['error'] : {};
  const { code, message, details } = error;
  return isErrorCode(code)
    ? new HoldfastError(code, String(message), { details: isDetails(details) ? details : {} })
    : new HoldfastError('INTERNAL', `the supervisor answered with status ${status}`);
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
  if (!isObject(value) || typeof value['phase'] !== 'string' || typeof value['pid'] !== 'number')
    return false;
  return Array.isArray(value['processes']) && value['processes'].every(isProcessState);
}

function isProcessState(value: unknown): value is ProcessState {
  return (
    isObject(value) &&
    ['name', 'role', 'zone', 'status', 'text'].every((key) => typeof value[key] === 'string')
  );
}

function isDetails(value: unknown): value is ErrorDetails {
  return (
    isObject(value) &&
    Object.values(value).every((field) => field === null || Array.isArray(field) || !isObject(field))
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
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
