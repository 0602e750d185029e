// The allow-list: only members that have something to say to each other are dialled, or get past the handshake.

import type { ConnectionGater } from '@libp2p/interface';
import type { PeerName } from '../core/rpc.ts';

/** `isNeighbour` is asked anew every time, so a changed membership counts from the next connection on. */
export function neighboursOnly(isNeighbour: (peer: PeerName) => boolean): ConnectionGater {
  const refuse = (peer: { toString(): string }): boolean => !isNeighbour(peer.toString());
  return {
    denyDialPeer: refuse,
    // Loopback and private addresses are normal for us; without this libp2p's default may refuse them.
    denyDialMultiaddr: () => false,
    denyOutboundConnection: refuse,
    denyInboundEncryptedConnection: refuse,
    denyOutboundEncryptedConnection: refuse,
    denyInboundUpgradedConnection: refuse,
    denyOutboundUpgradedConnection: refuse,
    // Strangers that other members tell of never enter our peer store.
    filterMultiaddrForPeer: (peer) => isNeighbour(peer.toString()),
  };
}
