// The rows of a view: their keys and how their values are spelled.
//
//   pos                                    position in the log and counts
//   log␀revision                           chain ‖ payload: this view's own copy of the log
//   sub␀subject                            revision of the subject's last append
//   head␀chain id                          pointer and bytes of the current version
//   vers␀chain id␀version                  pointer to every version; the bytes stand in the log row
//   cid␀cid␀as␀id␀version                  where a CID occurs
//   path␀project␀task␀path␀agent␀role      addresses that are not removed, by path
//   tag␀tag␀address                        current versions that carry the tag
//   wrtr␀writer␀address␀version            versions signed by a key
//   objt␀objId␀address␀version             versions whose manifest names the object
//   bkob␀bkId␀objId                        objects whose current envelope is under the branch key
//   wrap␀group/version␀chain id            records whose current version has a wrap under that threshold key
//   frst␀group                             the key that a custody group signs with
//   cust␀revision␀index                    records that custodians need, in the order of the log
//   rejt␀revision                          why an entry was skipped
//
// What a chain id is stands in records.ts. NUL occurs in none of the parts.

import { CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { asBuffer, concat, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { decodeEntry, type LogEntry, type LogPosition } from './log.ts';
import type { RegistryCounts, VersionLine } from './queries.ts';

const separator = '\0';
export const positionKey = 'pos';

/** A row key from its parts; numbers so that they sort. */
export function rowKey(...parts: readonly (string | number)[]): string {
  return parts.map((part) => (typeof part === 'number' ? sortable(part) : part)).join(separator);
}

/** The start of all keys with these first parts. */
export function rowPrefix(...parts: readonly (string | number)[]): string {
  return rowKey(...parts) + separator;
}

/** The start of the keys of all current versions of addresses. */
export const headAddress = `${rowPrefix('head')}addr/`;

/** The number that a part of a key spells. */
export function partNumber(part: string | undefined): number {
  return Number.parseInt(part ?? '', 16);
}

function sortable(value: number): string {
  return value.toString(16).padStart(14, '0');
}

/** Where one version of a chain stands. */
export interface Pointer {
  readonly version: number;
  /** Log entry that brought it, and which of its records it is. */
  readonly revision: number;
  readonly index: number;
  /** Addresses: since when it is current, ms since 1970. Others: the append's `at`. */
  readonly at: number;
  /** Of a key record: `object`. */
  readonly type: VersionLine['type'];
  /** Addresses: the first version whose content must be kept. Others 1. */
  readonly keptFrom: number;
  /** Null for a version that a rebuild did not find. */
  readonly cid: CID | null;
}

/** The current version of a chain. */
export interface Head extends Pointer {
  readonly bytes: Uint8Array;
}

const types = ['missing', 'object', 'tree', 'tombstone'] as const satisfies readonly VersionLine['type'][];
const fixedBytes = 8 + 8 + 1 + 8 + 1 + 8;
const cidBytes = 36;

export function encodePointer(pointer: Pointer, bytes: Uint8Array = new Uint8Array()): Uint8Array {
  const fixed = new Uint8Array(fixedBytes);
  const view = new DataView(fixed.buffer);
  view.setBigUint64(0, BigInt(pointer.version));
  view.setBigUint64(8, BigInt(pointer.revision));
  view.setUint8(16, pointer.index);
  view.setBigInt64(17, BigInt(pointer.at)); // years before 1970 have an instant too
  view.setUint8(25, types.indexOf(pointer.type));
  view.setBigUint64(26, BigInt(pointer.keptFrom));
  return concat(fixed, pointer.cid?.bytes ?? new Uint8Array(cidBytes), bytes);
}

export function decodeHead(value: Uint8Array): Head {
  const buffer = asBuffer(value);
  const type = types[buffer.readUInt8(25)];
  if (type === undefined) throw new HoldfastError('RECORD_CORRUPT', 'a version row has an unknown type');
  return {
    version: Number(buffer.readBigUInt64BE(0)),
    revision: Number(buffer.readBigUInt64BE(8)),
    index: buffer.readUInt8(16),
    at: Number(buffer.readBigInt64BE(17)),
    type,
    keptFrom: Number(buffer.readBigUInt64BE(26)),
    cid: type === 'missing' ? null : CID.decode(value.subarray(fixedBytes, fixedBytes + cidBytes)),
    bytes: value.subarray(fixedBytes + cidBytes),
  };
}

export function encodeEntryRow({ chain, payload }: LogEntry): Uint8Array {
  return concat(chain, payload);
}

export function decodeEntryRow(revision: number, value: Uint8Array): LogEntry {
  return decodeEntry(revision, value.subarray(0, 32), value.subarray(32));
}

export function encodeRevision(revision: number): Uint8Array {
  return uint64(revision);
}

export function decodeRevision(value: Uint8Array): number {
  return Number(asBuffer(value).readBigUInt64BE(0));
}

/** How far a view has come, and what it counts. */
export interface ViewState {
  readonly position: LogPosition;
  readonly counts: RegistryCounts;
}

export const emptyCounts: RegistryCounts = {
  entries: 0,
  rejected: 0,
  addresses: 0,
  removed: 0,
  versions: 0,
  sizeBytes: 0,
  envelopes: 0,
  branchKeys: 0,
  keks: 0,
  custody: 0,
  missing: 0,
};

export function encodeState({ position, counts }: ViewState): Uint8Array {
  return encodeCbor({ revision: position.revision, chain: position.chain, counts });
}

export function decodeState(value: Uint8Array): ViewState {
  const row = decodeCbor(value, 'position row');
  if (!isStateRow(row)) throw new HoldfastError('RECORD_CORRUPT', 'the position row has another form');
  return {
    position: { revision: row.revision, chain: row.chain },
    counts: { ...emptyCounts, ...row.counts },
  };
}

/** Only rows that this code wrote and whose checksum holds come here: the form suffices. */
function isStateRow(row: unknown): row is LogPosition & { readonly counts: RegistryCounts } {
  return typeof row === 'object' && row !== null && 'revision' in row && 'chain' in row && 'counts' in row;
}

export function encodeText(text: string): Uint8Array {
  return utf8(text);
}
