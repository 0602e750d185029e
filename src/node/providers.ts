// The provider service of a node: remembers who has what, says what this node has, and answers both.
//
// One loop does all announcing, one chunk at a time, and takes up what is most urgent each time round:
//
//   new blocks → peers out of step → overdue leases → the regions whose beat has come
//
// It wakes for new blocks, beats, members that come up, and a slow wall-clock tick that is the floor under
// all of them. Nothing is kept in memory but the chunk.

import type { KadDHT } from '@libp2p/kad-dht';
import type { CID } from '../core/block.ts';
import { asBuffer } from '../core/bytes.ts';
import { type Clock, minute, second } from '../core/clock.ts';
import { servedItsPurpose } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { fieldOf } from '../core/shape.ts';
import type { PeerName, RpcClient, RpcContext, RpcMessage, RpcServer } from '../core/rpc.ts';
import type { Membership } from './membership.ts';
import {
  announce,
  announceTo,
  type AnnouncePorts,
  frameCount,
  type RecordHolder,
  withdraw,
} from './provider-announce.ts';
import { closest } from './provider-closest.ts';
import {
  announceStandard,
  binaryAddrs,
  kadInternals,
  mergeIntoKad,
  peerMultihash,
  textAddrs,
} from './provider-kad.ts';
import { laneOf, type Place, placesDue, regionsDue, scheduleOptions, spanOf } from './provider-schedule.ts';
import { checkedDigest, kadKey, type OwnRecord, type ProviderStore } from './provider-store.ts';
import { addrBytesMax, peerAddrsMax } from './provider-wire.ts';

/** What this service needs of a peer: a part of NodePeer. */
export interface ProviderPeer {
  readonly name: PeerName;
  readonly rpc: RpcClient & RpcServer;
  readonly dht: KadDHT;
  membership(): Membership;
  connected(): readonly PeerName[];
  onPeer(listener: (event: { readonly peer: PeerName; readonly state: 'up' | 'down' }) => void): () => void;
  addrs(): readonly string[];
}

export interface ProvidersOptions {
  readonly peer: ProviderPeer;
  /** Opened and closed by the caller; its validity is the lease. */
  readonly store: ProviderStore;
  readonly clock: Clock;
  /** Length of a beat, ms: how regions are spread over the refresh period. Default one minute. */
  readonly beatMs?: number;
  /** How often the wall clock is looked at, ms. Default 30,000. */
  readonly tickMs?: number;
  /** Told once per peer and outage that announcing to it failed. Must not throw. */
  readonly onMissed?: (event: { readonly peer: PeerName; readonly reason: string }) => void;
}

export interface FoundProvider {
  readonly peer: PeerName;
  /** Multiaddrs in text, the operator's first. */
  readonly addrs: readonly string[];
}

export interface FindOptions {
  readonly signal?: AbortSignal;
  /** Stops asking when it has this many. Default 2. */
  readonly enough?: number;
}

export interface ProvidersStatus {
  /** Blocks that this node announces. */
  readonly own: number;
  /** Own records that were never announced yet, at most 4,096 counted. */
  readonly due: number;
  /** Records of others kept here, and how many others. */
  readonly records: number;
  readonly providers: number;
  /** Members that missed announcements and get a full pass when they return. */
  readonly outOfStep: readonly PeerName[];
  readonly announcedCount: number;
  readonly corruptCount: number;
  readonly refusedCount: number;
}

export interface Providers extends AsyncDisposable {
  /** This node has `cids` now: on disk as own records when it resolves, announced soon after. */
  add(cids: readonly CID[]): Promise<void>;
  /**
   * As `add`, but not waited for: gathered for a moment with others, so that a stored block is not acknowledged
   * later for being announced. What a crash takes with it is found again when the node starts.
   */
  soon(cid: CID): void;
  /** This node has `cids` no longer: not announced any more when it resolves, withdrawn from the holders soon after. */
  remove(cids: readonly CID[]): Promise<void>;
  /** Members other than this node that announce the block. */
  find(cid: CID, options?: FindOptions): Promise<FoundProvider[]>;
  /** Beat `index` has come. */
  beat(index: number): void;
  /** Resolves when nothing that can be announced now is due. */
  settled(): Promise<void>;
  status(): Promise<ProvidersStatus>;
}

