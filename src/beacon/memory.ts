// The executable model of a Beacon log: what every engine must do, in as little code as possible.

import { HoldfastError } from '../core/errors.ts';
import { Bell, readAndFollow } from './bell.ts';
import {
  type Append,
  appendIdText,
  emptyPosition,
  encodeAppend,
  expectationHolds,
  type LogEntry,
  type LogPosition,
  nextEntry,
  type RecallingLog,
  versionConflict,
} from './log.ts';

export class MemoryLog implements RecallingLog {
  readonly #entries: LogEntry[] = [];
  readonly #revisionOfSubject = new Map<string, number>();
  readonly #entryOfId = new Map<string, LogEntry>();
  readonly #bell = new Bell();
  #open = true;

  async append(append: Append, options: { readonly signal?: AbortSignal } = {}): Promise<LogEntry> {
    this.#checkOpen();
    options.signal?.throwIfAborted();
    const payload = encodeAppend(append);
    const repeated = append.id === undefined ? undefined : this.#entryOfId.get(appendIdText(append.id));
    if (repeated !== undefined) return repeated;
    const current = this.#revisionOfSubject.get(append.subject) ?? 0;
    if (!expectationHolds(append.expected, current)) {
      throw versionConflict(append.subject, append.expected, current);
    }
    const entry = nextEntry(this.#position(), append, payload);
    this.#entries.push(entry);
    this.#revisionOfSubject.set(append.subject, entry.revision);
    if (append.id !== undefined) this.#entryOfId.set(appendIdText(append.id), entry);
    this.#bell.ring();
    return entry;
  }

  async recall(id: Uint8Array): Promise<LogEntry | undefined> {
    return this.#entryOfId.get(appendIdText(id));
  }

  async *read(from: number, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<LogEntry> {
    this.#checkOpen();
    for (const entry of this.#entries.slice(Math.max(0, from - 1))) {
      options.signal?.throwIfAborted();
      yield entry;
    }
  }

  watch(from: number, options: { readonly signal: AbortSignal }): AsyncIterable<LogEntry> {
    return readAndFollow((next) => this.read(next), this.#bell, from, options.signal);
  }

  async head(): Promise<LogPosition> {
    this.#checkOpen();
    const { revision, chain } = this.#position();
    return { revision, chain };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#open = false;
    this.#bell.ring();
  }

  #position(): LogPosition {
    return this.#entries.at(-1) ?? emptyPosition;
  }

  #checkOpen(): void {
    if (!this.#open) throw new HoldfastError('BEACON_UNAVAILABLE', 'the log is closed');
  }
}
