// One node's heartbeat and inventory, read over the same call: deltas of its journal, a full listing when
// the journal does not reach back, and a comparison of digests that catches what both have missed.
//
// While a listing runs the node counts as `listing`: what the ledger remembers stays, nothing is concluded
// from what has not been listed yet. The position in the journal is taken before the listing begins, so
// whatever changes meanwhile comes again as a delta.

import type { BeatFrame } from '../backbeat/beat.ts';
import type { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { type Clock, minute } from '../core/clock.ts';
import { describeError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import type { JournalPosition } from './ledger-level.ts';
import type { Ledger } from './ledger.ts';
import type { Hearing } from './liveness.ts';
import { type BeatAnswer, type NodeChores, type NodeUsage, readBeatAnswer, readListAnswer } from './wire.ts';

export interface FeedPorts {
  readonly rpc: RpcClient;
  readonly ledger: Ledger;
  readonly clock: Clock;
  /** Milliseconds one call may take. */
  readonly deadlineMs: number;
  /** Told of damage and drift, with a text for the operator. */
  readonly onProblem: (what: string, reason: string) => void;
}

/** Digests must differ in so many beats in a row: an addition under way looks like a difference. */
const driftBeats = 3;
/** A node whose digest never agrees is listed again at growing intervals, not in every third beat. */
const relistMsMin = 30_000;
const relistMsMax = 60 * minute;

export class NodeFeed {
  readonly peer: PeerName;
  readonly node: number;
  readonly #ports: FeedPorts;
  readonly #listeningSince: number;
  #position: JournalPosition | undefined;
  #heardAt: number | undefined;
  #listed = false;
  #usage: NodeUsage | undefined;
  #chores: NodeChores | undefined;
  #lastError = '';
  #busy: Promise<void> | undefined;
  #drift = 0;
  #relistAt = 0;
  #relistMs = relistMsMin;
  #seen: Set<number> | undefined;
  #after: CID | null = null;
  #corruptions = 0;

  constructor(peer: PeerName, position: JournalPosition | undefined, ports: FeedPorts) {
    this.peer = peer;
    this.#ports = ports;
    this.#position = position;
    this.node = ports.ledger.node(peer);
    this.#listeningSince = ports.clock.now();
  }

  get hearing(): Hearing {
    return { listeningSince: this.#listeningSince, heardAt: this.#heardAt, listed: this.#listed };
  }

  get usage(): NodeUsage | undefined {
    return this.#usage;
  }

  /** As of its last answer. */
  get chores(): NodeChores | undefined {
    return this.#chores;
  }

  get lastError(): string {
    return this.#lastError;
  }

  /** Blocks the node itself has reported as damaged since this steward started. */
  get corruptions(): number {
    return this.#corruptions;
  }

  /** Where to go on after a restart; undefined while the inventory is not known. */
  get position(): JournalPosition | undefined {
    return this.#listed ? this.#position : undefined;
  }

  /** Calls the node, unless the last call is still under way. Never rejects: an error is kept as `lastError`. */
  beat(frame: BeatFrame, signal: AbortSignal): Promise<void> {
    this.#busy ??= this.#exchange(frame, signal)
      .then(() => {
        this.#lastError = '';
      })
      .catch((error: unknown) => {
        this.#lastError = describeError(error);
        if (isHoldfastError(error, 'RECORD_INVALID'))
          this.#ports.onProblem(`node ${this.peer}`, this.#lastError);
      })
      .finally(() => {
        this.#busy = undefined;
      });
    return this.#busy;
  }

  async #exchange(beat: BeatFrame, signal: AbortSignal): Promise<void> {
    const { rpc, clock, deadlineMs } = this.#ports;
    for (let more = true; more; ) {
      const journal = { epoch: this.#position?.epoch ?? null, seq: this.#position?.seq ?? 0 };
      const head = { beat, journal };
      const answer = await rpc.call(this.peer, 'node.beat', { head }, { timeoutMs: deadlineMs, signal });
      const read = readBeatAnswer(answer.head);
      this.#heardAt = clock.now();
      this.#usage = read.usage;
      this.#chores = read.chores;
      more = this.#take(read);
    }
    if (this.#seen !== undefined) await this.#list(signal);
  }

  /** Applies an answer. True when the node has more to tell. */
  #take(answer: BeatAnswer): boolean {
    if (answer.reset) {
      this.#listed = false;
      this.#seen = new Set();
      this.#after = null;
      this.#position = { epoch: answer.epoch, seq: answer.seq };
      return false;
    }
    for (const change of answer.changes) this.#apply(change);
    this.#position = { epoch: answer.epoch, seq: answer.seq };
    if (answer.more) {
      this.#listed = false;
      return true;
    }
    if (this.#seen === undefined) {
      this.#listed = true;
      this.#compare(answer);
    }
    return false;
  }

  #apply(change: BeatAnswer['changes'][number]): void {
    const { ledger, clock, onProblem } = this.#ports;
    if (change.op === 'add') {
      const slot = ledger.hold(change.cid, this.node, change.sizeBytes, clock.now());
      // What the node says here it says to whoever wrote the block: that it verified and synced it, just now.
      ledger.prove(slot, this.node, clock.now());
      this.#seen?.add(slot);
      return;
    }
    const slot = ledger.find(change.cid);
    if (slot >= 0) {
      ledger.unhold(slot, this.node);
      this.#seen?.delete(slot);
    }
    if (change.op === 'corrupt') {
      this.#corruptions++;
      onProblem(
        `block ${change.cid.toString()} on ${this.peer}`,
        'the node found it damaged and put it into quarantine',
      );
    }
  }

  /** Goes on with the listing until its end. What an error interrupts is continued at the next beat. */
  async #list(signal: AbortSignal): Promise<void> {
    const { rpc, ledger, clock, deadlineMs } = this.#ports;
    const seen = this.#seen ?? new Set<number>();
    for (;;) {
      const head = { after: this.#after, limit: 4096 };
      const answer = await rpc.call(this.peer, 'block.list', { head }, { timeoutMs: 5 * deadlineMs, signal });
      const { cids, done } = readListAnswer(answer.head);
      this.#heardAt = clock.now();
      for (const { cid, sizeBytes } of cids) seen.add(ledger.hold(cid, this.node, sizeBytes, clock.now()));
      this.#after = cids.at(-1)?.cid ?? this.#after;
      if (done || cids.length === 0) break;
    }
    for (let slot = 0; slot < ledger.slotsEnd; slot++) if (!seen.has(slot)) ledger.unhold(slot, this.node);
    this.#seen = undefined;
    this.#listed = true;
  }

  #compare(answer: BeatAnswer): void {
    const { ledger, clock, onProblem } = this.#ports;
    const totals = ledger.totals(this.node);
    if (totals.blocks === answer.digest.count && sameBytes(totals.sum, answer.digest.sum)) {
      this.#drift = 0;
      this.#relistMs = relistMsMin;
      return;
    }
    if (++this.#drift < driftBeats || clock.now() < this.#relistAt) return;
    this.#drift = 0;
    this.#relistAt = clock.now() + this.#relistMs;
    this.#relistMs = Math.min(2 * this.#relistMs, relistMsMax);
    onProblem(
      `inventory of ${this.peer}`,
      `the ledger counts ${totals.blocks} blocks, the node ${answer.digest.count}, or not the same ones: listing again`,
    );
    this.#position = undefined;
  }
}
