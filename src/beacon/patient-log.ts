// A log on servers, for a process that must start and go on whether they are there or not: opened in the background,
// and opened again after its stream was found to be another one.
//
// While it is not open it takes nothing and says why. Opening compares stream and copy anew each time, so a stream that
// was repaired is followed again by itself, and one that was not never is.

import { setTimeout as delay } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import type { JetStreamLog } from './jetstream.ts';
import type { Append, BeaconLog, LogEntry, LogHead, LogHealth } from './log.ts';

export interface PatientLogOptions {
  /** How long `start` waits for the first attempt, ms. Default 10 s. */
  readonly startMs?: number;
  /** Between attempts while no server answers, ms. Default 1 s. */
  readonly pauseMs?: number;
  /** Between attempts while the stream is refused, for its settings or its history, ms. Default 10 s. */
  readonly refusedPauseMs?: number;
}

export class PatientLog implements BeaconLog {
  readonly #open: (signal: AbortSignal) => Promise<JetStreamLog>;
  readonly #options: Required<PatientLogOptions>;
  readonly #closing = new AbortController();
  #log: JetStreamLog | undefined;
  #problem = new HoldfastError('BEACON_UNAVAILABLE', 'no server has answered yet');
  #running: Promise<void> = Promise.resolve();
  #first = Promise.withResolvers<void>();

  private constructor(open: (signal: AbortSignal) => Promise<JetStreamLog>, options: PatientLogOptions) {
    this.#open = open;
    this.#options = { startMs: 10 * second, pauseMs: second, refusedPauseMs: 10 * second, ...options };
  }

  /** Begins to open, and resolves after the first attempt, or a while. Throws what speaks against the copy: DATA_DIR_*. */
  static async start(
    open: (signal: AbortSignal) => Promise<JetStreamLog>,
    options: PatientLogOptions = {},
  ): Promise<PatientLog> {
    const log = new PatientLog(open, options);
    log.#running = log.#run();
    const patience = delay(log.#options.startMs, undefined, { signal: log.#closing.signal }).catch(
      () => undefined,
    );
    await Promise.race([log.#first.promise, patience]);
    if (log.#problem.code.startsWith('DATA_DIR_') && log.#log === undefined) {
      await log[Symbol.asyncDispose]();
      throw log.#problem;
    }
    return log;
  }

  health(): LogHealth {
    return this.#log?.health() ?? { state: 'read-only', reason: describeError(this.#problem) };
  }

  /** Why nothing can be appended now; undefined when it can, as far as is known. */
  problem(): HoldfastError | undefined {
    return this.#log === undefined ? this.#problem : undefined;
  }

  /** As JetStreamLog; nothing is known while there is none. */
  durability(): { readonly durable: boolean; readonly problems: readonly string[] } {
    return this.#log?.durability() ?? { durable: false, problems: [] };
  }

  append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    return this.#opened().then((log) => log.append(append, options));
  }

  async *read(from: number, options?: { readonly signal?: AbortSignal }): AsyncGenerator<LogEntry> {
    yield* (await this.#opened()).read(from, options);
  }

  async *watch(from: number, options: { readonly signal: AbortSignal }): AsyncGenerator<LogEntry> {
    yield* (await this.#opened()).watch(from, options);
  }

  async head(): Promise<LogHead> {
    return (await this.#opened()).head();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #opened(): Promise<JetStreamLog> {
    if (this.#log !== undefined) return this.#log;
    const { message, details } = this.#problem;
    throw new HoldfastError('BEACON_UNAVAILABLE', message, { details, cause: this.#problem });
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#once();
      const isRefused = 'diverged' in this.#problem.details || 'settings' in this.#problem.details;
      const pause = isRefused ? this.#options.refusedPauseMs : this.#options.pauseMs;
      await delay(pause, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Opens, and keeps it open until the stream is lost or nobody wants it any more. */
  async #once(): Promise<void> {
    try {
      await using log = await this.#open(this.#closing.signal);
      this.#log = log;
      this.#first.resolve();
      await aborted(AbortSignal.any([log.lost, this.#closing.signal]));
      if (log.lost.aborted)
        this.#problem = new HoldfastError('BEACON_UNAVAILABLE', log.health().reason, {
          details: { diverged: true },
        });
      this.#log = undefined;
    } catch (error) {
      this.#problem = asHoldfastError(error, 'BEACON_UNAVAILABLE', 'the log does not open');
      this.#first.resolve();
    }
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
