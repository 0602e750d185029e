// What all providers share when they answer for a record: which of its wraps are theirs to open, and how a refusal
// is put.

import assert from 'node:assert/strict';
import { toHex } from '../core/bytes.ts';
import { type ErrorCode, HoldfastError } from '../core/errors.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import type { Unwrapped } from './provider.ts';

/** The wraps that count for the combiner. A recovery wrap never does: it always holds the branch key itself. */
export function legsOf(record: BranchKeyBody): readonly BkWrap[] {
  return record.wraps.filter(({ t }) => t !== 'recovery');
}

/** The kind of the provider that made a wrap. */
export function kindOfWrap({ t }: BkWrap): string {
  if (t === 'dev') return 'dev-file';
  return t === 'tdec-ks' ? 'tdec' : t;
}

/** True when one provider alone cannot give the key. */
export function takesSeveral(record: BranchKeyBody): boolean {
  return record.combiner === 'all' && legsOf(record).length > 1;
}

export function refusedKey(
  record: BranchKeyBody,
  code: ErrorCode,
  reason: string,
  cause?: unknown,
): Unwrapped {
  const bkId = toHex(record.bkId);
  return {
    ok: false,
    error: new HoldfastError(code, `branch key ${bkId}: ${reason}`, { details: { bkId }, cause }),
  };
}

export function assertBatch(records: readonly BranchKeyBody[]): void {
  assert(records.length >= 1 && records.length <= unwrapItemsMax, `records: 1 to ${unwrapItemsMax}`);
}
