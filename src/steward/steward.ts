// The steward: on every beat it listens to all nodes, compares what is with what ought to be, and acts.
//
// A loop over two kinds of events. A beat is a whole round: catalogue, heartbeats with inventories, judgement,
// plan, actions, proofs. A nudge (the queue ran dry, somebody asked) is judgement and plan only. All state is
// derived: the catalogue from the Beacon, the ledger from the nodes. The ledger's store only saves time
// after a restart, and until a node has been heard nothing is concluded from its silence.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Beat, Tempo } from '../backbeat/tempo.ts';
import { type CID, matchesCid } from '../core/block.ts';
import { type Clock, day, minute } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient, RpcServer } from '../core/rpc.ts';
import { indexBlocks } from '../manifest/segments.ts';
import type { Catalogue } from './catalogue.ts';
import { makeSight, type Sight, type SightState } from './classes.ts';
import { NodeFeed } from './feed.ts';
import { Healer } from './healer.ts';
import type { JournalPosition, LedgerStore } from './ledger-level.ts';
import { livenessOf, type LivenessSettings } from './liveness.ts';
import { type Plan, plan, type PlanAction, type PlanBudget, type PlanNode, type PlanView } from './plan.ts';
import { Prover } from './prover.ts';
import { objectReport } from './report.ts';
import {
  type HoldersReport,
  type NodeLiveness,
  type NodeStatus,
  type ObjectReport,
  type ObjectStatus,
  type StewardAlarm,
  type StewardProblem,
  type StewardStatus,
} from './status.ts';
import { ObjectView } from './view.ts';
import { readCids, readFound, readManifest } from './wire.ts';

/** A member of the cluster as the steward needs it; app.ts takes it from the signed membership. */
export interface StewardMember {
  readonly name: string;
  readonly peer: PeerName;
  /** `node` is asked and given copies, `door` is told the beat and may ask for leases. Others are ignored. */
  readonly roles: readonly string[];
  readonly zone: string;
  readonly host: string;
}

export interface StewardPorts {
  readonly rpc: RpcClient;
  readonly server: RpcServer;
  readonly tempo: Tempo;
  readonly catalogue: Catalogue;
  readonly store: LedgerStore;
  readonly clock: Clock;
  readonly random: (count: number) => Uint8Array;
}

export interface StewardSettings extends LivenessSettings {
  /** One heartbeat call, ms. */
  readonly deadlineMs: number;
  /** A round does not wait longer than this for slow nodes, ms. */
  readonly patienceMs: number;
  /** A round comes after this long even without a beat, ms: healing must not wait for a slow tempo. */
  readonly roundMsMax: number;
  /** A block first named less than this ago is not judged, ms. */
  readonly settleMs: number;
  /** A node with less free space takes no copies, bytes. */
  readonly freeBytesMin: number;
  /** Challenges per node and round; 0 = none. */
  readonly challengesPerNode: number;
  readonly budget: PlanBudget;
}

/** For a local cluster at one beat per second. */
export const defaultStewardSettings: StewardSettings = {
  suspectMs: 3_000,
  graceMs: 10_000,
  deadlineMs: 2_000,
  patienceMs: 500,
  roundMsMax: 5_000,
  settleMs: 2_000,
  freeBytesMin: 64 * 1024 * 1024,
  challengesPerNode: 2,
  budget: {
    copiesMax: 512,
    copiesPerTargetMax: 256,
    copiesPerSourceMax: 256,
    copyBytesMax: 128 * 1024 * 1024,
    deletesMax: 2048,
    provesMax: 64,
    leaseMs: 15 * minute,
    proofAgeMsMax: day,
    massLossShare: 1 / 3,
    unableMax: 64,
  },
};

const copiesUnderwayMax = 32;
const copiesPerTargetUnderwayMax = 8;
const problemsMax = 50;
/** What a door leases for an upload, which it renews in good time; apart from how long other garbage is kept. */
const stagedMs = 15 * minute;
/** Ten holders of each, with their names, still fit into one RPC head. */
const holdersAskedMax = 256;
const cataloguePage = 1024;
/** Pages of the catalogue taken in one round; the rest follows in the next. */
const cataloguePagesMax = 64;
const indexesAtOnce = 4;

