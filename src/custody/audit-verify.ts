// What an auditor does with logs: check that one is whole and is what its witnesses saw, say who opened what, and
// hold it against the receipts of those who opened. Pure: leaves and checkpoints come from wherever they were kept.

import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { appendLeaf, emptyFrontier, leafHash, rootOfFrontier } from '../threshold/merkle.ts';
import { type AuditLeaf, parseLeaf } from './audit-leaf.ts';
import {
  type Checkpoint,
  type Cosignature,
  cosignaturesOf,
  type NoteKey,
  openCheckpoint,
} from './checkpoint.ts';

export interface VerifiedLog {
  readonly checkpoint: Checkpoint;
  readonly witnesses: readonly Cosignature[];
  readonly leaves: readonly AuditLeaf[];
}

/**
 * Checks that `leaves` are exactly the log of `note`, in order, and that each says what its place demands.
 *
 * @throws RECORD_INVALID naming the first leaf or signature that is wrong
 */
export function verifyLog(
  log: NoteKey,
  note: string,
  leaves: readonly Uint8Array[],
  witnesses: readonly NoteKey[] = [],
): VerifiedLog {
  const checkpoint = openCheckpoint(note, log);
  if (leaves.length !== checkpoint.size)
    throw invalid(log, `${leaves.length} leaves, and the checkpoint is over ${checkpoint.size}`);
  const root = rootOfFrontier(leaves.map(leafHash).reduce(appendLeaf, emptyFrontier));
  if (!sameBytes(root, checkpoint.root))
    throw invalid(log, 'the leaves do not hash to the root of the checkpoint');
  const parsed = leaves.map((bytes, seq) => {
    const leaf = parseLeaf(bytes);
    if (leaf.seq !== seq || leaf.custodian !== log.name)
      throw invalid(log, `leaf ${seq} was made for another place`);
    return leaf;
  });
  return { checkpoint, witnesses: cosignaturesOf(note, witnesses), leaves: parsed };
}

/** Where one branch key was opened. */
export interface Opening {
  /** Hex. */
  readonly bkId: string;
  /** Hex of the requester's public key. */
  readonly requester: string;
  readonly reqHash: string;
  readonly purpose: string;
  readonly beat: number;
  /** Milliseconds since 1970, the earliest that a custodian says. */
  readonly at: number;
  /** Logs that say they helped. */
  readonly custodians: readonly string[];
}

/** Every opening that some log tells of, in the order of time; with `bkId` (hex) only of that branch key. */
export function openings(logs: readonly VerifiedLog[], bkId?: string): Opening[] {
  const found = new Map<string, { first: AuditLeaf; key: string; custodians: Set<string> }>();
  for (const leaf of logs.flatMap(({ leaves }) => leaves)) {
    if (leaf.op !== 'unwrap') continue;
    for (const item of leaf.items) {
      const key = toHex(item.bkId);
      if (!item.granted || (bkId !== undefined && key !== bkId)) continue;
      const id = `${toHex(leaf.reqHash)}/${key}`;
      const one = found.get(id) ?? { first: leaf, key, custodians: new Set<string>() };
      if (leaf.at < one.first.at) one.first = leaf;
      one.custodians.add(leaf.custodian);
      found.set(id, one);
    }
  }
  return [...found.values()]
    .map(({ first, key, custodians }) => ({
      bkId: key,
      requester: toHex(first.requester),
      reqHash: toHex(first.reqHash),
      purpose: first.purpose,
      beat: first.beat,
      at: first.at,
      custodians: [...custodians].sort(),
    }))
    .sort((a, b) => a.at - b.at || (a.bkId < b.bkId ? -1 : 1));
}

/** What one who opened branch keys keeps of it. */
export interface Receipt {
  /** SHA-512 of the signed request. */
  readonly reqHash: Uint8Array;
  readonly bkIds: readonly Uint8Array[];
  /** Logs of the custodians whose answers were used. */
  readonly custodians: readonly string[];
  readonly threshold: number;
}

export type Finding =
  /** A custodian helped and its log, which reaches far enough, does not say so. */
  | {
      readonly kind: 'leaf-missing';
      readonly custodian: string;
      readonly reqHash: string;
      readonly bkId: string;
    }
  /** Fewer logs than the threshold tell of an opening that happened. */
  | {
      readonly kind: 'too-few-leaves';
      readonly reqHash: string;
      readonly bkId: string;
      readonly leaves: number;
    }
  /** At least a threshold of custodians opened it, and nobody who keeps receipts has one. */
  | { readonly kind: 'receipt-missing'; readonly opening: Opening };

/**
 * Holds receipts against logs. Logs that were not given are not missed: say which ones there are by giving them.
 * `threshold` decides which openings without a receipt were complete; 0 = none is looked for.
 */
export function reconcile(
  logs: readonly VerifiedLog[],
  receipts: readonly Receipt[],
  threshold: number,
): Finding[] {
  const opened = new Map(openings(logs).map((each) => [`${each.reqHash}/${each.bkId}`, each]));
  const given = new Set(logs.map(({ checkpoint }) => checkpoint.origin));
  const claimed = new Set<string>();
  const findings: Finding[] = [];
  for (const { reqHash, bkIds, custodians, threshold: wanted } of receipts) {
    for (const key of bkIds) {
      const [request, bkId] = [toHex(reqHash), toHex(key)];
      claimed.add(`${request}/${bkId}`);
      const tellers = opened.get(`${request}/${bkId}`)?.custodians ?? [];
      for (const custodian of custodians)
        if (given.has(custodian) && !tellers.includes(custodian))
          findings.push({ kind: 'leaf-missing', custodian, reqHash: request, bkId });
      if (tellers.length < wanted && custodians.every((name) => given.has(name)))
        findings.push({ kind: 'too-few-leaves', reqHash: request, bkId, leaves: tellers.length });
    }
  }
  for (const [id, opening] of opened)
    if (threshold > 0 && opening.custodians.length >= threshold && !claimed.has(id))
      findings.push({ kind: 'receipt-missing', opening });
  return findings;
}

function invalid({ name }: NoteKey, why: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `audit log ${name}: ${why}`, { details: { origin: name } });
}
