// The views of a cluster as copies of its log: who holds how much, and whether all tell the same.

import type { BeaconLog, LogPosition } from '../beacon/log.ts';
import { RemoteLog } from '../beacon/remote.ts';
import { serveReading } from '../beacon/serve.ts';
import type { BeaconView } from '../beacon/view.ts';
import { second } from '../core/clock.ts';
import { describeError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { hasRole } from '../node/membership.ts';
import type { NodePeer } from '../node/peer.ts';
import type { ViewPeer, ViewRoots } from './view-roots.ts';

/** Somebody who holds the log as far as `position`. */
export interface BeaconCopy {
  /** Name in the membership. */
  readonly name: string;
  readonly position: LogPosition;
  readonly read: BeaconLog['read'];
}

/** Somebody who could not be asked. */
interface Unheard {
  readonly name: string;
  readonly reason: string;
}

const methods = 'beacon.copy';
const askMs = 5 * second;

/** Lets the stewards of the cluster read what this view holds of the log, and compare its rows with those of others. */
export function serveCopy(peer: NodePeer, view: BeaconView, roots: ViewRoots): void {
  const isSteward = (caller: PeerName): boolean => hasRole(peer.membership(), caller, 'steward');
  serveReading(peer.rpc, methods, sourceOf(view), isSteward);
  roots.serve(peer.rpc, isSteward);
}

/** This process's view. */
export function ownCopy(name: string, view: BeaconView): BeaconCopy {
  const { read } = sourceOf(view);
  return { name, position: view.position(), read };
}

/** What the other stewards and the doors hold now. */
export async function otherCopies(
  peer: Pick<NodePeer, 'membership' | 'rpc' | 'name'>,
): Promise<{ readonly copies: readonly BeaconCopy[]; readonly unheard: readonly Unheard[] }> {
  const asked = await Promise.all(
    membersWithViews(peer).map(async ({ name, peer: other }): Promise<BeaconCopy | Unheard> => {
      const log = new RemoteLog(peer.rpc, () => other, { name: methods, timeoutMs: askMs });
      try {
        const { revision, chain } = await log.head();
        return { name, position: { revision, chain }, read: (from, options) => log.read(from, options) };
      } catch (error) {
        return { name, reason: describeError(error) };
      }
    }),
  );
  return {
    copies: asked.filter((each): each is BeaconCopy => 'position' in each),
    unheard: asked.filter((each): each is Unheard => 'reason' in each),
  };
}

/** The other stewards and the doors. */
export function membersWithViews(self: Pick<NodePeer, 'membership' | 'name'>): readonly ViewPeer[] {
  return self
    .membership()
    .members.filter(
      ({ peer, roles }) => peer !== self.name && roles.some((role) => role === 'steward' || role === 'door'),
    );
}

function sourceOf(view: BeaconView): Pick<BeaconLog, 'head' | 'read'> {
  return {
    head: async () => view.position(),
    read: (from, options) => view.entriesSince(from, options),
  };
}
