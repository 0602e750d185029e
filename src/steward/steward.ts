// The steward: on every beat it listens to all nodes, compares what is with what ought to be, and acts.
//
// A loop over two kinds of events. A beat is a whole round: catalogue, heartbeats with inventories, judgement,
// plan, actions, proofs. A nudge (the queue ran dry, somebody asked) is judgement and plan only. All state is
// derived: the catalogue from the Beacon, the ledger from the nodes. The ledger's store only saves time
// after a restart, and until a node has been heard nothing is concluded from its silence.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TempoReport } from '../backbeat/tempo-report.ts';
import type { Beat, Tempo } from '../backbeat/tempo.ts';
import type { CID } from '../core/block.ts';
import { type Clock, minute, second } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient, RpcServer } from '../core/rpc.ts';
import type { Catalogue } from './catalogue.ts';
import { Claims } from './claims.ts';
import { CatalogueFollower } from './follower.ts';
import { Healer } from './healer.ts';
import { IndexReader } from './index-reader.ts';
import type { LedgerStore } from './ledger-level.ts';
import { NodeWatch, type StewardMember } from './node-watch.ts';
import { Notices } from './notices.ts';
import { collectProblem, type Plan, plan, type PlanAction, type PlanView } from './plan.ts';
import { Prover } from './prover.ts';
import { objectReport } from './report.ts';
import { defaultStewardSettings, type StewardSettings } from './settings.ts';
import type { BeaconReport, HoldersReport, ObjectReport, StewardStatus } from './status.ts';
import { holdersOf, summaryOf, viewsText } from './summary.ts';
import { ObjectView } from './view.ts';
import { allShares, type Shares } from './share-keeper.ts';
import { type NodeChores, readCids, readManifest } from './wire.ts';

export interface StewardPorts {
  readonly rpc: RpcClient;
  readonly server: RpcServer;
  readonly tempo: Tempo;
  /** What is told to people about it. */
  readonly tempoReport?: () => TempoReport;
  readonly beaconReport?: () => BeaconReport;
  readonly catalogue: Catalogue;
  readonly store: LedgerStore;
  readonly clock: Clock;
  readonly random: (count: number) => Uint8Array;
  /** How the work is divided. Absent: this steward is alone. */
  readonly shares?: Shares;
  /** Roles that are told the beat without being asked for anything. Default doors and custodians. */
  readonly tells?: readonly string[];
}

const copiesUnderwayMax = 32;
const copiesPerTargetUnderwayMax = 8;
/** What a door leases for an upload, which it renews in good time; apart from how long other garbage is kept. */
const stagedMs = 15 * minute;
/** Ten holders of each, with their names, still fit into one RPC head. */
const holdersAskedMax = 256;
/** What comes and goes in normal work, such as reading a new index, is an alarm when it stays this long. */
const passingMs = 1 * minute;
/** A log on servers is away for moments whenever another one comes to lead. */
const beaconPatienceMs = 10 * second;
/** Blocks that one call may lease. */
const stagedCidsMax = 1024;
/** Blocks that one order may collect: the answer has a sentence for each. */
const collectedCidsMax = 256;

export class Steward implements AsyncDisposable {
  readonly #ports: StewardPorts;
  readonly #settings: StewardSettings;
  readonly #stop = new AbortController();
  readonly #view = new ObjectView({ track: true });
  readonly #notices: Notices;
  readonly #follower: CatalogueFollower;
  readonly #watch: NodeWatch;
  readonly #indexes: IndexReader;
  readonly #healer: Healer;
  readonly #shares: Shares;
  readonly #prover: Prover;
  readonly #claims: Claims;
  readonly #startedAt: number;
  readonly #background = new Set<Promise<void>>();
  #plan: Plan | undefined;
  #round = 0;
  #pendingBeat: Beat | undefined;
  #nudged = false;
  #wake: () => void = () => {};
  #loop: Promise<void> = Promise.resolve();
  #proving = false;
  #unsubscribe: () => void = () => {};
  #timing = { planMs: 0, roundMs: 0 };

