// What is hashed, and under which name. Every Fiat–Shamir input is length-prefixed part by part with its
// domain in front, and holds all public values of the statement (the strong form): two statements never share
// bytes. The one exception is the DLEQ proof, which keeps the encoding of RFC 9497 so that its vectors apply.

import { concat, lengthPrefixed } from '../core/bytes.ts';
import { preimage, sha512 } from '../core/hash.ts';
import type { Group, Scalar } from './group.ts';

/** Domains of this room. A new meaning gets a new row; a row never changes its meaning. */
export const DST = {
  /** The second generator of TDH2. */
  gbar: 'CHORUS-SLURP-TDH2GE-R255-v1/gbar',
  /** Challenge of a wrap. */
  ct: 'CHORUS-SLURP-TDH2GE-R255-v1/ct',
  /** Key-switch: challenge, seed of the batch weights, batch weight. */
  ks: 'CHORUS-SLURP-TDH2GE-R255-v1/ks',
  ksSeed: 'CHORUS-SLURP-TDH2GE-R255-v1/ks-seed',
  ksRho: 'CHORUS-SLURP-TDH2GE-R255-v1/ks-rho',
  /** Group element → branch key: HKDF salt and info. */
  bkExtract: 'CHORUS-SLURP-TDH2GE-R255-v1/bk-extract',
  bk: 'CHORUS-SLURP-TDH2GE-R255-v1/bk',
  /** Context string of a custodian's proof; 32 bytes of the request's hash follow. */
  pdec: 'CHORUS-SLURP-PDEC-v1-',
  /** The same of a share that is tried out of the safe. */
  drill: 'CHORUS-SLURP-DRILL-v1-',
  refresh: 'CHORUS-SLURP-REFRESH-v1',
  reshare: 'CHORUS-SLURP-RESHARE-v1',
  repair: 'CHORUS-SLURP-REPAIR-v1',
  /** A page of switched wraps: its parameters, one of its leaves, what the new group signs. */
  rotation: 'CHORUS-SLURP-ROTATION-v1',
} as const;

/** 4-byte big-endian length ‖ `bytes`. */
export const lp = lengthPrefixed;

/** SHA-512 over lp(dst) ‖ lp(part) … */
export function transcriptHash(dst: string, ...parts: readonly Uint8Array[]): Uint8Array {
  return sha512(preimage(dst, ...parts));
}

/** The challenge of a proof: `transcriptHash` mod L. Public. */
export function hashToScalar(group: Group, dst: string, ...parts: readonly Uint8Array[]): Scalar {
  return group.scalar.reduce(transcriptHash(dst, ...parts));
}

/** SHA-512 of the parts in a row, mod L. The parts may be secret: what was made of them is zeroed, but for the result. */
export function sha512Scalar({ scalar }: Group, ...parts: readonly Uint8Array[]): Scalar {
  const input = concat(...parts);
  const wide = sha512(input);
  const value = scalar.reduce(wide);
  input.fill(0);
  wide.fill(0);
  return value;
}
