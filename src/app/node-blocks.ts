// What the storage nodes themselves say of blocks, and in which order they come for one.

import type { CID } from '../core/block.ts';
import type { PeerName } from '../core/rpc.ts';
import type { CallOptions, Exchange } from '../node/exchange.ts';
import type { NodePeer } from '../node/peer.ts';
import { type PlacementMember, rankMembers } from '../steward/place.ts';

type Peer = Pick<NodePeer, 'membership' | 'connected'>;

/** Nodes that this process is connected to. */
export function reachableNodes(peer: Peer): PeerName[] {
  return reachable(peer).map((node) => node.peer);
}

/** The same in placement order for a block. `freeBytes`: as far as somebody knows; default all alike. */
export function rankedNodes(
  peer: Peer,
  cid: CID,
  freeBytes: (node: PeerName) => number = () => 1,
): PlacementMember[] {
  const members = reachable(peer).map((node) => ({
    peer: node.peer,
    zone: node.zone,
    host: node.host,
    freeBytes: freeBytes(node.peer),
  }));
  return rankMembers(cid.multihash.digest, members);
}

/**
 * On how many of `nodes` each block is, by their own word, and whether all of them gave it: one that does not answer
 * does not vouch for anything. Throws the reason of the signal.
 */
export async function copiesOn(
  exchange: Pick<Exchange, 'hasBlocks'>,
  nodes: readonly PeerName[],
  cids: readonly CID[],
  options: CallOptions = {},
): Promise<{ readonly copies: readonly number[]; readonly all: boolean }> {
  const copies = cids.map(() => 0);
  const ask = async (node: PeerName): Promise<boolean> => {
    try {
      const have = await exchange.hasBlocks(node, cids, options);
      for (const [index, has] of have.entries()) if (has) copies[index] = (copies[index] ?? 0) + 1;
      return true;
    } catch {
      options.signal?.throwIfAborted();
      return false;
    }
  };
  const answered = cids.length === 0 ? [] : await Promise.all(nodes.map(ask));
  return { copies, all: answered.every((each) => each) };
}

function reachable(peer: Peer) {
  const up = new Set(peer.connected());
  return peer.membership().members.filter((member) => member.roles.includes('node') && up.has(member.peer));
}
