// A log as a view follows it that is folded elsewhere: it notices when another log has been put in its place.
//
//   same id, or none             the view finds out by the chain whether it can go on
//   another id, our history      go on, and remember the id (a log restored from a copy)
//   another id and history       whoever keeps the view looks whether it holds what ours does (successor.ts), and if so
//                                follows it from the next start on
//   another id, and only the beginning of our history, e.g. an empty log
//                                it lacks something, and whoever kept it may still fill it (import): it is behind, and
//                                looked at only where it says that it replaces ours, so that a person can accept it
//
// A view that was begun anew, because its rows were of an earlier edition, remembers how far the one before had come: until
// it is there again it follows only a log that holds that.
//
// Whether a log of another history names ours does not count: one that was rebuilt after its disk was lost knows of none.

import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import {
  type Append,
  type BeaconLog,
  holds,
  type LogEntry,
  type LogHead,
  type LogLineage,
  type LogPosition,
} from './log.ts';
import { diverged } from './view-follower.ts';

export interface FollowerPorts {
  /** How far the view has come. */
  position(): LogPosition;
  /** The entries that the view holds, from a revision on. */
  readonly read: BeaconLog['read'];
  /** Id of the log that the view was folded from; undefined when it has not been told yet. */
  followed(): string | undefined;
  /** The view is a fold of the log with this id. On disk when it resolves. */
  onFollowed(id: string): Promise<void>;
  /** How far the view had come that was here before, while this one has not come so far. Absent: there was none. */
  seen?(): LogPosition | undefined;
  /** The log, which is `by` if it says so, does not hold what was seen, for which `error` is thrown. */
  onLacking?(by: LogLineage | undefined, head: LogPosition, error: HoldfastError): void;
  /**
   * Another log, which now ends at `head`, is where the view's was. Resolves when it is proven that it holds everything,
   * and on disk that it will be followed. Throws when it is not, with `diverged` when it lacks something.
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
    await this.#checkSeen(head);
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

  /** Throws BEACON_UNAVAILABLE, details `diverged`. */
  async #checkSeen(head: LogHead): Promise<void> {
    const seen = this.#ports.seen?.();
    if (seen === undefined) return;
    if (seen.revision <= head.revision && (await holds(this.#log, seen))) return;
    const error = diverged(
      `the log, which ends at revision ${head.revision}, does not hold what was seen here up to revision ${seen.revision}`,
    );
    this.#ports.onLacking?.(head.lineage, head, error);
    throw error;
  }

  async #meet(head: LogPosition, lineage: LogLineage): Promise<void> {
    const history = await this.#historyOf(head);
    if (history === 'ours') return this.#ports.onFollowed(lineage.id);
    if (history === 'beginning' && !this.#isNamedBy(lineage)) return;
    await this.#ports.onReplaced(lineage, head);
    throw new HoldfastError('BEACON_UNAVAILABLE', 'another log has been put in the place of this one', {
      details: { id: lineage.id },
    });
  }

  /** What the log tells, as far as both go: one entry proves it. */
  async #historyOf(head: LogPosition): Promise<'ours' | 'beginning' | 'another'> {
    const own = this.#ports.position();
    if (own.revision <= head.revision) return (await holds(this.#log, own)) ? 'ours' : 'another';
    return (await holds(this.#ports, head)) ? 'beginning' : 'another';
  }

  #isNamedBy({ replaces }: LogLineage): boolean {
    const followed = this.#ports.followed();
    return followed !== undefined && replaces.includes(followed);
  }
}
