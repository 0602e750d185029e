// A few members of one cluster in this process, on real libp2p over loopback, each with a disk of its own.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/core/clock.ts';
import { sha256 } from '../../src/core/hash.ts';
import { utf8 } from '../../src/core/bytes.ts';
import type { DiskBlockStore } from '../../src/node/block-ports.ts';
import { openBlockStore } from '../../src/node/blockstore.ts';
import { StewardEpochs } from '../../src/node/epochs.ts';
import { type Identity, identityFromSeed } from '../../src/node/identity.ts';
import type { Member, MemberRole, Membership } from '../../src/node/membership.ts';
import { type NodePeer, startPeer } from '../../src/node/peer.ts';
import {
  openProviderStore,
  type ProviderStore,
  type ProviderStoreOptions,
} from '../../src/node/provider-store.ts';
import { startStorageNode, type StorageNode, type StorageNodeOptions } from '../../src/node/storage-node.ts';
import { openDataDir } from '../../src/node/stores.ts';

export const clusterName = 'gates';

/** Wall and monotonic time, and a wall clock that the test can push on. */
export class TestClock implements Clock {
  offsetMs = 0;
  now(): number {
    return Date.now() + this.offsetMs;
  }
  monotonic(): number {
    return performance.now();
  }
}

export function identityOf(name: string): Identity {
  return identityFromSeed(sha256(utf8(`identity of ${name}`)));
}

export function memberFor(
  identity: Identity,
  name: string,
  roles: readonly MemberRole[],
  addrs: readonly string[] = [],
): Member {
  return { name, peer: identity.name, roles, zone: 'zone-1', host: 'host-1', addrs };
}

export interface ClusterNode {
  readonly name: string;
  readonly identity: Identity;
  readonly peer: NodePeer;
  readonly node: StorageNode;
  readonly blocks: DiskBlockStore;
  readonly records: ProviderStore;
  readonly clock: TestClock;
}

export interface Cluster extends AsyncDisposable {
  readonly nodes: readonly ClusterNode[];
  /** A member that is no node: a steward, a door. */
  readonly others: readonly NodePeer[];
  membership(): Membership;
  /** Gives all peers a membership with `extra` members in addition. */
  addMembers(...extra: readonly Member[]): void;
}

export interface ClusterOptions {
  readonly names: readonly string[];
  readonly others?: readonly { readonly name: string; readonly role: MemberRole }[];
  readonly identities?: (name: string) => Promise<Identity>;
  readonly records?: Partial<ProviderStoreOptions>;
  readonly node?: Partial<Omit<StorageNodeOptions, 'epochs'>>;
  /** Fills the disk of a node before it starts. */
  readonly prepare?: (name: string, blocks: DiskBlockStore, records: ProviderStore) => Promise<void>;
}

/** Starts the members and resolves when every one can call every other. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-dht-'));
  const stack = new AsyncDisposableStack();
  stack.defer(() => rm(root, { recursive: true, force: true }));
  const identityFor = options.identities ?? identityOf;
  const all = [
    ...options.names.map((name) => ({ name, role: 'node' as MemberRole })),
    ...(options.others ?? []),
  ];
  const identities = new Map(
    await Promise.all(all.map(async ({ name }) => [name, await identityFor(name)] as const)),
  );
  const idOf = (name: string): Identity => {
    const identity = identities.get(name);
    if (identity === undefined) throw new RangeError(`no identity ${name}`);
    return identity;
  };
  let membership: Membership = {
    v: 1,
    cluster: clusterName,
    version: 1,
    members: all.map(({ name, role }) => memberFor(idOf(name), name, [role])),
  };
  const peers = new Map<string, NodePeer>();
  for (const { name, role } of all) {
    const dht = role === 'node' ? ('server' as const) : ('client' as const);
    const listen = { host: '127.0.0.1', port: 0 };
    const peer = stack.use(
      await startPeer({ identity: idOf(name), membership, listen, dht, dialPauseMsMax: 500 }),
    );
    peers.set(name, peer);
  }
  const update = (members: readonly Member[]) => {
    membership = { ...membership, version: membership.version + 1, members };
    for (const peer of peers.values()) peer.updateMembership(membership);
  };
  const nodes: ClusterNode[] = [];
  for (const name of options.names) {
    const peer = peers.get(name);
    if (peer !== undefined) nodes.push(await startNode(stack, root, name, idOf(name), peer, options));
  }
  update(
    all.map(({ name, role }) => {
      const addrs = (peers.get(name)?.addrs() ?? []).map((addr) => addr.split('/p2p/')[0] ?? '');
      return memberFor(idOf(name), name, [role], addrs);
    }),
  );
  await Promise.all([...peers.values()].map((peer) => connectedTo(peer, all.length - 1)));
  return {
    nodes,
    others: (options.others ?? []).flatMap(({ name }) => peers.get(name) ?? []),
    membership: () => membership,
    addMembers: (...extra) => update([...membership.members, ...extra]),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function startNode(
  stack: AsyncDisposableStack,
  root: string,
  name: string,
  identity: Identity,
  peer: NodePeer,
  options: ClusterOptions,
): Promise<ClusterNode> {
  const clock = new TestClock();
  const dir = stack.use(
    await openDataDir(join(root, name), { node: name, peer: peer.name, cluster: clusterName }),
  );
  const blocks = stack.use(await openBlockStore(dir));
  const records = stack.use(await openProviderStore(dir, { clock, ...options.records }));
  await options.prepare?.(name, blocks, records);
  const epochs = await StewardEpochs.open(dir.path, clock);
  const parts = { peer, blockstore: blocks, providerStore: records, epochs, clock };
  const node = stack.use(await startStorageNode({ ...parts, ...options.node }));
  return { name, identity, peer, node, blocks, records, clock };
}

/** Resolves when `peer` can call `count` others. */
async function connectedTo(peer: NodePeer, count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const look = () => {
    if (peer.connected().length >= count) resolve();
  };
  const off = peer.onPeer(look);
  look();
  await promise;
  off();
}
