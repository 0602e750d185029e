// What a KEK record says: one version of a custody group's key. Nothing here is secret.
//
// The key of a threshold group changes its life (state) and its shares (generation) without becoming another
// key. Each such step is a record of its own, numbered by `seq`, with a signature that t custodians made
// together (FROST, RFC 9591; verified as plain Ed25519). So whoever files the record needs no trust.
//
//   pre-active ──▶ active ──▶ decrypt-only ──▶ retired ──▶ destroyed        (names of NIST SP 800-57 part 1)
//        └───────────────────────────────────────────────────▲
//
// Wraps are made under `active`; shares serve in `active` and `decrypt-only`; `retired` serves nobody but keeps
// its shares until `destroyed` says that they are erased. There is no way back.

import { type CID, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { preimage, verifySignature } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import { type Fields, fieldsOf, tagOf, invalid } from './fields.ts';
import { readGroup } from './label.ts';
import { nameBytesMax } from './wraps.ts';

export const kekStates = ['pre-active', 'active', 'decrypt-only', 'retired', 'destroyed'] as const;
export type KekState = (typeof kekStates)[number];

interface KekCommon {
  /** Custody group. */
  readonly cg: string;
  /** From 1. */
  readonly ver: number;
  readonly state: KekState;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
}

export interface DevKek extends KekCommon {
  readonly provider: 'dev-file';
  readonly suite: 'dev-file-1';
  readonly kid: string;
}

export interface TransitKek extends KekCommon {
  readonly provider: 'transit';
  readonly suite: 'transit-1';
  readonly mount: string;
  readonly key: string;
}

export interface Pkcs11Kek extends KekCommon {
  readonly provider: 'pkcs11';
  readonly suite: 'pkcs11-1';
  readonly token: string;
  readonly key: string;
  readonly mech: string;
}

/** One custodian as the group knows it. */
export interface KekCustodian {
  /** Index of its shares, 1…n. */
  readonly i: number;
  /** Organisational unit. */
  readonly org: string;
  /** Peer id. */
  readonly peer: string;
  /** Ed25519 public key: signs answers, certificates and checkpoints. */
  readonly sigPk: Uint8Array;
  /** Long-term public key of the ceremony in which keys are made. */
  readonly dkgPk: Uint8Array;
  /** X25519 public key that dealings are sealed to; another one in each epoch. */
  readonly prekey: Uint8Array;
  readonly prekeyEpoch: number;
}

export interface TdecKek extends KekCommon {
  readonly provider: 'tdec';
  readonly suite: 'tdh2-r255-1';
  /** Number of this record among those of its version, from 1. */
  readonly seq: number;
  /** Custodians needed. */
  readonly t: number;
  /** Custodians there are. */
  readonly n: number;
  /** Public key, a ristretto255 point. */
  readonly Y: Uint8Array;
  /** Commitments to the polynomial of this generation: `t` points, the first is `Y`. */
  readonly C: readonly Uint8Array[];
  /** Generation of the shares, from 1. */
  readonly shareGen: number;
  /** Verification share of each custodian. */
  readonly Yi: readonly Uint8Array[];
  /** In order of `i`. */
  readonly custodians: readonly KekCustodian[];
  /** Hash of the transcript in which the key was made. */
  readonly dkgCert: Uint8Array;
  /** Ed25519 public key of the group: signs this record. The same for all versions. */
  readonly frostPk: Uint8Array;
  readonly frostYi: readonly Uint8Array[];
  /** First beat of wrapping under it. */
  readonly activateBeat: number;
  /** Beat from which nothing more is wrapped under it. */
  readonly retireBeat: number | null;
  /** 0: never by itself. */
  readonly refreshEveryBars: number;
  /** First version of the policy family that the group decides by. */
  readonly policyRoot: CID | null;
  readonly frostSig: Uint8Array;
}

export type KekFields = DevKek | TransitKek | Pkcs11Kek | TdecKek;

/** What t custodians sign: everything but the signature itself. */
export type UnsignedKek = Omit<TdecKek, 'frostSig'>;

const orgBytesMax = 64;
const peerBytesMax = 64;
const common = ['provider', 'suite', 'cg', 'ver', 'state', 'createdAt'];
const names: Readonly<Record<KekFields['provider'], readonly string[]>> = {
  'dev-file': [...common, 'kid'],
  transit: [...common, 'mount', 'key'],
  pkcs11: [...common, 'token', 'key', 'mech'],
  tdec: [
    ...common,
    'seq',
    't',
    'n',
    'Y',
    'C',
    'shareGen',
    'Yi',
    'custodians',
    'dkgCert',
    'frostPk',
    'frostYi',
    'activateBeat',
    'retireBeat',
    'refreshEveryBars',
    'policyRoot',
    'frostSig',
  ],
};

/** The bytes that `frostSig` signs. */
export function kekPreimage(kek: UnsignedKek | TdecKek): Uint8Array {
  return preimage('CHORUS-SLURP-KEK-v1', encodeCbor(kekSignedFields(kek)));
}

/** True when `frostSig` verifies under the record's own `frostPk`. Whether that key is the group's is for the caller. */
export function verifyKek(kek: TdecKek): boolean {
  return verifySignature(kek.frostPk, kekPreimage(kek), kek.frostSig);
}

/** Number of a KEK record among those of its version: only threshold groups have more than one. */
export function kekSeq(kek: KekFields): number {
  return kek.provider === 'tdec' ? kek.seq : 1;
}

const steps: Readonly<Record<KekState, readonly KekState[]>> = {
  'pre-active': ['active', 'destroyed'],
  active: ['decrypt-only'],
  'decrypt-only': ['retired'],
  retired: ['destroyed'],
  destroyed: [],
};

/**
 * Why `after` may not follow `before` as the next record of the same version, in words; undefined when it may.
 * The state stays or takes one step forward; shares move on by at most one generation, to others only while the key
 * serves; what the key is never changes.
 */
export function kekStepProblem(before: KekFields, after: KekFields): string | undefined {
  if (before.provider !== 'tdec' || after.provider !== 'tdec')
    return 'the key of this group is described once and for all';
  if (after.seq !== before.seq + 1) return `record ${after.seq} given, ${before.seq + 1} is next`;
  const constant = ['cg', 'ver', 'createdAt', 'Y', 'dkgCert', 'frostPk', 'policyRoot'] as const;
  const changed = constant.find((name) => !same(before[name], after[name]));
  if (changed !== undefined) return `${changed} of a key never changes`;
  if (after.state !== before.state && !steps[before.state].includes(after.state))
    return `${before.state} cannot become ${after.state}`;
  if (before.state === 'destroyed') return 'a destroyed key has no further record';
  return generationProblem(before, after);
}

/** Why `first` cannot begin a version, or undefined. */
export function kekFirstProblem(first: KekFields): string | undefined {
  if (first.provider !== 'tdec') return undefined;
  if (first.seq !== 1) return `record ${first.seq} given, 1 is first`;
  if (first.shareGen !== 1) return 'a new key begins with share generation 1';
  const allowed: readonly KekState[] = first.ver === 1 ? ['pre-active', 'active'] : ['pre-active'];
  return allowed.includes(first.state) ? undefined : `a new key does not begin ${first.state}`;
}

function generationProblem(before: TdecKek, after: TdecKek): string | undefined {
  if (after.shareGen === before.shareGen) {
    const shares = ['t', 'n', 'C', 'Yi', 'frostYi'] as const;
    const changed = shares.find((name) => !same(before[name], after[name]));
    if (changed !== undefined) return `${changed} changes only with the share generation`;
    return same(membersOf(before), membersOf(after))
      ? undefined
      : 'custodians change only with the share generation';
  }
  if (after.shareGen !== before.shareGen + 1)
    return `share generation ${after.shareGen} cannot follow ${before.shareGen}`;
  const serving = after.state === 'pre-active' || after.state === 'active' || after.state === 'decrypt-only';
  // It opens nothing more, and what somebody kept of its wraps its shares would still open: they are renewed, and go to nobody else.
  const isRenewed =
    before.state === 'retired' &&
    after.state === 'retired' &&
    before.t === after.t &&
    same(membersOf(before), membersOf(after));
  return serving || isRenewed ? undefined : `the shares of a ${after.state} key go to nobody else any more`;
}

function membersOf({ custodians }: TdecKek): unknown {
  return custodians.map(({ i, org, sigPk }) => ({ i, org, sigPk }));
}

function same(a: unknown, b: unknown): boolean {
  return sameBytes(encodeCbor(a), encodeCbor(b));
}

/** Reads the fields of a KEK out of `value`, which holds `headNames` beside them. Throws RECORD_INVALID. */
export function readKek(value: unknown, headNames: readonly string[]): { kek: KekFields; fields: Fields } {
  const provider = tagOf(value, 'kek', 'provider');
  if (!isProvider(provider))
    throw invalid('kek.provider', `one of ${Object.keys(names).join(', ')} expected`);
  const fields = fieldsOf(value, 'kek', [...headNames, ...names[provider]]);
  return { kek: readers[provider](fields), fields };
}

const readers: { readonly [P in KekFields['provider']]: (fields: Fields) => KekFields } = {
  'dev-file': (fields) => ({
    ...readCommon(fields),
    suite: fields.oneOf('suite', ['dev-file-1']),
    provider: fields.oneOf('provider', ['dev-file']),
    kid: fields.text('kid', nameBytesMax),
  }),
  transit: (fields) => ({
    ...readCommon(fields),
    suite: fields.oneOf('suite', ['transit-1']),
    provider: fields.oneOf('provider', ['transit']),
    mount: fields.text('mount', nameBytesMax),
    key: fields.text('key', nameBytesMax),
  }),
  pkcs11: (fields) => ({
    ...readCommon(fields),
    suite: fields.oneOf('suite', ['pkcs11-1']),
    provider: fields.oneOf('provider', ['pkcs11']),
    token: fields.text('token', nameBytesMax),
    key: fields.text('key', nameBytesMax),
    mech: fields.text('mech', nameBytesMax),
  }),
  tdec: readTdec,
};

function isProvider(text: string): text is KekFields['provider'] {
  return Object.hasOwn(names, text);
}

function readCommon(fields: Fields): KekCommon {
  return {
    cg: readGroup(fields, 'cg'),
    ver: fields.integer('ver', 1),
    state: fields.oneOf('state', kekStates),
    createdAt: readInstant(fields, 'createdAt'),
  };
}

function readTdec(fields: Fields): TdecKek {
  const n = fields.integer('n', 2, custodiansMax);
  const t = fields.integer('t', 2, n);
  const points = (name: string, count: number): readonly Uint8Array[] =>
    fields.bytesList(name, 32, count, count);
  const kek: TdecKek = {
    ...readCommon(fields),
    suite: fields.oneOf('suite', ['tdh2-r255-1']),
    provider: fields.oneOf('provider', ['tdec']),
    seq: fields.integer('seq', 1),
    t,
    n,
    Y: fields.bytes('Y', 32),
    C: points('C', t),
    shareGen: fields.integer('shareGen', 1),
    Yi: points('Yi', n),
    custodians: readCustodians(fields, n),
    dkgCert: fields.bytes('dkgCert', 64),
    frostPk: fields.bytes('frostPk', 32),
    frostYi: points('frostYi', n),
    activateBeat: fields.integer('activateBeat', 0),
    retireBeat: fields.integerOrNull('retireBeat', 0),
    refreshEveryBars: fields.integer('refreshEveryBars', 0),
    policyRoot: fields.cidOrNull('policyRoot'),
    frostSig: fields.bytes('frostSig', 64),
  };
  if (!same(kek.C[0], kek.Y)) fields.refuse('C', 'the public key as its first point expected');
  return kek;
}

function readCustodians(fields: Fields, n: number): readonly KekCustodian[] {
  const list = fields.list('custodians', n);
  if (list.length !== n) fields.refuse('custodians', `${n} custodians expected`);
  const custodians = list.map((value, index) => readCustodian(value, index));
  for (const name of ['peer', 'sigPk', 'dkgPk', 'prekey'] as const)
    if (new Set(custodians.map((each) => String(each[name]))).size !== n)
      fields.refuse('custodians', `a ${name} of its own for each expected`);
  return custodians;
}

function readCustodian(value: unknown, index: number): KekCustodian {
  const custodianNames = ['i', 'org', 'peer', 'sigPk', 'dkgPk', 'prekey', 'prekeyEpoch'];
  const fields = fieldsOf(value, `kek.custodians[${index}]`, custodianNames);
  return {
    i: fields.integer('i', index + 1, index + 1),
    org: fields.text('org', orgBytesMax),
    peer: fields.text('peer', peerBytesMax),
    sigPk: fields.bytes('sigPk', 32),
    dkgPk: fields.bytes('dkgPk', 32),
    prekey: fields.bytes('prekey', 32),
    prekeyEpoch: fields.integer('prekeyEpoch', 0),
  };
}

/** What the group signs: without the signature and whatever a record adds around the fields of the key. */
export function kekSignedFields(kek: UnsignedKek | TdecKek): Record<string, unknown> {
  const signed = new Set(names.tdec.filter((name) => name !== 'frostSig'));
  return Object.fromEntries(Object.entries(kek).filter(([name]) => signed.has(name)));
}

const instantPattern = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$/;

function readInstant(fields: Fields, field: string): string {
  const text = fields.text(field, 40);
  if (!instantPattern.test(text) || Number.isNaN(Date.parse(text)))
    fields.refuse(field, 'an RFC 3339 instant in UTC expected');
  return text;
}
