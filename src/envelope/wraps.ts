// How a branch key is wrapped: one shape per kind of custody. All of them carry the label, which is what who
// unwraps decides on; each authenticates it in its own way. A new provider adds its shape and its parser here
// and nothing else changes.

import type { CID } from '../core/block.ts';
import { wrapProofMax } from '../core/limits.ts';
import { type Fields, fieldsOf, invalid, tagOf } from './fields.ts';
import { labelBytesMax, parseLabel, readGroup } from './label.ts';
import { nonceBytes, tagBytes } from './primitives.ts';

/** Wrapped by the development key file. */
export interface DevWrap {
  readonly t: 'dev';
  /** Which key file. */
  readonly kid: string;
  /** BkLabel as DAG-CBOR: authenticated, not secret. */
  readonly label: Uint8Array;
  readonly nonce: Uint8Array;
  /** 32 bytes and a tag. */
  readonly ct: Uint8Array;
}

/** A group element encrypted to a custody group with TDH2 (Shoup–Gennaro) in group-element form. */
export interface TdecWrap {
  readonly t: 'tdec';
  readonly cg: string;
  readonly kekVer: number;
  readonly label: Uint8Array;
  /** Points, 32 bytes each. */
  readonly U: Uint8Array;
  readonly Ubar: Uint8Array;
  readonly V: Uint8Array;
  /** Scalars, 32 bytes each: the proof that whoever wrapped it knew what. */
  readonly e: Uint8Array;
  readonly f: Uint8Array;
}

/** A `tdec` wrap that custodians switched to a newer key. Its proof is the rotation certificate. */
export interface SwitchedWrap {
  readonly t: 'tdec-ks';
  readonly cg: string;
  readonly kekVer: number;
  /** The label of the wrap before it, with the newer `kekVer`. */
  readonly label: Uint8Array;
  readonly U: Uint8Array;
  readonly V: Uint8Array;
  /** Record of the certificate page that lists it. */
  readonly cert: CID;
  /** Its place in that page. */
  readonly index: number;
  /** Path from its leaf to the page's Merkle root, digests of 32 bytes, lowest first. */
  readonly proof: readonly Uint8Array[];
  /** The branch-key or envelope record that holds the wrap it was made from. */
  readonly prev: CID;
}

/** Wrapped by a Transit engine (OpenBao, Vault). */
export interface TransitWrap {
  readonly t: 'transit';
  readonly mount: string;
  readonly key: string;
  /** Version of that key. */
  readonly ver: number;
  readonly label: Uint8Array;
  /** `vault:vN:…`. */
  readonly ct: string;
}

/** Wrapped inside a PKCS#11 token. */
export interface Pkcs11Wrap {
  readonly t: 'pkcs11';
  readonly token: string;
  readonly key: string;
  /** Name of the mechanism. */
  readonly mech: string;
  readonly label: Uint8Array;
  readonly iv: Uint8Array;
  readonly ct: Uint8Array;
}

/** Sealed with HPKE (RFC 9180) to a key that is kept offline. */
export interface RecoveryWrap {
  readonly t: 'recovery';
  readonly kid: string;
  readonly label: Uint8Array;
  /** Encapsulated key, 32 bytes. */
  readonly enc: Uint8Array;
  readonly ct: Uint8Array;
}

export type BkWrap = DevWrap | TdecWrap | SwitchedWrap | TransitWrap | Pkcs11Wrap | RecoveryWrap;

/** Key ids, names of mounts, tokens and keys. */
export const nameBytesMax = 128;
/** Providers that wrap one branch key: threshold, organisation, recovery, and as many again during a rotation. */
const wrapsMax = 8;
/** An answer of Transit is about 90 characters; of a token, 16 bytes more than the key, or a padded wrap of key and digest. */
const externalBytesMax = 512;
const pointBytes = 32;

const wrapParsers: { readonly [T in BkWrap['t']]: (value: unknown, where: string) => BkWrap } = {
  dev: parseDevWrap,
  tdec: parseTdecWrap,
  'tdec-ks': parseSwitchedWrap,
  transit: parseTransitWrap,
  pkcs11: parsePkcs11Wrap,
  recovery: parseRecoveryWrap,
};

/** Reads the field `wraps`: 1…8 wraps. Throws RECORD_INVALID naming the field under `where`. */
export function readWraps(fields: Fields, where: string): readonly BkWrap[] {
  const list = fields.list('wraps', wrapsMax);
  if (list.length === 0) fields.refuse('wraps', 'at least one wrap expected');
  return list.map((value, index) => parseWrap(value, `${where}.wraps[${index}]`));
}

