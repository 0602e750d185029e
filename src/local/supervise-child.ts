// The child's half of supervision: say when ready, stop when told, and never outlive the supervisor.
//
// Three things tell that the supervisor has gone: the IPC channel closes, the parent pid changes, and, for a
// child whose event loop is stuck so that it sees neither, the guard kills it (guard.ts). The first of them
// starts a graceful shutdown with a deadline, so that nothing runs on unseen.

import { second } from '../core/clock.ts';
import { asHoldfastError, describeError } from '../core/errors.ts';
import type { ChildInfo } from './control-types.ts';
import { stopOnSignals } from './signals.ts';

export interface Supervision extends Disposable {
  /** False when the process was started by hand: then only signals stop it. */
  readonly supervised: boolean;
  /** Aborts when the process shall shut down; the reason is an Error that says why. */
  readonly stop: AbortSignal;
  /** Tells that a long start goes on, and how: the supervisor's time-out begins anew. */
  progress(text: string): Promise<void>;
  /** Tells that the process does its work now. */
  ready(info: ChildInfo): Promise<void>;
  /** Tells why the process cannot start or go on; await it before exiting. */
  failed(error: unknown): Promise<void>;
}

export interface SuperviseChildOptions {
  /** Time the process has to end by itself after its supervisor has gone, milliseconds, above 0. Default 4,000. */
  readonly orphanMs?: number;
}

/** Under the 5 s after which no orphan may run, with room for the guard and the operating system. */
const orphanMsDefault = 4 * second;
const parentCheckMs = 500;

/** What goes over the IPC channel, from child to supervisor. */
type ChildMessage =
  | { readonly type: 'progress'; readonly text: string }
  | { readonly type: 'ready'; readonly info: ChildInfo }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };

/**
 * Puts this process under its supervisor, if it has one: call it first. SIGTERM, SIGINT and SIGHUP ask for a
 * shutdown too; the second of them exits at once. Disposing lets go of the channel and the signals, so that
 * the process ends when nothing else is left to do.
 */
export function superviseChild({ orphanMs = orphanMsDefault }: SuperviseChildOptions = {}): Supervision {
  const supervised = process.send !== undefined;
  const parent = process.ppid;
  const signals = stopOnSignals();
  const orphan = new AbortController();
  const orphaned = (): void => {
    if (orphan.signal.aborted) return;
    setTimeout(() => process.exit(1), orphanMs).unref();
    orphan.abort(new Error('the supervisor has gone'));
  };
  const parentCheck = setInterval(() => {
    if (supervised && process.ppid !== parent) orphaned();
  }, parentCheckMs).unref();
  signals.hurry.addEventListener('abort', () => process.exit(1));
  process.on('disconnect', orphaned);
  process.channel?.unref();
  if (supervised && !process.connected) orphaned();
  return {
    supervised,
    stop: AbortSignal.any([signals.stop, orphan.signal]),
    progress: (text) => send({ type: 'progress', text }),
    ready: (info) => send({ type: 'ready', info }),
    failed: (error) => send(failure(error)),
    [Symbol.dispose]() {
      clearInterval(parentCheck);
      signals[Symbol.dispose]();
      process.off('disconnect', orphaned);
      if (process.connected) process.disconnect();
    },
  };
}

function failure(error: unknown): ChildMessage {
  const { code } = asHoldfastError(error, 'INTERNAL', 'the process failed');
  return { type: 'failed', code, message: describeError(error) };
}

// A message that cannot be sent has nobody to receive it; that is noticed by 'disconnect'.
async function send(message: ChildMessage): Promise<void> {
  if (process.send === undefined || !process.connected) return;
  await new Promise<void>((resolve) => process.send?.(message, undefined, {}, () => resolve()));
}
