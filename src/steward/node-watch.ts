// The storage nodes as the steward hears them: one feed each, how alive it is, and what that makes it good for.

import type { Beat } from '../backbeat/tempo.ts';
import type { Clock } from '../core/clock.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import { makeSight, type Sight, type SightState } from './classes.ts';
import { NodeFeed } from './feed.ts';
import type { JournalPosition } from './ledger-level.ts';
import type { Ledger } from './ledger.ts';
import { livenessOf } from './liveness.ts';
import type { Notices } from './notices.ts';
import type { PlanNode } from './plan.ts';
import type { StewardSettings } from './settings.ts';
import type { NodeLiveness, NodeStatus } from './status.ts';
import type { NodeChores } from './wire.ts';

/** A member of the cluster as the steward needs it; the app takes it from the signed membership. */
export interface StewardMember {
  readonly name: string;
  readonly peer: PeerName;
  /** `node` is asked and given copies, `door` is told the beat and may ask for leases. Others are ignored. */
  readonly roles: readonly string[];
  readonly zone: string;
  readonly host: string;
}

export interface NodeWatchPorts {
  readonly rpc: RpcClient;
  readonly clock: Clock;
  readonly ledger: Ledger;
  readonly notices: Notices;
  /** Called with the number of a node that has come back. */
  readonly onReturned: (node: number) => void;
  /** Whether a node leaves challenges about what it lists unanswered. */
  readonly isDoubted: (node: number) => boolean;
}

export class NodeWatch {
  readonly #ports: NodeWatchPorts;
  readonly #settings: StewardSettings;
  readonly #startedAt: number;
  readonly #feeds = new Map<PeerName, NodeFeed>();
  readonly #liveness = new Map<PeerName, { readonly state: NodeLiveness; readonly since: number }>();
  #members: readonly StewardMember[];
  #journals: ReadonlyMap<PeerName, JournalPosition> = new Map();
  #nodes: readonly PlanNode[] = [];
  #sight: Sight = makeSight([], 0);
  #sightKey = '';

  constructor(ports: NodeWatchPorts, settings: StewardSettings, members: readonly StewardMember[]) {
    this.#ports = ports;
    this.#settings = settings;
    this.#members = members;
    this.#startedAt = ports.clock.now();
  }

  get members(): readonly StewardMember[] {
    return this.#members;
  }

  /** By the ledger's node numbers, as of the last `look`. */
  get nodes(): readonly PlanNode[] {
    return this.#nodes;
  }

  get sight(): Sight {
    return this.#sight;
  }

  setMembers(members: readonly StewardMember[]): void {
    this.#members = members;
  }

  /** How far each node's journal was read before this start. Call it before the first round. */
  resume(journals: ReadonlyMap<PeerName, JournalPosition>): void {
    this.#journals = journals;
  }

