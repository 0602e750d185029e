// What a Transit engine is told about a wrap, and what its answers for single items mean.

import { asBuffer, toHex, utf8 } from '../core/bytes.ts';
import { type ErrorCode, HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { labelDigest } from '../envelope/label.ts';
import { keyBytes } from '../envelope/primitives.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { refusedKey } from './legs.ts';
import type { Renewed, Unwrapped } from './provider.ts';
import { answerErrors, type VaultAnswer } from './vault-http.ts';

/** The context of a wrap: its label. */
export function contextOf(label: Uint8Array): string {
  return asBuffer(labelDigest(label, utf8('transit'))).toString('base64');
}

/** What every server says of a text that it did not make, or not for this context. */
export const authenticationFailed = 'message authentication failed';
/** What they say of one that cannot be a wrap of theirs. The last one is of Vault before 1.2. */
const malformed =
  /missing ciphertext|invalid ciphertext length|invalid ciphertext: (no prefix|wrong number|version number|could not decode|unable to decrypt)/;

/** The branch key in one result of a decryption, or why it is refused. */
export function openedFrom(record: BranchKeyBody, result: unknown): Unwrapped {
  const plaintext = fieldOf(result, 'plaintext');
  const branchKey =
    typeof plaintext === 'string' ? new Uint8Array(Buffer.from(plaintext, 'base64')) : undefined;
  if (branchKey?.length === keyBytes) return { ok: true, branchKey };
  const said = fieldOf(result, 'error');
  if (typeof said !== 'string' || said === '')
    return refusedKey(record, 'DECRYPT_FAILED', 'the server gave something that is no branch key');
  const { code, reason } = meaningOf(said);
  return refusedKey(record, code, reason);
}

/**
 * What the server said of one wrap. What is no damage may pass: a version that was retired too early, a key that is
 * soft-deleted, or one that came out of a backup and lacks its newest versions.
 */
function meaningOf(said: string): { code: ErrorCode; reason: string } {
  if (said.includes(authenticationFailed) || malformed.test(said))
    return { code: 'DECRYPT_FAILED', reason: 'its wrap or label was changed, or the key is another one' };
  return { code: 'KEY_UNAVAILABLE', reason: `the server refuses: ${shortened(said)}` };
}

/** One bad item, rather than the server, made a request fail: Vault up to 1.9 does that. */
export function isItemsFault(answer: VaultAnswer): boolean {
  return answerErrors(answer).includes(authenticationFailed);
}

/** Why one wrap was not renewed, by what the server `said` of it. */
export function notRenewed(record: BranchKeyBody, said: string): Renewed {
  const bkId = toHex(record.bkId);
  const { code, reason } = meaningOf(said);
  return {
    ok: false,
    error: new HoldfastError(code, `branch key ${bkId} is not renewed: ${reason}`, { details: { bkId } }),
  };
}

/** The ciphertext of one result. Throws KEY_UNAVAILABLE when there is none. */
export function ciphertextOf(result: unknown): string {
  const ct = fieldOf(result, 'ciphertext');
  if (typeof ct === 'string' && ct !== '') return ct;
  const said = fieldOf(result, 'error');
  const reason = typeof said === 'string' ? shortened(said) : 'an answer without ciphertext';
  throw new HoldfastError('KEY_UNAVAILABLE', `Transit does not encrypt: ${reason}`);
}

/** The version of the server's key that made a ciphertext, as the text itself says; undefined for another form. */
export function versionIn(ct: string): number | undefined {
  const version = Number(/^vault:v([1-9]\d{0,8}):/.exec(ct)?.[1]);
  return Number.isSafeInteger(version) ? version : undefined;
}

/** The same of an answer. Throws KEY_UNAVAILABLE for another form. */
export function versionOf(ct: string): number {
  const version = versionIn(ct);
  if (version !== undefined) return version;
  throw new HoldfastError('KEY_UNAVAILABLE', 'Transit gave a ciphertext that does not begin with vault:vN:');
}

/** What a server said, on one line and not too long for a message. */
function shortened(text: string): string {
  return text.replaceAll(/\s*\p{Cc}+\s*/gu, ' ').slice(0, 200);
}
