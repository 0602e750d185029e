// HPKE (RFC 9180), base mode, one message per key agreement:
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. All by node:crypto.
//
//   ephemeral key ─X25519─▶ shared secret ─extract, expand─▶ key, nonce ─AES-256-GCM─▶ enc, ciphertext ‖ tag
//
// `info` says what the message is part of, `aad` what stands beside it. Base mode does not say who sent it:
// whoever needs to know signs around it.

import assert from 'node:assert/strict';
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  decapsulate,
  diffieHellman,
  encapsulate,
  type KeyObject,
} from 'node:crypto';
import { asBuffer, concat, copied, unfilled, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256, takeKey } from '../core/hash.ts';
import type { RandomBytes } from './group.ts';

export const hpkeKeyBytes = 32;
/** What a sealed message is longer than its plaintext, `enc` not counted. */
export const hpkeTagBytes = 16;

/** An X25519 key pair as RFC 7748 writes it. The holder zeroes `secretKey`. */
export interface HpkeKeyPair {
  readonly publicKey: Uint8Array;
  readonly secretKey: Uint8Array;
}

/** A secret key made ready once, for who opens several messages with it. Node clears its memory when it is collected. */
export interface HpkeOpener {
  readonly secret: KeyObject;
  readonly publicKey: Uint8Array;
}

export interface HpkeSealed {
  /** The ephemeral public key, 32 bytes. */
  readonly enc: Uint8Array;
  /** As long as the plaintext and `hpkeTagBytes` more. */
  readonly ct: Uint8Array;
}

/** A fresh key pair from 32 random bytes. */
export function generateKeyPair(random: RandomBytes): HpkeKeyPair {
  const secretKey = random(hpkeKeyBytes);
  return { publicKey: openerOf(secretKey).publicKey, secretKey };
}

/** Makes a secret key of 32 bytes ready; the caller zeroes `secretKey`. */
export function openerOf(secretKey: Uint8Array): HpkeOpener {
  const secret = importSecretKey(secretKey);
  return { secret, publicKey: publicKeyOf(secret) };
}

/**
 * Seals one message to whoever holds the secret key of `pk`. The ephemeral key is 32 bytes of `random`; without it
 * OpenSSL draws one and does the whole KEM in one call, which takes half as long. Throws ARGUMENT_INVALID when `pk` is
 * no usable X25519 public key.
 */
export function sealTo(
  pk: Uint8Array,
  info: Uint8Array,
  aad: Uint8Array,
  plaintext: Uint8Array,
  random?: RandomBytes,
): HpkeSealed {
  const agreed = random === undefined ? encapsulatedTo(pk) : agreedBy(random, pk);
  if (agreed === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'an X25519 public key expected');
  const { enc, shared } = agreed;
  const { key, nonce } = keySchedule(shared, info);
  const cipher = createCipheriv('aes-256-gcm', takeKey(key), nonce).setAAD(aad);
  const body = cipher.update(plaintext);
  cipher.final();
  return { enc, ct: concat(body, cipher.getAuthTag()) };
}

/**
 * Opens what `sealTo` made; the caller zeroes the plaintext. Throws DECRYPT_FAILED, with no more said, when
 * key, `enc`, `info`, `aad` and ciphertext do not belong together.
 */
export function openWith(
  sk: Uint8Array | HpkeOpener,
  enc: Uint8Array,
  info: Uint8Array,
  aad: Uint8Array,
  ct: Uint8Array,
): Uint8Array {
  const { secret } = sk instanceof Uint8Array ? openerOf(sk) : sk;
  let shared: Uint8Array;
  try {
    shared = decapsulate(secret, enc); // the same KEM, by one call of OpenSSL
  } catch (error) {
    throw notOpened(error);
  }
  return openShared(shared, info, aad, ct);
}

/**
 * What the holder of a secret key and the sender of `enc` agreed on: it opens this one message and no other, so it can
 * be shown to a third party. Throws DECRYPT_FAILED when `enc` is no usable key.
 */
export function agreedWith({ secret }: HpkeOpener, enc: Uint8Array): Uint8Array {
  const dh = agree(secret, enc);
  if (dh === undefined) throw notOpened();
  return dh;
}

