// What the records of an append are, once opened: which chain of versions each belongs to, and where in it.

import { type CID, cidOf, codecDagCbor, decodeCbor } from '../core/block.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { toHex } from '../core/bytes.ts';
import { Memo } from '../core/memo.ts';
import { kekSeq, verifyKek } from '../envelope/kek.ts';
import { type BranchKeyBody, type EnvelopeBody, type KekBody, parseKeyRecord } from '../envelope/records.ts';
import { type ManifestBody, parseManifest } from '../manifest/manifest.ts';
import { openRecord, type RecordBody, type RecordKind, type SignedRecord } from '../manifest/record.ts';
import { type CustodyBody, custodyPlaceOf, parseCustodyRecord } from './custody-chain.ts';
import type { Append, LogRecord } from './log.ts';

/** Records that are remembered, and their size: a record of a key has a kilobyte or two. */
const latelyMax = 64;
const latelyBytesMax = 8192;

export type AnyBody = ManifestBody | EnvelopeBody | BranchKeyBody | KekBody | CustodyBody;

/** A verified record with its place in the registry. */
export interface OpenedRecord<Body extends AnyBody = AnyBody> {
  readonly kind: RecordKind;
  /**
   * What its versions are versions of: `addr/<address>`, `env/<objId>`, `bk/<bkId>`, `kek/<group>` (a version of
   * the key each) or `kek/<group>/<version>` (of a threshold group: its life), `pol/<family>`, `rev/<group>`,
   * `cert/<group>/<version>`.
   */
  readonly chainId: string;
  readonly version: number;
  readonly cid: CID;
  readonly bytes: Uint8Array;
  readonly body: Body;
}

/** Opened lately: who signs a record, whoever checks the append and the fold of a view open it within a moment. */
const lately = new Memo<Omit<OpenedRecord, 'bytes'>>(latelyMax);

/** Opens one record block: size, form, signature, every field of its kind. Throws RECORD_INVALID. */
export function openRegistryRecord(bytes: Uint8Array): OpenedRecord {
  const opened = bytes.length > latelyBytesMax ? openNow(bytes) : lately.of(bytes, () => openNow(bytes));
  return { ...opened, bytes };
}

/** Nothing in it is the caller's memory, which may be used for something else tomorrow: decoding copies. */
function openNow(bytes: Uint8Array): Omit<OpenedRecord, 'bytes'> {
  const record = openRecord(bytes);
  const body = parseBody(record);
  const { chainId, version } = placeOf(body);
  if (chainId.includes('\0')) throw new HoldfastError('RECORD_INVALID', 'record: its name holds a NUL');
  return { kind: body.kind, chainId, version, cid: record.cid, body };
}

/** The same of bytes that need not be a record: undefined for those that are none. */
export function registryRecordOrUndefined(bytes: Uint8Array): OpenedRecord | undefined {
  try {
    return openRegistryRecord(bytes);
  } catch (error) {
    if (error instanceof HoldfastError) return undefined;
    throw error;
  }
}

/**
 * As `openRegistryRecord` for bytes that came through a log whose writer opened them: neither signature nor form nor
 * fields are checked, which is nine tenths of the work. Whoever uses it opens the record properly later (view.ts).
 */
export function readRegistryRecord(bytes: Uint8Array): OpenedRecord {
  const body = trustedBody(bytes);
  return { kind: body.kind, ...placeOf(body), cid: cidOf(bytes, codecDagCbor), bytes, body };
}

function parseBody(record: SignedRecord<RecordBody>): AnyBody {
  const { kind } = record.body;
  if (kind === 'manifest') return parseManifest(record).body;
  const custody = parseCustodyRecord(kind, record.body);
  if (custody !== undefined) return custody;
  const body = parseKeyRecord(record.body);
  if (body.kind === 'kek' && body.provider === 'tdec' && !verifyKek(body))
    throw new HoldfastError('RECORD_INVALID', 'kek.frostSig: the signature of the group does not verify', {
      details: { field: 'kek.frostSig' },
    });
  return body;
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
  const { chainId, version } = placeOf(body);
  const isNumbered = ['policy', 'revocation', 'certificate'].includes(body.kind);
  if (body.kind === 'kek') return `kek/${body.cg}/${body.ver}`;
  return isNumbered ? `${chainId}/${version}` : chainId;
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
  if (body.kind !== 'kek') return custodyPlaceOf(body);
  if (body.provider !== 'tdec') return { chainId: `kek/${body.cg}`, version: body.ver };
  return { chainId: `kek/${body.cg}/${body.ver}`, version: kekSeq(body) };
}
