// One entry of a custodian's audit log: who asked for what, and what came of it. A leaf says which branch keys were
// opened and by whom; it never holds a key, a wrap or a partial decryption.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { fieldsOf, invalid } from '../envelope/fields.ts';
import { branchKeyIdBytes, groupNameBytesMax } from '../envelope/label.ts';
import { unwrapItemsMax } from '../core/limits.ts';

/** Everything a custodian does with its shares; there is no exempt operation. */
export const auditOps = [
  'start',
  'unwrap',
  'init',
  'refresh',
  'reshare',
  'repair',
  'rotate',
  'evict',
  'seal',
  'unseal',
  'policy',
  'revoke',
  'recover',
  'sign',
  'fork',
  'export',
  'reseal',
  'release',
  'erase',
] as const;
export type AuditOp = (typeof auditOps)[number];

/** `granted`: all of it was done; `partly`: some items; `refused`: nothing. */
export const auditDecisions = ['granted', 'partly', 'refused'] as const;
export type AuditDecision = (typeof auditDecisions)[number];

export interface AuditItem {
  /** Branch key, 16 bytes. */
  readonly bkId: Uint8Array;
  readonly granted: boolean;
}

/** What whoever appends says; the log adds version, number and custodian. */
export interface AuditEntry {
  readonly op: AuditOp;
  /** Last beat the custodian knew. */
  readonly beat: number;
  /** Wall clock, milliseconds since 1970. */
  readonly at: number;
  /** Custody group, '-' for none. */
  readonly cg: string;
  /** 0 for none. */
  readonly kekVer: number;
  readonly shareGen: number;
  /** SHA-512 of the signed request or order, or empty. */
  readonly reqHash: Uint8Array;
  /** Ed25519 public key of who signed it, or empty. */
  readonly requester: Uint8Array;
  /** Hash of the first capability of the request's chain, or empty. */
  readonly capRoot: Uint8Array;
  /** SHA-256 over the labels of the items in order, or empty. */
  readonly labels: Uint8Array;
  readonly purpose: string;
  readonly items: readonly AuditItem[];
  readonly decision: AuditDecision;
  /** In words, for people; '-' when there is nothing to say. */
  readonly reason: string;
}

/** An entry in which everything that is not said is none: of what a custodian does and nobody has requested. */
export function entryOf(said: Pick<AuditEntry, 'op' | 'beat' | 'at'> & Partial<AuditEntry>): AuditEntry {
  const none = new Uint8Array(0);
  return {
    cg: '-',
    kekVer: 0,
    shareGen: 0,
    reqHash: none,
    requester: none,
    capRoot: none,
    labels: none,
    purpose: '-',
    items: [],
    decision: 'granted',
    reason: '-',
    ...said,
  };
}

export interface AuditLeaf extends AuditEntry {
  readonly v: 1;
  /** Its index in the log, from 0. */
  readonly seq: number;
  /** Name of the log. */
  readonly custodian: string;
}

/** One leaf, encoded: 256 items of about 30 bytes, with room. */
export const leafBytesMax = 16_384;
const reasonBytesMax = 512;
const purposeBytesMax = 64;
const originBytesMax = 256;
const names = [
  'v',
  'seq',
  'custodian',
  'op',
  'beat',
  'at',
  'cg',
  'kekVer',
  'shareGen',
  'reqHash',
  'requester',
  'capRoot',
  'labels',
  'purpose',
  'items',
  'decision',
  'reason',
] as const;

/** The bytes of a leaf. Throws RECORD_INVALID naming the field that is wrong. */
export function encodeLeaf(leaf: AuditLeaf): Uint8Array {
  return encodeCbor(validLeaf({ ...leaf, reason: boundedText(leaf.reason) }));
}

/** Reads a leaf. Throws RECORD_INVALID, also when the bytes are not canonical. */
export function parseLeaf(bytes: Uint8Array): AuditLeaf {
  if (bytes.length > leafBytesMax) throw invalid('audit leaf', `at most ${leafBytesMax} bytes expected`);
  const leaf = validLeaf(decodeCbor(bytes, 'audit leaf'));
  if (!sameBytes(encodeCbor(leaf), bytes)) throw invalid('audit leaf', 'canonical DAG-CBOR expected');
  return leaf;
}

function validLeaf(value: unknown): AuditLeaf {
  const fields = fieldsOf(value, 'audit leaf', names);
  const optional = (field: string, sizeBytes: number): Uint8Array => {
    const bytes = Object(value)[field];
    return bytes instanceof Uint8Array && bytes.length === 0 ? bytes : fields.bytes(field, sizeBytes);
  };
  return {
    v: fields.oneOf('v', [1]),
    seq: fields.integer('seq', 0),
    custodian: fields.text('custodian', originBytesMax),
    op: fields.oneOf('op', auditOps),
    beat: fields.integer('beat', 0),
    at: fields.integer('at', 0),
    cg: fields.text('cg', groupNameBytesMax),
    kekVer: fields.integer('kekVer', 0),
    shareGen: fields.integer('shareGen', 0),
    reqHash: optional('reqHash', 64),
    requester: optional('requester', 32),
    capRoot: optional('capRoot', 32),
    labels: optional('labels', 32),
    purpose: fields.text('purpose', purposeBytesMax),
    items: fields.list('items', unwrapItemsMax).map((item, index) => {
      const one = fieldsOf(item, `audit leaf.items[${index}]`, ['bkId', 'granted']);
      const granted = Object(item)['granted'];
      if (typeof granted !== 'boolean') one.refuse('granted', 'true or false expected');
      return { bkId: one.bytes('bkId', branchKeyIdBytes), granted };
    }),
    decision: fields.oneOf('decision', auditDecisions),
    reason: fields.text('reason', reasonBytesMax),
  };
}

/** A reason may quote what a stranger sent: it is cut and cleaned, never a cause to lose the leaf. */
function boundedText(text: string): string {
  const clean = text.replaceAll(/\p{Cc}/gu, ' ').slice(0, 160);
  return clean === '' ? '-' : clean;
}