export class Steward implements AsyncDisposable {
  readonly #ports: StewardPorts;
  readonly #settings: StewardSettings;
  readonly #stop = new AbortController();
  readonly #view = new ObjectView({ track: true });
  readonly #feeds = new Map<PeerName, NodeFeed>();
  readonly #liveness = new Map<PeerName, { state: NodeLiveness; since: number }>();
  readonly #alarms = new Map<string, StewardAlarm>();
  readonly #healer: Healer;
  readonly #prover: Prover;
  readonly #startedAt: number;
  readonly #background = new Set<Promise<void>>();
  #members: readonly StewardMember[];
  #positions: ReadonlyMap<PeerName, JournalPosition> = new Map();
  #problems: StewardProblem[] = [];
  #nodes: readonly PlanNode[] = [];
  #sight: Sight = makeSight([], 0);
  #sightKey = '';
  #plan: Plan | undefined;
  #revision = 0;
  #caughtUp = false;
  #round = 0;
  #pendingBeat: Beat | undefined;
  #nudged = false;
  #wake: () => void = () => {};
  #loop: Promise<void> = Promise.resolve();
  #walking = false;
  #proving = false;
  #unsubscribe: () => void = () => {};
  #timing = { planMs: 0, roundMs: 0 };

  private constructor(ports: StewardPorts, members: readonly StewardMember[], settings: StewardSettings) {
    this.#ports = ports;
    this.#settings = settings;
    this.#members = members;
    this.#startedAt = ports.clock.now();
    const onProblem = (what: string, reason: string): void => this.#problem(what, reason);
    const shared = { rpc: ports.rpc, ledger: this.#view.ledger, clock: ports.clock, onProblem };
    const limits = { copiesMax: copiesUnderwayMax, copiesPerTargetMax: copiesPerTargetUnderwayMax };
    this.#healer = new Healer({ ...shared, ...limits, onDrained: () => this.nudge() }, this.#stop.signal);
    this.#prover = new Prover({ ...shared, random: ports.random, deadlineMs: settings.deadlineMs });
  }

  /** Loads the ledger, registers the RPC methods and begins. */
  static async start(
    ports: StewardPorts,
    members: readonly StewardMember[],
    settings: StewardSettings = defaultStewardSettings,
  ): Promise<Steward> {
    const steward = new Steward(ports, members, settings);
    steward.#positions = await ports.store.load(steward.#view.ledger, ports.clock.now());
    steward.#register(ports.server);
    steward.#unsubscribe = ports.tempo.onBeat((beat) => {
      steward.#pendingBeat = beat;
      steward.#wake();
    });
    steward.#loop = steward.#run();
    return steward;
  }

  /** A changed membership holds from the next round. */
  setMembers(members: readonly StewardMember[]): void {
    this.#members = members;
  }

  /** Brings the next judgement and plan forward. */
  nudge(): void {
    this.#nudged = true;
    this.#wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#unsubscribe();
    this.#stop.abort();
    this.#wake();
    await this.#loop;
    await Promise.allSettled(this.#background);
    await this.#healer.settled();
    await this.#save();
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#next();
      if (this.#stop.signal.aborted) return;
      const beat = this.#pendingBeat ?? (this.#nudged ? undefined : this.#ports.tempo.current().beat);
      this.#pendingBeat = undefined;
      this.#nudged = false;
      try {
        if (beat === undefined) await this.#decide();
        else await this.#roundOf(beat);
      } catch (error) {
        this.#problem('round', describeError(error)); // the next round starts from the facts again
      }
    }
  }

  /** Waits for a beat, a nudge, the floor or the end. */
  async #next(): Promise<void> {
    if (this.#pendingBeat !== undefined || this.#nudged) {
      await nextTurn();
      return;
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#settings.roundMsMax);
      this.#wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#stop.signal.aborted) this.#wake();
    });
  }

  async #roundOf(beat: Beat): Promise<void> {
    const started = this.#ports.clock.monotonic();
    this.#round++;
    // 1. What ought to exist, before asking what does: a new object's blocks are in the answers that follow.
    await this.#followCatalogue();
    // 2. All nodes at once; one that does not answer holds up nobody beyond the patience.
    await this.#listen(beat);
    this.#tellDoors(beat);
    // 3. Judge, plan, act.
    await this.#decide();
    // 4. What may take its time.
    this.#readIndexes();
    this.#prove();
    await this.#save();
    this.#timing = { ...this.#timing, roundMs: this.#ports.clock.monotonic() - started };
  }

  async #followCatalogue(): Promise<void> {
    const { catalogue, clock } = this.#ports;
    try {
      for (let page = 0; page < cataloguePagesMax; page++) {
        const { objects, revision, done } = await catalogue.changes(this.#revision, cataloguePage);
        for (const object of objects) this.#view.apply(object, clock.now());
        this.#revision = revision;
        this.#caughtUp = done;
        if (done) break;
        await nextTurn();
      }
      this.#clear('catalogue');
    } catch (error) {
      this.#caughtUp = false;
      this.#alarm('catalogue', `the catalogue cannot be read: ${describeError(error)}`);
    }
  }

  async #listen(beat: Beat): Promise<void> {
    const calls: Promise<void>[] = [];
    for (const member of this.#nodeMembers()) {
      const call = this.#feed(member.peer).beat(beat.frame, this.#stop.signal);
      const state = this.#liveness.get(member.peer)?.state;
      if (state !== 'down' && state !== 'suspect') calls.push(call);
    }
    await withPatience(Promise.all(calls), this.#settings.patienceMs);
  }

  #tellDoors(beat: Beat): void {
    const options = { timeoutMs: this.#settings.deadlineMs, signal: this.#stop.signal };
    for (const member of this.#members) {
      if (!member.roles.includes('door')) continue;
      const call = this.#ports.rpc.call(member.peer, 'door.beat', { head: { beat: beat.frame } }, options);
      // A door that misses a beat keeps time by itself; it is not ours to watch.
      this.#inBackground(call.then(() => undefined).catch(() => undefined));
    }
  }

  /** Judges and plans. Long passes over the ledger give way to other work in between. */
  async #decide(): Promise<void> {
    const { clock } = this.#ports;
    const started = clock.monotonic();
    this.#look();
    while (!this.#view.ledger.settle(this.#sight, clock.now())) await nextTurn();
    this.#plan = plan(this.#planView(), clock.now(), this.#settings.budget);
    this.#timing = { ...this.#timing, planMs: clock.monotonic() - started };
    this.#healer.take(await this.#stillTrue(this.#plan.actions));
    this.#askProofs(this.#plan.actions);
    this.#raiseAlarms(this.#plan);
  }

  /** Before anything is collected the catalogue is read once more: an upload may just have been registered. */
  async #stillTrue(actions: readonly PlanAction[]): Promise<readonly PlanAction[]> {
    if (!actions.some((action) => action.kind === 'collect')) return actions;
    await this.#followCatalogue();
    const doubt = this.#catalogueDoubt();
    const { ledger } = this.#view;
    return actions.filter((action) => {
      if (action.kind !== 'collect') return true;
      const slot = ledger.find(action.cid);
      const free = slot >= 0 && ledger.references(slot) === 0 && ledger.stagedUntil(slot) === 0;
      return doubt === '' && free;
    });
  }

  /** Takes the nodes' states for this decision; when one has changed, everything is in doubt. */
  #look(): void {
    const { ledger } = this.#view;
    const now = this.#ports.clock.now();
    const members = new Map(this.#nodeMembers().map((member) => [member.peer, member]));
    for (const peer of members.keys()) this.#feed(peer); // gives it its number
    const nodes = ledger.nodes.map((peer): PlanNode => {
      const member = members.get(peer);
      if (member === undefined) {
        return { peer, name: peer, zone: '', host: '', state: 'absent', since: now, freeBytes: 0 };
      }
      const feed = this.#feed(peer);
      const state = livenessOf(feed.hearing, now, this.#settings);
      const since = this.#enter(member, state, feed, now);
      return { ...member, state: sightOf(state), since, freeBytes: this.#roomOn(feed) };
    });
    this.#nodes = nodes;
    const sight = makeSight(
      nodes.map((node) => ({ state: node.state, zone: node.zone, accepting: node.freeBytes > 0 })),
      this.#settings.settleMs,
    );
    const key = JSON.stringify([sight.states, sight.eligible, sight.zones]);
    this.#sight = sight;
    if (key !== this.#sightKey) ledger.doubtAll();
    this.#sightKey = key;
  }

  #enter(member: StewardMember, state: NodeLiveness, feed: NodeFeed, now: number): number {
    const before = this.#liveness.get(member.peer);
    if (before?.state === state) return before.since;
    this.#liveness.set(member.peer, { state, since: now });
    if (state === 'up') this.#healer.forgive(feed.node);
    if (state === 'down') this.#problem(`node ${member.name}`, feed.lastError || 'never answered');
    return now;
  }

  #roomOn(feed: NodeFeed): number {
    const { usage } = feed;
    if (usage === undefined || usage.state !== 'ready') return 0;
    return Math.max(0, usage.freeBytes - this.#settings.freeBytesMin);
  }

  #planView(): PlanView {
    return {
      ledger: this.#view.ledger,
      nodes: this.#nodes,
      round: this.#round,
      catalogueDoubt: this.#catalogueDoubt(),
      underway: (slot) => this.#healer.targetsOf(slot),
      backoff: (slot, node, now) => this.#healer.backoff(slot, node, now),
    };
  }

  /** Why the set of live blocks may be incomplete, else ''. */
  #catalogueDoubt(): string {
    const state = this.#ports.catalogue.state();
    if (!state.fresh) return state.reason || 'the Beacon view does not follow the log';
    if (!this.#caughtUp || state.revision > this.#revision)
      return 'the catalogue has not been read to its end';
    const pending = this.#view.pendingCount;
    return pending === 0 ? '' : `${pending} objects whose index has not been read`;
  }

  /** Reads indexes of large objects, a few at a time, one run at a time. */
  #readIndexes(): void {
    if (this.#walking || this.#view.pendingCount === 0) return;
    this.#walking = true;
    const pending = this.#view.pendingIndexes(16 * indexesAtOnce);
    const lanes = Array.from({ length: indexesAtOnce }, async () => {
      for (let next = pending.shift(); next !== undefined; next = pending.shift())
        await this.#readIndex(next);
    });
    this.#inBackground(
      Promise.all(lanes).then(() => {
        this.#walking = false;
        this.nudge();
      }),
    );
  }

  async #readIndex({ manifest, root }: { readonly manifest: CID; readonly root: CID }): Promise<void> {
    try {
      const blocks: CID[] = [];
      for await (const cid of indexBlocks(root, (index) => this.#load(index))) blocks.push(cid);
      this.#view.indexRead(manifest, root, blocks, this.#ports.clock.now());
    } catch (error) {
      this.#view.indexFailed(manifest);
      if (!this.#stop.signal.aborted) this.#problem(`index ${root.toString()}`, describeError(error));
    }
  }

  /** An index block from any holder that answers with the right bytes. */
  async #load(cid: CID): Promise<Uint8Array> {
    const { ledger } = this.#view;
    const slot = ledger.find(cid);
    const holders =
      slot < 0 ? [] : ledger.holderNodes(slot).filter((node) => this.#nodes[node]?.state === 'up');
    let cause: unknown;
    for (const node of holders) {
      try {
        const options = {
          timeoutMs: 5 * this.#settings.deadlineMs,
          signal: this.#stop.signal,
          lane: 'bulk',
        } as const;
        const { head, body } = await this.#ports.rpc.call(
          ledger.peer(node),
          'block.get',
          { head: { cid } },
          options,
        );
        if (readFound(head) && matchesCid(cid, body)) return body;
      } catch (error) {
        cause = error;
      }
    }
    throw new HoldfastError(
      'BLOCK_UNAVAILABLE',
      `none of ${holders.length} live holders gave ${cid.toString()}`,
      {
        cause,
      },
    );
  }

  /** A few random blocks of every node, one run at a time. */
  #prove(): void {
    if (this.#proving) return;
    this.#proving = true;
    const { ledger } = this.#view;
    const runs: Promise<void>[] = [];
    for (const [node, { state }] of this.#nodes.entries()) {
      if (state !== 'up') continue;
      for (let count = 0; count < this.#settings.challengesPerNode; count++) {
        const slot = ledger.pick(node, fractionOf(this.#ports.random(4)));
        if (slot >= 0) runs.push(this.#challenge(slot, node));
      }
    }
    this.#inBackground(
      Promise.all(runs).then(() => {
        this.#proving = false;
      }),
    );
  }

  #askProofs(actions: readonly PlanAction[]): void {
    for (const action of actions) {
      if (action.kind === 'prove') this.#inBackground(this.#challenge(action.slot, action.target));
    }
  }

  #challenge(slot: number, node: number): Promise<void> {
    const { ledger } = this.#view;
    const others = ledger
      .holders(slot)
      .filter((holder) => holder.node !== node && !holder.bad && this.#nodes[holder.node]?.state === 'up')
      .map((holder) => holder.node);
    return this.#prover.challenge(slot, node, others, this.#stop.signal);
  }

  async #save(): Promise<void> {
    const positions = new Map<PeerName, JournalPosition>();
    for (const [peer, feed] of this.#feeds)
      if (feed.position !== undefined) positions.set(peer, feed.position);
    try {
      await this.#ports.store.save(this.#view.ledger, positions);
      this.#clear('ledger-store');
    } catch (error) {
      this.#alarm('ledger-store', `the ledger cannot be saved: ${describeError(error)}`);
    }
  }

  #inBackground(work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => this.#problem('background', describeError(error)))
      .finally(() => this.#background.delete(guarded));
    this.#background.add(guarded);
  }

  #nodeMembers(): StewardMember[] {
    return this.#members.filter((member) => member.roles.includes('node'));
  }

  #feed(peer: PeerName): NodeFeed {
    let feed = this.#feeds.get(peer);
    if (feed === undefined) {
      const { rpc, clock } = this.#ports;
      const onProblem = (what: string, reason: string): void => this.#problem(what, reason);
      const { deadlineMs } = this.#settings;
      const ports = { rpc, clock, ledger: this.#view.ledger, deadlineMs, onProblem };
      feed = new NodeFeed(peer, this.#positions.get(peer), ports);
      this.#feeds.set(peer, feed);
    }
    return feed;
  }

  #problem(what: string, reason: string): void {
    this.#problems = [
      ...this.#problems,
      { at: this.#ports.clock.now(), what, reason: reason.slice(0, 500) },
    ].slice(-problemsMax);
  }

  #raiseAlarms(decided: Plan): void {
    const say = (name: string, text: string): void =>
      text === '' ? this.#clear(name) : this.#alarm(name, text);
    const lost = this.#view.countOf('lost');
    const last = this.#view.countOf('lastCopy');
    say('objects-lost', lost === 0 ? '' : `${lost} objects have a block that no node holds`);
    say('last-copy', last === 0 ? '' : `${last} objects hang on one copy of a block`);
    say('suspended', decided.summary.suspended.join('; '));
    const readOnly = this.#nodeMembers().filter((m) => this.#feeds.get(m.peer)?.usage?.state === 'read-only');
    say('nodes-read-only', readOnly.map((member) => member.name).join(', '));
  }

  #alarm(name: string, text: string): void {
    const since = this.#alarms.get(name)?.since ?? this.#ports.clock.now();
    this.#alarms.set(name, { name, text, since });
  }

  #clear(name: string): void {
    this.#alarms.delete(name);
  }

  #register(server: RpcServer): void {
    server.handle('steward.status', async () => ({ head: this.status() }));
    server.handle('steward.holders', async ({ head }) => ({
      head: this.holders(readCids(head, holdersAskedMax)),
    }));
    server.handle('steward.object', async ({ head }) => ({ head: this.object(readManifest(head)) }));
    server.handle('steward.heal', async (_, { peer }) => {
      this.#allow(peer, 'steward.heal');
      this.nudge();
      return { head: {} };
    });
    server.handle('steward.staged', async ({ head }, { peer }) => {
      this.#allow(peer, 'steward.staged');
      return { head: { until: this.stage(readCids(head, 1024)) } };
    });
  }

  /** Storage nodes may look; what costs or withholds something is for doors. */
  #allow(peer: PeerName, method: string): void {
    const member = this.#members.find((candidate) => candidate.peer === peer);
    if (member?.roles.some((role) => role === 'door' || role === 'steward') === true) return;
    throw new HoldfastError('FORBIDDEN', `${method} is for doors, not for ${peer}`);
  }

  /** Leases blocks of an upload. Returns until when, wall clock ms. Call before pushing, and again before it ends. */
  stage(cids: readonly CID[]): number {
    const now = this.#ports.clock.now();
    const until = now + stagedMs;
    for (const cid of cids) this.#view.ledger.stage(cid, until, now);
    return until;
  }

  holders(cids: readonly CID[]): HoldersReport {
    const { ledger } = this.#view;
    return {
      holders: cids.map((cid) => {
        const slot = ledger.find(cid);
        const found = slot < 0 ? [] : ledger.holders(slot).filter((holder) => !holder.bad);
        return found.map(({ node, provenAt }) => ({
          node: ledger.peer(node),
          provenAt: provenAt === 0 ? null : provenAt,
          up: this.#nodes[node]?.state === 'up',
        }));
      }),
    };
  }

  /** Throws NOT_FOUND when the catalogue has not named that manifest. */
  object(manifest: CID): ObjectReport {
    const found = this.#view.find(manifest);
    if (found === undefined)
      throw new HoldfastError('NOT_FOUND', `the steward knows no object ${manifest.toString()}`);
    return objectReport(found, this.#view.ledger, this.#nodes, this.#plan?.unable ?? []);
  }

  status(): StewardStatus {
    const { ledger } = this.#view;
    const { clock, tempo, catalogue } = this.#ports;
    const { state, beat, intervalMs } = tempo.current();
    const { fresh, reason } = catalogue.state();
    const count = (name: ObjectStatus): number => this.#view.countOf(name);
    const deficient = ['lost', 'lastCopy', 'belowMin', 'short', 'corrupt', 'belowTarget'] as const;
    return {
      at: clock.now(),
      startedAt: this.#startedAt,
      beat: {
        index: beat?.frame.beat_index ?? null,
        sequence: beat?.sequence ?? 0,
        tempo: state,
        intervalMs,
      },
      catalogue: { revision: this.#revision, fresh, reason, indexesPending: this.#view.pendingCount },
      objects: {
        lost: count('lost'),
        lastCopy: count('lastCopy'),
        belowMin: count('belowMin'),
        short: count('short'),
        healing: count('healing'),
        unchecked: count('unchecked'),
        healthy: count('healthy'),
        total: this.#view.objectCount,
      },
      blocks: {
        total: ledger.size,
        deficient: deficient.reduce((sum, name) => sum + ledger.countOf(name), 0),
        misplaced: ledger.countOf('misplaced'),
        surplus: ledger.countOf('surplus'),
        unreferenced: ledger.countOf('unreferenced'),
      },
      nodes: this.#nodeMembers().map((member) => this.#nodeStatus(member)),
      queue: {
        waiting: this.#healer.waiting,
        underway: this.#healer.underwayCount,
        backingOff: this.#healer.backingOff,
      },
      healing: this.#healingStatus(),
      proofs: this.#prover.counts,
      unable: (this.#plan?.unable ?? []).map(({ slot, cid, state, reason, since }) => ({
        cid: cid.toString(),
        address: this.#view.addressOf(slot) ?? null,
        state,
        reason,
        since,
      })),
      unableTotal: ledger.countOf('lost') + ledger.countOf('short'),
      problems: this.#problems,
      alarms: [...this.#alarms.values()],
      timing: this.#timing,
    };
  }

  #healingStatus(): StewardStatus['healing'] {
    const { pendingBytes } = this.#view.ledger;
    const bytesPerSecond = this.#healer.rate();
    const etaMs = pendingBytes > 0 && bytesPerSecond > 0 ? (pendingBytes / bytesPerSecond) * 1000 : null;
    return { pendingBytes, bytesPerSecond, etaMs, ...this.#healer.counts };
  }

  #nodeStatus(member: StewardMember): NodeStatus {
    const feed = this.#feed(member.peer);
    const now = this.#ports.clock.now();
    const { state, since } = this.#liveness.get(member.peer) ?? { state: 'unknown', since: this.#startedAt };
    const { blocks, bytes } = this.#view.ledger.totals(feed.node);
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
      lastBeatMs: heardAt === undefined ? null : now - heardAt,
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

/** Four random bytes as 0…1. */
function fractionOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) / 0x1_0000_0000;
}
