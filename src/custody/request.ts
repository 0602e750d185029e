// What is asked of custodians: partial decryptions of 1…256 branch keys, by whom, for what, and until when.
//
// The wraps come along whole, so a custodian looks nothing up in anybody's registry. The hash of the request is
// the context of every proof in the answers and the info of their sealing: an answer is worth nothing elsewhere.
// Approvals are signatures of others over that same hash, which is why they stand beside the body, not in it.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { preimage, sha512, type Signer, verifySignature } from '../core/hash.ts';
import {
  approvalsMax,
  capabilityBytesMax,
  capabilityLinksMax,
  custodyRequestBytesMax,
  unwrapItemsMax,
} from '../core/limits.ts';
import { type Fields, fieldsOf, invalid } from '../envelope/fields.ts';
import { type BkLabel, branchKeyIdBytes, parseLabel, readGroup } from '../envelope/label.ts';
import { parseWrap, type SwitchedWrap, type TdecWrap } from '../envelope/wraps.ts';
import { type CapabilityLink, parseCapability } from './capability.ts';
import { canonical } from './signed-map.ts';

export const purposes = ['read', 'rewrap', 'canary', 'recovery'] as const;
export type Purpose = (typeof purposes)[number];

export interface RequestItem {
  readonly bkId: Uint8Array;
  readonly wrap: TdecWrap | SwitchedWrap;
}

export interface CustodyRequest {
  readonly v: 1;
  /** 32 random bytes. */
  readonly reqId: Uint8Array;
  readonly cg: string;
  readonly kekVer: number;
  /** Partials of different generations do not fit together, so the answer must be of this one. */
  readonly shareGen: number;
  readonly items: readonly RequestItem[];
  readonly purpose: Purpose;
  readonly beat: number;
  /** Last beat at which it may be answered. */
  readonly exp: number;
  /** Capability links as they were signed, outermost first. */
  readonly chain: readonly Uint8Array[];
  /** X25519 key, made for this request, that answers are sealed to. */
  readonly epk: Uint8Array;
  /** Ed25519 key of who asks. */
  readonly by: Uint8Array;
}

export interface Approval {
  readonly by: Uint8Array;
  readonly sig: Uint8Array;
}

/** A request whose form and signatures are proven. */
export interface OpenedRequest {
  readonly request: CustodyRequest;
  /** SHA-512 that names it: 64 bytes. */
  readonly hash: Uint8Array;
  /** Of each item. */
  readonly labels: readonly BkLabel[];
  /** Of each link of its chain. */
  readonly chain: readonly CapabilityLink[];
  /** Who approved it, each once. */
  readonly approvers: readonly Uint8Array[];
}

const requestDomain = 'CHORUS-SLURP-REQ-v1';
const approvalDomain = 'CHORUS-SLURP-APPROVAL-v1';
const names = [
  'v',
  'reqId',
  'cg',
  'kekVer',
  'shareGen',
  'items',
  'purpose',
  'beat',
  'exp',
  'chain',
  'epk',
  'by',
];

/**
 * The bytes that are signed and hashed. Throws RECORD_INVALID for a request that no custodian would read, so that
 * the mistake shows where it was made.
 */
export function encodeRequest(request: CustodyRequest): Uint8Array {
  const bytes = encodeCbor(request);
  readRequest(bytes);
  return bytes;
}

/** Names a request for proofs, sealing, approvals and the audit log. */
export function requestHash(encoded: Uint8Array): Uint8Array {
  return sha512(preimage(requestDomain, encoded));
}

/** An approver's signature. What the request asks for must be shown to a person before. */
export function approveRequest(encoded: Uint8Array, signer: Signer): Approval {
  return { by: signer.publicKey, sig: signer.sign(preimage(approvalDomain, requestHash(encoded))) };
}

/** The message for custodians. `signer` is who asks, `request.by`. */
export function signRequest(
  encoded: Uint8Array,
  signer: Signer,
  approvals: readonly Approval[] = [],
): Uint8Array {
  const sig = signer.sign(preimage(requestDomain, encoded));
  const sorted = approvals.toSorted((a, b) => Buffer.compare(a.by, b.by));
  return encodeCbor({ m: encoded, s: sig, approvals: sorted.map(({ by, sig: s }) => ({ by, sig: s })) });
}

