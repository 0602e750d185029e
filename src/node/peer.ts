// A member of the cluster on the network: identity, allow-list, DHT, and calls to other members.

import { type Identify, identify } from '@libp2p/identify';
import type { Connection, PeerId, Stream } from '@libp2p/interface';
import { type KadDHT, kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { peerIdFromString } from '@libp2p/peer-id';
import { type Ping, ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type Libp2p, type Libp2pOptions } from 'libp2p';
import { type Clock, second } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { membersMax, streamWindowBytes } from '../core/limits.ts';
import type { PeerName, RpcClient, RpcServer } from '../core/rpc.ts';
import { neighboursOnly } from './gater.ts';
import type { Identity } from './identity.ts';
import { Keeper } from './keeper.ts';
import { areNeighbours, memberOf, type Membership, nextMembership } from './membership.ts';
import { noiseLate } from './noise-late.ts';
import { Links } from './rpc-links.ts';
import { lost, type RpcTap } from './rpc-stream.ts';
import { Rpc } from './rpc.ts';
import { tls } from './tls.ts';

export type { RpcTap } from './rpc-stream.ts';

/** Where libp2p keeps its own records (peers, routing table). */
export type PeerDatastore = NonNullable<Libp2pOptions['datastore']>;

export interface PeerOptions {
  readonly identity: Identity;
  readonly membership: Membership;
  /** Address to listen on. Port 0 = any free one (tests); a node keeps its port for life. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Opened and owned by the caller, closed after the peer. Absent = in memory. */
  readonly datastore?: PeerDatastore;
  /** Multiaddrs told to others instead of those listened on. */
  readonly announce?: readonly string[];
  /** `server` stores and answers DHT records (nodes); `client` only asks (doors, stewards). Default server. */
  readonly dht?: 'server' | 'client';
  /** Longest pause between two dials of an absent member, milliseconds, jittered. Default 5,000. */
  readonly dialPauseMsMax?: number;
  /** How often the RPC streams are probed, milliseconds. Default 1,000. */
  readonly heartbeatMs?: number;
  /** A peer that answers nothing for this long is `down`, milliseconds. Default 4,000. */
  readonly silenceMsMax?: number;
  /** Sees the plain bytes of every RPC frame: for tests that look for secrets. */
  readonly tap?: RpcTap;
}

export interface PeerEvent {
  readonly peer: PeerName;
  /** `up`: calls can be made. `down`: connection lost or silent. Alternates per peer. */
  readonly state: 'up' | 'down';
}

/** What other rooms get. */
export interface Peer extends AsyncDisposable {
  readonly name: PeerName;
  readonly rpc: RpcClient & RpcServer;
  membership(): Membership;
  /** Members that calls can be made to now. */
  connected(): readonly PeerName[];
  /** Returns the function that ends it. A listener must not throw. */
  onPeer(listener: (event: PeerEvent) => void): () => void;
  /** Own multiaddrs with the `/p2p/` part. */
  addrs(): readonly string[];
  /** Takes a newer document over: new members are dialled, removed ones disconnected at once. Throws RECORD_INVALID. */
  updateMembership(membership: Membership): void;
}

/** What the node room gets in addition. */
export interface NodePeer extends Peer {
  readonly libp2p: Libp2p;
  readonly dht: KadDHT;
}

/** Starts listening and dialling. Throws PORT_IN_USE with the port in its details. */
export async function startPeer(options: PeerOptions): Promise<NodePeer> {
  const peer = await NetworkPeer.create(options);
  try {
    await peer.start();
  } catch (error) {
    await peer[Symbol.asyncDispose]();
    throw listenError(error, options.listen);
  }
  return peer;
}

const dialPauseMsMin = 100;
const dialPauseMsMaxDefault = 5 * second;
const heartbeatMsDefault = 1 * second;
const silenceMsMaxDefault = 4 * second;
/** One attempt: connect, handshake, both lanes. A frozen member costs its own attempt this much, others nothing. */
const attemptMsMax = 5 * second;
/** How long the accepting side of a connection waits for the opener to open its lanes. */
const acceptMsMax = 3 * second;
/** libp2p forgets addresses after 1 h and peers after 6 h; members of ours stay until the operator removes them. */
const peerAgeMs = Number.MAX_SAFE_INTEGER;
/** The longest a timer can run: libp2p's own sweep of provider records is replaced by ours. */
const neverMs = 0x7fff_ffff;
const addrsToDialMax = 16;

type Services = { identify: Identify; ping: Ping; dht: KadDHT };

class NetworkPeer implements NodePeer {
  readonly name: PeerName;
  readonly rpc: Rpc;
  readonly libp2p: Libp2p;
  readonly dht: KadDHT;
  readonly #options: PeerOptions;
  readonly #links: Links;
  readonly #keeper: Keeper;
  readonly #protocol: string;
  readonly #listeners = new Set<(event: PeerEvent) => void>();
  /** Attempts that wait for a connection or a link, by peer. */
  readonly #waiters = new Map<PeerName, Set<() => void>>();
  #membership: Membership;
  #heartbeat: NodeJS.Timeout | undefined;
  #chores: Promise<unknown>[] = [];

  static async create(options: PeerOptions): Promise<NetworkPeer> {
    let isNeighbour = (_peer: PeerName): boolean => false;
    const libp2p = await createLibp2p<Services>(libp2pOptions(options, (peer) => isNeighbour(peer)));
    const peer = new NetworkPeer(options, libp2p, libp2p.services.dht);
    isNeighbour = (name) => areNeighbours(peer.#membership, peer.name, name);
    return peer;
  }

  private constructor(options: PeerOptions, libp2p: Libp2p, dht: KadDHT) {
    const { heartbeatMs = heartbeatMsDefault, silenceMsMax = silenceMsMaxDefault } = options;
    this.#options = options;
    this.#membership = options.membership;
    this.#protocol = `/holdfast/${options.membership.cluster}/rpc/1.0.0`;
    this.name = options.identity.name;
    this.libp2p = libp2p;
    this.dht = dht;
    this.rpc = new Rpc((peer, lane) => this.#links.lane(peer, lane));
    this.#links = new Links({
      self: this.name,
      protocol: this.#protocol,
      handlers: this.rpc.handlers,
      tap: options.tap,
      silentTicksMax: Math.max(1, Math.ceil(silenceMsMax / heartbeatMs) - 1),
      onUp: (peer) => this.#onUp(peer),
      onDown: (peer) => this.#onDown(peer),
    });
    this.#keeper = new Keeper({
      port: {
        connect: (peer, signal) => this.#connect(peer, signal),
        isUp: (peer) => this.#isKept(peer),
        // A plain peer may not know our address at all.
        dialsFirst: (peer) => this.#isPlain(peer) || this.#links.opens(peer),
      },
      clock: systemClock,
      random: Math.random,
      times: { pauseMsMin: dialPauseMsMin, pauseMsMax: options.dialPauseMsMax ?? dialPauseMsMaxDefault },
    });
  }

  async start(): Promise<void> {
    const { libp2p } = this;
    await libp2p.handle(this.#protocol, (stream, connection) => this.#accept(stream, connection), {
      maxInboundStreams: 8,
      maxOutboundStreams: 8,
    });
    libp2p.addEventListener('connection:open', ({ detail }) => this.#onConnection(detail));
    libp2p.addEventListener('connection:close', ({ detail }) => this.#onConnectionLost(detail));
    await libp2p.start();
    this.#heartbeat = setInterval(() => this.#links.tick(), this.#options.heartbeatMs ?? heartbeatMsDefault);
    this.#keepNeighbours();
  }

  membership(): Membership {
    return this.#membership;
  }

  connected(): readonly PeerName[] {
    return this.#links.connected();
  }

  addrs(): readonly string[] {
    return this.libp2p.getMultiaddrs().map(String);
  }

  onPeer(listener: (event: PeerEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  updateMembership(candidate: Membership): void {
    const before = this.#membership;
    this.#membership = nextMembership(before, candidate);
    const changed = new Set<PeerName>();
    for (const { peer, roles } of before.members) {
      if (!areNeighbours(this.#membership, this.name, peer)) this.#expel(peer);
      else if (this.#isPlain(peer) !== (roles.length === 0)) changed.add(peer);
    }
    // What is kept with a plain peer and with one of ours is not the same: those begin anew.
    for (const peer of changed) this.#links.drop(peer, lost(peer, 'its roles changed'));
    this.#keepNeighbours(changed);
    this.#keepNeighbours();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#heartbeat);
    const reason = new HoldfastError('PEER_UNREACHABLE', 'this peer stops');
    const keeping = this.#keeper[Symbol.asyncDispose]();
    this.#links.close(reason);
    for (const connection of this.libp2p.getConnections()) connection.abort(reason);
    await keeping;
    await this.libp2p.stop();
    await Promise.allSettled(this.#chores);
  }

  #keepNeighbours(except: ReadonlySet<PeerName> = new Set()): void {
    const members = this.#membership.members.map(({ peer }) => peer);
    const neighbours = members.filter((peer) => areNeighbours(this.#membership, this.name, peer));
    this.#keeper.keep(neighbours.filter((peer) => peer !== this.name && !except.has(peer)));
  }

  /** A member without a role: any libp2p peer that the operator lets in. It speaks the DHT's protocol, not ours. */
  #isPlain(peer: PeerName): boolean {
    return memberOf(this.#membership, peer)?.roles.length === 0;
  }

  /** There is all that this peer can have with us: a connection, and lanes with those that speak our protocol. */
  #isKept(peer: PeerName): boolean {
    return this.#isPlain(peer) ? this.#connections(peer).length > 0 : this.#links.isUp(peer);
  }

  #accept(stream: Stream, connection: Connection): void {
    const peer = connection.remotePeer.toString();
    if (this.#isPlain(peer)) stream.abort(new Error(`${peer} has no role that makes calls`));
    else this.#links.accept(stream, connection);
  }

  #expel(peer: PeerName): void {
    const reason = new HoldfastError('PEER_UNREACHABLE', `${peer} is no neighbour any more`, {
      details: { peer },
    });
    this.#links.drop(peer, reason);
    for (const connection of this.#connections(peer)) connection.abort(reason);
    // Best effort: the allow-list refuses it even if its address stays in the store.
    this.#chores.push(Promise.allSettled([this.libp2p.peerStore.delete(peerIdFromString(peer))]));
  }

  #onUp(peer: PeerName): void {
    this.#keeper.up(peer);
    this.#dropDuplicates(peer);
    this.#wake(peer);
    for (const listener of this.#listeners) listener({ peer, state: 'up' });
  }

  #onDown(peer: PeerName): void {
    this.#keeper.down(peer);
    for (const listener of this.#listeners) listener({ peer, state: 'down' });
  }

  #onConnection(connection: Connection): void {
    const peer = connection.remotePeer.toString();
    if (this.#isPlain(peer)) this.#keeper.up(peer);
    else if (this.#links.isUp(peer)) this.#dropDuplicates(peer);
    else this.#keeper.nudge(peer);
    this.#wake(peer);
  }

  /** Of a peer with lanes the lanes tell, before this does. */
  #onConnectionLost(connection: Connection): void {
    const peer = connection.remotePeer.toString();
    if (this.#isPlain(peer) && !this.#isKept(peer)) this.#keeper.down(peer);
  }

  /** Both sides may dial at once. The side that opens the lanes decides: the connection with the link stays. */
  #dropDuplicates(peer: PeerName): void {
    if (!this.#links.opens(peer)) return;
    const kept = this.#links.connection(peer);
    for (const connection of this.#connections(peer)) {
      if (connection !== kept)
        this.#chores.push(connection.close().catch((error: Error) => connection.abort(error)));
    }
    this.#chores = this.#chores.slice(-membersMax);
  }

  /**
   * One attempt: a connection if there is none, then the link on it, except to a plain peer, which will never
   * open one. Throws when it did not come up in time.
   */
  async #connect(peer: PeerName, stopped: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(attemptMsMax)]);
    const connection = await this.#connection(peer, signal);
    if (this.#isKept(peer)) return;
    try {
      if (this.#links.opens(peer)) await this.#links.open(connection, signal);
      else
        await this.#waitFor(
          peer,
          () => this.#links.isUp(peer),
          AbortSignal.any([stopped, AbortSignal.timeout(acceptMsMax)]),
        );
    } catch (error) {
      // A connection on which no link comes up is of no use, however healthy it looks: the next attempt makes a new one.
      connection.abort(lost(peer, error));
      throw error;
    }
  }

  /** The newest open connection to `peer`: dialled now, or accepted meanwhile, whichever comes first. */
  async #connection(peer: PeerName, signal: AbortSignal): Promise<Connection> {
    const open = this.#connections(peer).at(-1);
    if (open !== undefined) return open;
    const settled = new AbortController();
    const until = AbortSignal.any([signal, settled.signal]);
    try {
      const accepted = this.#waitFor(peer, () => this.#connections(peer).length > 0, until);
      // Not stopped by `settled`: libp2p ties the new socket to the signal of its dial for a moment too long.
      const dialled = this.#dial(peer, signal);
      await Promise.race([accepted, dialled]);
    } finally {
      settled.abort(new Error('settled'));
    }
    const found = this.#connections(peer).at(-1);
    if (found === undefined) throw lost(peer, 'closed at once');
    return found;
  }

  async #dial(peer: PeerName, signal: AbortSignal): Promise<void> {
    const id = peerIdFromString(peer);
    const addrs = await this.#addrsOf(id, signal);
    if (addrs.length === 0) throw lost(peer, 'no address is known');
    await this.libp2p.dial(addrs, { signal });
  }

  /** The membership's addresses first (names among them are resolved by every dial), then those it told us itself. */
  async #addrsOf(id: PeerId, signal: AbortSignal): Promise<Multiaddr[]> {
    const told = memberOf(this.#membership, id.toString())?.addrs ?? [];
    const stored = (await this.libp2p.peerStore.has(id, { signal }))
      ? (await this.libp2p.peerStore.get(id, { signal })).addresses
      : [];
    const known = stored.map(({ multiaddr }) => multiaddr.toString().split('/p2p/', 1)[0] ?? '');
    const all = [...new Set([...told, ...known])].slice(0, addrsToDialMax);
    return all.map((addr) => multiaddr(`${addr}/p2p/${id.toString()}`));
  }

  #connections(peer: PeerName): Connection[] {
    return this.libp2p.getConnections(peerIdFromString(peer)).filter(({ status }) => status === 'open');
  }

  /** Resolves as soon as `holds`, asked whenever a connection or link to `peer` came up. Rejects with the signal. */
  async #waitFor(peer: PeerName, holds: () => boolean, signal: AbortSignal): Promise<void> {
    const waiters = this.#waiters.get(peer) ?? new Set();
    this.#waiters.set(peer, waiters);
    while (!holds()) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      waiters.add(resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
      await promise;
      waiters.delete(resolve);
    }
  }

  #wake(peer: PeerName): void {
    for (const wake of this.#waiters.get(peer) ?? []) wake();
  }
}

const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };

function libp2pOptions(
  options: PeerOptions,
  isNeighbour: (peer: PeerName) => boolean,
): Libp2pOptions<Services> {
  const { identity, membership, listen, announce, datastore } = options;
  return {
    start: false,
    privateKey: identity.privateKey,
    addresses: {
      listen: [listenAddr(listen)],
      ...(announce === undefined ? {} : { announce: [...announce] }),
    },
    ...(datastore === undefined ? {} : { datastore }),
    transports: [tcp()],
    // Both sides offer both; TLS is first because it costs a third less per byte.
    connectionEncrypters: [tls(), noiseLate()],
    streamMuxers: [yamux({ streamOptions: { initialStreamWindowSize: streamWindowBytes } })],
    connectionGater: neighboursOnly(isNeighbour),
    peerStore: { maxAddressAge: peerAgeMs, maxPeerAge: peerAgeMs },
    connectionManager: {
      maxConnections: 4 * membersMax,
      maxParallelDials: membersMax,
      maxIncomingPendingConnections: membersMax,
      // Per second and host: a whole cluster may start behind one address.
      inboundConnectionThreshold: 4 * membersMax,
      dialTimeout: attemptMsMax,
      addressDialTimeout: 2 * second,
      inboundUpgradeTimeout: attemptMsMax,
    },
    // It would open a stream on every connection every ten seconds, to measure, or to take any failed ping for a dead
    // peer, as it does by default: it cut healthy connections under load. Our own heartbeats decide.
    connectionMonitor: { enabled: false },
    services: {
      identify: identify(),
      // Pings of the DHT may overlap: one stream each way, libp2p's default, is too few.
      ping: ping({ maxInboundStreams: 16, maxOutboundStreams: 16 }),
      dht: kadDHT({
        protocol: `/holdfast/${membership.cluster}/kad/1.0.0`,
        clientMode: options.dht === 'client',
        peerInfoMapper: passthroughMapper,
        kBucketSize: bucketSize(membership.members.length),
        networkDialTimeout: { minTimeout: 500, maxTimeout: 2 * second },
        reprovide: { interval: neverMs },
        maxInboundStreams: 1024,
        maxOutboundStreams: 1024,
      }),
    },
  };
}

/** Up to 21 members, everybody stores every record; beyond, walking them all costs more than it gives. */
function bucketSize(membersCount: number): number {
  return membersCount <= 21 ? 20 : 10;
}

function listenAddr({ host, port }: PeerOptions['listen']): string {
  return `/${host.includes(':') ? 'ip6' : 'ip4'}/${host}/tcp/${port}`;
}

function listenError(error: unknown, { host, port }: PeerOptions['listen']): unknown {
  if (!describeError(error).includes('EADDRINUSE')) {
    return asHoldfastError(error, 'INTERNAL', `cannot listen on ${host}:${port}`);
  }
  return new HoldfastError('PORT_IN_USE', `port ${port} on ${host} is in use by another program`, {
    details: { host, port },
    cause: error,
  });
}