/** Checks one wrap. Throws RECORD_INVALID naming the field under `where`. */
export function parseWrap(value: unknown, where = 'wrap'): BkWrap {
  const tag = tagOf(value, where, 't');
  if (!isWrapTag(tag)) throw invalid(`${where}.t`, `one of ${Object.keys(wrapParsers).join(', ')} expected`);
  return wrapParsers[tag](value, where);
}

function isWrapTag(tag: string): tag is BkWrap['t'] {
  return Object.hasOwn(wrapParsers, tag);
}

function parseDevWrap(value: unknown, where: string): DevWrap {
  const fields = fieldsOf(value, where, ['t', 'kid', 'label', 'nonce', 'ct']);
  return {
    t: fields.oneOf('t', ['dev']),
    kid: fields.text('kid', nameBytesMax),
    label: fields.bytesUpTo('label', labelBytesMax),
    nonce: fields.bytes('nonce', nonceBytes),
    ct: fields.bytes('ct', 32 + tagBytes),
  };
}

function parseTdecWrap(value: unknown, where: string): TdecWrap {
  const fields = fieldsOf(value, where, ['t', 'cg', 'kekVer', 'label', 'U', 'Ubar', 'V', 'e', 'f']);
  return {
    t: fields.oneOf('t', ['tdec']),
    ...readTarget(fields, where),
    U: fields.bytes('U', pointBytes),
    Ubar: fields.bytes('Ubar', pointBytes),
    V: fields.bytes('V', pointBytes),
    e: fields.bytes('e', 32),
    f: fields.bytes('f', 32),
  };
}

function parseSwitchedWrap(value: unknown, where: string): SwitchedWrap {
  const names = ['t', 'cg', 'kekVer', 'label', 'U', 'V', 'cert', 'index', 'proof', 'prev'];
  const fields = fieldsOf(value, where, names);
  return {
    t: fields.oneOf('t', ['tdec-ks']),
    ...readTarget(fields, where),
    U: fields.bytes('U', pointBytes),
    V: fields.bytes('V', pointBytes),
    cert: fields.cid('cert'),
    index: fields.integer('index', 0, 2 ** wrapProofMax - 1),
    proof: fields.bytesList('proof', 32, 0, wrapProofMax),
    prev: fields.cid('prev'),
  };
}

function parseTransitWrap(value: unknown, where: string): TransitWrap {
  const fields = fieldsOf(value, where, ['t', 'mount', 'key', 'ver', 'label', 'ct']);
  return {
    t: fields.oneOf('t', ['transit']),
    mount: fields.text('mount', nameBytesMax),
    key: fields.text('key', nameBytesMax),
    ver: fields.integer('ver', 1),
    label: fields.bytesUpTo('label', labelBytesMax),
    ct: fields.text('ct', externalBytesMax),
  };
}

function parsePkcs11Wrap(value: unknown, where: string): Pkcs11Wrap {
  const fields = fieldsOf(value, where, ['t', 'token', 'key', 'mech', 'label', 'iv', 'ct']);
  return {
    t: fields.oneOf('t', ['pkcs11']),
    token: fields.text('token', nameBytesMax),
    key: fields.text('key', nameBytesMax),
    mech: fields.text('mech', nameBytesMax),
    label: fields.bytesUpTo('label', labelBytesMax),
    iv: fields.bytesUpTo('iv', 16),
    ct: fields.bytesUpTo('ct', externalBytesMax),
  };
}

function parseRecoveryWrap(value: unknown, where: string): RecoveryWrap {
  const fields = fieldsOf(value, where, ['t', 'kid', 'label', 'enc', 'ct']);
  return {
    t: fields.oneOf('t', ['recovery']),
    kid: fields.text('kid', nameBytesMax),
    label: fields.bytesUpTo('label', labelBytesMax),
    enc: fields.bytes('enc', 32),
    ct: fields.bytes('ct', 32 + tagBytes),
  };
}

/** Group, version and label of a threshold wrap; its label must name the same group and version. */
function readTarget(
  fields: Fields,
  where: string,
): { readonly cg: string; readonly kekVer: number; readonly label: Uint8Array } {
  const cg = readGroup(fields, 'cg');
  const kekVer = fields.integer('kekVer', 1);
  const bytes = fields.bytesUpTo('label', labelBytesMax);
  const label = parseLabel(bytes);
  if (label.cg !== cg || label.kekVer !== kekVer)
    throw invalid(`${where}.label`, 'the group and key version of the wrap expected');
  return { cg, kekVer, label: bytes };
}
