// Whether a custodian's shares have had their day, by the records that the group has signed and the registry has given.

import type { PeerName } from '../core/rpc.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { CustodyBooks } from './books.ts';
import type { ShareEntry } from './share-state.ts';

/** `destroyed`: the version of the key is. `left`: who has them is no member of the present generation. */
export type Over = 'destroyed' | 'left';

/** Why the shares of `entry` at custodian `peer` are to be erased; undefined while they may serve, or nobody has said. */
export function whyOver(
  books: Pick<CustodyBooks, 'book'>,
  peer: PeerName,
  entry: Pick<ShareEntry, 'cg' | 'kekVer' | 'gen' | 'status'>,
): Over | undefined {
  const kek = books.book(entry.cg)?.kek(entry.kekVer);
  return kek === undefined ? undefined : overBy(kek, peer, entry);
}

/** The same by the newest record of the version. Who is about to join again has staged shares that may serve. */
export function overBy(
  kek: Pick<TdecKek, 'state' | 'shareGen' | 'custodians'>,
  peer: PeerName,
  { gen, status }: Pick<ShareEntry, 'gen' | 'status'>,
): Over | undefined {
  if (kek.state === 'destroyed') return 'destroyed';
  if (status === 'staged' || kek.shareGen <= gen) return undefined;
  return kek.custodians.some((each) => each.peer === peer) ? undefined : 'left';
}
