// Checksums of our own around every stored value.
//
// LevelDB hands out flipped bits without a word (docs/decisions/0016), so each value starts with 16 bytes
// of SHA-256 over its key and itself. The key is in it because a flipped key is as bad as a flipped value: a row
// that turns up under another name does not verify either.

import { asBuffer } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';

/** Bytes in front of every value. */
const sealBytes = 16;

/** `value` with its checksum in front. */
export function sealValue(key: Uint8Array, value: Uint8Array): Uint8Array {
  const sealed = new Uint8Array(sealBytes + value.length);
  sealed.set(checksum(key, value));
  sealed.set(value, sealBytes);
  return sealed;
}

/** The value in `sealed`. Throws RECORD_CORRUPT naming `what` when a bit of it or of its key changed. */
export function unsealValue(key: Uint8Array, sealed: Uint8Array, what: string): Uint8Array {
  const value = sealed.subarray(sealBytes);
  const isWhole = sealed.length >= sealBytes && checksum(key, value).compare(sealed, 0, sealBytes) === 0;
  if (!isWhole) throw corrupt(what, 'does not match its checksum');
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

/** Of the key's length in 4 bytes, the key and the value. */
function checksum(key: Uint8Array, value: Uint8Array): Buffer {
  const sizeBytes = 4 + key.length + value.length;
  // Most rows are small: their hash input is put together in memory that is there already.
  const input = sizeBytes <= scratch.length ? scratch.subarray(0, sizeBytes) : new Uint8Array(sizeBytes);
  input[0] = key.length >>> 24;
  input[1] = key.length >>> 16;
  input[2] = key.length >>> 8;
  input[3] = key.length;
  input.set(key, 4);
  input.set(value, 4 + key.length);
  return asBuffer(sha256(input)).subarray(0, sealBytes);
}

const scratch = new Uint8Array(4096);
