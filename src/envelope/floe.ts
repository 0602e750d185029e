// FLOE: random-access authenticated encryption of a stream in segments (Snowflake-Labs/floe-specification).
//
//   header  = parameters 10 ‖ iv 32 ‖ header tag 32
//   segment = length word 4 ‖ nonce 12 ‖ ciphertext ‖ tag 16
//
//   dek ──HKDF-Expand-SHA-384(parameters ‖ iv ‖ purpose ‖ aad)──▶ header tag    commits to dek, iv and aad
//                                                             ──▶ message key ──▶ one segment key per 2²⁰ segments
//
// The length word is FFFFFFFF on every segment but the last, which states its own length; position and
// "last" are authenticated with each segment. So a segment opens only in its place, under its header, and
// the end cannot be moved. All keys bind the AAD, so content sealed for one address fails under another.
//
// The encryptor takes segments in order, once each, and closes after the last: the specification warns that
// free positions on the writing side lose these guarantees. The decryptor reads anywhere; whoever calls it
// must take "last" from the signed length (`segmentsOf`), never from the bytes themselves.

import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { asBuffer, concat, sameBytes, uint32, uint64, unfilled, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret, takeKey } from '../core/hash.ts';
import { segmentBytes } from '../core/limits.ts';
import { type GcmKey, takeGcmKey } from './gcm.ts';
import { hkdfExpand, importKey, keyBytes, nonceBytes, type RandomBytes, tagBytes } from './primitives.ts';

export interface FloeParameters {
  /** Length of a whole encrypted segment, overhead included; 33…2³²−2 bytes. */
  readonly segmentBytes: number;
  /** A segment key serves 2^rotationBits segments. 20 by specification; smaller in published vectors only. */
  readonly rotationBits: number;
}

/** Suite slurp-env-1: one segment is one block. */
export const floeStandard: FloeParameters = { segmentBytes, rotationBits: 20 };

const ivBytes = 32;
export const headerTagBytes = 32;
const parametersBytes = 10;
export const floeHeaderBytes = parametersBytes + ivBytes + headerTagBytes;
/** Length word and nonce: the ciphertext of a segment lies behind them, as long as its plaintext. */
export const segmentHeadBytes = 4 + nonceBytes;
/** With the tag. */
export const segmentOverheadBytes = segmentHeadBytes + tagBytes;
const messageKeyBytes = 48;
/** FLOE allows no more segments under AES-256-GCM. */
const segmentsMax = 2 ** 40;
const notLast = 0xffff_ffff;

export interface FloeEncryptor extends Disposable {
  /** 74 bytes; goes into the manifest. */
  readonly header: Uint8Array;
  /** The last 32 bytes of the header: commits to the DEK. Public. */
  readonly headerTag: Uint8Array;
  /**
   * Seals the next segment. Positions run 0, 1, 2… without gaps; a segment that is not final is exactly
   * `plaintextSegmentBytes` long, the final one 0…that. After the final one the encryptor is closed.
   * Without `target` each segment has fresh memory of its own, which costs about as much as the
   * encryption; with one (at least as long as the segment) it is written there, and the view returned is
   * good until the caller uses the target again. The plaintext may lie in the target already, where its
   * ciphertext will be: `segmentHeadBytes` from the start.
   */
  encryptSegment(position: number, plaintext: Uint8Array, isFinal: boolean, target?: Uint8Array): Uint8Array;
}

export interface FloeDecryptor extends Disposable {
  /**
   * Opens one segment at any position. Throws DECRYPT_FAILED naming the position; no plaintext escapes then.
   * `inPlace`: the plaintext takes the place of the ciphertext, which must be nobody else's, and is a view of
   * `segment`. Otherwise it has fresh memory of its own, which costs about as much as the decryption.
   */
  decryptSegment(position: number, segment: Uint8Array, isFinal: boolean, inPlace?: boolean): Uint8Array;
}

/** Starts a stream under `dek` (32 fresh random bytes, one stream only; copied: zero yours when wrapped). */
export function floeEncryptor(
  dek: Uint8Array,
  aad: Uint8Array,
  random: RandomBytes,
  parameters: FloeParameters = floeStandard,
): FloeEncryptor {
  const iv = random(ivBytes);
  const keys = deriveStreamKeys(dek, iv, aad, parameters);
  const header = concat(encodeParameters(parameters), iv, keys.headerTag);
  return new Encryptor(header, keys, random, parameters);
}

