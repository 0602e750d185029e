// The bodies of the three key records (CUSTODY.md 2.8): envelope, branch key, KEK. Bodies and their rules
// only: signing and opening the record around them is the caller's, and so is choosing the newest version.

import { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { branchKeyUsesMax } from '../core/limits.ts';
import { type ContentClass, contentClasses, objectIdBytes } from './aad.ts';
import { type Fields, fieldsOf, invalid, tagOf } from './fields.ts';
import {
  type BkLabel,
  type BranchScope,
  branchKeyIdBytes,
  groupNameBytesMax,
  labelBytesMax,
  parseLabel,
  readScope,
} from './label.ts';
import { nonceBytes, tagBytes } from './primitives.ts';
import { commitBytes, dekWrapBytes } from './wrap.ts';

/** What every signed record begins with. */
interface RecordHead {
  readonly v: 1;
  /** Ed25519 public key of who signs. */
  readonly writer: Uint8Array;
  /** The record that this one replaces. */
  readonly prev: CID | null;
}

/** How one object's DEK is wrapped under a branch key. */
export interface EnvelopeBody extends RecordHead {
  readonly kind: 'envelope';
  readonly objId: Uint8Array;
  /** From 1; rises with each re-wrap. */
  readonly envVer: number;
  readonly mode: 'branch';
  readonly bkId: Uint8Array;
  readonly bkVer: number;
  /** nonce 12 ‖ ciphertext 32 ‖ tag 16. */
  readonly wrap: Uint8Array;
  readonly policy: CID | null;
  readonly cls: ContentClass;
  /** Beat at which it was wrapped. */
  readonly beat: number;
}

/** How one branch key is wrapped by one or more providers. */
export interface BranchKeyBody extends RecordHead {
  readonly kind: 'branch-key';
  readonly bkId: Uint8Array;
  /** From 1; rises with each re-wrap. */
  readonly bkVer: number;
  readonly scope: BranchScope;
  /** DEKs it may wrap. */
  readonly maxWraps: number;
  /** Commits to the branch key: a wrong one is recognised. */
  readonly commit: Uint8Array;
  /** `any`: one wrap suffices; `all`: the key is made of every one. */
  readonly combiner: 'any' | 'all';
  readonly wraps: readonly BkWrap[];
}

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

/** All kinds of wrap. A new provider adds its shape here and its parser to `wrapParsers`: nothing else changes. */
export type BkWrap = DevWrap;

const kekStates = ['pre-active', 'active', 'decrypt-only', 'retired', 'destroyed'] as const;
type KekState = (typeof kekStates)[number];

/** One version of a custody group's key: what the provider itself says about it. */
export interface KekFields {
  /** Custody group. */
  readonly cg: string;
  /** From 1. */
  readonly ver: number;
  readonly suite: 'dev-file-1';
  readonly state: KekState;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly provider: 'dev-file';
  readonly kid: string;
}

export interface KekBody extends RecordHead, KekFields {
  readonly kind: 'kek';
}

export type KeyRecordBody = EnvelopeBody | BranchKeyBody | KekBody;

const kidBytesMax = 128;
/** Providers that wrap one branch key: threshold, organisation, recovery, and as many again during a rotation. */
const wrapsMax = 8;
const headNames = ['kind', 'v', 'writer', 'prev'] as const;
const envelopeNames = [
  ...headNames,
  ...(['objId', 'envVer', 'mode', 'bkId', 'bkVer', 'wrap', 'policy', 'cls', 'beat'] as const),
];
const branchKeyNames = [
  ...headNames,
  ...(['bkId', 'bkVer', 'scope', 'maxWraps', 'commit', 'combiner', 'wraps'] as const),
];
const kekNames = [...headNames, 'cg', 'ver', 'suite', 'state', 'createdAt', 'provider', 'kid'];

/** Checks the body of an envelope record. Throws RECORD_INVALID naming the field. */
export function parseEnvelope(body: unknown): EnvelopeBody {
  const fields = fieldsOf(body, 'envelope', envelopeNames);
  return {
    kind: fields.oneOf('kind', ['envelope']),
    ...readHead(fields),
    objId: fields.bytes('objId', objectIdBytes),
    envVer: fields.integer('envVer', 1),
    mode: fields.oneOf('mode', ['branch']),
    bkId: fields.bytes('bkId', branchKeyIdBytes),
    bkVer: fields.integer('bkVer', 1),
    wrap: fields.bytes('wrap', dekWrapBytes),
    policy: fields.cidOrNull('policy'),
    cls: fields.oneOf('cls', contentClasses),
    beat: fields.integer('beat', 0),
  };
}

/** Checks the body of a branch-key record, its wraps and their labels. Throws RECORD_INVALID naming the field. */
export function parseBranchKey(body: unknown): BranchKeyBody {
  const fields = fieldsOf(body, 'branch-key', branchKeyNames);
  const parsed: BranchKeyBody = {
    kind: fields.oneOf('kind', ['branch-key']),
    ...readHead(fields),
    bkId: fields.bytes('bkId', branchKeyIdBytes),
    bkVer: fields.integer('bkVer', 1),
    scope: readScope(fields.map('scope', ['project', 'cls', 'writer', 'window'])),
    maxWraps: fields.integer('maxWraps', 1, branchKeyUsesMax),
    commit: fields.bytes('commit', commitBytes),
    combiner: fields.oneOf('combiner', ['any', 'all']),
    wraps: readWraps(fields),
  };
  parsed.wraps.forEach((wrap, index) => checkLabel(parsed, parseLabel(wrap.label), index));
  return parsed;
}

/** Checks the body of a KEK record. Throws RECORD_INVALID naming the field. */
export function parseKek(body: unknown): KekBody {
  const fields = fieldsOf(body, 'kek', kekNames);
  return {
    kind: fields.oneOf('kind', ['kek']),
    ...readHead(fields),
    cg: fields.text('cg', groupNameBytesMax),
    ver: fields.integer('ver', 1),
    suite: fields.oneOf('suite', ['dev-file-1']),
    state: fields.oneOf('state', kekStates),
    createdAt: readInstant(fields, 'createdAt'),
    provider: fields.oneOf('provider', ['dev-file']),
    kid: fields.text('kid', kidBytesMax),
  };
}

/** Checks a body of any of the three kinds. */
export function parseKeyRecord(body: unknown): KeyRecordBody {
  const kind = tagOf(body, 'record', 'kind');
  if (kind === 'envelope') return parseEnvelope(body);
  if (kind === 'branch-key') return parseBranchKey(body);
  if (kind === 'kek') return parseKek(body);
  throw invalid('record.kind', 'envelope, branch-key or kek expected');
}

const wrapParsers: Readonly<Record<BkWrap['t'], (value: unknown, where: string) => BkWrap>> = {
  dev: parseDevWrap,
};

function readHead(fields: Fields): RecordHead {
  return { v: fields.oneOf('v', [1]), writer: fields.bytes('writer', 32), prev: fields.cidOrNull('prev') };
}

function readWraps(fields: Fields): readonly BkWrap[] {
  const list = fields.list('wraps', wrapsMax);
  if (list.length === 0) fields.refuse('wraps', 'at least one wrap expected');
  return list.map((value, index) => readWrap(value, `branch-key.wraps[${index}]`));
}

function readWrap(value: unknown, where: string): BkWrap {
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
    kid: fields.text('kid', kidBytesMax),
    label: fields.bytesUpTo('label', labelBytesMax),
    nonce: fields.bytes('nonce', nonceBytes),
    ct: fields.bytes('ct', 32 + tagBytes),
  };
}

/** A label that says something else than its record would let a wrap serve another scope. */
function checkLabel(body: BranchKeyBody, label: BkLabel, index: number): void {
  const { scope } = body;
  const same =
    sameBytes(label.bkId, body.bkId) &&
    label.bkVer === body.bkVer &&
    label.project === scope.project &&
    label.cls === scope.cls &&
    sameBytes(label.writer, scope.writer) &&
    label.window[0] === scope.window[0] &&
    label.window[1] === scope.window[1];
  if (!same)
    throw invalid(`branch-key.wraps[${index}].label`, 'the id, version and scope of the record expected');
}

const instantPattern = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/;

function readInstant(fields: Fields, field: string): string {
  const text = fields.text(field, 40);
  if (!instantPattern.test(text) || Number.isNaN(Date.parse(text)))
    fields.refuse(field, 'an RFC 3339 instant in UTC expected');
  return text;
}
