// The first link from the operator to a custody group: who made its key.
//
//   operator ─signs─▶ membership ─names─▶ custodians ─sign, every one─▶ first KEK record ─names─▶ frostPk
//
// Everything later is signed with frostPk. So a registry, a door or a steward that makes up a group of its own is
// found out by everybody who knows the operator: it has no signatures of custodians. A group that lost members since
// is still known by those who stayed, as long as they are more than half of the custodians of now.

import { sameBytes } from '../core/bytes.ts';
import { preimage, sha512, verifySignature } from '../core/hash.ts';
import type { PeerName } from '../core/rpc.ts';
import { kekPreimage, type TdecKek, type UnsignedKek } from '../envelope/kek.ts';
import type { BirthCertificate } from './certificate.ts';

/** What each custodian signs with its identity key once the key is made: the first KEK record, which is record 1 of version 1. */
export function birthPreimage(kek: UnsignedKek | TdecKek): Uint8Array {
  return preimage('CHORUS-SLURP-BIRTH-v1', sha512(kekPreimage(kek)));
}

/**
 * Why the group of `first` is not believed to be one of these custodians, in words; undefined when it is.
 * `custodians`: peer ids of the custodians that the operator's membership names, with their Ed25519 keys.
 */
export function birthProblem(
  first: TdecKek,
  { cg, ver, attestations }: Pick<BirthCertificate, 'cg' | 'ver' | 'attestations'>,
  custodians: ReadonlyMap<PeerName, Uint8Array>,
): string | undefined {
  if (first.ver !== 1 || first.seq !== 1 || cg !== first.cg || ver !== 1)
    return 'its certificate is about another key';
  const signed = birthPreimage(first);
  const unsigned = first.custodians.find(({ i, sigPk }) => {
    const sig = attestations.find((each) => each.i === i)?.sig;
    return sig === undefined || !verifySignature(sigPk, signed, sig);
  });
  if (unsigned !== undefined) return `custodian ${unsigned.i} (${unsigned.peer}) has not signed for it`;
  const known = first.custodians.filter(({ peer, sigPk }) => {
    const key = custodians.get(peer);
    return key !== undefined && sameBytes(key, sigPk);
  });
  return 2 * known.length > custodians.size
    ? undefined
    : `${known.length} of the ${custodians.size} custodians of this cluster have signed for it; more than half are needed`;
}
