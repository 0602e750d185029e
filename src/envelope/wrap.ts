// A DEK under its branch key (docs/formats.md, Envelope): AES-256-GCM with a random nonce, 60 bytes.
//
//   branch key ──HKDF-Expand-SHA-512──▶ wrapping key ──AES-256-GCM, AAD──▶ nonce 12 ‖ wrapped DEK 32 ‖ tag 16
//
// GCM does not commit to its key. It need not here: the branch key is pinned by `commit` in its record and
// the DEK by the header tag of its stream, which is in the AAD; so a wrap that opens under two keys gains
// nothing. One wrapping key serves at most `branchKeyUsesMax` wraps, which keeps a nonce collision at 2⁻⁷³.

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import type { CID } from '../core/block.ts';
import { unfilled, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sameSecret } from '../core/hash.ts';
import { objectIdBytes, suite } from './aad.ts';
import { headerTagBytes } from './floe.ts';
import { branchKeyIdBytes } from './label.ts';
import { aadDigest, type GcmKey, takeGcmKey } from './gcm.ts';
import {
  hkdfExpand,
  hmacSha512,
  importKey,
  keyBytes,
  nonceBytes,
  type RandomBytes,
  tagBytes,
} from './primitives.ts';

export const dekWrapBytes = nonceBytes + keyBytes + tagBytes;
export const commitBytes = 32;

/** What a wrapped DEK belongs to: all of it is authenticated, none of it secret. */
export interface DekBinding {
  readonly objId: Uint8Array;
  /** The last 32 bytes of the FLOE header. */
  readonly headerTag: Uint8Array;
  readonly bkId: Uint8Array;
  readonly bkVer: number;
  readonly policy: CID | null;
}

/** Wraps `dek`. The caller zeroes `dek` afterwards. */
export function wrapDek(
  key: WrappingKey,
  dek: Uint8Array,
  binding: DekBinding,
  random: RandomBytes,
): Uint8Array {
  assert(dek.length === keyBytes, 'dek: 32 bytes');
  const nonce = random(nonceBytes);
  const wrap = new Uint8Array(dekWrapBytes);
  wrap.set(nonce);
  keyOf(key).sealInto(wrap.subarray(nonceBytes), nonce, dek, bindingAad(binding));
  return wrap;
}

/** The DEK of a wrap; the caller zeroes it after use. Throws DECRYPT_FAILED when key, wrap and binding do not belong together. */
export function unwrapDek(key: WrappingKey, wrap: Uint8Array, binding: DekBinding): Uint8Array {
  if (wrap.length !== dekWrapBytes) throw badWrap(`${dekWrapBytes} bytes expected, got ${wrap.length}`);
  const dek = unfilled(keyBytes);
  const sealed = wrap.subarray(nonceBytes);
  if (keyOf(key).openInto(dek, wrap.subarray(0, nonceBytes), sealed, bindingAad(binding))) return dek;
  throw badWrap('it does not belong to this object, branch key or policy');
}

/**
 * The wrapping key of one branch key. It can be used, not read: no property, JSON or inspection shows it.
 * After disposal every use is a fault of ours.
 */
export class WrappingKey implements Disposable {
  /** Derives it from the branch key, which is left to the caller to zero. */
  constructor(branchKey: Uint8Array, bkId: Uint8Array) {
    assert(bkId.length === branchKeyIdBytes, 'bkId: 16 bytes');
    const info = preimage('CHORUS-SLURP-WK-v1', bkId);
    keys.set(this, takeGcmKey(hkdfExpand('sha512', importKey(branchKey), info, keyBytes)));
  }

  get disposed(): boolean {
    return !keys.has(this);
  }

  [Symbol.dispose](): void {
    keys.get(this)?.[Symbol.dispose]();
    keys.delete(this);
  }

  toJSON(): string {
    return '[wrapping key]';
  }

  [inspect.custom](): string {
    return '[wrapping key]';
  }
}

/** Apart from the objects, so that holding one does not give the key away. */
const keys = new WeakMap<WrappingKey, GcmKey>();

function keyOf(wrappingKey: WrappingKey): GcmKey {
  const key = keys.get(wrappingKey);
  assert(key !== undefined, 'wrapping key: used after disposal');
  return key;
}

/** What a branch-key record says about its key: 32 bytes that only this key gives. */
export function commitmentOf(branchKey: Uint8Array): Uint8Array {
  return hmacSha512(importKey(branchKey), preimage('CHORUS-SLURP-TDH2GE-R255-v1/commit'), commitBytes);
}

/** True when `branchKey` is the one that `commit` was made from. */
export function matchesCommitment(branchKey: Uint8Array, commit: Uint8Array): boolean {
  return sameSecret(commitmentOf(branchKey), commit);
}

/**
 * SHA-512(preimage('CHORUS-SLURP-ENV-AAD-v1', suite, objId, headerTag, bkId, bkVer, policy)), written into one array:
 * it is made for every object that is put or read. A missing policy is the empty part: no CID is empty.
 */
function bindingAad({ objId, headerTag, bkId, bkVer, policy }: DekBinding): Uint8Array {
  assert(objId.length === objectIdBytes, 'objId: 16 bytes');
  assert(headerTag.length === headerTagBytes, 'headerTag: 32 bytes');
  assert(bkId.length === branchKeyIdBytes, 'bkId: 16 bytes');
  const family = policy?.bytes ?? noPolicy;
  const length = aadHead.length + partsBytes + family.length;
  const out = length <= aadRoom.length ? aadRoom.subarray(0, length) : new Uint8Array(length);
  out.set(aadHead);
  const view = new DataView(out.buffer);
  let at = aadHead.length;
  for (const part of [objId, headerTag, bkId]) {
    view.setUint32(at, part.length);
    out.set(part, at + 4);
    at += 4 + part.length;
  }
  view.setUint32(at, 8);
  view.setBigUint64(at + 4, BigInt(bkVer));
  view.setUint32(at + 12, family.length);
  out.set(family, at + 16);
  return aadDigest(out);
}

const aadHead = preimage('CHORUS-SLURP-ENV-AAD-v1', utf8(suite));
const partsBytes = 4 + objectIdBytes + 4 + headerTagBytes + 4 + branchKeyIdBytes + 4 + 8 + 4;
const noPolicy = new Uint8Array(0);
/** All fields are written anew each time; longer policies than any CID we accept would have memory of their own. */
const aadRoom = new Uint8Array(new ArrayBuffer(512));

function badWrap(reason: string): HoldfastError {
  return new HoldfastError('DECRYPT_FAILED', `wrapped DEK: ${reason}`, { details: { part: 'wrap' } });
}
