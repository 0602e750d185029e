// Signed records: manifests, the key records and those of custody all have this form.
//
//   A2                      map of two
//      61 72 <r>            "r": the body, a canonical DAG-CBOR map
//      61 73 58 40 <64 B>   "s": Ed25519 over preimage('holdfast/record/v1', the bytes of r as they stand here)
//
// The signature covers the slice of the block, never a re-encoding, so nothing depends on two encoders agreeing. The
// form is fixed to the byte: what surrounds r is compared, r is decoded and must encode to itself. So one body and one
// signature have one CID, and no byte of a block can change without being refused.

import { asBuffer, concat, sameBytes } from '../core/bytes.ts';
import { type Block, type CID, cidOf, codecDagCbor, decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, type Signer, verifySignature } from '../core/hash.ts';
import { recordBytesMax } from '../core/limits.ts';
import { isLink, isMap } from './fields.ts';

const recordKinds = [
  'manifest',
  'envelope',
  'branch-key',
  'kek',
  'policy',
  'revocation',
  'certificate',
] as const;
export type RecordKind = (typeof recordKinds)[number];

/** What every body has. Each kind adds its own fields. */
export interface RecordBody {
  readonly kind: RecordKind;
  readonly v: 1;
  /** Ed25519 public key of who signed, 32 bytes. */
  readonly writer: Uint8Array;
  /** The record this one follows, or null for the first. */
  readonly prev: CID | null;
}

export interface SignedRecord<T> {
  readonly block: Block;
  readonly cid: CID;
  readonly body: T;
}

/**
 * Encodes and signs `body`, whose `writer` must be the signer's key.
 * Throws RECORD_INVALID when a common field is wrong or the block would exceed 65,536 bytes.
 */
export function signRecord<T extends RecordBody>(body: T, signer: Signer): SignedRecord<T> {
  checkBody(body);
  if (!sameBytes(body.writer, signer.publicKey)) throw invalid('writer', 'is not the key of the signer');
  const encoded = encodeCbor(body);
  if (encoded.length + overheadBytes > recordBytesMax) throw tooLarge(encoded.length + overheadBytes);
  const bytes = concat(head, encoded, tail, signer.sign(preimage(domain, encoded)));
  const cid = cidOf(bytes, codecDagCbor);
  return { block: { cid, bytes }, cid, body };
}

/**
 * Reads a record block: size, canonical form, common fields and signature. Keeps a view of `bytes`.
 * The fields of its kind are for the parser of that kind (`parseManifest`, the envelope room's parsers).
 * Throws RECORD_INVALID.
 */
export function openRecord(bytes: Uint8Array): SignedRecord<RecordBody> {
  if (bytes.length > recordBytesMax) throw tooLarge(bytes.length);
  if (!isRecordBytes(bytes)) throw invalid('record', 'does not have the form {r, s: 64 bytes}');
  const encoded = bytes.subarray(head.length, bytes.length - tail.length - signatureBytes);
  const body = decodeCbor(encoded, 'record');
  checkBody(body);
  checkCanonical(body, encoded);
  const cid = cidOf(bytes, codecDagCbor);
  const signature = bytes.subarray(bytes.length - signatureBytes);
  if (!verified.has(cid) && !verifySignature(body.writer, preimage(domain, encoded), signature)) {
    throw invalid('s', 'the signature does not verify');
  }
  verified.add(cid);
  return { block: { cid, bytes }, cid, body };
}

/** A cheap look at both ends: true for every record block, false for nearly everything else. For scans of a blockstore. */
export function isRecordBytes(bytes: Uint8Array): boolean {
  if (bytes.length < overheadBytes + 1 || bytes.length > recordBytesMax) return false;
  const tailAt = bytes.length - signatureBytes - tail.length;
  return (
    sameBytes(bytes.subarray(0, head.length), head) &&
    sameBytes(bytes.subarray(tailAt, tailAt + tail.length), tail) &&
    isMapHead(bytes[head.length])
  );
}

/**
 * Records whose signature verified lately, by CID, which names every byte of them: a record on its way into the
 * registry is opened several times in one process, and verifying is most of the cost. Bounded.
 */
class VerifiedRecords {
  readonly #cids = new Set<string>();

  has(cid: CID): boolean {
    return this.#cids.has(nameOf(cid));
  }

  add(cid: CID): void {
    const name = nameOf(cid);
    this.#cids.delete(name);
    this.#cids.add(name);
    const oldest = this.#cids.values().next().value;
    if (this.#cids.size > verifiedMax && oldest !== undefined) this.#cids.delete(oldest);
  }
}

function nameOf(cid: CID): string {
  return asBuffer(cid.multihash.digest).toString('latin1');
}

const verifiedMax = 4096;
const verified = new VerifiedRecords();
const domain = 'holdfast/record/v1';
const signatureBytes = 64;
const head = Uint8Array.of(0xa2, 0x61, 0x72);
const tail = Uint8Array.of(0x61, 0x73, 0x58, 0x40);
const overheadBytes = head.length + tail.length + signatureBytes;

/** Major type 5, a map, with its length in the same byte or the next one: no body has 256 fields. */
function isMapHead(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0xa0 && byte <= 0xb8;
}

function checkBody(body: unknown): asserts body is RecordBody {
  if (!isMap(body)) throw invalid('r', 'is not a map');
  const { kind, v, writer, prev } = body;
  if (!recordKinds.some((known) => known === kind)) throw invalid('kind', 'is none of ours');
  if (v !== 1) throw invalid('v', 'is not 1');
  if (!(writer instanceof Uint8Array) || writer.length !== 32) throw invalid('writer', 'is not 32 bytes');
  if (prev !== null && !isLink(prev, codecDagCbor))
    throw invalid('prev', 'is neither null nor the CID of a record');
}

/** Sorted keys, shortest integers, no floats that are integers: whatever our encoder would have written otherwise. */
function checkCanonical(body: unknown, encoded: Uint8Array): void {
  let again: Uint8Array;
  try {
    again = encodeCbor(body);
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', 'record: cannot be encoded again', { cause });
  }
  if (!asBuffer(again).equals(encoded)) throw invalid('r', 'is not canonical DAG-CBOR');
}

function tooLarge(sizeBytes: number): HoldfastError {
  return new HoldfastError(
    'RECORD_INVALID',
    `record of ${sizeBytes} bytes: at most ${recordBytesMax} allowed`,
    {
      details: { field: 'record', sizeBytes },
    },
  );
}

function invalid(field: string, message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `record: ${field} ${message}`, { details: { field, message } });
}
