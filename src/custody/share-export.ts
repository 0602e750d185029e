// A custodian's share for the safe: sealed to a passphrase or to an X25519 key, signed by the custodian, and stamped
// with the generation that it belongs to.
//
//   {m: {v, head, to, ct}, s}     head  whose share of which key, version and generation, and when it was taken out
//                                 to    scrypt salt and nonce (RFC 7914), or the enc of HPKE (RFC 9180)
//                                 ct    the share under AES-256-GCM, head and to as associated data
//
// The seal says who may read it, the signature who made it: HPKE in base mode would take a share from anybody.
// A share serves with others of its own generation only. Once the group has refreshed beyond it, it restores nothing
// by itself; the other custodians must repair it, which works while enough of them are there.

import { scrypt } from 'node:crypto';
import { encodeCbor } from '../core/block.ts';
import { concat, copied } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { preimage, sha512, type Signer, takeKey } from '../core/hash.ts';
import { type Fields, fieldsOf, invalid, tagOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import { gcmOpen, gcmSealInto, nonceBytes, tagBytes } from '../envelope/primitives.ts';
import { openWith, sealTo } from '../threshold/hpke.ts';
import { random } from './random.ts';
import { readSignedMap, signMap, verifyMessage } from './signed-map.ts';

/** Which share it is. Nothing here is secret. */
export interface ShareHead {
  readonly cg: string;
  readonly kekVer: number;
  /** Generation of the share. */
  readonly shareGen: number;
  /** Index of the custodian, from 1. */
  readonly i: number;
  /** Beat at which it was taken out. */
  readonly beat: number;
  /** Ed25519 key of the custodian. */
  readonly by: Uint8Array;
}

/** Who may open it. */
export type ShareRecipient =
  | { readonly passphrase: Uint8Array }
  /** X25519, 32 bytes. */
  | { readonly publicKey: Uint8Array };

export type ShareOpener = { readonly passphrase: Uint8Array } | { readonly secretKey: Uint8Array };

export interface ExportedShare {
  readonly head: ShareHead;
  /** The caller zeroes it. */
  readonly secret: Uint8Array;
}

/** `behind`: only repair brings it to the present. `stale`: beyond what the group still helps with. */
export type ShareAge = 'current' | 'behind' | 'stale' | 'ahead';

const domain = 'CHORUS-SLURP-SHARE-EXPORT-v1';
const secretBytesMax = 4096;
const exportBytesMax = 8192;
const passphraseBytesMin = 12;
/** 128 MiB for a moment: an export lies for years where anybody may try, and is opened rarely. */
const cost = { N: 2 ** 17, r: 8, p: 1, maxmem: 160 * 1024 * 1024 } as const;

/**
 * Seals and signs a share; `secret`, 1…4,096 bytes, stays the caller's.
 *
 * @throws ARGUMENT_INVALID for a passphrase of under 12 bytes or a key that is none
 */
export async function exportShare(
  head: Omit<ShareHead, 'by'>,
  secret: Uint8Array,
  to: ShareRecipient,
  signer: Signer,
): Promise<Uint8Array> {
  const full: ShareHead = { ...head, by: signer.publicKey };
  const sealed =
    'passphrase' in to
      ? await sealByPassphrase(full, secret, to.passphrase)
      : sealByKey(full, secret, to.publicKey);
  const message = signMap(domain, { v: 1, head: full, ...sealed }, signer);
  readExport(message); // nothing leaves that nobody could read
  return message;
}

/** What an export is, without opening it; its signature is proven. Throws RECORD_INVALID. */
export function readShareHead(message: Uint8Array): ShareHead {
  return readExport(message).head;
}

/** What opens it. Throws RECORD_INVALID. */
export function shareSealedTo(message: Uint8Array): 'passphrase' | 'key' {
  return readExport(message).to.t === 'scrypt' ? 'passphrase' : 'key';
}

/**
 * Opens an export that custodian `by` must have made.
 *
 * @throws RECORD_INVALID when it is damaged or not of this custodian, ARGUMENT_INVALID for the other kind of opener,
 *   DECRYPT_FAILED for a wrong passphrase or key
 */
export async function importShare(
  message: Uint8Array,
  by: Uint8Array,
  opener: ShareOpener,
): Promise<ExportedShare> {
  const { head, to, ct } = readExport(message);
  if (!Buffer.from(head.by).equals(by)) throw invalid('share-export.head.by', 'another custodian expected');
  if (to.t === 'scrypt' && 'passphrase' in opener)
    return { head, secret: await openByPassphrase(head, to, ct, opener.passphrase) };
  if (to.t === 'hpke' && 'secretKey' in opener)
    return { head, secret: openByKey(head, to, ct, opener.secretKey) };
  const wanted = to.t === 'scrypt' ? 'a passphrase' : 'a key';
  throw new HoldfastError('ARGUMENT_INVALID', `this share is sealed to ${wanted}`);
}

/** How a share of `shareGen` stands to a group at `currentGen` that helps with the last `epochs` generations. */
export function shareAge(shareGen: number, currentGen: number, epochs = 4): ShareAge {
  if (shareGen > currentGen) return 'ahead';
  if (shareGen === currentGen) return 'current';
  return currentGen - shareGen <= epochs ? 'behind' : 'stale';
}

type Seal =
  | { readonly t: 'scrypt'; readonly salt: Uint8Array; readonly nonce: Uint8Array }
  | { readonly t: 'hpke'; readonly enc: Uint8Array };

interface Sealed {
  readonly to: Seal;
  readonly ct: Uint8Array;
}

async function sealByPassphrase(
  head: ShareHead,
  secret: Uint8Array,
  passphrase: Uint8Array,
): Promise<Sealed> {
  if (passphrase.length < passphraseBytesMin)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `a passphrase of at least ${passphraseBytesMin} bytes is needed`,
    );
  const salt = random(16);
  const nonce = random(nonceBytes);
  const to = { t: 'scrypt', salt, nonce } as const;
  const ct = new Uint8Array(secret.length + tagBytes);
  gcmSealInto(ct, takeKey(await stretched(passphrase, salt)), nonce, secret, aadOf(head, to));
  return { to, ct };
}

