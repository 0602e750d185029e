// What the records of an append are, once opened: which chain of versions each belongs to, and where in it.

import { type CID, cidOf, codecDagCbor, decodeCbor } from '../core/block.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { toHex } from '../core/bytes.ts';
import { type BranchKeyBody, type EnvelopeBody, type KekBody, parseKeyRecord } from '../envelope/records.ts';
import { type ManifestBody, parseManifest } from '../manifest/manifest.ts';
import { openRecord, type RecordKind } from '../manifest/record.ts';
import type { Append, LogRecord } from './log.ts';

export type AnyBody = ManifestBody | EnvelopeBody | BranchKeyBody | KekBody;

/** A verified record with its place in the registry. */
export interface OpenedRecord<Body extends AnyBody = AnyBody> {
  readonly kind: RecordKind;
  /** What its versions are versions of: `addr/<address>`, `env/<objId>`, `bk/<bkId>`, `kek/<cg>`. */
  readonly chainId: string;
  readonly version: number;
  readonly cid: CID;
  readonly bytes: Uint8Array;
  readonly body: Body;
}

/** Opens one record block: size, form, signature, every field of its kind. Throws RECORD_INVALID. */
export function openRegistryRecord(bytes: Uint8Array): OpenedRecord {
  const record = openRecord(bytes);
  const body = record.body.kind === 'manifest' ? parseManifest(record).body : parseKeyRecord(record.body);
  const { chainId, version } = placeOf(body);
  if (chainId.includes('\0')) throw new HoldfastError('RECORD_INVALID', 'record: its name holds a NUL');
  return { kind: body.kind, chainId, version, cid: record.cid, bytes, body };
}

/**
 * As `openRegistryRecord` for bytes that came through a log whose writer opened them: neither signature nor form nor
 * fields are checked, which is nine tenths of the work. Whoever uses it opens the record properly later (view.ts).
 */
export function readRegistryRecord(bytes: Uint8Array): OpenedRecord {
  const body = trustedBody(bytes);
  return { kind: body.kind, ...placeOf(body), cid: cidOf(bytes, codecDagCbor), bytes, body };
}

/** All records of an append, or why one of them is no good: the same text for the same bytes, everywhere. */
export function openRecords(
  append: Append,
  open: (bytes: Uint8Array) => OpenedRecord = openRegistryRecord,
): readonly OpenedRecord[] | string {
  const opened: OpenedRecord[] = [];
  for (const record of append.records) {
    try {
      opened.push(openKeyed(record, open));
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      return `${record.key}: ${describeError(error)}`;
    }
  }
  return opened;
}

/** The key under which a record is appended. */
export function recordKey(body: AnyBody): string {
  const { chainId } = placeOf(body);
  return body.kind === 'kek' ? `${chainId}/${body.ver}` : chainId;
}

/** The body inside bytes whose signature and fields were verified when they were folded in. */
export function trustedBody(bytes: Uint8Array): AnyBody {
  const block = decodeCbor(bytes, 'record');
  if (isRecordBlock(block)) return block.r;
  throw new HoldfastError('RECORD_CORRUPT', 'a stored record has no body');
}

/** Only bytes that passed openRegistryRecord are stored, and their checksum was verified: the form suffices. */
function isRecordBlock(block: unknown): block is { readonly r: AnyBody } {
  return typeof block === 'object' && block !== null && 'r' in block;
}

function openKeyed({ key, bytes }: LogRecord, open: (bytes: Uint8Array) => OpenedRecord): OpenedRecord {
  const opened = open(bytes);
  const expected = recordKey(opened.body);
  if (key === expected) return opened;
  throw new HoldfastError('RECORD_INVALID', `the record belongs under ${expected}`);
}

function placeOf(body: AnyBody): { readonly chainId: string; readonly version: number } {
  if (body.kind === 'manifest')
    return { chainId: `addr/${body.ucxl_address}`, version: body.context_version };
  if (body.kind === 'envelope') return { chainId: `env/${toHex(body.objId)}`, version: body.envVer };
  if (body.kind === 'branch-key') return { chainId: `bk/${toHex(body.bkId)}`, version: body.bkVer };
  return { chainId: `kek/${body.cg}`, version: body.ver };
}
