// Orders to whoever is being started. A process connects before it answers everything: until then a call is refused for
// want of a name to answer, and was not carried out by anybody, so it can be made again.

import { isHoldfastError } from '../core/errors.ts';

export interface ComingUpPorts {
  readonly isConnected: () => boolean;
  /** Monotonic, ms. */
  readonly now: () => number;
  /** Between two looks. Rejects when nobody waits any more. */
  readonly pause: () => Promise<unknown>;
}

/**
 * What `call` gives once the other side is there and answers such calls; `call` is made within `patienceMs` in any case,
 * so that who is not there is told as it always is. Throws what `call` throws: that nobody answers such calls only after
 * that time, all else at once, since then it may have been carried out.
 */
export async function onceUp<T>(
  { isConnected, now, pause }: ComingUpPorts,
  patienceMs: number,
  call: () => Promise<T>,
): Promise<T> {
  const giveUpAt = now() + patienceMs;
  while (!isConnected() && now() < giveUpAt) await pause();
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!isUnknownThere(error) || now() >= giveUpAt) throw error;
    }
    await pause();
  }
}

/** The answer of a peer to a call that nothing in it answers (rpc-answers.ts). */
function isUnknownThere(error: unknown): boolean {
  return isHoldfastError(error, 'PEER_REFUSED') && 'method' in error.details;
}