/** Opens a header. Throws DECRYPT_FAILED when header, key and AAD do not belong together. */
export function floeDecryptor(
  dek: Uint8Array,
  aad: Uint8Array,
  header: Uint8Array,
  parameters: FloeParameters = floeStandard,
): FloeDecryptor {
  if (header.length !== floeHeaderBytes)
    throw badHeader(`${floeHeaderBytes} bytes expected, got ${header.length}`);
  if (!sameBytes(header.subarray(0, parametersBytes), encodeParameters(parameters))) {
    throw badHeader('other parameters than this suite has');
  }
  const iv = header.subarray(parametersBytes, parametersBytes + ivBytes);
  const keys = deriveStreamKeys(dek, iv, aad, parameters);
  if (!sameSecret(keys.headerTag, headerTagOf(header))) {
    throw badHeader('the key or the associated data is not the one it was made with');
  }
  return new Decryptor(keys, parameters);
}

/** The committing tag of a header of the right length. */
export function headerTagOf(header: Uint8Array): Uint8Array {
  assert(header.length === floeHeaderBytes, 'header: 74 bytes');
  return new Uint8Array(header.subarray(parametersBytes + ivBytes));
}

/** Plaintext bytes in every segment but the last. */
export function plaintextSegmentBytes(parameters: FloeParameters = floeStandard): number {
  return parameters.segmentBytes - segmentOverheadBytes;
}

/** How many segments `plaintextBytes` take: at least one, and never an empty one after a full one. */
export function segmentsOf(plaintextBytes: number, parameters: FloeParameters = floeStandard): number {
  return Math.max(1, Math.ceil(plaintextBytes / plaintextSegmentBytes(parameters)));
}

/** Length of all segments together, without the header. */
export function ciphertextBytes(plaintextBytes: number, parameters: FloeParameters = floeStandard): number {
  return plaintextBytes + segmentsOf(plaintextBytes, parameters) * segmentOverheadBytes;
}

interface StreamKeys {
  readonly headerTag: Uint8Array;
  readonly segmentKeys: SegmentKeys;
}

function deriveStreamKeys(
  dek: Uint8Array,
  iv: Uint8Array,
  aad: Uint8Array,
  parameters: FloeParameters,
): StreamKeys {
  assert(dek.length === keyBytes, 'dek: 32 bytes');
  assert(iv.length === ivBytes, 'iv: 32 bytes');
  const key = importKey(dek);
  const prefix = concat(encodeParameters(parameters), iv);
  const headerTag = hkdfExpand('sha384', key, concat(prefix, utf8('HEADER_TAG:'), aad), headerTagBytes);
  const messageKey = hkdfExpand('sha384', key, concat(prefix, utf8('MESSAGE_KEY:'), aad), messageKeyBytes);
  return {
    headerTag,
    segmentKeys: new SegmentKeys(takeKey(messageKey), prefix, new Uint8Array(aad), parameters),
  };
}

/** AEAD id 0 (AES-256-GCM), KDF id 0 (HKDF-Expand-SHA-384), segment length, IV length. */
function encodeParameters(parameters: FloeParameters): Uint8Array {
  assert(parameters.segmentBytes > segmentOverheadBytes, 'segmentBytes: longer than the overhead');
  assert(parameters.segmentBytes < notLast, 'segmentBytes: fits the length word');
  return concat(Uint8Array.of(0, 0), uint32(parameters.segmentBytes), uint32(ivBytes));
}

/** Derives the key of a position's epoch and keeps the newest: neighbours share it. */
class SegmentKeys implements Disposable {
  #messageKey: KeyObject | undefined;
  #current: { readonly epochStart: number; readonly key: GcmKey } | undefined;
  readonly #prefix: Uint8Array;
  readonly #aad: Uint8Array;
  readonly #epochSegments: number;

  constructor(messageKey: KeyObject, prefix: Uint8Array, aad: Uint8Array, parameters: FloeParameters) {
    this.#messageKey = messageKey;
    this.#prefix = prefix;
    this.#aad = aad;
    this.#epochSegments = 2 ** parameters.rotationBits;
  }

