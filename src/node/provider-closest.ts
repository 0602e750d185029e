// Which members hold the records of a key: the k closest by XOR, found by sorting the membership.
//
// Kademlia walks the network because nobody knows all peers. We do: the membership is signed and short, so
// the walk (twenty round trips for each key) becomes a sort of at most a few hundred distances, and no key
// can fall between two regions, however the peer ids are spread.

/** Anything with a place in the key space. */
export interface Placed {
  /** SHA-256 of the peer id's multihash, 32 bytes. */
  readonly key: Uint8Array;
}

/** The `k` of `peers` closest to `key`, the closest first; all of them if there are no more than `k`. */
export function closest<T extends Placed>(key: Uint8Array, peers: readonly T[], k: number): T[] {
  const ranked = peers.map((peer) => ({ peer, head: xorHead(key, peer.key) }));
  // The first 32 bits decide nearly always; peers that share them are compared to the end.
  ranked.sort((a, b) => a.head - b.head || compareDistance(key, a.peer.key, b.peer.key));
  return ranked.slice(0, k).map(({ peer }) => peer);
}

/** Negative when `a` is closer to `key` than `b`. */
export function compareDistance(key: Uint8Array, a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < key.length; i++) {
    const difference = ((key[i] ?? 0) ^ (a[i] ?? 0)) - ((key[i] ?? 0) ^ (b[i] ?? 0));
    if (difference !== 0) return difference;
  }
  return 0;
}

function xorHead(a: Uint8Array, b: Uint8Array): number {
  let head = 0;
  for (let i = 0; i < 4; i++) head = head * 256 + ((a[i] ?? 0) ^ (b[i] ?? 0));
  return head;
}
