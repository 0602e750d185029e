// A custody group for tests of records and decisions: real signatures, points that are merely 32 bytes. The group's
// own key is a plain Ed25519 key here, which is what its FROST signatures verify as.

import type { CID } from '../../src/core/block.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { sha256, type Signer, signerFromSeed } from '../../src/core/hash.ts';
import { type CapabilityLink, signCapability } from '../../src/custody/capability.ts';
import {
  type CertificateBody,
  certificatePreimage,
  type EpochCertificate,
  type RotationCertificate,
} from '../../src/custody/certificate.ts';
import { defaultPolicy, fullCapability } from '../../src/custody/default-policy.ts';
import { type PolicyBody, policyPreimage } from '../../src/custody/policy.ts';
import {
  type CustodyRequest,
  encodeRequest,
  openRequest,
  type OpenedRequest,
  signRequest,
} from '../../src/custody/request.ts';
import type { RevocationBody, Revoked } from '../../src/custody/revocation.ts';
import { kekPreimage, type TdecKek, type UnsignedKek } from '../../src/envelope/kek.ts';
import { type BkLabel, encodeLabel } from '../../src/envelope/label.ts';
import type { KekBody } from '../../src/envelope/records.ts';
import type { TdecWrap } from '../../src/envelope/wraps.ts';
import { signRecord, type SignedRecord } from '../../src/manifest/record.ts';

export const cg = 'prod';
export const group = someSigner('group');
export const authority = someSigner('authority');
export const requester = someSigner('requester');
export const steward = someSigner('steward');

export function someSigner(name: string): Signer {
  return signerFromSeed(new Uint8Array(sha256(utf8(`signer ${name}`))));
}

/** 32 bytes that only `name` gives: stands for a point, a scalar or a key where nobody computes with it. */
export function bytes32(name: string): Uint8Array {
  return new Uint8Array(sha256(utf8(name)));
}

export function bytes64(name: string): Uint8Array {
  return new Uint8Array([...bytes32(`${name} a`), ...bytes32(`${name} b`)]);
}

export const family = bytes32('family').subarray(0, 16);
export const rootPolicy: SignedRecord<PolicyBody> = signRecord(
  defaultPolicy({ cg, family, writer: steward.publicKey, authorities: [authority.publicKey] }),
  steward,
);

/** The version after `before` with `changes`, signed by the group. */
export function nextPolicy(
  before: SignedRecord<PolicyBody>,
  changes: Partial<PolicyBody> = {},
  signer: Signer = group,
): SignedRecord<PolicyBody> {
  const unsigned = { ...before.body, ver: before.body.ver + 1, prev: before.cid, ...changes };
  return signRecord({ ...unsigned, frostSig: signer.sign(policyPreimage(unsigned)) }, steward);
}

export function someUnsignedKek(changes: Partial<UnsignedKek> = {}): UnsignedKek {
  const ver = changes.ver ?? 1;
  const n = changes.n ?? 3;
  const t = changes.t ?? 2;
  const gen = changes.shareGen ?? 1;
  const each = <T>(make: (i: number) => T): T[] => Array.from({ length: n }, (_, at) => make(at + 1));
  const Y = bytes32(`Y ${ver}`);
  return {
    provider: 'tdec',
    suite: 'tdh2-r255-1',
    cg,
    ver,
    state: ver === 1 ? 'active' : 'pre-active',
    createdAt: '2026-11-22T19:00:00Z',
    seq: 1,
    t,
    n,
    Y,
    C: [Y, ...Array.from({ length: t - 1 }, (_, at) => bytes32(`C ${gen} ${at}`))],
    shareGen: gen,
    Yi: each((i) => bytes32(`Y ${ver} ${gen} ${i}`)),
    custodians: each((i) => ({
      i,
      org: `unit ${i}`,
      peer: `peer-${i}`,
      sigPk: someSigner(`custodian ${i}`).publicKey,
      dkgPk: bytes32(`dkg ${i}`),
      prekey: bytes32(`prekey ${gen} ${i}`),
      prekeyEpoch: gen,
    })),
    dkgCert: bytes64(`dkg ${ver}`),
    frostPk: group.publicKey,
    frostYi: each((i) => bytes32(`frost ${gen} ${i}`)),
    activateBeat: 0,
    retireBeat: null,
    refreshEveryBars: 8,
    policyRoot: rootPolicy.cid,
    ...changes,
  };
}

