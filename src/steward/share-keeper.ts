// The division of work among stewards, kept up: a round of calls to all nodes every second, and what follows from it
// (shares.ts). It has a pace of its own: a long pass of the planner must not cost the lease.

import { compareEpochs, type Epoch, ownerOf, readEpoch, slicesCount } from '../core/epoch.ts';
import type { Clock } from '../core/clock.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import {
  afterRound,
  defaultShareTiming,
  mayAct,
  type NodeEpoch,
  proposal,
  type ShareState,
  type ShareTiming,
  startShares,
} from './shares.ts';
import type { SharesStatus } from './status.ts';

/** What may be ordered now, as the planner and the healer ask it. */
export interface Shares {
  /** True when this steward may give orders about the slice. */
  mine(slice: number): boolean;
  /** Goes with every order; undefined where there was never a second steward. */
  token(): Epoch | undefined;
  /** Stewards that share the work, at least one. */
  count(): number;
  status(): SharesStatus | undefined;
}

/** Of a steward that is alone. */
export const allShares: Shares = {
  mine: () => true,
  token: () => undefined,
  count: () => 1,
  status: () => undefined,
};

export interface ShareKeeperPorts {
  readonly rpc: RpcClient;
  readonly clock: Clock;
  readonly self: PeerName;
  readonly nodes: () => readonly PeerName[];
  readonly stewards: () => readonly { readonly peer: PeerName; readonly name: string }[];
  readonly timing?: ShareTiming;
}

export class ShareKeeper implements Shares, AsyncDisposable {
  readonly #ports: ShareKeeperPorts;
  readonly #timing: ShareTiming;
  readonly #stop = new AbortController();
  #state: ShareState;
  #owners: readonly (PeerName | undefined)[] = [];
  #running: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  private constructor(ports: ShareKeeperPorts) {
    this.#ports = ports;
    this.#timing = ports.timing ?? defaultShareTiming;
    this.#state = startShares(ports.self, peersOf(ports));
  }

  static start(ports: ShareKeeperPorts): ShareKeeper {
    const keeper = new ShareKeeper(ports);
    keeper.#running = keeper.#run();
    return keeper;
  }

  mine(slice: number): boolean {
    const { clock } = this.#ports;
    return mayAct(this.#state, this.#owners[slice], clock.monotonic(), this.#timing);
  }

  token(): Epoch | undefined {
    return this.#state.epoch;
  }

  count(): number {
    return Math.max(1, this.#state.epoch?.members.length ?? 1);
  }

  status(): SharesStatus | undefined {
    const { epoch, confirmedAt, inForceAt, isSole, heardAt, self } = this.#state;
    if (isSole) return undefined;
    const now = this.#ports.clock.monotonic();
    const leaseMs = Math.round(Math.max(0, confirmedAt + this.#timing.leaseMs - now));
    const waitMs = Math.round(Math.max(0, inForceAt + this.#timing.takeoverMs - now));
    return {
      epoch: epoch?.n ?? null,
      leaseMs: Number.isFinite(leaseMs) ? leaseMs : 0,
      waitMs: epoch === undefined ? 0 : waitMs,
      stewards: this.#ports.stewards().map(({ name, peer }) => ({
        name,
        peer,
        isSelf: peer === self,
        slices: this.#owners.filter((owner) => owner === peer).length,
        heardMs: peer === self ? 0 : agoOf(heardAt.get(peer), now),
      })),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#round();
      await this.#pause();
    }
  }

  async #round(): Promise<void> {
    const { clock, nodes } = this.#ports;
    const startedAt = clock.monotonic();
    const proposed = proposal(this.#state, startedAt, this.#timing);
    const peers = nodes();
    const asked = await Promise.all(peers.map((node) => this.#ask(node, proposed)));
    const answers = asked.filter((answer) => answer !== undefined);
    const before = this.#state.epoch;
    this.#state = afterRound(
      this.#state,
      {
        startedAt,
        endedAt: clock.monotonic(),
        answers,
        nodesCount: peers.length,
        stewards: peersOf(this.#ports),
      },
      this.#timing,
    );
    const { epoch } = this.#state;
    if (compareEpochs(before, epoch) === 0) return;
    this.#owners = Array.from({ length: slicesCount }, (_, slice) => ownerOf(slice, epoch?.members ?? []));
  }

  async #ask(node: PeerName, proposed: Epoch | undefined): Promise<NodeEpoch | undefined> {
    const { rpc } = this.#ports;
    const propose = proposed === undefined ? null : { ...proposed, members: [...proposed.members] };
    try {
      const options = { timeoutMs: this.#timing.roundMs, signal: this.#stop.signal };
      const { head } = await rpc.call(node, 'node.epoch', { head: { propose } }, options);
      return { held: readEpoch(fieldOf(head, 'held')), heard: readHeard(fieldOf(head, 'heard')) };
    } catch {
      return undefined; // it counts as one that holds nothing
    }
  }

  async #pause(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#timing.roundMs);
      this.#wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function peersOf({ stewards }: Pick<ShareKeeperPorts, 'stewards'>): PeerName[] {
  return stewards().map(({ peer }) => peer);
}

const heardMax = 256;

function readHeard(value: unknown): NodeEpoch['heard'] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, heardMax).flatMap((each: unknown) => {
    const [peer, agoMs] = [fieldOf(each, 'peer'), fieldOf(each, 'agoMs')];
    return typeof peer === 'string' && typeof agoMs === 'number' && agoMs >= 0 ? [{ peer, agoMs }] : [];
  });
}

function agoOf(at: number | undefined, now: number): number | null {
  return at === undefined ? null : Math.round(Math.max(0, now - at));
}