async function openByPassphrase(
  head: ShareHead,
  to: Extract<Seal, { t: 'scrypt' }>,
  ct: Uint8Array,
  passphrase: Uint8Array,
): Promise<Uint8Array> {
  const key = takeKey(await stretched(passphrase, to.salt));
  const secret = gcmOpen(key, to.nonce, ct, aadOf(head, to));
  if (secret !== undefined) return secret;
  throw new HoldfastError('DECRYPT_FAILED', 'the passphrase does not open this share');
}

/** The `enc` cannot be part of its own associated data; HPKE binds it itself. */
function sealByKey(head: ShareHead, secret: Uint8Array, publicKey: Uint8Array): Sealed {
  const { enc, ct } = sealTo(
    publicKey,
    infoOf(),
    aadOf(head, { t: 'hpke', enc: new Uint8Array(0) }),
    secret,
    random,
  );
  return { to: { t: 'hpke', enc }, ct };
}

function openByKey(
  head: ShareHead,
  to: Extract<Seal, { t: 'hpke' }>,
  ct: Uint8Array,
  secretKey: Uint8Array,
): Uint8Array {
  try {
    return openWith(secretKey, to.enc, infoOf(), aadOf(head, to), ct);
  } catch (cause) {
    if (!isHoldfastError(cause, 'DECRYPT_FAILED')) throw cause;
    throw new HoldfastError('DECRYPT_FAILED', 'the key does not open this share', { cause });
  }
}

function aadOf(head: ShareHead, to: Seal): Uint8Array {
  return sha512(
    preimage(
      domain,
      encodeCbor({ ...head }),
      to.t === 'scrypt' ? concat(to.salt, to.nonce) : new Uint8Array(0),
    ),
  );
}

function infoOf(): Uint8Array {
  return preimage(domain);
}

/** Beside the event loop: it takes a good part of a second. */
async function stretched(passphrase: Uint8Array, salt: Uint8Array): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  scrypt(passphrase, salt, 32, cost, (error, key) => (error === null ? resolve(key) : reject(error)));
  const key = await promise;
  try {
    return copied(key);
  } finally {
    key.fill(0);
  }
}

function readExport(message: Uint8Array): { head: ShareHead; to: Seal; ct: Uint8Array } {
  const signed = readSignedMap(message, 'share-export', exportBytesMax);
  const fields = fieldsOf(signed.body, 'share-export', ['v', 'head', 'to', 'ct']);
  fields.oneOf('v', [1]);
  const head = readHead(fields.map('head', ['cg', 'kekVer', 'shareGen', 'i', 'beat', 'by']));
  verifyMessage(domain, 'share-export', signed, head.by);
  return { head, to: readSeal(fields.any('to')), ct: fields.bytesUpTo('ct', secretBytesMax + tagBytes) };
}

function readHead(fields: Fields): ShareHead {
  return {
    cg: readGroup(fields, 'cg'),
    kekVer: fields.integer('kekVer', 1),
    shareGen: fields.integer('shareGen', 1),
    i: fields.integer('i', 1),
    beat: fields.integer('beat', 0),
    by: fields.bytes('by', 32),
  };
}

function readSeal(value: unknown): Seal {
  const where = 'share-export.to';
  if (tagOf(value, where, 't') === 'hpke') {
    const fields = fieldsOf(value, where, ['t', 'enc']);
    return { t: fields.oneOf('t', ['hpke']), enc: fields.bytes('enc', 32) };
  }
  const fields = fieldsOf(value, where, ['t', 'salt', 'nonce']);
  return {
    t: fields.oneOf('t', ['scrypt']),
    salt: fields.bytes('salt', 16),
    nonce: fields.bytes('nonce', nonceBytes),
  };
}
