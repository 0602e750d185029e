// What to do next, and why: a pure function of the view, the instant and the budget.
//
// It reads the classes that the ledger has settled and never walks all blocks. From every class, most
// endangered first, it looks at a bounded sample that goes round with the beat (so nothing starves), puts
// the fewest copies first, then the smallest, and spends the budget. What it cannot do it says, with the
// reason. Deleting is the mirror image: only when the rest is proven, never in doubt.
//
//   lastCopy ▸ belowMin ▸ corrupt ▸ belowTarget ▸ misplaced ▸ surplus ▸ unreferenced

import type { CID } from '../core/block.ts';
import type { PeerName } from '../core/rpc.ts';
import { type BlockClass, blockClasses, type SightState, type Wanted } from './classes.ts';
import type { Holder } from './holdings.ts';
import { chooseTargets, type PlacementMember, zonesOf } from './place.ts';

export interface PlanNode {
  readonly peer: PeerName;
  readonly name: string;
  readonly zone: string;
  readonly host: string;
  readonly state: SightState;
  /** Wall clock ms when it came into that state. */
  readonly since: number;
  /** 0 when it takes nothing: full, read-only, draining. */
  readonly freeBytes: number;
}

/** What the planner reads of the ledger. */
export interface PlanLedger {
  countOf(name: BlockClass): number;
  sample(name: BlockClass, start: number, count: number): number[];
  cid(slot: number): CID;
  digest(slot: number): Uint8Array;
  sizeBytes(slot: number): number;
  class(slot: number): BlockClass;
  since(slot: number): number;
  missing(slot: number): number;
  wanted(slot: number): Wanted;
  holders(slot: number): Holder[];
  /** Node numbers of the holders alone: what most of a plan goes by. */
  holderNodes(slot: number): number[];
  isBad(slot: number, node: number): boolean;
  stagedUntil(slot: number): number;
  references(slot: number): number;
}

export interface PlanView {
  readonly ledger: PlanLedger;
  /** By the ledger's node numbers. */
  readonly nodes: readonly PlanNode[];
  /** True when this steward looks after the block: nobody else heals or deletes it. */
  mine(slot: number): boolean;
  /** Stewards that share the work: samples are so much larger. */
  readonly stewards: number;
  /** Rises with every round: samples go round with it. */
  readonly round: number;
  /** Undefined when every live block is known; else why nothing may be called unreferenced. */
  readonly catalogueDoubt: Suspension | undefined;
  /** Targets of copies already under way. */
  underway(slot: number): readonly number[];
  /** Why this node must not be asked again yet about this block, else undefined. */
  backoff(slot: number, node: number, now: number): string | undefined;
}

export interface PlanBudget {
  /** New copies in this plan: altogether, per target, per source. */
  readonly copiesMax: number;
  readonly copiesPerTargetMax: number;
  readonly copiesPerSourceMax: number;
  /** Bytes that all copies of this plan move, at least one copy whatever its size. */
  readonly copyBytesMax: number;
  readonly deletesMax: number;
  readonly provesMax: number;
  /** How long a block stays although no object needs it. */
  readonly leaseMs: number;
  /** False: what no object needs is deleted only by order (collect.ts). */
  readonly collects: boolean;
  /** A proof older than this does not count when copies are trimmed. */
  readonly proofAgeMsMax: number;
  /** Above this share of members not up, nothing is deleted and only the endangered is healed. */
  readonly massLossShare: number;
  /** Entries of `unable`. */
  readonly unableMax: number;
}

interface ActionBase {
  readonly slot: number;
  readonly cid: CID;
  /** The node that does it. */
  readonly target: number;
  readonly sizeBytes: number;
  readonly urgency: BlockClass;
  readonly reason: string;
  /** Wall clock ms since when the reason holds. */
  readonly since: number;
}

export type PlanAction =
  | (ActionBase & { readonly kind: 'copy'; readonly sources: readonly number[] })
  | (ActionBase & { readonly kind: 'trim' | 'collect' | 'delete-corrupt' | 'prove' });

export interface PlanUnable {
  readonly slot: number;
  readonly cid: CID;
  readonly state: 'short' | 'lost' | 'waiting';
  readonly reason: string;
  readonly since: number;
}

