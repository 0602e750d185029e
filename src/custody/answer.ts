// What one custodian answers: a partial decryption or a refusal for each item, and one proof for all that it gave.
//
// The answer is sealed to the key that the request brought, so whoever carries it (a door, a broker, the other
// custodians) learns nothing, and cannot gather partials of t custodians. Around the sealed part stands the
// custodian's own signature: together with a proof that fails it is evidence that anybody can check.

import { encodeCbor } from '../core/block.ts';
import { concat, sameBytes, uint32 } from '../core/bytes.ts';
import type { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { custodiansMax, custodyRequestBytesMax, unwrapItemsMax } from '../core/limits.ts';
import { type Fields, fieldsOf, invalid } from '../envelope/fields.ts';
import { dleqProofBytes } from '../threshold/dleq.ts';
import { agreedWith, type HpkeOpener, openAgreed, openWith, sealTo } from '../threshold/hpke.ts';
import { reasonBytesMax, type Refusal, refusalCodes } from './refusal.ts';
import { canonical, isSignedBy, readSignedMap, signMap } from './signed-map.ts';

/** A partial decryption of one item. */
export interface GrantedItem {
  readonly granted: true;
  /** x·U, a point of 32 bytes. */
  readonly D: Uint8Array;
}

export type ItemAnswer = GrantedItem | Refusal;

export interface CustodyAnswer {
  readonly v: 1;
  /** Of the request: 64 bytes. */
  readonly reqHash: Uint8Array;
  /** Index of the custodian. */
  readonly i: number;
  readonly shareGen: number;
  /** One for each item of the request, in its order. */
  readonly results: readonly ItemAnswer[];
  /** One DLEQ proof over all granted items in order; null when none was. */
  readonly proof: Uint8Array | null;
}

/** Who answers what: what an answer is held against. */
export interface AnswerTerms {
  readonly reqHash: Uint8Array;
  readonly i: number;
  readonly shareGen: number;
  readonly itemsCount: number;
  /** Ed25519 key of that custodian. */
  readonly sigPk: Uint8Array;
}

const domain = 'CHORUS-SLURP-ANSWER-v1';
const noAad = new Uint8Array(0);

/** The context string of the proof in an answer (RFC 9497): binds it to this one request. */
export function proofContext(reqHash: Uint8Array): Uint8Array {
  return concat(new TextEncoder().encode('CHORUS-SLURP-PDEC-v1-'), reqHash.subarray(0, 32));
}

/** Seals and signs an answer. `epk` is the request's, `signer` the custodian's identity. */
export function sealAnswer(answer: CustodyAnswer, epk: Uint8Array, signer: Signer): Uint8Array {
  const plaintext = encodeCbor({ ...answer, results: answer.results.map(resultMap) });
  const { enc, ct } = sealTo(epk, infoOf(answer.reqHash, answer.i), noAad, plaintext);
  return signMap(domain, { v: 1, reqHash: answer.reqHash, i: answer.i, enc, ct }, signer);
}

/**
 * Opens an answer. `opener` belongs to the request's `epk`. Throws RECORD_INVALID when it is not what `terms`
 * expects, or not signed by that custodian; DECRYPT_FAILED when it is sealed to another key or request. The proof
 * is for the caller to verify.
 */
export function openAnswer(message: Uint8Array, opener: HpkeOpener, terms: AnswerTerms): CustodyAnswer {
  const { answer, isSigned } = openAnswerFirst(message, opener, terms);
  if (!isSigned()) throw notSigned();
  return answer;
}

/** An answer of which it is not known yet whether its custodian signed it: anybody can seal to a request's key. */
export interface OpenedAnswer {
  readonly answer: CustodyAnswer;
  /** Verifies the custodian's signature. */
  readonly isSigned: () => boolean;
}

/** As `openAnswer`, for who has another way to see whether it is good, and looks at the signature when it is not. */
export function openAnswerFirst(message: Uint8Array, opener: HpkeOpener, terms: AnswerTerms): OpenedAnswer {
  const { enc, ct, isSigned } = readSealed(message, terms);
  return {
    answer: checked(openWith(opener, enc, infoOf(terms.reqHash, terms.i), noAad, ct), terms),
    isSigned,
  };
}

/** What opens this one answer and no other, to be shown to others. Throws like `openAnswer`. */
export function answerOpener(message: Uint8Array, opener: HpkeOpener, terms: AnswerTerms): Uint8Array {
  return agreedWith(opener, sealedPart(message, terms).enc);
}

/** As `openAnswer`, by an `answerOpener` and the `epk` of the request. */
export function openShownAnswer(
  message: Uint8Array,
  shown: Uint8Array,
  epk: Uint8Array,
  terms: AnswerTerms,
): CustodyAnswer {
  const { enc, ct } = sealedPart(message, terms);
  const info = infoOf(terms.reqHash, terms.i);
  return checked(openAgreed(Uint8Array.from(shown), epk, enc, info, noAad, ct), terms);
}

interface SealedPart {
  readonly enc: Uint8Array;
  readonly ct: Uint8Array;
}

/** The sealed part of an answer that is signed by whom `terms` expect. */
function sealedPart(message: Uint8Array, terms: AnswerTerms): SealedPart {
  const { isSigned, ...part } = readSealed(message, terms);
  if (!isSigned()) throw notSigned();
  return part;
}

function notSigned(): HoldfastError {
  return invalid('answer.s', 'a signature that verifies expected');
}

function readSealed(message: Uint8Array, terms: AnswerTerms): SealedPart & Pick<OpenedAnswer, 'isSigned'> {
  const signed = readSignedMap(message, 'answer', custodyRequestBytesMax);
  const outer = fieldsOf(signed.body, 'answer', ['v', 'reqHash', 'i', 'enc', 'ct']);
  outer.oneOf('v', [1]);
  if (!sameBytes(outer.bytes('reqHash', 64), terms.reqHash))
    outer.refuse('reqHash', 'that of the request expected');
  outer.integer('i', terms.i, terms.i);
  return {
    enc: outer.bytes('enc', 32),
    ct: outer.bytesUpTo('ct', custodyRequestBytesMax),
    isSigned: () => isSignedBy(domain, signed, terms.sigPk),
  };
}

function checked(plaintext: Uint8Array, terms: AnswerTerms): CustodyAnswer {
  const answer = parseAnswer(plaintext);
  if (!sameBytes(answer.reqHash, terms.reqHash))
    throw invalid('answer.reqHash', 'that of the request expected');
  if (answer.i !== terms.i || answer.shareGen !== terms.shareGen)
    throw invalid('answer.i', 'the custodian and generation asked expected');
  if (answer.results.length !== terms.itemsCount)
    throw invalid('answer.results', `${terms.itemsCount} expected`);
  return answer;
}

/** Reads the sealed part. Throws RECORD_INVALID naming the field. */
export function parseAnswer(plaintext: Uint8Array): CustodyAnswer {
  const names = ['v', 'reqHash', 'i', 'shareGen', 'results', 'proof'];
  const fields = fieldsOf(canonical(plaintext, 'answer'), 'answer', names);
  const answer: CustodyAnswer = {
    v: fields.oneOf('v', [1]),
    reqHash: fields.bytes('reqHash', 64),
    i: fields.integer('i', 1, custodiansMax),
    shareGen: fields.integer('shareGen', 1),
    results: fields.list('results', unwrapItemsMax).map(readResult),
    proof: fields.bytesOrNull('proof', dleqProofBytes),
  };
  if (answer.results.some(({ granted }) => granted) !== (answer.proof !== null))
    fields.refuse('proof', 'a proof exactly when something is granted expected');
  return answer;
}

function resultMap(result: ItemAnswer): object {
  return result.granted ? { D: result.D } : { code: result.code, reason: result.reason };
}

function readResult(value: unknown, index: number): ItemAnswer {
  const where = `answer.results[${index}]`;
  const isGranted = typeof value === 'object' && value !== null && 'D' in value;
  const fields: Fields = fieldsOf(value, where, isGranted ? ['D'] : ['code', 'reason']);
  if (isGranted) return { granted: true, D: fields.bytes('D', 32) };
  return {
    granted: false,
    code: fields.oneOf('code', refusalCodes),
    reason: fields.text('reason', 4 * reasonBytesMax),
  };
}

function infoOf(reqHash: Uint8Array, i: number): Uint8Array {
  return concat(reqHash, uint32(i));
}
