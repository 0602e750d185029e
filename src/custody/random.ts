// Random bytes for keys and shares: in memory that stays where it is, so that zeroing it leaves nothing behind.

import { randomFillSync } from 'node:crypto';
import { unfilled } from '../core/bytes.ts';

/** Cryptographically random bytes. */
export function random(sizeBytes: number): Uint8Array {
  return randomFillSync(unfilled(sizeBytes));
}