/** As `openWith`, by what was agreed on for this message with the holder of `pk`. Zeroes `dh`. */
export function openAgreed(
  dh: Uint8Array,
  pk: Uint8Array,
  enc: Uint8Array,
  info: Uint8Array,
  aad: Uint8Array,
  ct: Uint8Array,
): Uint8Array {
  return openShared(sharedSecretOf(dh, enc, pk), info, aad, ct);
}

/** Zeroes `shared`. */
function openShared(shared: Uint8Array, info: Uint8Array, aad: Uint8Array, ct: Uint8Array): Uint8Array {
  const { key, nonce } = keySchedule(shared, info);
  const secret = takeKey(key);
  try {
    if (ct.length < hpkeTagBytes) throw notOpened();
    const decipher = createDecipheriv('aes-256-gcm', secret, nonce, { authTagLength: hpkeTagBytes });
    decipher.setAAD(aad).setAuthTag(ct.subarray(ct.length - hpkeTagBytes));
    const body = decipher.update(ct.subarray(0, ct.length - hpkeTagBytes));
    return finish(decipher, body);
  } catch (error) {
    throw notOpened(error);
  }
}

/** Nothing unauthenticated stays behind: the plaintext is zeroed when the tag does not fit. */
function finish(decipher: { final(): Buffer }, body: Buffer): Uint8Array {
  try {
    decipher.final();
    return copied(body);
  } finally {
    body.fill(0);
  }
}

/** One block of SHA-256. */
const blockBytes = 64;
/** Where what is hashed is put together: an info of a few hundred bytes fits. */
const joined = unfilled(1024);

const version = utf8('HPKE-v1');
/** The number of the only block of an expansion. */
const lastBlock = Uint8Array.of(1);
const kemSuite = concat(utf8('KEM'), Uint8Array.of(0, 0x20));
const hpkeSuite = concat(utf8('HPKE'), Uint8Array.of(0, 0x20, 0, 1, 0, 2));
const empty = new Uint8Array(0);
const pskIdHash = labeledExtract(hpkeSuite, empty, 'psk_id_hash', empty);
const baseMode = Uint8Array.of(0);

/** What the KEM makes of an agreement (RFC 9180 4.1). Zeroes `dh`. */
function sharedSecretOf(dh: Uint8Array, enc: Uint8Array, pk: Uint8Array): Uint8Array {
  const prk = labeledExtract(kemSuite, empty, 'eae_prk', dh);
  const shared = labeledExpand(kemSuite, prk, 'shared_secret', concat(enc, pk), 32);
  for (const bytes of [dh, prk]) bytes.fill(0);
  return shared;
}

/** Key and nonce of the only message (RFC 9180 5.1). Zeroes `shared`. */
function keySchedule(shared: Uint8Array, info: Uint8Array): { key: Uint8Array; nonce: Uint8Array } {
  const secret = labeledExtract(hpkeSuite, shared, 'secret', empty);
  const context = concat(baseMode, pskIdHash, labeledExtract(hpkeSuite, empty, 'info_hash', info));
  const key = labeledExpand(hpkeSuite, secret, 'key', context, 32);
  const nonce = labeledExpand(hpkeSuite, secret, 'base_nonce', context, 12);
  for (const bytes of [shared, secret]) bytes.fill(0);
  return { key, nonce };
}

function labeledExtract(suite: Uint8Array, salt: Uint8Array, label: string, ikm: Uint8Array): Uint8Array {
  return hmac(salt, [version, suite, utf8(label), ikm]);
}

/** At most 32 bytes: one block of HKDF-Expand. */
function labeledExpand(
  suite: Uint8Array,
  prk: Uint8Array,
  label: string,
  info: Uint8Array,
  sizeBytes: number,
): Uint8Array {
  assert(sizeBytes <= 32, 'sizeBytes: one block of SHA-256');
  const size = Uint8Array.of(0, sizeBytes);
  const block = hmac(prk, [size, version, suite, utf8(label), info, lastBlock]);
  if (sizeBytes === block.length) return block;
  // Not slice: of a Buffer that would be the same memory.
  const out = new Uint8Array(block.subarray(0, sizeBytes));
  block.fill(0);
  return out;
}

