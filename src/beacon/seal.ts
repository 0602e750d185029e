// Checksums of our own around every stored value.
//
// LevelDB hands out flipped bits without a word (RELIABILITY.md section 1), so each value starts with 16 bytes
// of SHA-256 over its key and itself. The key is in it because a flipped key is as bad as a flipped value: a row
// that turns up under another name does not verify either.

import { concat, lengthPrefixed, sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';

/** Bytes in front of every value. */
const sealBytes = 16;

/** `value` with its checksum in front. */
export function sealValue(key: Uint8Array, value: Uint8Array): Uint8Array {
  return concat(checksum(key, value), value);
}

/** The value in `sealed`. Throws RECORD_CORRUPT naming `what` when a bit of it or of its key changed. */
export function unsealValue(key: Uint8Array, sealed: Uint8Array, what: string): Uint8Array {
  const value = sealed.subarray(sealBytes);
  if (sealed.length < sealBytes || !sameBytes(sealed.subarray(0, sealBytes), checksum(key, value))) {
    throw corrupt(what, 'does not match its checksum');
  }
  return value;
}

/** The error for stored bytes that cannot be trusted. */
export function corrupt(what: string, problem: string, cause?: unknown): HoldfastError {
  return new HoldfastError('RECORD_CORRUPT', `${what} ${problem}`, { details: { what, problem }, cause });
}

/** What LevelDB threw while reading `what`, as ours: closed is BEACON_UNAVAILABLE, all else means damage. */
export function storeError(error: unknown, what: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'LEVEL_DATABASE_NOT_OPEN' || code === 'LEVEL_ITERATOR_NOT_OPEN') {
    return new HoldfastError('BEACON_UNAVAILABLE', `${what} is closed`, { cause: error });
  }
  return corrupt(what, 'cannot be read', error);
}

function checksum(key: Uint8Array, value: Uint8Array): Uint8Array {
  return sha256(concat(lengthPrefixed(key), value)).subarray(0, sealBytes);
}