  /** How far each node's journal has been read. */
  journals(): Map<PeerName, JournalPosition> {
    const positions = new Map<PeerName, JournalPosition>();
    for (const [peer, feed] of this.#feeds)
      if (feed.position !== undefined) positions.set(peer, feed.position);
    return positions;
  }

  /** Calls all nodes at once; one that does not answer holds up nobody beyond the patience. */
  async listen(beat: Beat, signal: AbortSignal): Promise<void> {
    const calls: Promise<void>[] = [];
    for (const member of this.#nodeMembers()) {
      const call = this.#feed(member.peer).beat(beat.frame, signal);
      const state = this.#liveness.get(member.peer)?.state;
      if (state !== 'down' && state !== 'suspect') calls.push(call);
    }
    await withPatience(Promise.all(calls), this.#settings.patienceMs);
  }

  /** Takes the nodes' states for this decision; when one has changed, everything is in doubt. */
  look(): void {
    const { ledger, clock } = this.#ports;
    const now = clock.now();
    const members = new Map(this.#nodeMembers().map((member) => [member.peer, member]));
    for (const peer of members.keys()) this.#feed(peer); // gives it its number
    this.#nodes = ledger.nodes.map((peer) => this.#planNode(peer, members.get(peer), now));
    this.#sight = makeSight(
      this.#nodes.map(({ state, zone, freeBytes }, node) => {
        return { state, zone, accepting: freeBytes > 0, doubted: this.#ports.isDoubted(node) };
      }),
      this.#settings.settleMs,
    );
    const { states, eligible, zones, doubted } = this.#sight;
    const key = JSON.stringify([states, eligible, zones, doubted]);
    if (key !== this.#sightKey) ledger.doubtAll();
    this.#sightKey = key;
  }

  /** Names of the nodes that take no writes. */
  readOnly(): string[] {
    return this.#nodeMembers()
      .filter(({ peer }) => this.#feeds.get(peer)?.usage?.state === 'read-only')
      .map(({ name }) => name);
  }

  /** What each node that has answered does by itself. */
  chores(): NodeChores[] {
    return this.#nodeMembers().flatMap(({ peer }) => this.#feeds.get(peer)?.chores ?? []);
  }

  status(): NodeStatus[] {
    return this.#nodeMembers().map((member) => this.#statusOf(member));
  }

  #planNode(peer: PeerName, member: StewardMember | undefined, now: number): PlanNode {
    if (member === undefined)
      return { peer, name: peer, zone: '', host: '', state: 'absent', since: now, freeBytes: 0 };
    const feed = this.#feed(peer);
    const state = livenessOf(feed.hearing, now, this.#settings);
    const since = this.#enter(member, state, feed, now);
    return { ...member, state: sightOf(state), since, freeBytes: this.#roomOn(feed) };
  }

  #enter(member: StewardMember, state: NodeLiveness, feed: NodeFeed, now: number): number {
    const before = this.#liveness.get(member.peer);
    if (before?.state === state) return before.since;
    this.#liveness.set(member.peer, { state, since: now });
    if (state === 'up') this.#ports.onReturned(feed.node);
    if (state === 'down') this.#ports.ledger.doubt(feed.node);
    if (state === 'down')
      this.#ports.notices.problem(`node ${member.name}`, feed.lastError || 'never answered');
    return now;
  }

  #roomOn(feed: NodeFeed): number {
    const { usage } = feed;
    if (usage === undefined || usage.state !== 'ready') return 0;
    return Math.max(0, usage.freeBytes - this.#settings.freeBytesMin);
  }

  #nodeMembers(): StewardMember[] {
    return this.#members.filter((member) => member.roles.includes('node'));
  }

  #feed(peer: PeerName): NodeFeed {
    let feed = this.#feeds.get(peer);
    if (feed === undefined) {
      const { rpc, clock, ledger, notices } = this.#ports;
      const onProblem = (what: string, reason: string): void => notices.problem(what, reason);
      const { deadlineMs } = this.#settings;
      feed = new NodeFeed(peer, this.#journals.get(peer), { rpc, clock, ledger, deadlineMs, onProblem });
      this.#feeds.set(peer, feed);
    }
    return feed;
  }

  #statusOf(member: StewardMember): NodeStatus {
    const feed = this.#feed(member.peer);
    const { state, since } = this.#liveness.get(member.peer) ?? { state: 'unknown', since: this.#startedAt };
    const { blocks, bytes } = this.#ports.ledger.totals(feed.node);
    const { heardAt } = feed.hearing;
    return {
      name: member.name,
      peer: member.peer,
      zone: member.zone,
      host: member.host,
      up: state === 'up' || state === 'listing',
      liveness: state,
      since,
      blocks,
      bytes,
      freeBytes: feed.usage?.freeBytes ?? null,
      state: feed.usage?.state ?? 'unknown',
      reason: feed.usage?.reason ?? '',
      lastBeatMs: heardAt === undefined ? null : this.#ports.clock.now() - heardAt,
      lastError: feed.lastError,
    };
  }
}

/** What is not known up to now is not counted on and not given up. */
function sightOf(state: NodeLiveness): SightState {
  return state === 'listing' ? 'unknown' : state;
}

/** Resolves with `work` or after `ms`, whichever comes first. */
async function withPatience(work: Promise<unknown>, ms: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    void work.finally(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
