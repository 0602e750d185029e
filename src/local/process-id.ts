// Which process a pid means. Pids are used again; pid, boot and start time together are not.

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

export interface ProcessId {
  readonly pid: number;
  /** When the process started, in a form that only compares equal to itself. */
  readonly started: string;
}

/** The identity of a running process, `undefined` when there is none with that pid, or only its remains (a zombie). */
export async function processId(pid: number): Promise<ProcessId | undefined> {
  const started = process.platform === 'linux' ? await startedOnLinux(pid) : await startedByPs(pid);
  return started === undefined ? undefined : { pid, started };
}

/** True while the very process that `id` was taken from runs. */
export async function isAlive(id: ProcessId): Promise<boolean> {
  return (await processId(id.pid))?.started === id.started;
}

/** Reads back what was written as JSON. `undefined` when it is not one. */
export function asProcessId(value: unknown): ProcessId | undefined {
  if (typeof value !== 'object' || value === null || !('pid' in value) || !('started' in value))
    return undefined;
  const { pid, started } = value;
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid < 1) return undefined;
  return typeof started === 'string' ? { pid, started } : undefined;
}

// proc(5): after the command in parentheses, which may hold anything, come the state and, as field 22, the
// start time in ticks since boot; the boot id makes it unique over reboots.
async function startedOnLinux(pid: number): Promise<string | undefined> {
  try {
    const [line, boot] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    ]);
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
    const state = fields[0];
    return state === 'Z' || state === 'X' ? undefined : `${boot.trim()}:${fields[19]}`;
  } catch {
    return undefined; // No such process: that is the answer, not a failure.
  }
}

async function startedByPs(pid: number): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    });
    const [state = '', ...started] = stdout.trim().split(/\s+/);
    return state === '' || state.startsWith('Z') ? undefined : started.join(' ');
  } catch {
    return undefined; // ps fails when there is no such process.
  }
}
