// What every process of a cluster has: a data directory of its own, a place in the membership, a peer.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import type { ProcessConfig } from '../local/layout.ts';
import { type Identity, openIdentity } from '../node/identity.ts';
import type { MemberRole, Membership } from '../node/membership.ts';
import { openMembershipFile } from '../node/membership-file.ts';
import { type NodePeer, type RpcTap, startPeer } from '../node/peer.ts';
import { openPeerDatastore } from '../node/peer-datastore.ts';
import { type DataDir, openDataDir } from '../node/stores.ts';

export const systemClock: Clock = { now: () => Date.now(), monotonic: () => performance.now() };

/** A process that ends because of an order waits so long, ms: whoever gave it is answered first. */
export const answeredMs = 200;

export interface RoleOptions {
  /** Sees the plain bytes of every message between processes: for tests that look for secrets. */
  readonly tap?: RpcTap;
}

export interface Member extends AsyncDisposable {
  readonly config: ProcessConfig;
  readonly dir: DataDir;
  readonly identity: Identity;
  readonly peer: NodePeer;
  /** Told of each newer membership. */
  onMembership(listener: (membership: Membership) => void): void;
}

/**
 * Opens the data directory and joins the network.
 *
 * @throws DATA_DIR_*, PORT_IN_USE, FILE_NOT_FOUND or RECORD_CORRUPT for the identity key
 */
export async function startMember(
  config: ProcessConfig,
  dht: 'server' | 'client',
  options: RoleOptions = {},
): Promise<Member> {
  await using stack = new AsyncDisposableStack();
  const identity = await openIdentity(config.identityPath);
  if (identity.name !== config.peer)
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${config.identityPath} is ${identity.name}; ${config.name} is ${config.peer}`,
    );
  await refuseLostDirectory(config);
  const owner = { node: config.name, peer: config.peer, cluster: config.cluster };
  const dir = stack.use(await openDataDir(config.dataDir, owner));
  const { datastore } = stack.use(await openPeerDatastore(dir));
  const listeners = new Set<(membership: Membership) => void>();
  const file = stack.use(
    await openMembershipFile({
      path: config.membershipPath,
      operatorKey: config.operator,
      seenPath: join(config.dataDir, 'membership-seen'),
      onChange: (membership) => {
        for (const listener of listeners) listener(membership);
      },
      onRefused: (error) => console.error(`membership refused: ${error.message}`),
    }),
  );
  const peer = stack.use(
    await startPeer({
      identity,
      membership: file.current(),
      listen: { host: config.host ?? '127.0.0.1', port: config.port },
      datastore,
      dht,
      ...options,
    }),
  );
  listeners.add((membership) => peer.updateMembership(membership));
  const owned = stack.move();
  return {
    config,
    dir,
    identity,
    peer,
    onMembership: (listener) => void listeners.add(listener),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A process that was ready before and finds no directory has lost everything: that is never healed by an empty one. */
async function refuseLostDirectory(config: ProcessConfig): Promise<void> {
  if (!config.born) return;
  try {
    await stat(config.dataDir);
  } catch (cause) {
    throw new HoldfastError(
      'DATA_DIR_DAMAGED',
      `${config.dataDir} is gone although ${config.name} has stored there; put it back${config.roles.includes('node') ? `, or start empty with: holdfast node wipe ${config.name}` : ''}`,
      { cause },
    );
  }
}

/** Peers of a role, in the order of the membership. */
export function peersWithRole(membership: Membership, role: MemberRole): PeerName[] {
  return membership.members.filter((member) => member.roles.includes(role)).map((member) => member.peer);
}
