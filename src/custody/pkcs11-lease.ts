// One session of a token with the key in it, and what is done with it: log in, wrap, unwrap, and try that the token
// keeps to the label.

import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret } from '../core/hash.ts';
import { labelDigest } from '../envelope/label.ts';
import { keyBytes, nonceBytes } from '../envelope/primitives.ts';
import type { Pkcs11Wrap } from '../envelope/wraps.ts';
import type { GcmLayout } from './pkcs11-binding.ts';
import { isPkcs11Error, notAuthentic, perhapsNotAuthentic } from './pkcs11-codes.ts';
import type { Pkcs11Session } from './pkcs11-module.ts';
import { random } from './random.ts';
import { readSecretFile } from './secret-file.ts';

/** A session that is logged in, with the key. */
export interface Pkcs11Lease {
  readonly session: Pkcs11Session;
  readonly key: bigint;
  readonly layout: GcmLayout;
}

/** Reads the PIN and zeroes it as soon as the token has it. Throws FILE_NOT_FOUND, FILE_UNREADABLE, Pkcs11Error. */
export async function login(session: Pkcs11Session, pinFile: string, token: string): Promise<void> {
  const pin = await readSecretFile(pinFile, `PIN of token "${token}"`);
  try {
    await session.login(pin);
  } finally {
    pin.fill(0);
  }
}

/** Undefined when it does not authenticate. */
export async function openWrap(lease: Pkcs11Lease, wrap: Pkcs11Wrap): Promise<Uint8Array | undefined> {
  try {
    // A copy of the nonce, which a module may write into.
    return await lease.session.gcmDecrypt(gcm(lease, new Uint8Array(wrap.iv), wrap.label), wrap.ct);
  } catch (error) {
    if (isPkcs11Error(error, notAuthentic)) return undefined;
    if (!isPkcs11Error(error, perhapsNotAuthentic)) throw error;
    await tryKey(lease); // throws when it is the token that is broken
    return undefined;
  }
}

/** Wraps and unwraps something, and sees that another label is refused. Throws Pkcs11Error or KEY_UNAVAILABLE. */
export async function tryKey(lease: Pkcs11Lease): Promise<void> {
  const { session } = lease;
  const text = random(keyBytes);
  const iv = random(nonceBytes);
  const sealed = await session.gcmEncrypt(gcm(lease, iv, utf8('probe')), text);
  const opened = await session.gcmDecrypt(gcm(lease, iv, utf8('probe')), sealed);
  if (!sameSecret(opened, text)) throw unavailable('the token gave back another text than it was given');
  const mistaken = await session.gcmDecrypt(gcm(lease, iv, utf8('other')), sealed).then(
    () => true,
    (error: unknown) => {
      if (isPkcs11Error(error, [...notAuthentic, ...perhapsNotAuthentic])) return false;
      throw error;
    },
  );
  if (mistaken) throw unavailable('the token ignores associated data: a label would not be protected');
}

export function gcm(
  { key, layout }: Pkcs11Lease,
  iv: Uint8Array,
  label: Uint8Array,
): Parameters<Pkcs11Session['gcmEncrypt']>[0] {
  return { layout, key, iv, aad: labelDigest(label, utf8('pkcs11')) };
}

export function unavailable(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('KEY_UNAVAILABLE', message, { cause });
}
