// Ctrl-C stops in order; a second Ctrl-C hurries.

const stopSignals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

// A terminal sends Ctrl-C to the whole foreground group, and npm passes its own copy on: one press arrives
// twice within milliseconds and must count once.
const samePressMs = 500;

export interface SignalStop extends Disposable {
  /** Aborts at the first SIGINT, SIGTERM or SIGHUP. */
  readonly stop: AbortSignal;
  /** Aborts at the second. */
  readonly hurry: AbortSignal;
}

/** Takes over the signals of this process until disposed. The reason of an abort is an Error naming the signal. */
export function stopOnSignals(): SignalStop {
  const stop = new AbortController();
  const hurry = new AbortController();
  let first: number | undefined;
  const signalled = (signal: NodeJS.Signals): void => {
    const now = performance.now();
    first ??= now;
    if (now - first >= samePressMs) hurry.abort(new Error(`received ${signal} again`));
    else stop.abort(new Error(`received ${signal}`));
  };
  for (const signal of stopSignals) process.on(signal, signalled);
  return {
    stop: stop.signal,
    hurry: hurry.signal,
    [Symbol.dispose]() {
      for (const signal of stopSignals) process.off(signal, signalled);
    },
  };
}
