// A log on servers, for a process that must start and go on whether they are there or not: opened in the background,
// and opened again after its stream was found to be another one.
//
// While it is not open it takes nothing and says why. Opening compares stream and copy anew each time, so a stream that
// was repaired is followed again by itself, and one that was not never is.

import { setTimeout as delay } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import type { JetStreamLog } from './jetstream.ts';
import type { StreamWord } from './jetstream-message.ts';
import type { Append, LogEntry, LogHead, LogHealth, RecallingLog } from './log.ts';

export interface PatientLogOptions {
  /** How long `start` waits for the first attempt, ms. Default 10 s. */
  readonly startMs?: number;
  /** Between attempts while no server answers, ms. Default 1 s. */
  readonly pauseMs?: number;
  /** Between attempts while the stream is refused, for its settings or its history, ms. Default 10 s. */
  readonly refusedPauseMs?: number;
  /** Called after the stream was found to be another one: the copy, which nobody has open, may hold more than the view. */
  readonly onLost?: () => Promise<void>;
  /** Called now and then while the stream is closed or another one: to see whether something took its place. */
  readonly onStuck?: () => Promise<void>;
}

export class PatientLog implements RecallingLog {
  readonly #open: (signal: AbortSignal) => Promise<JetStreamLog>;
  readonly #options: Required<Omit<PatientLogOptions, 'onLost' | 'onStuck'>> & PatientLogOptions;
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

  /** Who closed the stream and why; undefined while it is open or not known. */
  get closed(): StreamWord | undefined {
    return this.#log?.closed;
  }

  /** As JetStreamLog; nothing is known while there is none. */
  durability(): { readonly durable: boolean; readonly problems: readonly string[] } {
    return this.#log?.durability() ?? { durable: false, problems: [] };
  }

  append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    return this.#opened().then((log) => log.append(append, options));
  }

  async recall(id: Uint8Array): Promise<LogEntry | undefined> {
    return (await this.#opened()).recall(id);
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
      if (await this.#once()) await this.#attempt(this.#options.onLost);
      const isLost = 'diverged' in this.#problem.details;
      if (isLost) await this.#attempt(this.#options.onStuck);
      const { pauseMs, refusedPauseMs } = this.#options;
      const isRefused = isLost || isSettings(this.#problem);
      await delay(isRefused ? refusedPauseMs : pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Opens, and keeps it open until the stream is lost, which is true, or nobody wants it any more. */
  async #once(): Promise<boolean> {
    try {
      await using log = await this.#open(this.#closing.signal);
      this.#log = log;
      this.#first.resolve();
      const end = AbortSignal.any([log.lost, this.#closing.signal]);
      while (!end.aborted) {
        await delay(this.#options.pauseMs, undefined, { signal: end }).catch(() => undefined);
        if (log.closed !== undefined && !end.aborted) await this.#attempt(this.#options.onStuck);
      }
      this.#problem = new HoldfastError('BEACON_UNAVAILABLE', log.health().reason, {
        details: { diverged: true },
      });
      this.#log = undefined;
      return log.lost.aborted;
    } catch (error) {
      this.#problem = asHoldfastError(error, 'BEACON_UNAVAILABLE', 'the log does not open');
      return false;
    } finally {
      this.#first.resolve();
    }
  }

  /** What fails is tried again at the next occasion, and said. */
  async #attempt(work: (() => Promise<void>) | undefined): Promise<void> {
    try {
      await work?.();
    } catch (error) {
      console.error(`the log: ${describeError(error)}`);
    }
  }
}

/** True where the stream or a server is set wrongly; silence about a setting may end by itself. */
export function isSettings({ details }: HoldfastError): boolean {
  return 'settings' in details && details['unanswered'] !== true;
}