export interface Plan {
  /** In the order in which they should begin. */
  readonly actions: readonly PlanAction[];
  /** Worst first, bounded by the budget. */
  readonly unable: readonly PlanUnable[];
  readonly summary: {
    readonly classes: Readonly<Partial<Record<BlockClass, number>>>;
    /** What is not done in this round for the good of all. */
    readonly suspended: readonly Suspension[];
  };
}

/** Why something is not done now. */
export interface Suspension {
  readonly reason: string;
  /** True for what normal work brings and ends by itself: only its lasting is worth an alarm. */
  readonly passing: boolean;
}

/** The next actions. Changes nothing; same arguments, same answer. */
export function plan(view: PlanView, now: number, budget: PlanBudget): Plan {
  const work = new Work(view, now, budget);
  const caution = cautionOf(view, budget);
  work.sayLost();
  work.heal('lastCopy');
  work.heal('belowMin');
  work.sayShort();
  work.heal('corrupt');
  if (caution.massLoss === undefined) {
    work.heal('belowTarget');
    work.heal('misplaced');
  }
  if (caution.massLoss === undefined && caution.unsettled === undefined) work.trimSurplus();
  if (budget.collects && caution.massLoss === undefined && view.catalogueDoubt === undefined)
    work.collectUnreferenced();
  return work.result(suspensions(view, caution));
}

/** Why this block must stay, else ''. */
function keptFor(ledger: PlanLedger, slot: number, now: number, leaseMs: number): string {
  if (ledger.references(slot) > 0) return 'an object needs it';
  const staged = ledger.stagedUntil(slot);
  if (staged > now) return `it is leased until ${new Date(staged).toISOString()}`;
  const until = ledger.since(slot) + leaseMs;
  if (until > now)
    return `nothing has named it for too short a time: it stays until ${new Date(until).toISOString()}`;
  return '';
}

/** What a steward says of a block that another one looks after. */
export const notMine = 'another steward looks after it';

/** Why an order to collect this block is refused, else '': the same rules by which the planner collects. */
export function collectProblem(view: PlanView, slot: number, now: number, budget: PlanBudget): string {
  const { massLoss } = cautionOf(view, budget);
  const doubt = massLoss ?? view.catalogueDoubt;
  if (doubt !== undefined) return doubt.reason;
  if (slot < 0) return 'no node is known to hold it';
  return view.mine(slot) ? keptFor(view.ledger, slot, now, budget.leaseMs) : notMine;
}

interface Caution {
  readonly massLoss: Suspension | undefined;
  readonly unsettled: Suspension | undefined;
}

function cautionOf(view: PlanView, budget: PlanBudget): Caution {
  const members = view.nodes.filter((node) => node.state !== 'absent');
  const away = members.filter((node) => node.state !== 'up');
  // At its own start the steward has heard nobody yet; within the grace time it knows whether they are there.
  const gone = away.filter((node) => node.state !== 'unknown');
  const tooMany = budget.massLossShare * members.length;
  const massLoss = {
    reason: `${away.length} of ${members.length} nodes are not up: this may be a partition, not a loss`,
    passing: gone.length <= tooMany,
  };
  const unsettled = away
    .filter((node) => node.state !== 'down')
    .map((node) => `${node.name} is ${node.state}`)
    .join(', ');
  return {
    massLoss: away.length > tooMany ? massLoss : undefined,
    unsettled: unsettled === '' ? undefined : { reason: unsettled, passing: true },
  };
}

function suspensions(view: PlanView, caution: Caution): Suspension[] {
  return [
    named('deleting and healing above the minimum', caution.massLoss),
    named('trimming surplus', caution.unsettled),
    named('collecting garbage', view.catalogueDoubt),
  ].filter((each) => each !== undefined);
}

function named(what: string, why: Suspension | undefined): Suspension | undefined {
  return why === undefined ? undefined : { ...why, reason: `${what}: ${why.reason}` };
}

/** Worth a word in a plan. */
const listedClasses = blockClasses.filter((name) => name !== 'none' && name !== 'healthy');

