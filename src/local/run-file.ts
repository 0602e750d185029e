// What a running supervisor leaves in DIR/run for others to find it, and for its successor to clean up.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { errorCatalogue, type ErrorCode, HoldfastError } from '../core/errors.ts';
import { errnoOf, readIfThere, writeWhole } from '../files/whole.ts';
import { asProcessId, isAlive, type ProcessId, processId } from './process-id.ts';

/** Where the control endpoint of the running supervisor is. */
export interface RunFile {
  readonly supervisor: ProcessId;
  readonly port: number;
  readonly token: string;
}

const orphansMs = 6 * second;
const killedMs = 2 * second;
const pollMs = 50;

function runPaths(runDir: string) {
  return {
    supervisor: join(runDir, 'supervisor.json'),
    children: join(runDir, 'children.json'),
    startError: join(runDir, 'start-error.json'),
  } as const;
}

export async function writeRunFile(runDir: string, file: RunFile): Promise<void> {
  await writeWhole(runPaths(runDir).supervisor, JSON.stringify(file), 0o600);
}

/** The endpoint of the supervisor that runs on `runDir`; `undefined` when there is none, or only what a dead one left. */
export async function readRunFile(runDir: string): Promise<RunFile | undefined> {
  const value = parse(await readIfThere(runPaths(runDir).supervisor));
  const supervisor = asProcessId(value['supervisor']);
  const { port, token } = value;
  if (supervisor === undefined || typeof port !== 'number' || typeof token !== 'string') return undefined;
  return (await isAlive(supervisor)) ? { supervisor, port, token } : undefined;
}

/** After everything has ended in order, or before anything starts. */
export async function removeRunFiles(runDir: string): Promise<void> {
  const paths = Object.values(runPaths(runDir));
  await Promise.all(paths.map((path) => rm(path, { force: true })));
}

/** Keeps which processes were started, for a successor. */
export async function writeChildren(runDir: string, pids: readonly number[]): Promise<void> {
  const ids = await Promise.all(pids.map(processId));
  const running = ids.filter((id) => id !== undefined);
  await writeWhole(runPaths(runDir).children, JSON.stringify(running), 0o600);
}

/**
 * Waits until no process of a supervisor that was killed runs any more; those that do not end by themselves
 * are killed after 6 s. True when the last supervisor did not end in order.
 */
export async function endOrphans(runDir: string): Promise<boolean> {
  const text = await readIfThere(runPaths(runDir).children);
  const stubborn = await untilGone(parseList(text), orphansMs);
  for (const { pid } of stubborn) kill(pid);
  await untilGone(stubborn, killedMs);
  return text !== undefined;
}

/** Those of `ids` that still run after `patienceMs`; resolves earlier when none does. */
async function untilGone(ids: readonly ProcessId[], patienceMs: number): Promise<ProcessId[]> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const living = await livingOf(ids);
    if (living.length === 0 || performance.now() >= deadline) return living;
    await sleep(pollMs);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error; // It ended at this very moment.
  }
}

/** Leaves why this supervisor did not start, for the process that waits for it. */
export async function writeStartError(runDir: string, error: HoldfastError, message: string): Promise<void> {
  const content = { pid: process.pid, code: error.code, message, details: error.details };
  await writeWhole(runPaths(runDir).startError, JSON.stringify(content), 0o600);
}

/** Why the supervisor `pid` did not start, if it said so. */
export async function readStartError(runDir: string, pid: number): Promise<HoldfastError | undefined> {
  const value = parse(await readIfThere(runPaths(runDir).startError));
  const { code, message } = value;
  if (value['pid'] !== pid || !isErrorCode(code) || typeof message !== 'string') return undefined;
  return new HoldfastError(code, message);
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(errorCatalogue, value);
}

async function livingOf(ids: readonly ProcessId[]): Promise<ProcessId[]> {
  const alive = await Promise.all(ids.map(isAlive));
  return ids.filter((_, index) => alive[index]);
}

// These files mean nothing after a power loss, so a torn one is like an absent one.
function parse(text: string | undefined): Record<string, unknown> {
  const value = parseJson(text);
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

function parseList(text: string | undefined): ProcessId[] {
  const value = parseJson(text);
  return Array.isArray(value) ? value.map(asProcessId).filter((id) => id !== undefined) : [];
}

function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
