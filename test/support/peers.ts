// Peers on loopback for tests: identities from small numbers, memberships signed by nobody.

import { createServer } from 'node:net';
import type { PeerName } from '../../src/core/rpc.ts';
import { type Identity, identityFromSeed } from '../../src/node/identity.ts';
import type { Member, Membership } from '../../src/node/membership.ts';
import { type NodePeer, type PeerOptions, startPeer } from '../../src/node/peer.ts';

export function testIdentities(count: number, from = 1): Identity[] {
  return Array.from({ length: count }, (_, index) => identityFromSeed(new Uint8Array(32).fill(from + index)));
}

export function testMember(peer: PeerName, index: number, addrs: readonly string[] = []): Member {
  return {
    name: `node-${index}`,
    peer,
    roles: ['node'],
    zone: `zone-${index % 3}`,
    host: `host-${index}`,
    addrs,
  };
}

export function testMembership(members: readonly Member[], version = 1): Membership {
  return { v: 1, cluster: 'test', version, members };
}

/** Ports that were free a moment ago. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  return Promise.all(
    servers.map(async (server) => {
      const address = server.address();
      await new Promise((resolve) => server.close(resolve));
      return typeof address === 'object' && address !== null ? address.port : 0;
    }),
  );
}

/** `count` peers that know each other's addresses, every one connected to every other. */
export async function startPeers(
  count: number,
  options: (index: number) => Partial<PeerOptions> = () => ({}),
): Promise<NodePeer[]> {
  const identities = testIdentities(count);
  const ports = await freePorts(count);
  const membership = testMembership(
    identities.map(({ name }, index) => testMember(name, index, [`/ip4/127.0.0.1/tcp/${ports[index]}`])),
  );
  const peers = await Promise.all(
    identities.map((identity, index) =>
      startPeer({
        identity,
        membership,
        listen: { host: '127.0.0.1', port: ports[index] ?? 0 },
        ...options(index),
      }),
    ),
  );
  await Promise.all(peers.map((peer) => untilConnected(peer, count - 1)));
  return peers;
}

export async function stopPeers(peers: readonly NodePeer[]): Promise<void> {
  await Promise.all(peers.map((peer) => peer[Symbol.asyncDispose]()));
}

/** Waits for the events of `peer` until it can call `count` others. */
export function untilConnected(peer: NodePeer, count: number): Promise<void> {
  return untilPeers(peer, () => peer.connected().length >= count);
}

/** Resolves when `holds`, asked now and at every peer event. Ends by the test's own time limit. */
export function untilPeers(peer: NodePeer, holds: () => boolean): Promise<void> {
  if (holds()) return Promise.resolve();
  return new Promise((resolve) => {
    const stop = peer.onPeer(() => {
      if (!holds()) return;
      stop();
      resolve();
    });
  });
}

/** What a child process is told. */
export interface ChildStart {
  readonly members: readonly { readonly name: PeerName; readonly addrs: readonly string[] }[];
}
