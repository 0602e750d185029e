// What both halves of a ceremony compute alike: who takes part, what the session is called, what the record will
// say that the custodians sign at its end.
//
// Every session begins with a signed hello of each who takes part, with fresh random bytes of its own in it. The
// session is named by a hash of all hellos, so no message of an earlier one fits into it, whatever the coordinator
// keeps. The coordinator is believed in nothing: each custodian computes the next record itself from what was signed.

import { type CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { uint32, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256, type Signer, verifySignature } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import { Memo } from '../core/memo.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { type KekCustodian, type TdecKek, type UnsignedKek, verifyKek } from '../envelope/kek.ts';
import { parseKek } from '../envelope/records.ts';
import { openRecord } from '../manifest/record.ts';
import type { Fault } from '../threshold/fault.ts';
import type { Group, HashGroup } from '../threshold/group.ts';
import { isKeySet, type KeySet } from '../threshold/key-set.ts';
import { collectSteps, signStep } from '../threshold/signed-step.ts';

export const ceremonyKinds = ['init', 'refresh', 'reshare', 'repair', 'rotate'] as const;
export type CeremonyKind = (typeof ceremonyKinds)[number];

/** The groups of the two keys: of the KEK, and of the signing key. */
export interface CustodyGroups {
  readonly kek: HashGroup;
  readonly frost: Group;
}

/** One value for each of the two keys. */
export interface Both<T> {
  readonly kek: T;
  readonly frost: T;
}

/** What a custodian says at the beginning of a session. */
export interface Hello {
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly dkgPk: Uint8Array;
  /** Its key in the generation of the signing key, for this session only; null in all others. */
  readonly frostDkgPk: Uint8Array | null;
  /** What is dealt to it now is sealed to this. */
  readonly prekey: Uint8Array;
  readonly prekeyEpoch: number;
  /** What will be dealt to it after the next activation. */
  readonly nextPrekey: Uint8Array;
  readonly nextEpoch: number;
  /** Generation of its active shares of both keys; 0 when it has none. */
  readonly gen: number;
  /** Commitments to the signing key in that generation; empty when it has none. */
  readonly frostC: readonly Uint8Array[];
}

/** Who takes part, in an order that all agree on. */
export interface Participant {
  readonly peer: PeerName;
  readonly sigPk: Uint8Array;
}

const helloNames = [
  'nonce',
  'dkgPk',
  'frostDkgPk',
  'prekey',
  'prekeyEpoch',
  'nextPrekey',
  'nextEpoch',
  'gen',
  'frostC',
];

/** Name of an attempt, under which hellos are signed. `order`: hash of the order, empty without one; `base`: CID of the present KEK record. */
export function attemptId(
  kind: CeremonyKind,
  cg: string,
  attempt: Uint8Array,
  order: Uint8Array,
  base: CID | undefined,
): Uint8Array {
  const parts = [utf8(kind), utf8(cg), attempt, order, base?.bytes ?? new Uint8Array(0)];
  return sha256(preimage('CHORUS-SLURP-ATTEMPT-v1', ...parts.flatMap((part) => [uint32(part.length), part])));
}

export function signHello(signer: Signer, attempt: Uint8Array, from: number, hello: Hello): Uint8Array {
  return signStep(signer, attempt, 'hello', from, encodeCbor(hello));
}

/** Hellos by the place (1…) of who signed them. Throws RECORD_INVALID for one that has another form. */
export function readHellos(
  participants: readonly Participant[],
  attempt: Uint8Array,
  messages: readonly Uint8Array[],
): ReadonlyMap<number, Hello> {
  const keys = participants.map(({ sigPk }) => sigPk);
  const { steps, faults } = collectSteps(keys, attempt, 'hello', messages);
  if (faults.length > 0) throw broken('hello', faults);
  return new Map(steps.map(({ from, body }) => [from, parseHello(decodeCbor(body, 'hello'))]));
}

function parseHello(value: unknown): Hello {
  const fields = fieldsOf(value, 'hello', helloNames);
  return {
    nonce: fields.bytes('nonce', 32),
    dkgPk: fields.bytes('dkgPk', 32),
    frostDkgPk: fields.bytesOrNull('frostDkgPk', 32),
    prekey: fields.bytes('prekey', 32),
    prekeyEpoch: fields.integer('prekeyEpoch', 0),
    nextPrekey: fields.bytes('nextPrekey', 32),
    nextEpoch: fields.integer('nextEpoch', 0),
    gen: fields.integer('gen', 0),
    frostC: fields.bytesList('frostC', 32, 0, custodiansMax),
  };
}

/** 32 bytes that name the session: no two are the same, as each honest hello has fresh bytes in it. */
export function sessionNonce(attempt: Uint8Array, hellos: readonly Uint8Array[]): Uint8Array {
  const sorted = hellos.toSorted((a, b) => (a[0] ?? 0) - (b[0] ?? 0));
  return sha256(preimage('CHORUS-SLURP-CEREMONY-v1', attempt, ...sorted.map((each) => sha256(each))));
}

/** The newest KEK record of a group, proven to be signed by the group whose key is `frostPk`. */
export interface BaseKek {
  readonly cid: CID;
  readonly kek: TdecKek;
}

/** Reads a KEK record of a threshold group. Whether its `frostPk` is the group's is for the caller. Throws RECORD_INVALID. */
export function readBase(bytes: Uint8Array): BaseKek {
  return bases.of(bytes, () => readNow(bytes));
}

/** Of the few versions of a key, which every step of a ceremony begins with. */
const bases = new Memo<BaseKek>(64);

function readNow(bytes: Uint8Array): BaseKek {
  const { cid, body } = openRecord(bytes);
  const { kind: _, v: __, writer: ___, prev: ____, ...kek } = parseKek(body);
  if (kek.provider !== 'tdec' || !verifyKek(kek))
    throw new HoldfastError('RECORD_INVALID', 'kek: no record of a custody group, or not signed by one');
  return { cid, kek };
}

/** The public parts of both keys in the present generation; the commitments to the signing key are in the hellos. */
export function baseKeys(
  groups: CustodyGroups,
  kek: TdecKek,
  hellos: ReadonlyMap<number, Hello>,
): Both<KeySet> {
  const { t, n, Y, C, Yi, frostPk, frostYi } = kek;
  for (const { gen, frostC } of hellos.values()) {
    const frost = { t, n, Y: frostPk, C: frostC, Yi: frostYi };
    // The signed verification shares leave one polynomial only, so whoever says it, it is the right one.
    if (gen === kek.shareGen && frostC.length === t && isKeySet(groups.frost, frost))
      return { kek: { t, n, Y, C, Yi }, frost };
  }
  throw new HoldfastError('KEY_UNAVAILABLE', 'no custodian has the shares of the present generation');
}

/** What a custodian signs when it has verified and stored its shares of the next generation. */
export function epochPreimage(
  kek: Pick<TdecKek, 'cg' | 'ver'>,
  toGen: number,
  transcript: Uint8Array,
): Uint8Array {
  return preimage(
    'CHORUS-SLURP-EPOCH-v1',
    uint32(utf8(kek.cg).length),
    utf8(kek.cg),
    uint32(kek.ver),
    uint32(toGen),
    transcript,
  );
}

/** Indices of a list of attestations whose signatures verify. */
export function attestedBy(
  attestations: readonly { readonly i: number; readonly sig: Uint8Array }[],
  custodians: readonly Pick<KekCustodian, 'i' | 'sigPk'>[],
  signed: Uint8Array,
): number[] {
  const known = new Map(custodians.map(({ i, sigPk }) => [i, sigPk]));
  const good = attestations.filter(({ i, sig }) => {
    const key = known.get(i);
    return key !== undefined && verifySignature(key, signed, sig);
  });
  return [...new Set(good.map(({ i }) => i))].toSorted((a, b) => a - b);
}

/** Fields of a KEK without what the group signs them with. */
export function unsigned(kek: TdecKek): UnsignedKek {
  const { frostSig: _, ...fields } = kek;
  return fields;
}

/** Faults as an error that names who did what. */
export function broken(step: string, faults: readonly Fault[]): HoldfastError {
  const text = faults.map(({ culprit, as, reason }) =>
    culprit === 0 ? `${reason} (on the way)` : `${as ?? 'custodian'} ${culprit}: ${reason}`,
  );
  return new HoldfastError('RECORD_INVALID', `ceremony step ${step}: ${text.join(', ')}`, {
    details: { step, culprits: faults.map(({ culprit }) => String(culprit)) },
  });
}
