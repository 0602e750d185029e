// What a Transit engine is told about a wrap, and what its answers for single items mean.

import { asBuffer, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { labelDigest } from '../envelope/label.ts';
import { keyBytes } from '../envelope/primitives.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { refusedKey } from './legs.ts';
import type { Renewed, Unwrapped } from './provider.ts';
import { answerErrors } from './vault-client.ts';
import type { VaultAnswer } from './vault-http.ts';

/** The context of a wrap: its label. */
export function contextOf(label: Uint8Array): string {
  return asBuffer(labelDigest(label, utf8('transit'))).toString('base64');
}

/** The branch key in one result of a decryption, or why it is refused. */
export function openedFrom(record: BranchKeyBody, result: unknown): Unwrapped {
  const plaintext = fieldOf(result, 'plaintext');
  const branchKey =
    typeof plaintext === 'string' ? new Uint8Array(Buffer.from(plaintext, 'base64')) : undefined;
  if (branchKey?.length === keyBytes) return { ok: true, branchKey };
  const said = fieldOf(result, 'error');
  if (typeof said !== 'string' || said === '')
    return refusedKey(record, 'DECRYPT_FAILED', 'the server gave something that is no branch key');
  if (
    /message authentication failed|invalid ciphertext: (no prefix|wrong|could not|version number)/.test(said)
  )
    return refusedKey(record, 'DECRYPT_FAILED', 'its wrap or label was changed, or the key is another one');
  return refusedKey(record, 'KEY_UNAVAILABLE', `the server refuses: ${shortened(said)}`);
}

/** One bad item, rather than the server, made the request fail. */
export function isItemsFault(answer: VaultAnswer): boolean {
  return answer.status < 500 || answerErrors(answer).includes('message authentication failed');
}

/** Why one wrap was not renewed. */
export function refusal(record: BranchKeyBody, reason: string): Renewed {
  const bkId = toHex(record.bkId);
  return {
    ok: false,
    error: new HoldfastError('DECRYPT_FAILED', `branch key ${bkId} is not renewed: ${reason}`, {
      details: { bkId },
    }),
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

/** The version of the server's key that made a ciphertext. Throws KEY_UNAVAILABLE for another form. */
export function versionOf(ct: string): number {
  const version = Number(/^vault:v([1-9]\d{0,8}):/.exec(ct)?.[1]);
  if (Number.isSafeInteger(version)) return version;
  throw new HoldfastError('KEY_UNAVAILABLE', 'Transit gave a ciphertext that does not begin with vault:vN:');
}

/** What a server said, on one line and not too long for a message. */
export function shortened(text: string): string {
  return text.replaceAll(/\s*\p{Cc}+\s*/gu, ' ').slice(0, 200);
}
