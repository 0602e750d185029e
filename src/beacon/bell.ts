// Waking those who wait for a log to grow.

/** Take `next()` first, then look at what may have changed, then wait: no ring falls in between unheard. */
export class Bell {
  #current = Promise.withResolvers<void>();

  /** Resolves at the next ring. */
  next(): Promise<void> {
    return this.#current.promise;
  }

  ring(): void {
    this.#current.resolve();
    this.#current = Promise.withResolvers<void>();
  }
}

/** Resolves when `event` does or `signal` aborts, whichever is first; leaves no listener behind. */
export async function eventOrAbort(event: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const aborted = Promise.withResolvers<void>();
  const onAbort = (): void => aborted.resolve();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([event, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

interface Revised {
  readonly revision: number;
}

/** `read` over and over, from where the last one ended, whenever `bell` rings; ends when `signal` aborts. */
export async function* readAndFollow<Item extends Revised>(
  read: (from: number) => AsyncIterable<Item>,
  bell: Bell,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<Item, void, undefined> {
  let next = from;
  while (!signal.aborted) {
    const changed = bell.next();
    for await (const item of read(next)) {
      if (signal.aborted) return;
      next = item.revision + 1;
      yield item;
    }
    await eventOrAbort(changed, signal);
  }
}