  private constructor(ports: StewardPorts, members: readonly StewardMember[], settings: StewardSettings) {
    const { rpc, clock, random } = ports;
    const view = this.#view;
    const notices = new Notices(clock);
    const onProblem = (what: string, reason: string): void => notices.problem(what, reason);
    const shared = { rpc, ledger: view.ledger, clock, onProblem };
    const { shares = allShares } = ports;
    const limits = { copiesMax: copiesUnderwayMax, copiesPerTargetMax: copiesPerTargetUnderwayMax };
    this.#ports = ports;
    this.#settings = settings;
    this.#notices = notices;
    this.#startedAt = clock.now();
    this.#follower = new CatalogueFollower(ports.catalogue, view, clock, notices);
    this.#shares = shares;
    this.#healer = new Healer(
      { ...shared, ...limits, shares, onDrained: () => this.nudge() },
      this.#stop.signal,
    );
    this.#prover = new Prover({ ...shared, random, deadlineMs: settings.deadlineMs });
    const { proofAgeMsMax } = settings.budget;
    this.#claims = new Claims({
      ledger: view.ledger,
      prover: this.#prover,
      clock,
      proofAgeMsMax,
      nodes: () => this.#watch.nodes,
    });
    this.#watch = new NodeWatch(
      {
        rpc,
        clock,
        ledger: view.ledger,
        notices,
        onReturned: (node) => this.#healer.forgive(node),
        isDoubted: (node) => this.#claims.isDoubted(node),
      },
      settings,
      members,
    );
    const deadlineMs = 5 * settings.deadlineMs;
    this.#indexes = new IndexReader(
      { rpc, view, clock, notices, deadlineMs, nodes: () => this.#watch.nodes },
      this.#stop.signal,
    );
  }

  /** Loads the ledger, registers the RPC methods and begins. */
  static async start(
    ports: StewardPorts,
    members: readonly StewardMember[],
    settings: StewardSettings = defaultStewardSettings,
  ): Promise<Steward> {
    const steward = new Steward(ports, members, settings);
    steward.#watch.resume(await ports.store.load(steward.#view.ledger, ports.clock.now()));
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
    this.#watch.setMembers(members);
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

  /** Leases blocks of an upload. Returns until when, wall clock ms. Call before pushing, and again before it ends. */
  stage(cids: readonly CID[]): number {
    const now = this.#ports.clock.now();
    const until = now + stagedMs;
    for (const cid of cids) this.#view.ledger.stage(cid, until, now);
    return until;
  }

  /** Whether something leases each block: an upload, or a person. */
  leased(cids: readonly CID[]): boolean[] {
    const { ledger } = this.#view;
    const now = this.#ports.clock.now();
    return cids.map((cid) => {
      const slot = ledger.find(cid);
      return slot >= 0 && ledger.stagedUntil(slot) > now;
    });
  }

  /**
   * Deletes blocks that no object needs, by order and by the planner's rules. Returns for each why it is still
   * there, else ''.
   */
  async collect(cids: readonly CID[]): Promise<string[]> {
    await this.#follower.follow();
    const { ledger } = this.#view;
    const now = this.#ports.clock.now();
    const view = this.#planView();
    const problems = cids.map((cid) => collectProblem(view, ledger.find(cid), now, this.#settings.budget));
    const actions = cids.flatMap((cid, index) =>
      problems[index] === '' ? this.#collectActions(cid, now) : [],
    );
    await this.#healer.deleteNow(actions);
    return cids.map((cid, index) => problems[index] || this.#remaining(cid));
  }

  #collectActions(cid: CID, since: number): PlanAction[] {
    const { ledger } = this.#view;
    const slot = ledger.find(cid);
    const common = { kind: 'collect', slot, cid, sizeBytes: ledger.sizeBytes(slot), since } as const;
    return ledger
      .holderNodes(slot)
      .filter((target) => this.#watch.nodes[target]?.state === 'up')
      .map((target) => ({ ...common, target, urgency: ledger.class(slot), reason: 'ordered by an audit' }));
  }

  #remaining(cid: CID): string {
    const { ledger } = this.#view;
    const slot = ledger.find(cid);
    const nodes = slot < 0 ? [] : ledger.holderNodes(slot).map((node) => this.#watch.nodes[node]?.name);
    return nodes.length === 0 ? '' : `${nodes.join(', ')} could not be told to delete it`;
  }

  /** Holders of each block, in the order asked. */
  holders(cids: readonly CID[]): HoldersReport {
    return { holders: holdersOf(cids, this.#view.ledger, this.#watch.nodes) };
  }

  /** Throws NOT_FOUND when the catalogue has not named that manifest. */
  object(manifest: CID): ObjectReport {
    const found = this.#view.find(manifest);
    if (found === undefined)
      throw new HoldfastError('NOT_FOUND', `the steward knows no object ${manifest.toString()}`);
    return objectReport(found, this.#view.ledger, this.#watch.nodes, this.#plan?.unable ?? []);
  }

  /** What the nodes do by themselves, as they last said. */
  chores(): readonly NodeChores[] {
    return this.#watch.chores();
  }

  status(): StewardStatus {
    const { clock, tempo, tempoReport, beaconReport } = this.#ports;
    return summaryOf({
      startedAt: this.#startedAt,
      clock,
      tempo,
      tempoReport,
      beaconReport,
      follower: this.#follower,
      view: this.#view,
      watch: this.#watch,
      healer: this.#healer,
      prover: this.#prover,
      notices: this.#notices,
      shares: this.#shares,
      plan: this.#plan,
      timing: this.#timing,
    });
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
        this.#notices.problem('round', describeError(error)); // the next round starts from the facts again
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
    await this.#follower.follow();
    // 2. Every node: the beat out, what has changed there back. Then the doors are told.
    await this.#watch.listen(beat, this.#stop.signal);
    this.#tellBeat(beat);
    // 3. Judge, plan, act.
    await this.#decide();
    // 4. What may take its time.
    this.#readIndexes();
    this.#prove();
    this.#proveClaims();
    await this.#save();
    this.#timing = { ...this.#timing, roundMs: this.#ports.clock.monotonic() - started };
  }

  /** To those who are told the beat without being asked for anything. */
  #tellBeat(beat: Beat): void {
    const options = { timeoutMs: this.#settings.deadlineMs, signal: this.#stop.signal };
    for (const member of this.#watch.members) {
      const role = (this.#ports.tells ?? ['door', 'custodian']).find((each) => member.roles.includes(each));
      if (role === undefined) continue;
      const call = this.#ports.rpc.call(member.peer, `${role}.beat`, { head: { beat: beat.frame } }, options);
      // One that misses a beat keeps time by itself; it is not ours to watch.
      this.#inBackground(call.then(() => undefined).catch(() => undefined));
    }
  }

  /** Judges and plans. Long passes over the ledger give way to other work in between. */
  async #decide(): Promise<void> {
    const { clock } = this.#ports;
    const started = clock.monotonic();
    this.#watch.look();
    while (!this.#view.ledger.settle(this.#watch.sight, clock.now())) await nextTurn();
    this.#plan = plan(this.#planView(), clock.now(), this.#settings.budget);
    this.#timing = { ...this.#timing, planMs: clock.monotonic() - started };
    this.#healer.take(await this.#stillTrue(this.#plan.actions));
    this.#askProofs(this.#plan.actions);
    this.#raiseAlarms(this.#plan);
  }

  /** Before anything is collected the catalogue is read once more: an upload may just have been registered. */
  async #stillTrue(actions: readonly PlanAction[]): Promise<readonly PlanAction[]> {
    if (!actions.some((action) => action.kind === 'collect')) return actions;
    await this.#follower.follow();
    const doubt = this.#follower.doubt();
    const { ledger } = this.#view;
    return actions.filter((action) => {
      if (action.kind !== 'collect') return true;
      const slot = ledger.find(action.cid);
      const free = slot >= 0 && ledger.references(slot) === 0 && ledger.stagedUntil(slot) === 0;
      return doubt === undefined && free;
    });
  }

  #planView(): PlanView {
    const { ledger } = this.#view;
    return {
      ledger,
      mine: (slot) => this.#shares.mine(ledger.digest(slot)[0] ?? 0),
      stewards: this.#shares.count(),
      nodes: this.#watch.nodes,
      round: this.#round,
      catalogueDoubt: this.#follower.doubt(),
      underway: (slot) => this.#healer.targetsOf(slot),
      backoff: (slot, node, now) => this.#healer.backoff(slot, node, now),
    };
  }

  #readIndexes(): void {
    const run = this.#indexes.run();
    if (run !== undefined) this.#inBackground(run.then(() => this.nudge()));
  }

  /** What nodes only list, until there is no more of it. What was proven or refuted is judged as it comes. */
  #proveClaims(): void {
    const run = this.#claims.run(() => this.nudge(), this.#stop.signal);
    if (run !== undefined) this.#inBackground(run);
  }

  /** A few random blocks of every node, one run at a time. */
  #prove(): void {
    if (this.#proving) return;
    this.#proving = true;
    const { ledger } = this.#view;
    const runs: Promise<void>[] = [];
    for (const [node, { state }] of this.#watch.nodes.entries()) {
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
    const nodes = this.#watch.nodes;
    const others = this.#view.ledger
      .holders(slot)
      .filter((holder) => holder.node !== node && !holder.bad && nodes[holder.node]?.state === 'up')
      .map((holder) => holder.node);
    return this.#prover.challenge(slot, node, others, this.#stop.signal);
  }

  async #save(): Promise<void> {
    try {
      await this.#ports.store.save(this.#view.ledger, this.#watch.journals());
      this.#notices.alarm('ledger-store', '');
    } catch (error) {
      this.#notices.alarm('ledger-store', `the ledger cannot be saved: ${describeError(error)}`);
    }
  }

  #inBackground(work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => this.#notices.problem('background', describeError(error)))
      .finally(() => this.#background.delete(guarded));
    this.#background.add(guarded);
  }

  #raiseAlarms(decided: Plan): void {
    const lost = this.#view.countOf('lost');
    const last = this.#view.countOf('lastCopy');
    const notices = this.#notices;
    notices.alarm('objects-lost', lost === 0 ? '' : `${lost} objects have a block that no node holds`);
    notices.alarm('last-copy', last === 0 ? '' : `${last} objects hang on one copy of a block`);
    const { suspended } = decided.summary;
    const patienceMs = suspended.every(({ passing }) => passing) ? passingMs : 0;
    notices.alarm('suspended', suspended.map(({ reason }) => reason).join('; '), patienceMs);
    notices.alarm('nodes-read-only', this.#watch.readOnly().join(', '));
    const idle = this.#shares.status()?.leaseMs === 0;
    const why =
      'no majority of the nodes confirms which blocks are its own: this steward heals and deletes nothing';
    notices.alarm('steward-idle', idle ? why : '', passingMs);
    const { state, intervalMs } = this.#ports.tempo.current();
    const cadence = `Pulse is silent: time is kept locally, one beat in ${intervalMs} ms`;
    notices.alarm('tempo-degraded', state === 'locked' ? '' : cadence, passingMs);
    this.#alarmBeacon();
  }

  #alarmBeacon(): void {
    const report = this.#ports.beaconReport?.();
    if (report === undefined) return;
    const { text, state, reason, problems, views } = report;
    const isWell = state === 'ready';
    this.#notices.alarm('beacon-log', isWell ? '' : `${text} is ${state}: ${reason}`, beaconPatienceMs);
    const wants = isWell ? problems.join('; ') : '';
    this.#notices.alarm('beacon-not-durable', wants === '' ? '' : `${text}: ${wants}`);
    this.#notices.alarm('beacon-views', views === undefined ? '' : viewsText(views));
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
      return { head: { until: this.stage(readCids(head, stagedCidsMax)) } };
    });
    server.handle('steward.leased', async ({ head }) => ({
      head: { leased: this.leased(readCids(head, stagedCidsMax)) },
    }));
    server.handle('steward.collect', async ({ head }, { peer }) => {
      this.#allow(peer, 'steward.collect');
      return { head: { problems: await this.collect(readCids(head, collectedCidsMax)) } };
    });
  }

  /** Storage nodes may look; what costs or withholds something is for doors. */
  #allow(peer: PeerName, method: string): void {
    const member = this.#watch.members.find((candidate) => candidate.peer === peer);
    if (member?.roles.some((role) => role === 'door' || role === 'steward') === true) return;
    throw new HoldfastError('FORBIDDEN', `${method} is for doors, not for ${peer}`);
  }
}

/** Four random bytes as 0…1. */
function fractionOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) / 0x1_0000_0000;
}