/**
 * HMAC-SHA256 (RFC 2104) over the parts as they come, of a key that fits into one block. By two digests: the six of a
 * message are half of what it costs when node:crypto makes an object for each. What was joined for them is zeroed.
 */
function hmac(key: Uint8Array, parts: readonly Uint8Array[]): Uint8Array {
  assert(key.length <= blockBytes, 'key: one block of SHA-256');
  const length = parts.reduce((sum, part) => sum + part.length, blockBytes);
  const inner = length <= joined.length ? joined : unfilled(length);
  let at = writePadded(inner, key, 0x36);
  for (const part of parts) {
    inner.set(part, at);
    at += part.length;
  }
  const digest = sha256(inner.subarray(0, at));
  inner.fill(0, 0, at);
  at = writePadded(joined, key, 0x5c);
  joined.set(digest, at);
  digest.fill(0);
  at += digest.length;
  const mac = sha256(joined.subarray(0, at));
  joined.fill(0, 0, at);
  return mac;
}

function writePadded(to: Uint8Array, key: Uint8Array, pad: number): number {
  to.fill(pad, 0, blockBytes);
  for (let i = 0; i < key.length; i++) to[i] = (key[i] ?? 0) ^ pad;
  return blockBytes;
}

/** What the KEM gives the sender (RFC 9180 4.1): the ephemeral public key and the shared secret. */
interface Encapsulated {
  readonly enc: Uint8Array;
  readonly shared: Uint8Array;
}

function agreedBy(random: RandomBytes, pk: Uint8Array): Encapsulated | undefined {
  const seed = random(hpkeKeyBytes);
  const ephemeral = importSecretKey(seed);
  seed.fill(0);
  const enc = publicKeyOf(ephemeral);
  const dh = agree(ephemeral, pk);
  return dh && { enc, shared: sharedSecretOf(dh, enc, pk) };
}

function encapsulatedTo(pk: Uint8Array): Encapsulated | undefined {
  if (pk.length !== hpkeKeyBytes) return undefined;
  try {
    const { sharedKey, ciphertext } = encapsulate(untraced(() => createPublicKey(rawPublicKey(pk))));
    return { enc: new Uint8Array(ciphertext), shared: sharedKey };
  } catch {
    return undefined;
  }
}

function importSecretKey(bytes: Uint8Array): KeyObject {
  assert(bytes.length === hpkeKeyBytes, 'secret key: 32 bytes');
  return untraced(() =>
    createPrivateKey({ key: asBuffer(bytes), format: 'raw-private', asymmetricKeyType: 'x25519' }),
  );
}

/** By way of a JWK, which node:crypto writes twenty times faster than DER. */
function publicKeyOf(secret: KeyObject): Uint8Array {
  const { x } = createPublicKey(secret).export({ format: 'jwk' });
  assert(typeof x === 'string', 'X25519: public key expected');
  return new Uint8Array(Buffer.from(x, 'base64url'));
}

/** X25519; undefined for a key that is none or of small order, whose result everybody knows. */
function agree(secret: KeyObject, bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length !== hpkeKeyBytes) return undefined;
  try {
    return diffieHellman({
      privateKey: secret,
      publicKey: untraced(() => createPublicKey(rawPublicKey(bytes))),
    });
  } catch {
    return undefined;
  }
}

function rawPublicKey(bytes: Uint8Array) {
  return { key: asBuffer(bytes), format: 'raw-public', asymmetricKeyType: 'x25519' } as const;
}

/**
 * node:crypto finds out that a raw key is no KeyObject by four errors that it catches itself. Where each was thrown is
 * a third of the cost of taking an X25519 key in, so it is not written down.
 */
function untraced<T>(run: () => T): T {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return run();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function notOpened(cause?: unknown): HoldfastError {
  const message = 'sealed message: key, context and ciphertext do not belong together';
  return new HoldfastError('DECRYPT_FAILED', message, cause === undefined ? {} : { cause });
}