/** Looked at for each action wanted: enough to put the worst first without walking everything. */
const sampleFactor = 4;

/** One pass: what has been spent and said so far. */
class Work {
  readonly #view: PlanView;
  readonly #now: number;
  readonly #budget: PlanBudget;
  readonly #actions: PlanAction[] = [];
  readonly #unable: PlanUnable[] = [];
  readonly #perTarget = new Map<number, number>();
  readonly #perSource = new Map<number, number>();
  readonly #members: readonly PlacementMember[];
  readonly #nodeOf = new Map<PeerName, number>();
  #copies = 0;
  #copyBytes = 0;
  #deletes = 0;
  #proves = 0;

  constructor(view: PlanView, now: number, budget: PlanBudget) {
    this.#view = view;
    this.#now = now;
    this.#budget = budget;
    this.#members = view.nodes.filter((node) => node.state === 'up' && node.freeBytes > 0);
    for (const [at, node] of view.nodes.entries()) this.#nodeOf.set(node.peer, at);
  }

  result(suspended: readonly Suspension[]): Plan {
    const classes: Partial<Record<BlockClass, number>> = {};
    for (const name of listedClasses) classes[name] = this.#view.ledger.countOf(name);
    return { actions: this.#actions, unable: this.#unable, summary: { classes, suspended } };
  }

  sayLost(): void {
    for (const slot of this.#sample('lost', this.#budget.unableMax)) {
      this.#say(slot, 'lost', `no node that answers has it${this.#formerHolders(slot)}`);
    }
  }

  sayShort(): void {
    for (const slot of this.#sample('short', this.#budget.unableMax)) {
      this.#say(slot, 'short', this.#shortage(slot));
      this.#dropCorrupt(slot, this.#live(slot).length);
    }
  }

  heal(name: BlockClass): void {
    const { ledger } = this.#view;
    const room = this.#budget.copiesMax - this.#copies;
    if (room <= 0) return;
    const slots = this.#sample(name, sampleFactor * room).filter((slot) => this.#view.mine(slot));
    const order = slots.map((slot) => ({
      slot,
      live: this.#live(slot).length,
      size: ledger.sizeBytes(slot),
    }));
    order.sort((a, b) => a.live - b.live || a.size - b.size || ledger.since(a.slot) - ledger.since(b.slot));
    for (const { slot } of order) {
      if (this.#copies >= this.#budget.copiesMax) return;
      this.#healBlock(slot, name);
    }
  }

  trimSurplus(): void {
    for (const slot of this.#sample('surplus', sampleFactor * this.#budget.deletesMax)) {
      if (this.#deletes >= this.#budget.deletesMax) return;
      if (this.#view.mine(slot)) this.#trim(slot);
    }
  }

  collectUnreferenced(): void {
    const { ledger } = this.#view;
    for (const slot of this.#sample('unreferenced', sampleFactor * this.#budget.deletesMax)) {
      if (!this.#view.mine(slot)) continue;
      if (keptFor(ledger, slot, this.#now, this.#budget.leaseMs) !== '') continue;
      for (const { node } of ledger.holders(slot)) {
        if (this.#deletes >= this.#budget.deletesMax) return;
        if (this.#view.nodes[node]?.state === 'up') this.#delete(slot, node, 'collect', 'no object needs it');
      }
    }
  }

  #healBlock(slot: number, name: BlockClass): void {
    const { ledger } = this.#view;
    const live = this.#live(slot);
    this.#dropCorrupt(slot, live.length);
    const underway = this.#view.underway(slot);
    const wanted = ledger.missing(slot) - underway.length;
    if (wanted <= 0) return;
    if (live.length === 0) {
      this.#say(slot, 'waiting', `no live copy to take it from${this.#formerHolders(slot)}`);
      return;
    }
    const held = new Set(ledger.holderNodes(slot));
    const free = this.#members.filter((member) => {
      const node = this.#number(member.peer);
      return !held.has(node) && !underway.includes(node);
    });
    const reasons: string[] = [];
    const usable = free.filter((member) => {
      const reason = this.#view.backoff(slot, this.#number(member.peer), this.#now);
      if (reason !== undefined) reasons.push(`${this.#name(this.#number(member.peer))}: ${reason}`);
      return reason === undefined;
    });
    const present = [...this.#counted(slot, name), ...underway].map((node) => this.#domain(node));
    const targets = chooseTargets(ledger.digest(slot), usable, present, wanted);
    if (targets.length < wanted) {
      const why =
        reasons.length > 0 ? `backing off after failures: ${reasons.join('; ')}` : 'no node can take it';
      this.#say(slot, 'waiting', why);
    }
    for (const target of targets) this.#copy(slot, name, this.#number(target.peer), live);
  }

  /** Copies that a new one must stand apart from: the live ones, and the silent ones unless the minimum is at stake. */
  #counted(slot: number, name: BlockClass): number[] {
    const strict = name === 'lastCopy' || name === 'belowMin';
    return this.#view.ledger
      .holders(slot)
      .filter(({ node, bad }) => {
        const state = this.#view.nodes[node]?.state;
        return !bad && (state === 'up' || (!strict && (state === 'suspect' || state === 'unknown')));
      })
      .map(({ node }) => node);
  }

  #copy(slot: number, urgency: BlockClass, target: number, live: readonly number[]): void {
    const { ledger } = this.#view;
    const sizeBytes = ledger.sizeBytes(slot);
    if (this.#copies >= this.#budget.copiesMax) return;
    if (this.#copies > 0 && this.#copyBytes + sizeBytes > this.#budget.copyBytesMax) return;
    if (count(this.#perTarget, target) >= this.#budget.copiesPerTargetMax) return;
    const sources = [...live].sort((a, b) => count(this.#perSource, a) - count(this.#perSource, b) || a - b);
    const source = sources[0];
    if (source === undefined || count(this.#perSource, source) >= this.#budget.copiesPerSourceMax) return;
    this.#copies++;
    this.#copyBytes += sizeBytes;
    this.#perTarget.set(target, count(this.#perTarget, target) + 1);
    this.#perSource.set(source, count(this.#perSource, source) + 1);
    const reason = `${this.#why(slot, urgency, live.length)}; to ${this.#name(target)}`;
    const since = ledger.since(slot);
    this.#actions.push({
      kind: 'copy',
      slot,
      cid: ledger.cid(slot),
      target,
      sizeBytes,
      urgency,
      reason,
      since,
      sources,
    });
  }

  #why(slot: number, urgency: BlockClass, live: number): string {
    const wanted = this.#view.ledger.wanted(slot);
    if (urgency === 'lastCopy') return `one copy left of at least ${wanted.min}`;
    if (urgency === 'belowMin') return `${live} copies of at least ${wanted.min}`;
    if (urgency === 'corrupt') return `a copy is proven wrong, ${live} good ones of ${wanted.target}`;
    if (urgency === 'misplaced') return `${live} copies in too few zones, ${wanted.zones} wanted`;
    return `${live} copies of ${wanted.target}`;
  }

  /** A copy proven wrong is dropped where a good one is live: it helps nobody and takes the place of a good one. */
  #dropCorrupt(slot: number, live: number): void {
    if (live === 0) return;
    for (const { node, bad } of this.#view.ledger.holders(slot)) {
      if (!bad || this.#view.nodes[node]?.state !== 'up') continue;
      this.#delete(slot, node, 'delete-corrupt', 'its bytes are proven not to match the CID');
    }
  }

  /**
   * Keeps the best-placed `max` copies and deletes the others, if those kept have proven to be there: at
   * least the minimum of them, over as many zones as wanted. Else asks for the proofs first.
   */
  #trim(slot: number): void {
    const { ledger } = this.#view;
    const wanted = ledger.wanted(slot);
    const live = this.#live(slot);
    if (live.length <= wanted.max || this.#view.underway(slot).length > 0) return;
    const members = live.map((node) => ({ ...this.#domain(node), freeBytes: 1 }));
    const keep = chooseTargets(ledger.digest(slot), members, [], wanted.max).map((m) => this.#number(m.peer));
    const unproven = keep.filter((node) => !this.#isProven(slot, node));
    const proven = keep.filter((node) => !unproven.includes(node)).map((node) => this.#domain(node));
    const zones = Math.min(wanted.zones, zonesOf(live.map((node) => this.#domain(node))));
    if (proven.length < wanted.min || zonesOf(proven) < zones) {
      this.#askProofs(slot, unproven);
      return;
    }
    for (const node of live) {
      if (!keep.includes(node))
        this.#delete(slot, node, 'trim', `${live.length} copies, at most ${wanted.max} wanted`);
    }
  }

  #askProofs(slot: number, nodes: readonly number[]): void {
    for (const node of nodes) {
      if (this.#proves >= this.#budget.provesMax) return;
      this.#proves++;
      this.#push(slot, node, 'prove', 'a surplus copy waits for the others to be proven');
    }
  }

  #isProven(slot: number, node: number): boolean {
    const holder = this.#view.ledger.holders(slot).find((candidate) => candidate.node === node);
    return (holder?.provenAt ?? 0) > this.#now - this.#budget.proofAgeMsMax && (holder?.provenAt ?? 0) > 0;
  }

  #delete(slot: number, node: number, kind: 'trim' | 'collect' | 'delete-corrupt', reason: string): void {
    if (this.#deletes >= this.#budget.deletesMax || !this.#view.mine(slot)) return;
    if (this.#view.backoff(slot, node, this.#now) !== undefined) return;
    this.#deletes++;
    this.#push(slot, node, kind, reason);
  }

  #push(
    slot: number,
    target: number,
    kind: 'trim' | 'collect' | 'delete-corrupt' | 'prove',
    reason: string,
  ): void {
    const { ledger } = this.#view;
    this.#actions.push({
      kind,
      slot,
      cid: ledger.cid(slot),
      target,
      sizeBytes: ledger.sizeBytes(slot),
      urgency: ledger.class(slot),
      reason,
      since: ledger.since(slot),
    });
  }

  #shortage(slot: number): string {
    const wanted = this.#view.ledger.wanted(slot);
    const live = this.#live(slot);
    const members = this.#view.nodes.filter((node) => node.state !== 'absent').length;
    if (live.length < wanted.min) {
      const up = this.#members.length;
      return `${wanted.min} copies wanted, ${live.length} live: ${up} of ${members} nodes can take copies`;
    }
    const zones = zonesOf(live.map((node) => this.#domain(node)));
    return `${wanted.zones} zones wanted, copies are in ${zones}: no node of another zone can take one`;
  }

  #formerHolders(slot: number): string {
    const holders = this.#view.ledger.holders(slot).map(({ node, bad }) => {
      const away = this.#view.nodes[node];
      const seconds = Math.max(0, Math.round((this.#now - (away?.since ?? this.#now)) / 1000));
      return bad ? `${away?.name}: corrupt` : `${away?.name}: ${away?.state} for ${seconds} s`;
    });
    return holders.length === 0 ? '' : ` (${holders.join(', ')})`;
  }

  #live(slot: number): number[] {
    const { ledger, nodes } = this.#view;
    return ledger
      .holderNodes(slot)
      .filter((node) => nodes[node]?.state === 'up' && !ledger.isBad(slot, node));
  }

  #sample(name: BlockClass, size: number): number[] {
    const { ledger, round, stewards } = this.#view;
    const wide = stewards * size;
    return ledger.sample(name, round * wide, Math.min(wide, ledger.countOf(name)));
  }

  #say(slot: number, state: PlanUnable['state'], reason: string): void {
    if (this.#unable.length >= this.#budget.unableMax) return;
    const { ledger } = this.#view;
    this.#unable.push({ slot, cid: ledger.cid(slot), state, reason, since: ledger.since(slot) });
  }

  #number(peer: PeerName): number {
    const node = this.#nodeOf.get(peer);
    if (node === undefined) throw new RangeError(peer);
    return node;
  }

  #domain(node: number): PlanNode {
    const found = this.#view.nodes[node];
    if (found === undefined) throw new RangeError(`node ${node}`);
    return found;
  }

  #name(node: number): string {
    return this.#domain(node).name;
  }
}

function count(map: ReadonlyMap<number, number>, key: number): number {
  return map.get(key) ?? 0;
}
