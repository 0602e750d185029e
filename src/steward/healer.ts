// Does what the plan says: copies by `block.pull`, deletions by `block.delete`, a bounded number at once.
//
// The queue is replaced by every plan, so what has become more urgent goes first and what is no longer
// needed is never begun. A copy counts when its target has answered that it is stored, not before. What
// failed is kept with its reason and is not tried again on the same node until its back-off has passed.

import type { CID } from '../core/block.ts';
import { asBuffer, concat } from '../core/bytes.ts';
import { type Clock, hour, minute } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { RpcClient } from '../core/rpc.ts';
import type { Ledger } from './ledger.ts';
import type { PlanAction } from './plan.ts';
import type { Shares } from './share-keeper.ts';
import { readPullAnswer } from './wire.ts';

export interface HealerPorts {
  readonly rpc: RpcClient;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly onProblem: (what: string, reason: string) => void;
  /** Whether this steward may still give orders about a block, and the token that goes with them. */
  readonly shares: Pick<Shares, 'mine' | 'token'>;
  /** Called when the queue has run dry: more may be waiting to be planned. */
  readonly onDrained: () => void;
  /** Copies under way: altogether, and per target. */
  readonly copiesMax: number;
  readonly copiesPerTargetMax: number;
}

export interface HealerCounts {
  readonly copiesDone: number;
  readonly copiesFailed: number;
  readonly blocksDeleted: number;
}

type CopyAction = Extract<PlanAction, { kind: 'copy' }>;

interface Failure {
  readonly attempts: number;
  readonly until: number;
  readonly reason: string;
}

const pullMsMax = 30_000;
/** First pause after a failure; doubled with each further one. */
const backoffMsMin = 2_000;
const backoffMsMax = 64 * minute;
/** Failures remembered. Beyond it the oldest are forgotten: tried again too early, never too late. */
const failuresMax = 100_000;
/** The rate is measured over this long. */
const rateMs = 10_000;

export class Healer {
  readonly #ports: HealerPorts;
  readonly #signal: AbortSignal;
  readonly #underway = new Map<string, { readonly cid: CID; readonly targets: Set<number> }>();
  readonly #perTarget = new Map<number, number>();
  readonly #failures = new Map<string, Failure>();
  readonly #running = new Set<Promise<void>>();
  #queue: CopyAction[] = [];
  #copied: { at: number; sizeBytes: number }[] = [];
  #counts: HealerCounts = { copiesDone: 0, copiesFailed: 0, blocksDeleted: 0 };
  #copies = 0;

  constructor(ports: HealerPorts, signal: AbortSignal) {
    this.#ports = ports;
    this.#signal = signal;
  }

  get counts(): HealerCounts {
    return this.#counts;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  get underwayCount(): number {
    return this.#copies;
  }

  get backingOff(): number {
    return this.#failures.size;
  }

  /** Bytes per second over the last seconds. */
  rate(): number {
    const now = this.#ports.clock.now();
    this.#copied = this.#copied.filter(({ at }) => at > now - rateMs);
    const first = this.#copied[0];
    if (first === undefined) return 0;
    const bytes = this.#copied.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    return (bytes * 1000) / Math.max(1000, now - first.at);
  }

