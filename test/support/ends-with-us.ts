// What a test has started is not to outlive it, also when somebody kills the test and it can end nothing itself.

import { type ChildProcess, spawn } from 'node:child_process';

/**
 * Reads `add PID` and `gone PID` and kills who is left when there is nothing more to read: when whoever writes has ended,
 * in whatever way.
 */
const script = `
pids=''
while read -r word pid; do
  others=''
  for each in $pids; do [ "$each" = "$pid" ] || others="$others $each"; done
  pids=$others
  [ "$word" = add ] && pids="$pids $pid"
done
for each in $pids; do kill -9 "$each" 2>/dev/null; done
`;

let keeper: ChildProcess | undefined;

/** What is needed of a ChildProcess. */
interface Started {
  readonly pid?: number | undefined;
  once(event: 'exit', listener: () => void): unknown;
}

/** Has `child` killed when this process ends, in whatever way. */
export function endsWithUs(child: Started): void {
  const { pid } = child;
  if (pid === undefined) return; // it did not start
  keeper ??= startKeeper();
  const stdin = keeper.stdin;
  stdin?.write(`add ${pid}\n`);
  child.once('exit', () => stdin?.write(`gone ${pid}\n`));
}

/**
 * It keeps nobody waiting, neither this process nor who reads what this process prints, and is in no group that a
 * terminal's signals go to.
 */
function startKeeper(): ChildProcess {
  const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.unref();
  const { stdin } = child;
  stdin?.on('error', () => undefined); // somebody has killed it: then this keeps nothing any more
  if (stdin !== null && 'unref' in stdin && typeof stdin.unref === 'function') stdin.unref();
  return child;
}
