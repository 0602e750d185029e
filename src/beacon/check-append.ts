// What a door and whoever keeps the log ask of a view before an append is made.

import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { type BranchEnvelope, policyOfKey } from '../envelope/records.ts';
import { checkEntitled, type Entitled } from './entitled.ts';
import { type Append, expectAny, versionConflict } from './log.ts';
import { type OpenedRecord, openRecords } from './records.ts';
import type { BeaconView } from './view.ts';

/**
 * Refuses an append that the fold would skip, before it is made: RECORD_INVALID for records that are no good,
 * VERSION_CONFLICT for a version that is not the next one; and what the fold would take but nobody could read:
 * a manifest without its envelope, an envelope without its branch key (RECORD_INVALID).
 * The view may be behind its log; the log's compare-and-set and the fold have the last word. With `entitled` also what
 * takes a place that belongs to a custody group (FORBIDDEN, entitled.ts).
 */
export async function checkAppend(view: BeaconView, append: Append, entitled?: Entitled): Promise<void> {
  const current = await view.subjectRevision(append.subject);
  if (append.expected !== expectAny && current > append.expected) {
    throw versionConflict(append.subject, append.expected, current);
  }
  const { rejection } = await view.tryFold(append);
  if (rejection?.cause === 'record') throw new HoldfastError('RECORD_INVALID', rejection.reason);
  if (rejection !== undefined) {
    throw new HoldfastError('VERSION_CONFLICT', rejection.reason, {
      details: { subject: append.subject, expected: append.expected, current: rejection.current ?? 0 },
    });
  }
  await checkReferences(view, append);
  if (entitled !== undefined) await checkEntitled(view, append, entitled);
}

async function checkReferences(view: BeaconView, append: Append): Promise<void> {
  const records = openRecords(append);
  if (typeof records === 'string') throw new HoldfastError('RECORD_INVALID', records);
  const brought = new Set(records.map(({ chainId }) => chainId));
  for (const { body } of records) {
    if (body.kind === 'manifest' && body.encryption !== null) {
      const { objId } = body.encryption;
      if (!brought.has(`env/${toHex(objId)}`) && (await view.envelope(objId)) === undefined) {
        throw new HoldfastError('RECORD_INVALID', `${body.ucxl_address}: its envelope is not registered`);
      }
    }
    if (body.kind === 'envelope' && body.mode === 'branch') await checkBranchKey(view, body, records);
  }
}

/** An envelope under the branch key of a lower class, or of another policy, would be opened by the rules of that one. */
async function checkBranchKey(
  view: BeaconView,
  envelope: BranchEnvelope,
  records: readonly OpenedRecord[],
): Promise<void> {
  const { objId, bkId, bkVer, cls, policy } = envelope;
  const chainId = `bk/${toHex(bkId)}`;
  const brought = records.map(({ body }) => body).findLast((body) => body.kind === 'branch-key');
  const isBrought = brought !== undefined && sameBytes(brought.bkId, bkId);
  const key = isBrought ? brought : (await view.branchKey(bkId, bkVer))?.record.body;
  const refuse = (problem: string): never => {
    throw new HoldfastError('RECORD_INVALID', `envelope ${toHex(objId)}: its branch key ${problem}`);
  };
  if (key === undefined) return refuse('is not registered');
  if (key.scope.cls !== cls) refuse(`is for ${key.scope.cls} content, not for ${cls} (${chainId})`);
  const bound = policyOfKey(key);
  if (String(bound) !== String(policy)) refuse(`is bound to policy ${String(bound)}, not ${String(policy)}`);
}
