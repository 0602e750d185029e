// Our provider records behind kad-dht's own protocol, so that any standard peer can announce and resolve.
//
// kad-dht 16 keeps provider records in its datastore and their addresses in libp2p's peer store, which
// forgets addresses after an hour and peers after six; then its GET_PROVIDERS answers with nobody, or
// throws on the first unknown provider and resets the stream for all of them. It also serves what has
// expired. So two message handlers and the `providers` object are replaced on the instance by ours.
//
// That is not an official way in. `kadInternals` looks at every piece before anything is touched and says
// by name what is missing, and a test pins it to the version we ship.

import type { KadDHT } from '@libp2p/kad-dht';
import type { PeerId, PeerInfo, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { CID } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { multihash } from './provider-store.ts';
import { type KadMessage, KadFrames, encodeKadMessage, kadType, peerAddrsMax } from './provider-wire.ts';

/** What the DHT asks of our records. */
export interface KadRecords {
  /** Members that have the block, this node included, each with binary addresses that can be dialled. */
  lookup(
    digest: Uint8Array,
  ): Promise<readonly { readonly peer: PeerName; readonly addrs: readonly Uint8Array[] }[]>;
  /** A standard peer announced the block. */
  add(peer: PeerName, addrs: readonly Uint8Array[], digest: Uint8Array): Promise<void>;
  /** Somebody in this process used the DHT's own `provide`. */
  addOwn(cid: CID): Promise<void>;
  removeOwn(cid: CID): Promise<void>;
}

/** Puts `records` behind `dht`. Throws INTERNAL when kad-dht is not built as we know it. */
export function mergeIntoKad(dht: KadDHT, records: KadRecords): void {
  const kad = kadInternals(dht);
  const self = kad.components.peerId.toString();
  kad.providers.getProviders = async (cid) => providersFor(kad, records, cid);
  kad.providers.addProvider = async (cid, provider) => {
    if (provider.toString() === self) await records.addOwn(cid);
  };
  kad.providers.removeProvider = async (cid, provider) => {
    if (provider.toString() === self) await records.removeOwn(cid);
  };
  kad.rpc.handlers.GET_PROVIDERS.handle = (_from, message) => answerGetProviders(kad, records, message);
  kad.rpc.handlers.ADD_PROVIDER.handle = (from, message) => takeAddProvider(records, from, message);
}

/**
 * Announces `digests` to an unmodified kad-dht peer: ADD_PROVIDER messages one behind the other on one
 * stream, with a PING after every window. The peer handles a stream in order, so the answer to the PING
 * says that all before it were handled. Resolves to how many are known to be handled before it failed.
 *
 * @throws nothing: a peer that cannot be reached took 0
 */
export async function announceStandard(
  dht: KadDHT,
  peer: PeerName,
  addrs: readonly Uint8Array[],
  digests: readonly Uint8Array[],
  signal: AbortSignal,
): Promise<{ taken: number; error?: unknown }> {
  const kad = kadInternals(dht);
  const own = { id: kad.components.peerId.toMultihash().bytes, addrs: addrs.slice(0, peerAddrsMax) };
  let taken = 0;
  let stream: Stream | undefined;
  try {
    stream = await kad.components.connectionManager.openStream(peerIdFromString(peer), kad.protocol, {
      signal,
    });
    const pongs = pongsOf(stream, signal);
    for (let from = 0; from < digests.length; from += barrierCount) {
      const window = digests.slice(from, from + barrierCount);
      for (const digest of window) {
        await send(stream, { type: kadType.addProvider, key: multihash(digest), providers: [own] }, signal);
      }
      await send(stream, { type: kadType.ping }, signal);
      if ((await pongs.next()).done === true)
        throw new HoldfastError('PEER_REFUSED', `${peer} closed the stream`);
      taken += window.length;
    }
    await stream.close({ signal });
    return { taken };
  } catch (error) {
    stream?.abort(error instanceof Error ? error : new Error('announcing failed'));
    return { taken, error };
  }
}

/** Messages between two barriers: about 25 kB, so that a lost stream repeats little. */
const barrierCount = 256;

/** The parts of kad-dht that are replaced or used, as far as they are used. */
export interface KadInternals {
  readonly protocol: string;
  readonly k: number;
  readonly providers: {
    getProviders: (cid: CID) => Promise<PeerId[]>;
    addProvider: (cid: CID, provider: PeerId) => Promise<void>;
    removeProvider: (cid: CID, provider: PeerId) => Promise<void>;
  };
  readonly rpc: {
    readonly handlers: {
      readonly GET_PROVIDERS: {
        handle: (from: PeerId, message: KadPbMessage) => Promise<KadPbMessage | undefined>;
      };
      readonly ADD_PROVIDER: {
        handle: (from: PeerId, message: KadPbMessage) => Promise<KadPbMessage | undefined>;
      };
    };
  };
  readonly peerRouting: { getClosestPeersOffline: (key: Uint8Array) => Promise<PeerInfo[]> };
  readonly components: {
    readonly peerId: PeerId;
    readonly peerStore: {
      has: (peer: PeerId) => Promise<boolean>;
      get: (peer: PeerId) => Promise<{ readonly addresses: readonly unknown[] }>;
      merge: (peer: PeerId, data: { multiaddrs: Multiaddr[] }) => Promise<unknown>;
    };
    readonly connectionManager: {
      openStream: (peer: PeerId, protocol: string, options: { signal: AbortSignal }) => Promise<Stream>;
    };
  };
}

/** kad-dht's message as its codec gives it. */
export interface KadPbMessage {
  readonly type: string;
  readonly key?: Uint8Array;
  readonly closer: readonly KadPbPeer[];
  readonly providers: readonly KadPbPeer[];
}

interface KadPbPeer {
  readonly id: Uint8Array;
  readonly multiaddrs: readonly Uint8Array[];
}

/** `dht` seen from inside. Throws INTERNAL naming what this version of kad-dht does not have. */
export function kadInternals(dht: KadDHT): KadInternals {
  if (isAsWeKnowIt(dht)) return dht;
  const names = strangeParts(dht).join(', ');
  throw new HoldfastError('INTERNAL', `kad-dht is built in another way than we know: look at ${names}`);
}

function isAsWeKnowIt(dht: KadDHT): dht is KadDHT & KadInternals {
  return strangeParts(dht).length === 0;
}

function strangeParts(dht: KadDHT): string[] {
  const missing = expectedParts.filter(({ path, kind }) => typeof partAt(dht, path) !== kind);
  const apart = sharedProviders.filter((path) => partAt(dht, path) !== partAt(dht, 'providers'));
  return [...missing.map(({ path }) => path), ...apart];
}

/** These must hold the very object whose methods are replaced. */
const sharedProviders = [
  'rpc.handlers.GET_PROVIDERS.providers',
  'rpc.handlers.ADD_PROVIDER.providers',
  'contentRouting.providers',
];

const expectedParts = [
  { path: 'protocol', kind: 'string' },
  { path: 'k', kind: 'number' },
  { path: 'providers.getProviders', kind: 'function' },
  { path: 'providers.addProvider', kind: 'function' },
  { path: 'providers.removeProvider', kind: 'function' },
  { path: 'rpc.handlers.GET_PROVIDERS.handle', kind: 'function' },
  { path: 'rpc.handlers.ADD_PROVIDER.handle', kind: 'function' },
  { path: 'peerRouting.getClosestPeersOffline', kind: 'function' },
  { path: 'components.peerId.toMultihash', kind: 'function' },
  { path: 'components.peerStore.has', kind: 'function' },
  { path: 'components.peerStore.get', kind: 'function' },
  { path: 'components.peerStore.merge', kind: 'function' },
  { path: 'components.connectionManager.openStream', kind: 'function' },
] as const;

function partAt(root: unknown, path: string): unknown {
  let part: unknown = root;
  for (const name of path.split('.')) {
    if (typeof part !== 'object' || part === null) return undefined;
    part = Reflect.get(part, name);
  }
  return part;
}

async function answerGetProviders(
  kad: KadInternals,
  records: KadRecords,
  message: KadPbMessage,
): Promise<KadPbMessage> {
  const key = message.key ?? new Uint8Array(0);
  const digest = digestOf(key);
  const found = digest === undefined ? [] : await records.lookup(digest);
  const closer = await kad.peerRouting.getClosestPeersOffline(key);
  return {
    type: message.type,
    key,
    closer: closer.filter(({ multiaddrs }) => multiaddrs.length > 0).map(toPb),
    providers: found
      .filter(({ addrs }) => addrs.length > 0)
      .map(({ peer, addrs }) => ({ id: peerIdFromString(peer).toMultihash().bytes, multiaddrs: addrs })),
  };
}

// As kad-dht does: only the sender itself is taken as a provider, and only with an address.
async function takeAddProvider(records: KadRecords, from: PeerId, message: KadPbMessage): Promise<undefined> {
  const digest = digestOf(message.key ?? new Uint8Array(0));
  if (digest === undefined) return undefined;
  for (const provider of message.providers) {
    if (!samePeer(provider, from)) continue;
    const addrs = provider.multiaddrs.slice(0, peerAddrsMax).filter(isMultiaddr);
    if (addrs.length > 0) await records.add(from.toString(), addrs, digest);
  }
  return undefined;
}

// For the DHT's own search in this process: it takes addresses from the peer store, so they are put there.
async function providersFor(kad: KadInternals, records: KadRecords, cid: CID): Promise<PeerId[]> {
  const peers: PeerId[] = [];
  for (const { peer, addrs } of await records.lookup(cid.multihash.digest)) {
    const id = peerIdFromString(peer);
    const known = (await kad.components.peerStore.has(id))
      ? await kad.components.peerStore.get(id)
      : undefined;
    if ((known?.addresses.length ?? 0) === 0) {
      await kad.components.peerStore.merge(id, {
        multiaddrs: addrs.filter(isMultiaddr).map((addr) => multiaddr(addr)),
      });
    }
    peers.push(id);
  }
  return peers;
}

function digestOf(key: Uint8Array): Uint8Array | undefined {
  return key.length === 34 && key[0] === 0x12 && key[1] === 0x20 ? key.subarray(2) : undefined;
}

function samePeer(peer: KadPbPeer, from: PeerId): boolean {
  return Buffer.compare(peer.id, from.toMultihash().bytes) === 0;
}

function isMultiaddr(bytes: Uint8Array): boolean {
  try {
    return multiaddr(bytes).getComponents().length > 0;
  } catch {
    return false; // somebody else's bytes: not an address is an answer
  }
}

function toPb(peer: PeerInfo): KadPbPeer {
  return { id: peer.id.toMultihash().bytes, multiaddrs: peer.multiaddrs.map((addr) => addr.bytes) };
}

async function send(
  stream: Stream,
  message: Partial<KadMessage> & { readonly type: number },
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  if (stream.send(encodeKadMessage(message))) return;
  await new Promise<void>((resolve, reject) => {
    const end = (error?: Error) => {
      stream.removeEventListener('drain', onDrain);
      stream.removeEventListener('close', onClose);
      signal.removeEventListener('abort', onClose);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onDrain = () => end();
    const onClose = () => end(new HoldfastError('PEER_UNREACHABLE', 'the stream closed while announcing'));
    stream.addEventListener('drain', onDrain);
    stream.addEventListener('close', onClose);
    signal.addEventListener('abort', onClose);
  });
}

async function* pongsOf(stream: Stream, signal: AbortSignal): AsyncGenerator<void> {
  const frames = new KadFrames();
  const onAbort = () => stream.abort(new HoldfastError('TIMEOUT', 'announcing took too long'));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const chunk of stream) {
      for (const message of frames.push(chunk instanceof Uint8Array ? chunk : chunk.subarray())) {
        if (message.type === kadType.ping) yield;
      }
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** The place of a peer in the key space needs its multihash. Throws when `peer` is no peer id. */
export function peerMultihash(peer: PeerName): Uint8Array {
  return peerIdFromString(peer).toMultihash().bytes;
}

/** Binary form of text multiaddrs; what is none is left out. */
export function binaryAddrs(addrs: readonly string[]): Uint8Array[] {
  return addrs.flatMap((text) => {
    try {
      return [multiaddr(text).bytes];
    } catch {
      return []; // a name that only the operator's resolver understands is of no use to others
    }
  });
}

/** Text form of binary multiaddrs; what is none is left out. */
export function textAddrs(addrs: readonly Uint8Array[]): string[] {
  return addrs.filter(isMultiaddr).map((addr) => multiaddr(addr).toString());
}