  at(position: number): GcmKey {
    assert(this.#messageKey !== undefined, 'stream: used after it was closed');
    const epochStart = position - (position % this.#epochSegments);
    if (this.#current?.epochStart === epochStart) return this.#current.key;
    const info = concat(this.#prefix, utf8('DEK:'), uint64(epochStart), this.#aad);
    const key = takeGcmKey(hkdfExpand('sha384', this.#messageKey, info, keyBytes));
    this.#current?.key[Symbol.dispose]();
    this.#current = { epochStart, key };
    return key;
  }

  [Symbol.dispose](): void {
    this.#messageKey = undefined;
    this.#current?.key[Symbol.dispose]();
    this.#current = undefined;
  }
}

class Encryptor implements FloeEncryptor {
  readonly header: Uint8Array;
  readonly headerTag: Uint8Array;
  readonly #keys: SegmentKeys;
  readonly #random: RandomBytes;
  readonly #parameters: FloeParameters;
  #next = 0;

  constructor(header: Uint8Array, keys: StreamKeys, random: RandomBytes, parameters: FloeParameters) {
    this.header = header;
    this.headerTag = keys.headerTag;
    this.#keys = keys.segmentKeys;
    this.#random = random;
    this.#parameters = parameters;
  }

  encryptSegment(position: number, plaintext: Uint8Array, isFinal: boolean, target?: Uint8Array): Uint8Array {
    const full = plaintextSegmentBytes(this.#parameters);
    assert(position === this.#next, 'position: the next one');
    assert(
      isFinal ? plaintext.length <= full : plaintext.length === full,
      'plaintext: a full or the final segment',
    );
    assert(isFinal || position < segmentsMax - 1, 'position: room for a final segment');
    const size = plaintext.length + segmentOverheadBytes;
    assert(target === undefined || target.length >= size, 'target: room for the segment');
    const segment = target?.subarray(0, size) ?? unfilled(size);
    this.#sealInto(segment, position, plaintext, isFinal);
    this.#next++;
    if (isFinal) this[Symbol.dispose]();
    return segment;
  }

  #sealInto(segment: Uint8Array, position: number, plaintext: Uint8Array, isFinal: boolean): void {
    const nonce = this.#random(nonceBytes);
    segment.set(uint32(isFinal ? segment.length : notLast), 0);
    segment.set(nonce, 4);
    const body = segment.subarray(segmentHeadBytes);
    this.#keys.at(position).sealInto(body, nonce, plaintext, segmentAad(position, isFinal));
  }

  [Symbol.dispose](): void {
    this.#keys[Symbol.dispose]();
  }
}

class Decryptor implements FloeDecryptor {
  readonly #keys: SegmentKeys;
  readonly #parameters: FloeParameters;

  constructor(keys: StreamKeys, parameters: FloeParameters) {
    this.#keys = keys.segmentKeys;
    this.#parameters = parameters;
  }

  decryptSegment(position: number, segment: Uint8Array, isFinal: boolean, inPlace = false): Uint8Array {
    assert(Number.isInteger(position) && position >= 0 && position < segmentsMax, 'position: 0 to 2^40 - 1');
    this.#checkLength(position, segment, isFinal);
    const key = this.#keys.at(position);
    const nonce = segment.subarray(4, 4 + nonceBytes);
    const sealed = segment.subarray(segmentHeadBytes);
    const size = sealed.length - tagBytes;
    const plaintext = inPlace ? sealed.subarray(0, size) : unfilled(size);
    if (key.openInto(plaintext, nonce, sealed, segmentAad(position, isFinal))) return plaintext;
    throw badSegment(position, 'it does not authenticate');
  }

  #checkLength(position: number, segment: Uint8Array, isFinal: boolean): void {
    const full = this.#parameters.segmentBytes;
    const fits = isFinal
      ? segment.length >= segmentOverheadBytes && segment.length <= full
      : segment.length === full;
    if (!fits)
      throw badSegment(
        position,
        `${segment.length} bytes do not make a ${isFinal ? 'final' : 'full'} segment`,
      );
    const stated = asBuffer(segment).readUInt32BE(0);
    if (stated !== (isFinal ? segment.length : notLast))
      throw badSegment(position, 'its length word is wrong');
  }

  [Symbol.dispose](): void {
    this.#keys[Symbol.dispose]();
  }
}

function segmentAad(position: number, isFinal: boolean): Uint8Array {
  return concat(uint64(position), Uint8Array.of(isFinal ? 1 : 0));
}

function badHeader(reason: string): HoldfastError {
  return new HoldfastError('DECRYPT_FAILED', `header: ${reason}`, { details: { part: 'header' } });
}

function badSegment(position: number, reason: string): HoldfastError {
  return new HoldfastError('DECRYPT_FAILED', `segment ${position}: ${reason}`, {
    details: { part: 'segment', position },
  });
}
