// The label of a branch key's wrap: the only thing that who unwraps decides on. It travels
// inside each wrap and is authenticated by it; the record around it must say the same.

import { type CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { addressPartBytesMax } from '../core/limits.ts';
import { Memo } from '../core/memo.ts';
import { type ContentClass, contentClasses } from './aad.ts';
import { type Fields, fieldsOf, invalid } from './fields.ts';

export const branchKeyIdBytes = 16;
export const groupNameBytesMax = 64;

/** First and last beat, both inside. */
type BeatWindow = readonly [from: number, to: number];

/** Whose writes one branch key serves. */
export interface BranchScope {
  readonly project: string;
  readonly cls: ContentClass;
  /** Ed25519 public key. */
  readonly writer: Uint8Array;
  readonly window: BeatWindow;
}

export interface BkLabel extends BranchScope {
  readonly v: 1;
  /** Custody group. */
  readonly cg: string;
  /** Version of the group's key, from 1. */
  readonly kekVer: number;
  /** Of an object's own key (envelope mode `direct`): the object's id. */
  readonly bkId: Uint8Array;
  /**
   * Version of the record in which this key was first wrapped, from 1. It takes part in deriving the key, so it
   * stays when a later version of the record wraps the same key anew.
   */
  readonly bkVer: number;
  /** First version of the policy family; whoever unwraps goes by its newest version. */
  readonly policy: CID | null;
}

const names = ['v', 'cg', 'kekVer', 'bkId', 'bkVer', 'project', 'cls', 'policy', 'window', 'writer'] as const;
export const labelBytesMax = 1024;

export function encodeLabel(label: BkLabel): Uint8Array {
  return encodeCbor(validLabel(label));
}

/** On its way through a process a wrap is looked at half a dozen times. */
const parsed = new Memo<BkLabel>(2048);

/** Parses a label from a wrap. Throws RECORD_INVALID naming the field. */
export function parseLabel(bytes: Uint8Array): BkLabel {
  return parsed.of(bytes, () => {
    const label = validLabel(decodeCbor(bytes, 'label'));
    if (!sameBytes(encodeCbor(label), bytes)) throw invalid('label', 'canonical DAG-CBOR expected');
    return label;
  });
}

/** What a wrap without a label of its own authenticates: SHA-512 over the label's bytes and the provider's `context`. */
export function labelDigest(labelBytes: Uint8Array, context: Uint8Array): Uint8Array {
  return sha512(preimage('CHORUS-SLURP-LABEL-v1', labelBytes, context));
}

/** Reads the name of a custody group: it is a part of registry keys, so it holds no slash. */
export function readGroup(fields: Fields, field: string): string {
  const group = fields.text(field, groupNameBytesMax);
  if (group.includes('/')) fields.refuse(field, 'a name without a slash expected');
  return group;
}

/** The label that a wrap has after its key was switched to version `kekVer` of the same group: nothing else may change. */
export function switchedLabel(label: BkLabel, kekVer: number): BkLabel {
  return { ...label, kekVer };
}

/** Reads project, class, writer and window out of `fields`. */
export function readScope(fields: Fields): BranchScope {
  return {
    project: fields.text('project', addressPartBytesMax),
    cls: fields.oneOf('cls', contentClasses),
    writer: fields.bytes('writer', 32),
    window: readWindow(fields),
  };
}

function validLabel(value: unknown): BkLabel {
  const fields = fieldsOf(value, 'label', names);
  return {
    v: fields.oneOf('v', [1]),
    cg: readGroup(fields, 'cg'),
    kekVer: fields.integer('kekVer', 1),
    bkId: fields.bytes('bkId', branchKeyIdBytes),
    bkVer: fields.integer('bkVer', 1),
    policy: fields.cidOrNull('policy'),
    ...readScope(fields),
  };
}

function readWindow(fields: Fields): BeatWindow {
  const [from, to, ...rest] = fields.list('window', 2);
  if (!isBeat(from) || !isBeat(to) || from > to || rest.length > 0) {
    fields.refuse('window', 'first and last beat expected');
  }
  return [from, to];
}

function isBeat(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