/** Registers the `provide.*` methods, takes the DHT's provider records over and begins to announce. */
export async function startProviders(options: ProvidersOptions): Promise<Providers> {
  const service = new ProviderService(options);
  await service.start();
  return service;
}

/** How long new blocks are gathered before they are announced together. */
const gatherMs = 1000;
/** Records announced in one round: four frames per holder. */
const chunkCount = 4 * frameCount;
/** Pause after a first failed attempt on a peer: it may be up and not serving yet. Doubles with each failure. */
const quietMsMin = second;
const quietMsMax = 30 * second;

class ProviderService implements Providers {
  readonly #peer: ProviderPeer;
  readonly #store: ProviderStore;
  readonly #clock: Clock;
  readonly #options: ProvidersOptions;
  readonly #k: number;
  readonly #ownKey: Uint8Array;
  readonly #stop = new AbortController();
  readonly #ports: AnnouncePorts;
  readonly #outOfStep = new Set<PeerName>();
  readonly #inStep = new Set<PeerName>();
  readonly #quiet = new Map<
    PeerName,
    { readonly until: number; readonly pauseMs: number; readonly timer: NodeJS.Timeout }
  >();
  readonly #regions: number[] = [];
  readonly #settlers: (() => void)[] = [];
  readonly #withdrawals = new Set<Promise<void>>();
  #holders: { readonly of: Membership; readonly list: readonly RecordHolder[] } | undefined;
  #lastBeat: number | undefined;
  #announcedCount = 0;
  readonly #gathered: CID[] = [];
  #gathering: NodeJS.Timeout | undefined;
  #wake: () => void = () => undefined;
  #woken = false;
  #loop: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #offPeer: () => void = () => undefined;

  constructor(options: ProvidersOptions) {
    this.#options = options;
    this.#peer = options.peer;
    this.#store = options.store;
    this.#clock = options.clock;
    this.#k = kadInternals(options.peer.dht).k;
    this.#ownKey = sha256(peerMultihash(options.peer.name));
    this.#ports = {
      rpc: options.peer.rpc,
      holders: () => this.#recordHolders(),
      reachable: (holder) => this.#reachable(holder),
      addrs: () => binaryAddrs(this.#peer.addrs()),
      standard: (peer, digests, signal) =>
        announceStandard(this.#peer.dht, peer, binaryAddrs(this.#peer.addrs()), digests, signal),
    };
  }

  async start(): Promise<void> {
    for (const peer of await this.#store.syncedPeers()) this.#inStep.add(peer);
    mergeIntoKad(this.#peer.dht, {
      lookup: (digest) => this.#lookup(digest, true),
      add: async (peer, addrs, digest) => void (await this.#store.add(peer, addrs, [digest])),
      addOwn: (cid) => this.add([cid]),
      removeOwn: (cid) => this.remove([cid]),
    });
    this.#peer.rpc.handle('provide.batch', (message, context) => this.#takeBatch(message, context));
    this.#peer.rpc.handle('provide.withdraw', (message, context) => this.#takeWithdrawal(message, context));
    this.#peer.rpc.handle('provide.find', (message) => this.#answerFind(message));
    this.#offPeer = this.#peer.onPeer(({ peer, state }) => {
      if (state !== 'up') return;
      this.#unquiet(peer);
      this.#nudge();
    });
    this.#timer = setInterval(() => this.#nudge(), this.#options.tickMs ?? 30 * second);
    this.#timer.unref();
    this.#loop = this.#run();
    this.#nudge();
  }

  async add(cids: readonly CID[]): Promise<void> {
    if ((await this.#store.addOwn(cids)) > 0) this.#nudge();
  }

  soon(cid: CID): void {
    this.#gathered.push(cid);
    this.#gathering ??= setTimeout(() => {
      this.#gathering = undefined;
      void this.#flush();
    }, gatherMs);
  }

  async #flush(): Promise<void> {
    try {
      await this.add(this.#gathered.splice(0));
    } catch (error) {
      this.#report(this.#peer.name, describeError(error)); // told; the comparison at the next start mends it
    }
  }

  async remove(cids: readonly CID[]): Promise<void> {
    await this.#flush(); // or a gathered one would come back after its removal
    await this.#store.removeOwn(cids);
    const records = cids.map(({ multihash: { digest } }) => ({ digest, key: kadKey(digest) }));
    const sent = withdraw(this.#ports, records, this.#k, this.#stop.signal).finally(() =>
      this.#withdrawals.delete(sent),
    );
    this.#withdrawals.add(sent);
  }

