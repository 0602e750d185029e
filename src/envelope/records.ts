// The bodies of the three key records: envelope, branch key, KEK. Bodies and their rules only: signing and
// opening the record around them is the caller's, and so is choosing the newest version.

import type { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { branchKeyUsesMax } from '../core/limits.ts';
import { type ContentClass, contentClasses, objectIdBytes } from './aad.ts';
import { type Fields, fieldsOf, invalid, tagOf } from './fields.ts';
import { type KekFields, readKek } from './kek.ts';
import { type BkLabel, type BranchScope, branchKeyIdBytes, parseLabel, readScope } from './label.ts';
import { commitBytes, dekWrapBytes } from './wrap.ts';
import { type BkWrap, readWraps } from './wraps.ts';

export type { KekFields } from './kek.ts';
export type { BkWrap, DevWrap } from './wraps.ts';

/** What every signed record begins with. */
interface RecordHead {
  readonly v: 1;
  /** Ed25519 public key of who signs. */
  readonly writer: Uint8Array;
  /** The record that this one replaces. */
  readonly prev: CID | null;
}

interface EnvelopeCommon extends RecordHead {
  readonly kind: 'envelope';
  readonly objId: Uint8Array;
  /** From 1; rises with each re-wrap. */
  readonly envVer: number;
  /** The DEK under the wrapping key: nonce 12 ‖ ciphertext 32 ‖ tag 16. */
  readonly wrap: Uint8Array;
  readonly policy: CID | null;
  readonly cls: ContentClass;
  /** Beat at which it was wrapped. */
  readonly beat: number;
}

/** The DEK is wrapped under a branch key, which has a record of its own and serves many objects. */
export interface BranchEnvelope extends EnvelopeCommon {
  readonly mode: 'branch';
  readonly bkId: Uint8Array;
  readonly bkVer: number;
}

/** The DEK is wrapped under a key of its own, made and guarded like a branch key and described right here. */
export interface DirectEnvelope extends EnvelopeCommon {
  readonly mode: 'direct';
  readonly key: ObjectKey;
}

/** What a branch-key record would say of a key that serves one object. Its id is that of the object. */
export interface ObjectKey {
  /** Version of the envelope in which this key was first wrapped. */
  readonly bkVer: number;
  readonly scope: BranchScope;
  readonly commit: Uint8Array;
  readonly combiner: 'any' | 'all';
  readonly wraps: readonly BkWrap[];
}

/** How one object's DEK is wrapped. */
export type EnvelopeBody = BranchEnvelope | DirectEnvelope;

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

export type KekBody = RecordHead & { readonly kind: 'kek' } & KekFields;

export type KeyRecordBody = EnvelopeBody | BranchKeyBody | KekBody;

const headNames = ['kind', 'v', 'writer', 'prev'] as const;
const envelopeNames = [...headNames, 'objId', 'envVer', 'mode', 'wrap', 'policy', 'cls', 'beat'];
const branchKeyNames = [
  ...headNames,
  ...(['bkId', 'bkVer', 'scope', 'maxWraps', 'commit', 'combiner', 'wraps'] as const),
];

/** Checks the body of an envelope record. Throws RECORD_INVALID naming the field. */
export function parseEnvelope(body: unknown): EnvelopeBody {
  return tagOf(body, 'envelope', 'mode') === 'direct' ? parseDirect(body) : parseBranched(body);
}

function parseBranched(body: unknown): BranchEnvelope {
  const fields = fieldsOf(body, 'envelope', [...envelopeNames, 'bkId', 'bkVer']);
  return {
    ...readEnvelope(fields),
    mode: fields.oneOf('mode', ['branch']),
    bkId: fields.bytes('bkId', branchKeyIdBytes),
    bkVer: fields.integer('bkVer', 1),
  };
}

function parseDirect(body: unknown): DirectEnvelope {
  const fields = fieldsOf(body, 'envelope', [...envelopeNames, 'key']);
  const common = readEnvelope(fields);
  const key = fields.map('key', ['bkVer', 'scope', 'commit', 'combiner', 'wraps']);
  const parsed: DirectEnvelope = {
    ...common,
    mode: fields.oneOf('mode', ['direct']),
    key: {
      bkVer: key.integer('bkVer', 1, common.envVer),
      scope: readScope(key.map('scope', scopeNames)),
      commit: key.bytes('commit', commitBytes),
      combiner: key.oneOf('combiner', ['any', 'all']),
      wraps: readWraps(key, 'envelope.key'),
    },
  };
  if (parsed.key.scope.cls !== parsed.cls) fields.refuse('cls', 'the class of its key expected');
  checkLabels(objectKeyBody(parsed), 'envelope.key', parsed.policy);
  return parsed;
}

function readEnvelope(fields: Fields): EnvelopeCommon {
  return {
    kind: fields.oneOf('kind', ['envelope']),
    ...readHead(fields),
    objId: fields.bytes('objId', objectIdBytes),
    envVer: fields.integer('envVer', 1),
    wrap: fields.bytes('wrap', dekWrapBytes),
    policy: fields.cidOrNull('policy'),
    cls: fields.oneOf('cls', contentClasses),
    beat: fields.integer('beat', 0),
  };
}

/** An object's own key as the branch-key record that it would be: everything that opens keys takes it. */
export function objectKeyBody(envelope: DirectEnvelope): BranchKeyBody {
  const { writer, objId, key } = envelope;
  return { kind: 'branch-key', v: 1, writer, prev: null, bkId: objId, maxWraps: 1, ...key };
}

/** Id and version of the key that an envelope's DEK is wrapped under: what its wrap is bound to. */
export function keyOfEnvelope(envelope: EnvelopeBody): Pick<BranchKeyBody, 'bkId' | 'bkVer'> {
  return envelope.mode === 'branch'
    ? { bkId: envelope.bkId, bkVer: envelope.bkVer }
    : { bkId: envelope.objId, bkVer: envelope.key.bkVer };
}

/** The first version of the policy family that governs a branch key; null where there is none. */
export function policyOfKey(body: BranchKeyBody): CID | null {
  const [wrap] = body.wraps;
  return wrap === undefined ? null : parseLabel(wrap.label).policy;
}

/**
 * Why `after` may not follow `before` as the next version of an envelope, or undefined: class and policy stay,
 * and a key of the object's own never becomes a shared one. What had no policy may come under one.
 */
export function envelopeStepProblem(before: EnvelopeBody, after: EnvelopeBody): string | undefined {
  if (before.cls !== after.cls) return `${before.cls} cannot become ${after.cls}`;
  if (before.mode === 'direct' && after.mode !== 'direct')
    return 'a key of its own cannot become a shared one';
  if (before.policy === null) return undefined;
  return samePolicy(before.policy, after.policy) ? undefined : 'the policy family never changes';
}

/**
 * Why `after` may not follow `before` as the next version of a branch key, or undefined: the key stays the same,
 * wrapped anew, for the same scope, under the same policy family.
 */
export function branchKeyStepProblem(before: BranchKeyBody, after: BranchKeyBody): string | undefined {
  const { scope: a } = before;
  const { scope: b } = after;
  const sameScope =
    a.project === b.project &&
    a.cls === b.cls &&
    sameBytes(a.writer, b.writer) &&
    a.window[0] === b.window[0] &&
    a.window[1] === b.window[1];
  if (!sameScope) return 'the scope of a branch key never changes';
  return samePolicy(policyOfKey(before), policyOfKey(after)) ? undefined : 'the policy family never changes';
}

/** Checks the body of a branch-key record, its wraps and their labels. Throws RECORD_INVALID naming the field. */
export function parseBranchKey(body: unknown): BranchKeyBody {
  const fields = fieldsOf(body, 'branch-key', branchKeyNames);
  const parsed: BranchKeyBody = {
    kind: fields.oneOf('kind', ['branch-key']),
    ...readHead(fields),
    bkId: fields.bytes('bkId', branchKeyIdBytes),
    bkVer: fields.integer('bkVer', 1),
    scope: readScope(fields.map('scope', scopeNames)),
    maxWraps: fields.integer('maxWraps', 1, branchKeyUsesMax),
    commit: fields.bytes('commit', commitBytes),
    combiner: fields.oneOf('combiner', ['any', 'all']),
    wraps: readWraps(fields, 'branch-key'),
  };
  checkLabels(parsed, 'branch-key', policyOfKey(parsed));
  return parsed;
}

/** Checks the body of a KEK record. Throws RECORD_INVALID naming the field. */
export function parseKek(body: unknown): KekBody {
  const { kek, fields } = readKek(body, headNames);
  return { kind: fields.oneOf('kind', ['kek']), ...readHead(fields), ...kek };
}

/** Checks a body of any of the three kinds. */
export function parseKeyRecord(body: unknown): KeyRecordBody {
  const kind = tagOf(body, 'record', 'kind');
  if (kind === 'envelope') return parseEnvelope(body);
  if (kind === 'branch-key') return parseBranchKey(body);
  if (kind === 'kek') return parseKek(body);
  throw invalid('record.kind', 'envelope, branch-key or kek expected');
}

const scopeNames = ['project', 'cls', 'writer', 'window'] as const;

function readHead(fields: Fields): RecordHead {
  return { v: fields.oneOf('v', [1]), writer: fields.bytes('writer', 32), prev: fields.cidOrNull('prev') };
}

/** A label that says something else than its record would let a wrap serve another scope. */
function checkLabels(body: BranchKeyBody, where: string, policy: CID | null): void {
  body.wraps.forEach((wrap, index) => {
    const label = parseLabel(wrap.label);
    if (!isLabelOf(body, label))
      throw invalid(`${where}.wraps[${index}].label`, 'the id, version and scope of the record expected');
    if (!samePolicy(label.policy, policy))
      throw invalid(`${where}.wraps[${index}].label`, 'the policy of the record expected');
  });
}

function isLabelOf({ bkId, bkVer, scope }: BranchKeyBody, label: BkLabel): boolean {
  return (
    sameBytes(label.bkId, bkId) &&
    label.bkVer <= bkVer && // a key wrapped anew keeps the version that it was made in
    label.project === scope.project &&
    label.cls === scope.cls &&
    sameBytes(label.writer, scope.writer) &&
    label.window[0] === scope.window[0] &&
    label.window[1] === scope.window[1]
  );
}

function samePolicy(a: CID | null, b: CID | null): boolean {
  return a === null || b === null ? a === b : sameBytes(a.bytes, b.bytes);
}