  /** Targets to which this block is on its way. */
  targetsOf(slot: number): readonly number[] {
    if (this.#underway.size === 0) return [];
    const entry = this.#underway.get(this.#id(slot));
    return entry === undefined ? [] : [...entry.targets];
  }

  backoff(slot: number, node: number, now: number): string | undefined {
    if (this.#failures.size === 0) return undefined;
    const key = `${this.#id(slot)}/${node}`;
    const failure = this.#failures.get(key);
    if (failure === undefined) return undefined;
    if (failure.until > now) return failure.reason;
    if (failure.until + hour < now) this.#failures.delete(key);
    return undefined;
  }

  /** A node that has come back deserves a new try. */
  forgive(node: number): void {
    for (const key of this.#failures.keys()) if (key.endsWith(`/${node}`)) this.#failures.delete(key);
  }

  /** Replaces what waits. Copies under way go on; deletions begin at once. */
  take(actions: readonly PlanAction[]): void {
    this.#queue = actions.filter((action) => action.kind === 'copy').toReversed();
    for (const batch of deletions(actions)) this.#run(this.#delete(batch));
    this.#pump();
  }

  /** Deletes by order, and resolves when it was tried: what failed is kept like any other failure. */
  async deleteNow(actions: readonly PlanAction[]): Promise<void> {
    const batches = deletions(actions).map((batch) => this.#delete(batch));
    for (const batch of batches) this.#run(batch);
    await Promise.all(batches);
  }

  /** Resolves when nothing is under way any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  #pump(): void {
    const skipped: CopyAction[] = [];
    while (this.#copies < this.#ports.copiesMax && !this.#signal.aborted) {
      const action = this.#queue.pop();
      if (action === undefined) break;
      if (!this.#isMine(action.cid)) continue; // planned before the work was divided anew
      if ((this.#perTarget.get(action.target) ?? 0) >= this.#ports.copiesPerTargetMax) skipped.push(action);
      else this.#run(this.#copy(action));
    }
    this.#queue.push(...skipped.toReversed());
  }

  #run(work: Promise<void>): void {
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }

  async #copy(action: CopyAction): Promise<void> {
    const { rpc, ledger, clock, onDrained } = this.#ports;
    const { cid, target, sizeBytes } = action;
    this.#begin(action);
    try {
      const from = action.sources.map((node) => ledger.peer(node));
      const head = { cid, from, ...this.#token() };
      const options = { timeoutMs: pullMsMax, signal: this.#signal };
      const answer = await rpc.call(ledger.peer(target), 'block.pull', { head }, options);
      const { result, reason } = readPullAnswer(answer.head);
      if (result === 'failed') throw new HoldfastError('PEER_REFUSED', reason);
      const slot = ledger.hold(cid, target, sizeBytes, clock.now());
      // `stored` means fetched, verified and synced just now; `present` only that it is listed there.
      if (result === 'stored') ledger.prove(slot, target, clock.now());
      this.#failures.delete(`${nameOf(cid)}/${target}`);
      this.#copied.push({ at: clock.now(), sizeBytes });
      this.#counts = { ...this.#counts, copiesDone: this.#counts.copiesDone + 1 };
    } catch (error) {
      if (!this.#signal.aborted) this.#fail(cid, target, 'copy', error);
    } finally {
      this.#end(action);
    }
    if (this.#signal.aborted) return;
    this.#pump();
    if (this.#queue.length === 0) onDrained();
  }

  #begin({ cid, target }: CopyAction): void {
    this.#copies++;
    this.#perTarget.set(target, (this.#perTarget.get(target) ?? 0) + 1);
    const entry = this.#underway.get(nameOf(cid)) ?? { cid, targets: new Set() };
    entry.targets.add(target);
    this.#underway.set(nameOf(cid), entry);
  }

  #end({ cid, target }: CopyAction): void {
    this.#copies--;
    this.#perTarget.set(target, (this.#perTarget.get(target) ?? 1) - 1);
    const entry = this.#underway.get(nameOf(cid));
    entry?.targets.delete(target);
    if (entry?.targets.size === 0) this.#underway.delete(nameOf(cid));
  }

  async #delete(batch: Deletion): Promise<void> {
    const { rpc, ledger } = this.#ports;
    const { target, reason } = batch;
    const cids = batch.cids.filter((cid) => this.#isMine(cid));
    if (cids.length === 0) return;
    try {
      const options = { timeoutMs: pullMsMax, signal: this.#signal };
      const head = { cids, reason, ...this.#token() };
      await rpc.call(ledger.peer(target), 'block.delete', { head }, options);
      for (const cid of cids) {
        const slot = ledger.find(cid);
        if (slot >= 0) ledger.unhold(slot, target);
      }
      this.#counts = { ...this.#counts, blocksDeleted: this.#counts.blocksDeleted + cids.length };
    } catch (error) {
      if (this.#signal.aborted) return;
      for (const cid of cids) this.#fail(cid, target, 'delete', error);
    }
  }

  #fail(cid: CID, target: number, what: string, error: unknown): void {
    const { ledger, clock, onProblem } = this.#ports;
    const key = `${nameOf(cid)}/${target}`;
    const attempts = (this.#failures.get(key)?.attempts ?? 0) + 1;
    const pause = Math.min(backoffMsMin * 2 ** (attempts - 1), backoffMsMax);
    const reason = describeError(error);
    this.#failures.delete(key);
    this.#failures.set(key, { attempts, until: clock.now() + pause, reason });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > failuresMax && oldest !== undefined) this.#failures.delete(oldest);
    if (what === 'copy') this.#counts = { ...this.#counts, copiesFailed: this.#counts.copiesFailed + 1 };
    onProblem(
      `${what} ${cid.toString()} on ${ledger.peer(target)}`,
      `${reason}; next try in ${Math.round(pause / 1000)} s`,
    );
  }

  #isMine(cid: CID): boolean {
    return this.#ports.shares.mine(cid.multihash.digest[0] ?? 0);
  }

  #token(): { readonly epoch?: Record<string, unknown> } {
    const token = this.#ports.shares.token();
    return token === undefined ? {} : { epoch: { ...token, members: [...token.members] } };
  }

  /** Slots are given to other blocks in time; what outlives an action is named by what its CID says. */
  #id(slot: number): string {
    return asBuffer(this.#ports.ledger.key(slot)).toString('latin1');
  }
}

/** As `#id`. A plan asks this of thousands of blocks, for which the text of a CID is too much work. */
function nameOf({ code, multihash }: CID): string {
  return asBuffer(concat(Uint8Array.of(code), multihash.digest)).toString('latin1');
}

interface Deletion {
  readonly target: number;
  readonly reason: string;
  readonly cids: readonly CID[];
}

/** Deletions of one plan by node and reason, at most 1,024 blocks each. */
function deletions(actions: readonly PlanAction[]): Deletion[] {
  const groups = new Map<string, { target: number; reason: string; cids: CID[] }>();
  const out: Deletion[] = [];
  for (const action of actions) {
    if (action.kind === 'copy' || action.kind === 'prove') continue;
    const key = `${action.target}/${action.kind}`;
    let group = groups.get(key);
    if (group === undefined || group.cids.length >= 1024) {
      group = { target: action.target, reason: `${action.kind}: ${action.reason}`, cids: [] };
      groups.set(key, group);
      out.push(group);
    }
    group.cids.push(action.cid);
  }
  return out;
}
