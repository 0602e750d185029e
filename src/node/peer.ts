// A member of the cluster on the network: identity, allow-list, DHT, and calls to other members.

import type { KadDHT } from '@libp2p/kad-dht';
import type { Libp2p, Libp2pOptions } from 'libp2p';
import type { PeerName, RpcClient, RpcServer } from '../core/rpc.ts';
import type { Identity } from './identity.ts';
import type { Membership } from './membership.ts';

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

/** Called with every whole frame before it is sent and after it is received. */
export type RpcTap = (direction: 'sent' | 'received', peer: PeerName, frame: Uint8Array) => void;

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
export declare function startPeer(options: PeerOptions): Promise<NodePeer>;
