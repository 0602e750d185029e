// Keeps a connection to every member, for ever. Every member has its own attempt: a frozen one delays none.

import type { Clock } from '../core/clock.ts';
import type { PeerName } from '../core/rpc.ts';
import {
  dialDown,
  dialFailed,
  dialNew,
  dialNow,
  dialStarted,
  type DialState,
  type DialTimes,
  dialUp,
} from './keeper-schedule.ts';

export interface KeeperPort {
  /** Connects to `peer`: resolves when calls can be made, rejects when this attempt failed. Must heed `signal`. */
  connect(peer: PeerName, signal: AbortSignal): Promise<void>;
  /** True when calls can be made already. */
  isUp(peer: PeerName): boolean;
  /** True when this side dials first. */
  dialsFirst(peer: PeerName): boolean;
}

export interface KeeperOptions {
  readonly port: KeeperPort;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  readonly times: DialTimes;
}

interface Kept {
  state: DialState;
  timer: NodeJS.Timeout | undefined;
}

export class Keeper implements AsyncDisposable {
  readonly #options: KeeperOptions;
  readonly #kept = new Map<PeerName, Kept>();
  readonly #stopped = new AbortController();
  readonly #attempts = new Set<Promise<void>>();

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Keeps exactly `peers` from now on. */
  keep(peers: Iterable<PeerName>): void {
    const wanted = new Set(peers);
    for (const [peer, kept] of this.#kept) {
      if (wanted.has(peer)) continue;
      clearTimeout(kept.timer);
      this.#kept.delete(peer);
    }
    for (const peer of wanted) {
      if (!this.#kept.has(peer)) this.#add(peer);
    }
  }

  /** `peer` can be called: whoever opened the connection. */
  up(peer: PeerName): void {
    this.#change(peer, () => dialUp());
  }

  /** `peer` dialled us: an attempt that waits starts at once. */
  nudge(peer: PeerName): void {
    this.#change(peer, (state) => dialNow(state, this.#now()));
  }

  /** `peer` was lost. */
  down(peer: PeerName): void {
    this.#change(peer, (state) => dialDown(state, this.#now(), this.#options.random(), this.#options.times));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort(new Error('the keeper stops'));
    this.keep([]);
    await Promise.all(this.#attempts);
  }

  #add(peer: PeerName): void {
    const { port, random, times } = this.#options;
    const fresh = dialNew(port.dialsFirst(peer), this.#now(), random(), times);
    this.#kept.set(peer, { state: port.isUp(peer) ? dialUp() : fresh, timer: undefined });
    this.#arm(peer);
  }

  #change(peer: PeerName, next: (state: DialState) => DialState): void {
    const kept = this.#kept.get(peer);
    if (kept === undefined) return;
    kept.state = next(kept.state);
    this.#arm(peer);
  }

  #arm(peer: PeerName): void {
    const kept = this.#kept.get(peer);
    if (kept === undefined) return;
    clearTimeout(kept.timer);
    kept.timer = undefined;
    if (kept.state.status !== 'waiting') return;
    kept.timer = setTimeout(() => this.#start(peer), Math.max(0, kept.state.dueAt - this.#now()));
  }

  #start(peer: PeerName): void {
    this.#change(peer, dialStarted);
    const attempt = this.#attempt(peer).finally(() => this.#attempts.delete(attempt));
    this.#attempts.add(attempt);
  }

  /** Never rejects: a failed attempt is a state. */
  async #attempt(peer: PeerName): Promise<void> {
    const { port, random, times } = this.#options;
    try {
      await port.connect(peer, this.#stopped.signal);
    } catch {
      // Expected while the member is away; the operator sees it as `down` in connected().
    }
    // The link may have come up and gone again within the attempt: what counts is now.
    const isUp = port.isUp(peer);
    this.#change(peer, (state) => (isUp ? dialUp() : dialFailed(state, this.#now(), random(), times)));
  }

  #now(): number {
    return this.#options.clock.monotonic();
  }
}