  async find(cid: CID, options: FindOptions = {}): Promise<FoundProvider[]> {
    const enough = options.enough ?? 2;
    const local = await this.#lookup(cid.multihash.digest, false);
    const found = new Map(local.map(({ peer, addrs }) => [peer, { peer, addrs: textAddrs(addrs) }]));
    if (found.size >= enough) return [...found.values()];
    const remote = await findProviders(this.#peer, cid, { ...options, k: this.#k, known: found });
    return remote.filter(({ peer }) => peer !== this.#peer.name);
  }

  beat(index: number): void {
    const span = spanOf(this.#lastBeat, index);
    this.#lastBeat = index;
    for (const region of regionsDue(span, this.#ownKey, this.#schedule())) {
      if (!this.#regions.includes(region)) this.#regions.push(region);
    }
    this.#nudge();
  }

  async settled(): Promise<void> {
    await this.#flush();
    await new Promise<void>((resolve) => {
      this.#settlers.push(resolve);
      this.#nudge();
    });
  }

  async status(): Promise<ProvidersStatus> {
    const { own, records, providers, corruptCount, refusedCount } = this.#store.counts();
    const due = (await this.#store.ownByAge(0, 1, chunkCount)).length;
    const outOfStep = [...this.#outOfStep];
    return {
      own,
      due,
      records,
      providers,
      outOfStep,
      announcedCount: this.#announcedCount,
      corruptCount,
      refusedCount,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#offPeer();
    clearInterval(this.#timer);
    clearTimeout(this.#gathering);
    await this.#flush();
    for (const { timer } of this.#quiet.values()) clearTimeout(timer);
    this.#stop.abort(new HoldfastError('PEER_UNREACHABLE', 'this node is stopping'));
    this.#nudge();
    await this.#loop;
    await Promise.all(this.#withdrawals);
  }

  // ---- announcing

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#woken = false;
      try {
        while (!this.#stop.signal.aborted && (await this.#round()) === 'busy');
        await this.#sweep();
      } catch (error) {
        // A store that fails would fail again at once: wait for the next tick and say so.
        if (!this.#stop.signal.aborted) this.#report(this.#peer.name, describeError(error));
      }
      await Promise.all(this.#withdrawals);
      if (!this.#woken) for (const settle of this.#settlers.splice(0)) settle();
      if (!this.#woken && !this.#stop.signal.aborted) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
    for (const settle of this.#settlers.splice(0)) settle();
  }

  #nudge(): void {
    this.#woken = true;
    this.#wake();
  }

  /** One unit of the most urgent work: the schedule says where it is, and a peer out of step comes after what is new. */
  async #round(): Promise<'busy' | 'idle'> {
    const now = this.#clock.now();
    const returned = this.#recordHolders().find(
      (each) => !this.#inStep.has(each.peer) && this.#reachable(each),
    );
    for (const place of placesDue(this.#regions[0], now, this.#schedule())) {
      if (place.lane !== 'new' && returned !== undefined) return this.#bringInStep(returned);
      if (await this.#announceAt(place, now)) return 'busy';
    }
    return 'idle';
  }

  /** Announces what is due in one place: a chunk of an age, all of a region. False: nothing is, or nothing gets through. */
  async #announceAt(place: Place, now: number): Promise<boolean> {
    const options = this.#schedule();
    const region = place.lane === 'scheduled' ? place.region : undefined;
    const dueOf = (records: readonly OwnRecord[]): OwnRecord[] =>
      records.filter((record) => laneOf(record, region, now, options) === place.lane);
    if (place.lane !== 'scheduled') {
      const due = dueOf(await this.#store.ownByAge(place.from, place.before, chunkCount));
      return due.length > 0 && this.#announce(due);
    }
    for await (const page of this.#store.ownInRegion(place.region)) {
      const due = dueOf(page);
      if (due.length > 0 && !(await this.#announce(due))) return false;
    }
    this.#regions.shift();
    return true;
  }

  /** True when something got through: else there is no use in going on now. */
  async #announce(records: readonly OwnRecord[]): Promise<boolean> {
    const result = await announce(this.#ports, records, this.#k, this.#stop.signal);
    if (this.#stop.signal.aborted) return false;
    await this.#store.announced(result.announced);
    this.#announcedCount += result.announced.length;
    for (const [peer, reason] of result.missed) await this.#fellBehind(peer, reason);
    return result.announced.length > 0;
  }

  /** A full pass of own records to one holder that missed some, or is new. */
  async #bringInStep(holder: RecordHolder): Promise<'busy' | 'idle'> {
    // In step from here on: what is announced during the pass reaches it the normal way, or marks it again.
    this.#inStep.add(holder.peer);
    for await (const page of this.#store.allOwn()) {
      const known = page.filter(({ announcedAt }) => announcedAt > 0);
      const reason = await announceTo(this.#ports, holder, known, this.#k, this.#stop.signal);
      if (this.#stop.signal.aborted) return 'idle';
      if (reason !== undefined) await this.#fellBehind(holder.peer, reason);
      if (!this.#inStep.has(holder.peer)) return 'busy';
    }
    this.#outOfStep.delete(holder.peer);
    this.#unquiet(holder.peer);
    await this.#store.setSynced(holder.peer, true);
    return 'busy';
  }

  async #fellBehind(peer: PeerName, reason: string): Promise<void> {
    this.#quieten(peer);
    if (!this.#outOfStep.has(peer)) this.#report(peer, reason);
    this.#outOfStep.add(peer);
    if (this.#inStep.delete(peer)) await this.#store.setSynced(peer, false);
  }

  /** A peer that is not up wakes us by itself when it comes up; one that is gets asked again after the pause. */
  #quieten(peer: PeerName): void {
    const last = this.#quiet.get(peer);
    const now = this.#clock.monotonic();
    if (last !== undefined && last.until > now) return;
    clearTimeout(last?.timer);
    const pauseMs = Math.min(quietMsMax, last === undefined ? quietMsMin : 2 * last.pauseMs);
    const timer = setTimeout(() => this.#nudge(), pauseMs + 1);
    timer.unref();
    this.#quiet.set(peer, { until: now + pauseMs, pauseMs, timer });
  }

  #unquiet(peer: PeerName): void {
    clearTimeout(this.#quiet.get(peer)?.timer);
    this.#quiet.delete(peer);
  }

  #report(peer: PeerName, reason: string): void {
    this.#options.onMissed?.({ peer, reason });
  }

  async #sweep(): Promise<void> {
    const members = new Set(this.#peer.membership().members.map(({ peer }) => peer));
    for (const peer of this.#store.providers()) if (!members.has(peer)) await this.#store.forget(peer);
    while (!this.#stop.signal.aborted && !(await this.#store.sweepStep()).done);
  }

  #schedule() {
    return scheduleOptions(this.#store.validityMs, this.#options.beatMs ?? minute);
  }

  #recordHolders(): readonly RecordHolder[] {
    const membership = this.#peer.membership();
    if (this.#holders?.of !== membership) {
      this.#holders = { of: membership, list: recordHolders(membership, this.#peer.name) };
    }
    return this.#holders.list;
  }

  #reachable(holder: RecordHolder): boolean {
    if ((this.#quiet.get(holder.peer)?.until ?? 0) > this.#clock.monotonic()) return false;
    return holder.lane === 'standard' || this.#peer.connected().includes(holder.peer);
  }

  // ---- answering

  /** Members that announced the block, with the operator's addresses first. */
  async #lookup(digest: Uint8Array, withSelf: boolean): Promise<{ peer: PeerName; addrs: Uint8Array[] }[]> {
    const members = new Map(this.#peer.membership().members.map((member) => [member.peer, member]));
    const found = (await this.#store.find(digest)).flatMap(({ peer, addrs }) => {
      const member = members.get(peer);
      return member === undefined ? [] : [{ peer, addrs: joinAddrs(binaryAddrs(member.addrs), addrs) }];
    });
    if (withSelf && (await this.#store.hasOwn(digest))) {
      found.unshift({ peer: this.#peer.name, addrs: binaryAddrs(this.#peer.addrs()) });
    }
    return found;
  }

  async #takeBatch(message: Required<RpcMessage>, context: RpcContext): Promise<RpcMessage> {
    const digests = digestsOf(message.body);
    const stored = await this.#store.add(context.peer, addrsOf(message.head), digests);
    return { head: { stored } };
  }

  async #takeWithdrawal(message: Required<RpcMessage>, context: RpcContext): Promise<RpcMessage> {
    return { head: { removed: await this.#store.remove(context.peer, digestsOf(message.body)) } };
  }

  async #answerFind(message: Required<RpcMessage>): Promise<RpcMessage> {
    const digest = checkedDigest(fieldOf(message.head, 'digest'), 'provide.find: digest');
    return { head: { providers: await this.#lookup(digest, true) } };
  }
}

/** What finding needs of a peer: any member can, with no store of its own. */
export type FindingPeer = Pick<ProviderPeer, 'name' | 'membership' | 'connected'> & {
  readonly rpc: RpcClient;
};

/** Longest wait for one holder's answer, ms: a frozen one must not make a find slow. */
const findMs = 500;
/** Holders asked at once. */
const findWidth = 3;

/**
 * Asks the holders of the block's records, the closest reachable first, three at a time.
 * @returns the members that announce it, as many as were found until there were `enough`; perhaps the caller too
 */
export async function findProviders(
  peer: FindingPeer,
  cid: CID,
  options: FindOptions & { readonly k?: number; readonly known?: ReadonlyMap<PeerName, FoundProvider> } = {},
): Promise<FoundProvider[]> {
  const digest = cid.multihash.digest;
  const up = new Set(peer.connected());
  const holders = recordHolders(peer.membership(), peer.name).filter((each) => up.has(each.peer));
  const queue = closest(kadKey(digest), holders, options.k ?? holders.length);
  const found = new Map(options.known ?? []);
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const ask = async () => {
    for (let holder = queue.shift(); holder !== undefined && !stop.signal.aborted; holder = queue.shift()) {
      for (const each of await askHolder(peer, holder.peer, digest, signal)) found.set(each.peer, each);
      if (found.size >= (options.enough ?? 2)) stop.abort(servedItsPurpose);
    }
  };
  await Promise.all(Array.from({ length: findWidth }, ask));
  options.signal?.throwIfAborted();
  return [...found.values()];
}

async function askHolder(
  peer: FindingPeer,
  holder: PeerName,
  digest: Uint8Array,
  signal: AbortSignal,
): Promise<FoundProvider[]> {
  try {
    const answer = await peer.rpc.call(
      holder,
      'provide.find',
      { head: { digest } },
      { signal, timeoutMs: findMs },
    );
    const members = new Set(peer.membership().members.map((each) => each.peer));
    const providers = fieldOf(answer.head, 'providers');
    if (!Array.isArray(providers)) return [];
    return providers.flatMap((each: unknown) => {
      const name = fieldOf(each, 'peer');
      if (typeof name !== 'string' || !members.has(name)) return [];
      return [{ peer: name, addrs: textAddrs(addrsOf(each)) }];
    });
  } catch {
    return []; // one holder of many: the others are asked as well, and absence is the answer when none knows
  }
}

/** Members other than `self` that hold provider records: our nodes, and members without a role (standard peers). */
function recordHolders(membership: Membership, self: PeerName): RecordHolder[] {
  return membership.members.flatMap(({ peer, roles }) => {
    if (peer === self || (roles.length > 0 && !roles.includes('node'))) return [];
    const lane = roles.includes('node') ? 'batch' : 'standard';
    return [{ peer, lane, key: sha256(peerMultihash(peer)) } as const];
  });
}

function digestsOf(body: Uint8Array): Uint8Array[] {
  if (body.length === 0 || body.length % 32 !== 0 || body.length > 32 * frameCount) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${body.length} bytes: 1 to ${frameCount} digests of 32 bytes expected`,
    );
  }
  return Array.from({ length: body.length / 32 }, (_, i) => body.subarray(32 * i, 32 * i + 32));
}

function addrsOf(head: unknown): Uint8Array[] {
  const addrs = fieldOf(head, 'addrs');
  if (!Array.isArray(addrs) || addrs.length > peerAddrsMax) {
    throw new HoldfastError('ARGUMENT_INVALID', `addrs: at most ${peerAddrsMax} multiaddrs expected`);
  }
  return addrs.filter((addr) => addr instanceof Uint8Array && addr.length <= addrBytesMax);
}

function joinAddrs(first: readonly Uint8Array[], then: readonly Uint8Array[]): Uint8Array[] {
  const known = new Map([...first, ...then].map((addr) => [asBuffer(addr).toString('latin1'), addr]));
  return [...known.values()].slice(0, peerAddrsMax);
}