/** Reads a request and verifies every signature in it. Throws RECORD_INVALID naming the field. */
export function openRequest(message: Uint8Array): OpenedRequest {
  if (message.length > custodyRequestBytesMax)
    throw invalid('request', `at most ${custodyRequestBytesMax} bytes expected`);
  const fields = fieldsOf(decodeCbor(message, 'request'), 'request', ['m', 's', 'approvals']);
  const encoded = fields.bytesUpTo('m', custodyRequestBytesMax);
  const sig = fields.bytes('s', 64);
  const approvals = readApprovals(fields);
  if (!sameBytes(encodeCbor({ m: encoded, s: sig, approvals }), message))
    throw invalid('request', 'canonical DAG-CBOR expected');
  const request = readRequest(encoded);
  if (!verifySignature(request.by, preimage(requestDomain, encoded), sig))
    throw invalid('request.s', 'a signature of who asks expected');
  const hash = requestHash(encoded);
  for (const approval of approvals)
    if (!verifySignature(approval.by, preimage(approvalDomain, hash), approval.sig))
      throw invalid('request.approvals', 'signatures over this request expected');
  return {
    request,
    hash,
    labels: request.items.map(({ wrap }) => parseLabel(wrap.label)),
    chain: request.chain.map(parseCapability),
    approvers: approvals.map(({ by }) => by),
  };
}

function readRequest(encoded: Uint8Array): CustodyRequest {
  const fields = fieldsOf(canonical(encoded, 'request'), 'request', names);
  const beat = fields.integer('beat', 0);
  return {
    v: fields.oneOf('v', [1]),
    reqId: fields.bytes('reqId', 32),
    cg: readGroup(fields, 'cg'),
    kekVer: fields.integer('kekVer', 1),
    shareGen: fields.integer('shareGen', 1),
    items: readItems(fields),
    purpose: fields.oneOf('purpose', purposes),
    beat,
    exp: fields.integer('exp', beat),
    chain: readChain(fields),
    epk: fields.bytes('epk', 32),
    by: fields.bytes('by', 32),
  };
}

function readItems(fields: Fields): readonly RequestItem[] {
  const list = fields.list('items', unwrapItemsMax);
  if (list.length === 0) fields.refuse('items', 'at least one expected');
  return list.map((value, index) => {
    const where = `request.items[${index}]`;
    const item = fieldsOf(value, where, ['bkId', 'wrap']);
    const bkId = item.bytes('bkId', branchKeyIdBytes);
    const wrap = parseWrap(item.any('wrap'), `${where}.wrap`);
    if (wrap.t !== 'tdec' && wrap.t !== 'tdec-ks')
      throw invalid(`${where}.wrap.t`, 'tdec or tdec-ks expected');
    return { bkId, wrap };
  });
}

function readChain(fields: Fields): readonly Uint8Array[] {
  const list = fields.list('chain', capabilityLinksMax);
  const isLink = (value: unknown): value is Uint8Array =>
    value instanceof Uint8Array && value.length > 0 && value.length <= capabilityBytesMax;
  if (!list.every(isLink)) fields.refuse('chain', `links of at most ${capabilityBytesMax} bytes expected`);
  return list;
}

/** By rising key, so each counts once. */
function readApprovals(fields: Fields): readonly Approval[] {
  const approvals = fields.list('approvals', approvalsMax).map((value, index) => {
    const approval = fieldsOf(value, `request.approvals[${index}]`, ['by', 'sig']);
    return { by: approval.bytes('by', 32), sig: approval.bytes('sig', 64) };
  });
  const rising = approvals.every(
    ({ by }, at) => at === 0 || Buffer.compare(approvals[at - 1]?.by ?? by, by) < 0,
  );
  if (!rising) fields.refuse('approvals', 'different keys in rising order expected');
  return approvals;
}