export function signedKek(unsigned: UnsignedKek, signer: Signer = group): TdecKek {
  return { ...unsigned, frostSig: signer.sign(kekPreimage(unsigned)) };
}

export function kekRecord(kek: TdecKek, prev: CID | null = null): SignedRecord<KekBody> {
  return signRecord({ kind: 'kek', v: 1, writer: steward.publicKey, prev, ...kek }, steward);
}

/** The next record of the same key version. */
export function nextKek(before: SignedRecord<KekBody>, changes: Partial<UnsignedKek>): SignedRecord<KekBody> {
  const { body } = before;
  if (body.provider !== 'tdec') throw new TypeError('a threshold group expected');
  const { kind: _, v: __, writer: ___, prev: ____, frostSig: _____, ...fields } = body;
  return kekRecord(signedKek({ ...fields, seq: fields.seq + 1, ...changes }), before.cid);
}

export function someRevocation(
  n: number,
  revoked: readonly Revoked[],
  prev: CID | null = null,
  by: Signer = authority,
): SignedRecord<RevocationBody> {
  return signRecord({ kind: 'revocation', v: 1, writer: by.publicKey, prev, cg, n, beat: 10, revoked }, by);
}

type Unsigned<T> = Omit<T, 'frostSig'>;

export function certificateRecord(
  unsigned: Unsigned<RotationCertificate> | Unsigned<EpochCertificate>,
  signer: Signer = group,
): SignedRecord<CertificateBody> {
  return signRecord({ ...unsigned, frostSig: signer.sign(certificatePreimage(unsigned)) }, steward);
}

export function someEpoch(n = 1, prev: CID | null = null): Unsigned<EpochCertificate> {
  return {
    kind: 'certificate',
    v: 1,
    writer: steward.publicKey,
    prev,
    cg,
    ver: 1,
    n,
    beat: 12,
    what: 'epoch',
    op: 'refresh',
    fromGen: n,
    toGen: n + 1,
    transcript: bytes64('transcript'),
    qual: [1, 2, 3],
    attestations: [1, 2, 3].map((i) => ({ i, sig: bytes64(`attestation ${i}`) })),
  };
}

export function someRotation(root: Uint8Array, count: number, ver = 2): Unsigned<RotationCertificate> {
  return {
    kind: 'certificate',
    v: 1,
    writer: steward.publicKey,
    prev: null,
    cg,
    ver,
    n: 1,
    beat: 12,
    what: 'rotation',
    fromVer: ver - 1,
    count,
    root,
    contributions: [1, 2].map((i) => ({ i, digest: bytes32(`contribution ${i}`) })),
  };
}

export function someLabel(changes: Partial<BkLabel> = {}): BkLabel {
  return {
    v: 1,
    cg,
    kekVer: 1,
    bkId: bytes32('bk').subarray(0, 16),
    bkVer: 1,
    project: 'bzzz',
    cls: 'internal',
    policy: rootPolicy.cid,
    window: [0, 119],
    writer: steward.publicKey,
    ...changes,
  };
}

export function someWrap(label: BkLabel): TdecWrap {
  const points = { U: bytes32('U'), Ubar: bytes32('Ubar'), V: bytes32('V') };
  const { kekVer } = label;
  return {
    t: 'tdec',
    cg: label.cg,
    kekVer,
    label: encodeLabel(label),
    ...points,
    e: bytes32('e'),
    f: bytes32('f'),
  };
}

/** A capability from the authority to `requester` for everything, for beats 0…1,000. */
export function someCapability(changes: Partial<CapabilityLink> = {}, by: Signer = authority): Uint8Array {
  const full = fullCapability({ cg, iss: by.publicKey, aud: requester.publicKey, nbf: 0, exp: 1000 });
  return signCapability({ ...full, ...changes }, by);
}

let requestsCount = 0;

export function someRequest(changes: Partial<CustodyRequest> = {}, labels = [someLabel()]): CustodyRequest {
  return {
    v: 1,
    reqId: bytes32(`request ${requestsCount++}`),
    cg,
    kekVer: 1,
    shareGen: 1,
    items: labels.map((label) => ({ bkId: label.bkId, wrap: someWrap(label) })),
    purpose: 'read',
    beat: 100,
    exp: 102,
    chain: [someCapability()],
    epk: bytes32('epk'),
    by: requester.publicKey,
    ...changes,
  };
}

export function opened(request: CustodyRequest, by: Signer = requester): OpenedRequest {
  return openRequest(signRequest(encodeRequest(request), by));
}
