// The allow-list: only members are dialled, and only members get past the handshake, in both directions.

import type { ConnectionGater } from '@libp2p/interface';
import type { PeerName } from '../core/rpc.ts';

/** `isMember` is asked anew every time, so a changed membership counts from the next connection on. */
export function membersOnly(isMember: (peer: PeerName) => boolean): ConnectionGater {
  const refuse = (peer: { toString(): string }): boolean => !isMember(peer.toString());
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
    filterMultiaddrForPeer: (peer) => isMember(peer.toString()),
  };
}
