// The child's half of supervision: say when ready, stop when told, and never outlive the supervisor.
//
// Three things tell that the supervisor has gone: the IPC channel closes, the parent pid changes, and, for a
// child whose event loop is stuck so that it sees neither, the guard process kills it (guard.ts). Whichever
// comes first starts a graceful shutdown with a deadline, so that nothing runs on unseen.

import { asHoldfastError, describeError } from '../core/errors.ts';
import { second } from '../core/clock.ts';
import type { ChildInfo } from './control-types.ts';

export interface Supervision extends Disposable {
  /** False when the process was started by hand: then only signals stop it. */
  readonly supervised: boolean;
  /** Aborts when the process shall shut down; the reason is an Error that says why. */
  readonly stop: AbortSignal;
  /** Tells that a long start goes on, and how: the supervisor's time-out begins anew. */
  progress(text: string): Promise<void>;
  /** Tells that the process does its work now. */
  ready(info: ChildInfo): Promise<void>;
  /** Tells why the process cannot start; call it before exiting. */
  failed(error: unknown): Promise<void>;
}

export interface SuperviseChildOptions {
  /** Time a child has to end by itself after its supervisor has gone, milliseconds, above 0. Default 4,000. */
  readonly orphanDeadlineMs?: number;
}

/** Under the 5 s after which no orphan may run, with room for the operating system to end the process. */
export const orphanDeadlineMs = 4 * second;
const parentCheckMs = 500;

/** What goes over the IPC channel, from child to supervisor. */
export type ChildMessage =
  | { readonly type: 'progress'; readonly text: string }
  | { readonly type: 'ready'; readonly info: ChildInfo }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };

/**
 * Puts this process under its supervisor, if it has one: call it first. SIGTERM, SIGINT and SIGHUP ask for a
 * shutdown too; the second of them exits at once. Disposing lets go of the channel and the signals, so that
 * the process ends when nothing else is left to do.
 */
export function superviseChild(options: SuperviseChildOptions = {}): Supervision {
  const controller = new AbortController();
  const supervised = process.send !== undefined;
  const parent = process.ppid;
  const orphaned = (): void => {
    if (controller.signal.aborted && deadline !== undefined) return;
    deadline = setTimeout(() => process.exit(1), options.orphanDeadlineMs ?? orphanDeadlineMs).unref();
    controller.abort(new Error('the supervisor has gone'));
  };
  let deadline: NodeJS.Timeout | undefined;
  const signalled = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort(new Error(`received ${signal}`));
  };
  const parentCheck = setInterval(() => {
    if (supervised && process.ppid !== parent) orphaned();
  }, parentCheckMs).unref();
  for (const signal of stopSignals) process.on(signal, signalled);
  process.on('disconnect', orphaned);
  process.channel?.unref();
  if (supervised && !process.connected) orphaned();
  return {
    supervised,
    stop: controller.signal,
    progress: (text) => send({ type: 'progress', text }),
    ready: (info) => send({ type: 'ready', info }),
    failed: (error) => send(failure(error)),
    [Symbol.dispose]() {
      clearInterval(parentCheck);
      for (const signal of stopSignals) process.off(signal, signalled);
      process.off('disconnect', orphaned);
      if (process.connected) process.disconnect();
    },
  };
}

export const stopSignals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

function failure(error: unknown): ChildMessage {
  const { code } = asHoldfastError(error, 'INTERNAL', 'the process failed');
  return { type: 'failed', code, message: describeError(error) };
}

/** Resolves when the supervisor has the message, or when there is none to have it: its absence is seen otherwise. */
async function send(message: ChildMessage): Promise<void> {
  if (process.send === undefined || !process.connected) return;
  await new Promise<void>((resolve) => process.send?.(message, undefined, {}, () => resolve()));
}
