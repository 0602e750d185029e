// What somebody asks a key agent, and what it answers: the key of one object, named by its address, its version and
// its manifest, sealed to a key that lives as long as the request.
//
// Both are signed messages (signed-map.ts). The answer's seal is bound to the request and to the agent.

import type { CID } from '../core/block.ts';
import { concat, sameBytes } from '../core/bytes.ts';
import { type Signer, sha512 } from '../core/hash.ts';
import { addressBytesMax, capabilityBytesMax, capabilityLinksMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import { keyBytes } from '../envelope/primitives.ts';
import { openWith, sealTo } from '../threshold/hpke.ts';
import { type CapabilityLink, parseCapability } from './capability.ts';
import { readSignedMap, signMap, verifyMessage } from './signed-map.ts';

export interface ObjectKeyRequest {
  readonly v: 1;
  /** 32 random bytes. */
  readonly reqId: Uint8Array;
  /** Custody group of the policy that decides. */
  readonly cg: string;
  /** Ed25519 key of the agent that is asked. */
  readonly agent: Uint8Array;
  /** Canonical key of the address, its version, and the CID of that version's manifest. */
  readonly address: string;
  readonly version: number;
  readonly manifest: CID;
  /** Beat of now, and the last at which it may be answered. */
  readonly beat: number;
  readonly exp: number;
  /** Capabilities of who asks, outermost first. */
  readonly chain: readonly Uint8Array[];
  /** X25519 key for the answer. */
  readonly epk: Uint8Array;
  /** Ed25519 key of who asks. */
  readonly by: Uint8Array;
}

/** A request whose form and signatures are proven. */
export interface OpenedKeyRequest {
  readonly request: ObjectKeyRequest;
  /** SHA-512 that names it. */
  readonly hash: Uint8Array;
  readonly chain: readonly CapabilityLink[];
}

/** Three capabilities and an address. */
export const objectKeyRequestBytesMax = capabilityLinksMax * capabilityBytesMax + addressBytesMax + 1024;
const answerBytesMax = 1024;
const requestDomain = 'CHORUS-SLURP-OBJECT-KEY-v1';
const answerDomain = 'CHORUS-SLURP-OBJECT-KEY-ANSWER-v1';
const noAad = new Uint8Array(0);
const names = [
  'v',
  'reqId',
  'cg',
  'agent',
  'address',
  'version',
  'manifest',
  'beat',
  'exp',
  'chain',
  'epk',
  'by',
];

/** Signs a request; `by` is the signer's key. Throws RECORD_INVALID for one that no agent would read. */
export function signKeyRequest(
  request: ObjectKeyRequest,
  signer: Signer,
): { readonly message: Uint8Array; readonly hash: Uint8Array } {
  const message = signMap(requestDomain, request, signer);
  return { message, hash: openKeyRequest(message).hash };
}

/** Reads a request and verifies every signature in it. Throws RECORD_INVALID naming the field. */
export function openKeyRequest(message: Uint8Array): OpenedKeyRequest {
  const signed = readSignedMap(message, 'object-key', objectKeyRequestBytesMax);
  const request = parseRequest(signed.body);
  verifyMessage(requestDomain, 'object-key', signed, request.by);
  return { request, hash: sha512(signed.bytes), chain: request.chain.map(parseCapability) };
}

/** Seals one content key, 32 bytes that stay the caller's, and signs the answer. */
export function sealObjectKey(hash: Uint8Array, key: Uint8Array, epk: Uint8Array, agent: Signer): Uint8Array {
  const { enc, ct } = sealTo(epk, infoOf(hash, agent.publicKey), noAad, key);
  return signMap(answerDomain, { v: 1, reqHash: hash, enc, ct }, agent);
}

/**
 * The content key in an answer; the caller zeroes it, and proves it with the object's header.
 *
 * @throws RECORD_INVALID when it is not this agent's answer to this request, DECRYPT_FAILED
 */
export function openObjectKey(
  message: Uint8Array,
  secretKey: Uint8Array,
  { hash, agent }: { readonly hash: Uint8Array; readonly agent: Uint8Array },
): Uint8Array {
  const signed = readSignedMap(message, 'object-key.answer', answerBytesMax);
  verifyMessage(answerDomain, 'object-key.answer', signed, agent);
  const fields = fieldsOf(signed.body, 'object-key.answer', ['v', 'reqHash', 'enc', 'ct']);
  fields.oneOf('v', [1]);
  if (!sameBytes(fields.bytes('reqHash', 64), hash)) fields.refuse('reqHash', 'that of the request expected');
  const key = openWith(
    secretKey,
    fields.bytes('enc', 32),
    infoOf(hash, agent),
    noAad,
    fields.bytes('ct', keyBytes + 16),
  );
  if (key.length === keyBytes) return key;
  return fields.refuse('ct', `a key of ${keyBytes} bytes expected`);
}

function parseRequest(value: unknown): ObjectKeyRequest {
  const fields = fieldsOf(value, 'object-key', names);
  const beat = fields.integer('beat', 0);
  const chain = fields.list('chain', capabilityLinksMax);
  const isLink = (link: unknown): link is Uint8Array =>
    link instanceof Uint8Array && link.length > 0 && link.length <= capabilityBytesMax;
  if (!chain.every(isLink))
    return fields.refuse('chain', `links of at most ${capabilityBytesMax} bytes expected`);
  return {
    v: fields.oneOf('v', [1]),
    reqId: fields.bytes('reqId', 32),
    cg: readGroup(fields, 'cg'),
    agent: fields.bytes('agent', 32),
    address: fields.text('address', addressBytesMax),
    version: fields.integer('version', 1),
    manifest: fields.cid('manifest'),
    beat,
    exp: fields.integer('exp', beat),
    chain,
    epk: fields.bytes('epk', 32),
    by: fields.bytes('by', 32),
  };
}

function infoOf(hash: Uint8Array, agent: Uint8Array): Uint8Array {
  return concat(hash, agent);
}
