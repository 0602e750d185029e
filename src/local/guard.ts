// The last resort against orphans: a shell that outlives the supervisor by a few seconds.
//
// A child sees by itself that its supervisor has gone (supervise-child.ts), unless its event loop is stuck or
// it is stopped. So the supervisor feeds a small shell through a pipe, one line per change: the process
// groups that run. However the supervisor ends, the pipe closes; what is in the last line then gets a moment
// to end by itself and is killed. Refused: a watching thread in every child, 15 MB each and no help for a
// stopped process.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { second } from '../core/clock.ts';

// Between the children's own deadline and the 5 s after which no orphan may run.
const patienceMs = 4.3 * second;

// Every child leads a group of its own, and the number of a group is not used again while the group lives.
const script = `
groups=
while read -r line; do groups=$line; done
[ -z "$groups" ] && exit 0
sleep ${patienceMs / second}
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
exit 0`;

export interface Guard extends Disposable {
  /** Replaces the process groups that must not outlive this process. */
  watch(groups: readonly number[]): void;
}

/** Starts the guard. It is started again if it ends while it is needed. */
export function startGuard(): Guard {
  let groups: readonly number[] = [];
  let disposed = false;
  let shell = spawnShell(again);
  function again(): void {
    if (disposed) return;
    shell = spawnShell(again);
    tell(shell.stdin, groups);
  }
  return {
    watch(now) {
      groups = now;
      tell(shell.stdin, groups);
    },
    [Symbol.dispose]() {
      disposed = true;
      tell(shell.stdin, []);
      shell.stdin?.end();
    },
  };
}

function spawnShell(ended: () => void): ChildProcess {
  const shell = spawn('/bin/sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  // A guard that cannot be had leaves the children's own checks; 'exit' follows only a successful start.
  shell.on('error', () => undefined);
  shell.on('exit', ended);
  shell.stdin?.on('error', () => undefined); // It ended: 'exit' brings the next one.
  shell.unref();
  return shell;
}

function tell(pipe: Writable | null, groups: readonly number[]): void {
  if (pipe !== null && !pipe.destroyed) pipe.write(`${groups.join(' ')}\n`);
}
