// The chain of the entries that a view holds: of those that come, and of its newest ones when it is opened.

import { sameBytes } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { Kv } from './kv.ts';
import { type LogEntry, type LogPosition, nextChain } from './log.ts';
import { rowKey } from './rows.ts';
import { corrupt } from './seal.ts';

/** Newest entries that are verified at the start: LevelDB may have replayed that much of its log. */
const tailBytes = 16 * 1024 * 1024;
/** Read at a time: a trip to LevelDB's threads costs more than a look. */
const tailRowsMax = 64;
const discontinuity = 'does not continue the chain';

/** Throws RECORD_CORRUPT unless `entries` follow each other and `position`. */
export function checkContinues(position: LogPosition, entries: readonly LogEntry[]): void {
  let before = position;
  for (const entry of entries) {
    const follows = entry.revision === before.revision + 1;
    if (!follows || !sameBytes(entry.chain, nextChain(before, entry.payload))) {
      throw corrupt(`log entry ${entry.revision} after ${before.revision}`, discontinuity);
    }
    before = entry;
  }
}

/** True for what `checkContinues` throws. */
export function isBrokenChain(error: unknown): boolean {
  return isHoldfastError(error, 'RECORD_CORRUPT') && error.details['problem'] === discontinuity;
}

/**
 * Computes the newest entries of the view in `kv` again, which ends at `position`. The chain alone: it covers every byte
 * of an entry, so none has to be decoded. Throws RECORD_CORRUPT.
 */
export async function verifyTail(kv: Kv, position: LogPosition): Promise<void> {
  let later: LogPosition & { readonly payload?: Uint8Array } = position;
  let sizeBytes = 0;
  for (let last = position.revision; last > 0 && sizeBytes < tailBytes; last -= tailRowsMax) {
    const revisions = Array.from({ length: Math.min(last, tailRowsMax) }, (_, index) => last - index);
    const rows = await kv.getMany(revisions.map((revision) => rowKey('log', revision)));
    for (const [index, revision] of revisions.entries()) {
      const row = rows[index];
      if (row === undefined) throw corrupt(`the view's copy of log entry ${revision}`, 'is missing');
      const entry = { revision, chain: row.subarray(0, 32), payload: row.subarray(32) };
      const claimed = later.payload === undefined ? entry.chain : nextChain(entry, later.payload);
      if (!sameBytes(claimed, later.chain))
        throw corrupt(`the view's copy of log entry ${revision}`, discontinuity);
      later = entry;
      sizeBytes += row.length;
    }
  }
}
