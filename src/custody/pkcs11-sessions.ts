// A few sessions of a token, each lent to one piece of work at a time. One that breaks is closed and replaced; the
// work is then tried once more, because a token that was reset answers every old session with an error.
//
// A native call cannot be taken back. When the time is over the caller goes on, but the place stays taken until the
// call returns: a token that hangs must not collect threads.

import { Gate, unlessAborted } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { isPkcs11Error, sessionLost } from './pkcs11-codes.ts';

export interface SessionsOptions<Lease> {
  readonly open: () => Promise<Lease>;
  readonly close: (lease: Lease) => Promise<void>;
  readonly sessionsMax: number;
  /** One piece of work with its wait for a session. */
  readonly timeoutMs: number;
  /** For messages. */
  readonly name: string;
}

export class Pkcs11Sessions<Lease> implements AsyncDisposable {
  readonly #options: SessionsOptions<Lease>;
  readonly #gate: Gate;
  readonly #idle: Lease[] = [];
  readonly #working = new Set<Promise<unknown>>();
  #closed = false;

  constructor(options: SessionsOptions<Lease>) {
    this.#options = options;
    this.#gate = new Gate(options.sessionsMax);
  }

  /** Does `work` with a session. Throws TIMEOUT, the reason of `signal`, or what opening or working throws. */
  async run<T>(work: (lease: Lease) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#closed) throw new Error('sessions: used after disposal');
    const overdue = AbortSignal.timeout(this.#options.timeoutMs);
    const stop = signal === undefined ? overdue : AbortSignal.any([overdue, signal]);
    const working = this.#gate.run(async () => {
      stop.throwIfAborted(); // nobody waits for it any more
      return this.#withRetry(work);
    });
    this.#working.add(working);
    void working.catch(() => undefined).finally(() => this.#working.delete(working));
    try {
      return await unlessAborted(working, stop);
    } catch (error) {
      signal?.throwIfAborted();
      if (!overdue.aborted || error !== overdue.reason) throw error;
      const { name, timeoutMs } = this.#options;
      throw new HoldfastError('TIMEOUT', `${name} did not answer within ${timeoutMs} ms`, { cause: error });
    }
  }

  /** Waits for what is under way, then closes every session. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#working);
    await Promise.all(this.#idle.splice(0).map((lease) => this.#close(lease)));
  }

  async #withRetry<T>(work: (lease: Lease) => Promise<T>): Promise<T> {
    try {
      return await this.#once(work);
    } catch (error) {
      if (!isPkcs11Error(error, sessionLost)) throw error;
      await Promise.all(this.#idle.splice(0).map((lease) => this.#close(lease)));
      return this.#once(work);
    }
  }

  async #once<T>(work: (lease: Lease) => Promise<T>): Promise<T> {
    const lease = this.#idle.pop() ?? (await this.#options.open());
    try {
      const result = await work(lease);
      this.#idle.push(lease);
      return result;
    } catch (error) {
      if (isPkcs11Error(error, sessionLost)) await this.#close(lease);
      else this.#idle.push(lease);
      throw error;
    }
  }

  /** A session of a token that went away cannot be closed, and need not be. */
  async #close(lease: Lease): Promise<void> {
    await this.#options.close(lease).catch(() => undefined);
  }
}
