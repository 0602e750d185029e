// Roles in this process, started again whenever they end by themselves, as a supervisor would.

import type { RunningRole } from '../../src/app/daemon.ts';

/** Resolves once `signal` has aborted and the role has ended. Rejects with what starting it throws. */
export async function keepRunning(start: () => Promise<RunningRole>, signal: AbortSignal): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  while (!signal.aborted) {
    await using role = await start();
    await Promise.race([role.ended, stopped]);
  }
}
