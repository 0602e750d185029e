// A log as a view follows it that is folded elsewhere: it notices when another log has been put in its place.
//
//   same id                        go on
//   another id, our history        go on, and remember the id (a log restored from a copy)
//   another id that replaces ours  whoever keeps the view looks whether it holds what ours does (successor.ts), and if
//                                  so follows it from the next start on
//   any other                      the view finds out by the chain and says `diverged`; a person decides

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Append, BeaconLog, LogEntry, LogHead, LogLineage, LogPosition } from './log.ts';

export interface FollowerPorts {
  /** How far the view has come. */
  position(): LogPosition;
  /** Id of the log that the view was folded from; undefined when it has not been told yet. */
  followed(): string | undefined;
  /** The view is a fold of the log with this id. On disk when it resolves. */
  onFollowed(id: string): Promise<void>;
  /**
   * Another log, which now ends at `head`, says that it has taken the place of the view's, and tells another history.
   * Resolves when that is proven and on disk that it will be followed. Throws when it is not, with `diverged` when
   * it lost something.
   */
  onReplaced(by: LogLineage, head: LogPosition): Promise<void>;
}

export class FollowedLog implements BeaconLog {
  readonly #log: BeaconLog;
  readonly #ports: FollowerPorts;
  #refused = false;

  /** The log stays the caller's to close. */
  constructor(log: BeaconLog, ports: FollowerPorts) {
    this.#log = log;
    this.#ports = ports;
  }

  /** True when who keeps the log answered last that there is none to follow now: waiting a moment does not help. */
  get isRefused(): boolean {
    return this.#refused;
  }

  /** Throws BEACON_UNAVAILABLE once the log has been replaced. */
  async head(): Promise<LogHead> {
    const head = await this.#log.head().catch((error: unknown) => {
      this.#refused = isHoldfastError(error, 'BEACON_UNAVAILABLE');
      throw error;
    });
    this.#refused = false;
    if (head.lineage !== undefined && head.lineage.id !== this.#ports.followed())
      await this.#meet(head, head.lineage);
    return head;
  }

  append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    return this.#log.append(append, options);
  }

  read(from: number, options?: { readonly signal?: AbortSignal }): AsyncIterable<LogEntry> {
    return this.#log.read(from, options);
  }

  watch(from: number, options: { readonly signal: AbortSignal }): AsyncIterable<LogEntry> {
    return this.#log.watch(from, options);
  }

  snapshot(options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> {
    if (this.#log.snapshot === undefined) throw new HoldfastError('NOT_FOUND', 'there is no view to copy');
    return this.#log.snapshot(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #meet(head: LogPosition, lineage: LogLineage): Promise<void> {
    if (await this.#continues(head)) return this.#ports.onFollowed(lineage.id);
    const followed = this.#ports.followed();
    if (followed === undefined || !lineage.replaces.includes(followed)) return;
    await this.#ports.onReplaced(lineage, head);
    throw new HoldfastError('BEACON_UNAVAILABLE', 'another log has been put in the place of this one', {
      details: { id: lineage.id },
    });
  }

  /** True when the log holds the view's history: the entry that the view holds last proves it. */
  async #continues(head: LogPosition): Promise<boolean> {
    const { revision, chain } = this.#ports.position();
    if (revision === 0) return true;
    if (head.revision < revision) return false;
    for await (const entry of this.#log.read(revision)) return sameBytes(entry.chain, chain);
    return false;
  }
}
