// `audit stranded` as a door runs it: it asks every node itself, compares with its own view, and carries out what a
// person orders. Adopting goes the way of every registration, collecting is the steward's, by the planner's rules.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { StrandedOrder } from '../api/types.ts';
import type { BeaconLog } from '../beacon/log.ts';
import { openRegistryRecord, recordKey } from '../beacon/records.ts';
import { StrandedAudit } from '../beacon/stranded.ts';
import type { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import type { CID } from '../core/block.ts';
import { day, second } from '../core/clock.ts';
import { grouped } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { keyCopies } from '../flows/rewrap.ts';
import { createExchange, type Exchange } from '../node/exchange.ts';
import type { NodePeer } from '../node/peer.ts';
import { readCids, readListAnswer } from '../steward/wire.ts';
import { ActJournal, type AuditAct, planOf, plannedActs } from './audit-acts.ts';
import type { DoorBlocks } from './door-blocks.ts';
import type { DoorRegistry } from './door-registry.ts';
import { peersWithRole, systemClock } from './member.ts';
import { copiesOn, reachableNodes } from './node-blocks.ts';
import type { Pins } from './pins.ts';
import type { StewardClient } from './steward-client.ts';

export interface DoorAuditPorts {
  readonly peer: NodePeer;
  readonly view: BeaconView;
  readonly log: Pick<BeaconLog, 'append' | 'head'>;
  readonly registry: DoorRegistry;
  readonly blocks: DoorBlocks;
  readonly steward: StewardClient;
  readonly pins: Pins;
  readonly dataDir: string;
  readonly scratch: string;
}

/** What is to be done; `plan` names what the caller has seen, absent: only say what would be done. */
export interface AuditRequest {
  readonly order?: StrandedOrder;
  readonly plan?: string;
}

const listedAtOnce = 4096;
const listMs = 30 * second;
const askMs = 10 * second;
/** Blocks that another door may ask about in one call. */
const askedCidsMax = 1024;
/** What is given a lease is kept that long. */
const pinnedMs = 7 * day;
/** Acts of one kind done together: an order to the steward takes no more. */
const actsAtOnce = 256;

export class DoorAudit {
  readonly #ports: DoorAuditPorts;
  readonly #journal: ActJournal;
  readonly #exchange: Exchange;
  #busy = false;

  constructor(ports: DoorAuditPorts) {
    this.#ports = ports;
    this.#exchange = createExchange(ports.peer.rpc, { requestMs: askMs });
    this.#journal = new ActJournal(ports.dataDir);
    ports.peer.rpc.handle('door.leased', async ({ head }) => ({
      head: { leased: this.#leasedHere(readCids(head, askedCidsMax)) },
    }));
  }

  /** Yields `{progress}`, `{finding}` and `{act}` as they come, at last `{result}`. Throws RATE_LIMITED, VERSION_CONFLICT. */
  async *stranded(request: AuditRequest, signal: AbortSignal): AsyncGenerator<Record<string, unknown>> {
    if (this.#busy) throw new HoldfastError('RATE_LIMITED', 'an audit is under way already');
    this.#busy = true;
    const directory = join(this.#ports.scratch, `audit-${Date.now()}`);
    try {
      await mkdir(directory, { recursive: true });
      await using scratch = await LevelKv.open(directory, { sync: false });
      const audit = new StrandedAudit({
        view: this.#ports.view,
        scratch,
        nodes: this.#nodes().map(({ name }) => name),
        list: (node, stop) => this.#list(node, stop),
        held: (cids) => this.#held(cids, signal),
        load: (cid) => this.#load(cid, signal),
        leased: (cids) => this.#leased(cids, signal),
        caughtUp: () => this.#caughtUp(),
        signal,
      });
      for await (const event of audit.run()) yield { ...event };
      yield* this.#finish(audit, request);
    } finally {
      this.#busy = false;
      await rm(directory, { recursive: true, force: true });
    }
  }

  async *#finish(
    audit: StrandedAudit,
    { order, plan }: AuditRequest,
  ): AsyncGenerator<Record<string, unknown>> {
    const { rows } = audit;
    const plans = { adopt: await planOf(rows, 'adopt'), collect: await planOf(rows, 'collect') };
    const report = audit.report();
    if (order === undefined || plan === undefined) {
      if (order !== undefined) for await (const act of plannedActs(rows, order)) yield { act };
      yield { result: { ...report, plans } };
      return;
    }
    if (plans[order].hash !== plan)
      throw new HoldfastError(
        'VERSION_CONFLICT',
        `the plan to ${order} is ${plans[order].hash} now, with ${plans[order].acts} acts, and not ${plan}: look at it again`,
      );
    if (order === 'collect' && audit.doubt !== '')
      throw new HoldfastError('PEER_UNREACHABLE', `nothing is deleted while in doubt: ${audit.doubt}`);
    const done = { done: 0, refused: 0 };
    for await (const acts of grouped(plannedActs(rows, order), actsAtOnce)) {
      await this.#journal.write(acts);
      const problems = await this.#act(acts);
      await this.#journal.write(acts, (index) => problems[index] || 'done');
      for (const [index, act] of acts.entries()) {
        const problem = problems[index] ?? '';
        done[problem === '' ? 'done' : 'refused']++;
        yield { act: { ...act, outcome: problem || 'done' } };
      }
    }
    yield { result: { ...report, plans, ...done } };
  }

  /** Why each was not done, else ''. Acts of one group may be of two kinds: those of one kind stand together. */
  async #act(acts: readonly AuditAct[]): Promise<string[]> {
    const problems = new Map<AuditAct, string>();
    const leases = acts.filter(({ act }) => act === 'lease');
    const collects = acts.filter(({ act }) => act === 'collect');
    for (const act of acts.filter((each) => each.act === 'adopt'))
      problems.set(act, await outcome(() => this.#adopt(act)));
    const leased = await outcome(() => this.#pin(leases.map(({ cid }) => cid)));
    for (const act of leases) problems.set(act, leased);
    const collected = await this.#collect(collects.map(({ cid }) => cid));
    for (const [index, act] of collects.entries()) problems.set(act, collected[index] ?? '');
    return acts.map((act) => problems.get(act) ?? '');
  }

  /** Keys are appended for themselves, an object goes through every check of a registration. */
  async #adopt({ cid }: AuditAct): Promise<void> {
    const { registry, blocks, log, view } = this.#ports;
    const bytes = await this.#load(cid, AbortSignal.timeout(listMs));
    if (bytes === undefined)
      throw new HoldfastError('BLOCK_UNAVAILABLE', `no node gave ${cid.toString()} any more`);
    const { body } = openRegistryRecord(bytes);
    if (body.kind !== 'manifest') {
      const key = recordKey(body);
      await blocks.storeRecord({ cid, bytes }, keyCopies);
      const expected = await view.subjectRevision(key);
      const at = systemClock.now();
      const { revision } = await log.append({ subject: key, expected, at, records: [{ key, bytes }] });
      await registry.visible(revision);
      return;
    }
    const envelope = body.encryption === null ? undefined : await view.envelope(body.encryption.objId);
    await registry.register([...(envelope === undefined ? [] : [envelope.record.block.bytes]), bytes]);
  }

  async #pin(cids: readonly CID[]): Promise<void> {
    if (cids.length === 0) return;
    await this.#ports.pins.add(cids, systemClock.now() + pinnedMs);
    await this.#ports.blocks.lease(cids);
  }

  async #collect(cids: readonly CID[]): Promise<readonly string[]> {
    return cids.length === 0 ? [] : this.#ports.steward.collect(cids, listMs);
  }

  #nodes(): { readonly peer: PeerName; readonly name: string }[] {
    const { members } = this.#ports.peer.membership();
    return members.filter(({ roles }) => roles.includes('node'));
  }

  async *#list(node: number, signal: AbortSignal) {
    const { rpc } = this.#ports.peer;
    const peer = this.#nodes()[node]?.peer ?? '';
    for (let after: CID | null = null; ; ) {
      const head: Record<string, unknown> = { after, limit: listedAtOnce };
      const answer = await rpc.call(peer, 'block.list', { head }, { timeoutMs: listMs, signal });
      const { cids, done } = readListAnswer(answer.head);
      yield cids;
      const last: CID | undefined = cids.at(-1)?.cid;
      if (done || last === undefined) return;
      after = last;
    }
  }

  async #held(cids: readonly CID[], signal: AbortSignal) {
    const nodes = this.#nodes().map(({ peer }) => peer);
    const { copies, all } = await copiesOn(this.#exchange, nodes, cids, { timeoutMs: askMs, signal });
    return { held: copies.map((count) => count > 0), all };
  }

  /** Doors know their uploads; stewards what they were asked to lease. Every door must answer, and one steward. */
  async #leased(cids: readonly CID[], signal: AbortSignal): Promise<readonly boolean[] | undefined> {
    const membership = this.#ports.peer.membership();
    const ask = async (peer: PeerName, role: 'door' | 'steward') =>
      peer === this.#ports.peer.name
        ? this.#leasedHere(cids)
        : this.#leasedAt(peer, `${role}.leased`, cids, signal);
    const [doors, stewards] = await Promise.all([
      Promise.all(peersWithRole(membership, 'door').map((peer) => ask(peer, 'door'))),
      Promise.all(peersWithRole(membership, 'steward').map((peer) => ask(peer, 'steward'))),
    ]);
    const heard = stewards.filter((flags) => flags !== undefined);
    if (heard.length === 0 || doors.some((flags) => flags === undefined)) return undefined;
    return cids.map((_, index) => [...doors, ...heard].some((flags) => flags?.[index] === true));
  }

  #leasedHere(cids: readonly CID[]): boolean[] {
    const { blocks, pins } = this.#ports;
    return cids.map((cid) => pins.has(cid) || blocks.remembered([cid]).length > 0);
  }

  /** One answer of true and false for each block; undefined when the peer does not give it. */
  async #leasedAt(
    peer: PeerName,
    method: string,
    cids: readonly CID[],
    signal: AbortSignal,
  ): Promise<readonly boolean[] | undefined> {
    try {
      const { rpc } = this.#ports.peer;
      const { head } = await rpc.call(peer, method, { head: { cids } }, { timeoutMs: askMs, signal });
      const flags = fieldOf(head, 'leased');
      if (!Array.isArray(flags) || flags.length !== cids.length) return undefined;
      return flags.map((flag: unknown) => flag === true);
    } catch {
      signal.throwIfAborted();
      return undefined; // counted as not asked
    }
  }

  async #load(cid: CID, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const block = await this.#exchange.fetchBlock(cid, reachableNodes(this.#ports.peer), { signal });
    return block?.bytes;
  }

  async #caughtUp(): Promise<string> {
    try {
      const { revision } = await this.#ports.log.head();
      await this.#ports.view.waitFor(revision, AbortSignal.timeout(askMs));
      return '';
    } catch (error) {
      return `this door's view may be behind the log: ${describeError(error)}`;
    }
  }
}

async function outcome(act: () => Promise<void>): Promise<string> {
  try {
    await act();
    return '';
  } catch (error) {
    return describeError(error);
  }
}
