// What a custodian that lies leaves behind: its own signature under a partial decryption whose proof fails.
//
// The answer is sealed to the request's key, so what opens this one answer goes along; it opens no other. Whoever has
// the KEK record, the request and this can see for himself that the custodian signed what its share cannot have made.
// Nothing in it opens a branch key: it takes the partials of t custodians.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { custodiansMax, custodyRequestBytesMax } from '../core/limits.ts';
import { isHoldfastError } from '../core/errors.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { verifyDleq } from '../threshold/dleq.ts';
import type { HashGroup } from '../threshold/group.ts';
import { type CustodyAnswer, openShownAnswer, proofContext } from './answer.ts';
import { type OpenedRequest, openRequest, type RequestItem } from './request.ts';

export interface Misconduct {
  readonly v: 1;
  readonly cg: string;
  readonly kekVer: number;
  readonly shareGen: number;
  /** Who: index in the KEK record of that generation, and peer id. */
  readonly i: number;
  readonly peer: string;
  /** The signed request, the signed answer, and what opens the answer. */
  readonly request: Uint8Array;
  readonly answer: Uint8Array;
  readonly opener: Uint8Array;
}

/** The bytes to publish. */
export function encodeMisconduct(evidence: Misconduct): Uint8Array {
  return encodeCbor(evidence);
}

/** Reads published evidence. Throws RECORD_INVALID. */
export function parseMisconduct(bytes: Uint8Array): Misconduct {
  const names = ['v', 'cg', 'kekVer', 'shareGen', 'i', 'peer', 'request', 'answer', 'opener'];
  const fields = fieldsOf(decodeCbor(bytes, 'misconduct'), 'misconduct', names);
  return {
    v: fields.oneOf('v', [1]),
    cg: fields.text('cg', 64),
    kekVer: fields.integer('kekVer', 1),
    shareGen: fields.integer('shareGen', 1),
    i: fields.integer('i', 1, custodiansMax),
    peer: fields.text('peer', 64),
    request: fields.bytesUpTo('request', custodyRequestBytesMax),
    answer: fields.bytesUpTo('answer', custodyRequestBytesMax),
    opener: fields.bytes('opener', 32),
  };
}

/** True when `evidence` shows that the custodian lied. `kek`: a believed record of that version and generation. */
export function provesMisconduct(group: HashGroup, kek: TdecKek, evidence: Misconduct): boolean {
  const { i, peer, cg, kekVer, shareGen } = evidence;
  const custodian = kek.custodians[i - 1];
  if (custodian?.peer !== peer || kek.cg !== cg || kek.ver !== kekVer || kek.shareGen !== shareGen)
    return false;
  try {
    const { request, hash } = openRequest(evidence.request);
    if (request.cg !== cg || request.kekVer !== kekVer || request.shareGen !== shareGen) return false;
    const terms = { reqHash: hash, i, shareGen, itemsCount: request.items.length, sigPk: custodian.sigPk };
    const answer = openShownAnswer(evidence.answer, evidence.opener, request.epk, terms);
    return !isProven(group, kek, { items: request.items, hash }, answer);
  } catch (error) {
    if (isHoldfastError(error)) return false;
    throw error;
  }
}

/** True when the proof of an answer shows that all its partials were made with the custodian's share. */
export function isProven(
  group: HashGroup,
  kek: TdecKek,
  { items, hash }: { readonly items: readonly RequestItem[]; readonly hash: OpenedRequest['hash'] },
  { i, results, proof }: CustodyAnswer,
): boolean {
  const B = kek.Yi[i - 1];
  const C = items.filter((_, at) => results[at]?.granted === true).map(({ wrap }) => wrap.U);
  const D = results.flatMap((result) => (result.granted ? [result.D] : []));
  if (proof === null || B === undefined) return D.length === 0;
  return verifyDleq(group, { context: proofContext(hash), B, C, D }, proof);
}
