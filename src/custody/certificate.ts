// What the custodians of a group attest together: who made the group's key, that wraps were switched to a newer
// one, and that shares moved on to another generation. Signed with the group's FROST key; whoever has that key needs to trust nobody else.

import { encodeCbor } from '../core/block.ts';
import { preimage, sha512, verifySignature } from '../core/hash.ts';
import { custodiansMax, custodyOrderBytesMax, unwrapItemsMax } from '../core/limits.ts';
import { isMap } from '../core/shape.ts';
import { type Fields, fieldsOf, tagOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import type { SwitchedWrap } from '../envelope/wraps.ts';
import type { RecordBody } from '../manifest/record.ts';
import { leafHash, verifyInclusion } from '../threshold/merkle.ts';
import { readCustodyHead } from './record-head.ts';

interface CertificateCommon extends RecordBody {
  readonly kind: 'certificate';
  readonly cg: string;
  /** Version of the group's key that it is about; of a rotation, the newer one. */
  readonly ver: number;
  /** Number among the certificates of that version, from 1. */
  readonly n: number;
  readonly beat: number;
  readonly frostSig: Uint8Array;
}

/** A custodian's part in a switch, by its digest. */
interface Contribution {
  readonly i: number;
  /** SHA-256 of its bytes. */
  readonly digest: Uint8Array;
}

/** One page of switched wraps. */
export interface RotationCertificate extends CertificateCommon {
  readonly what: 'rotation';
  readonly fromVer: number;
  /** Wraps in the page. */
  readonly count: number;
  /** Merkle root over `switchedLeaf` of each (RFC 6962). */
  readonly root: Uint8Array;
  readonly contributions: readonly Contribution[];
}

/** A custodian's signature over the transcript of a change of shares. */
interface Attestation {
  readonly i: number;
  readonly sig: Uint8Array;
}

/** Shares of generation `fromGen` gave way to those of `toGen`. */
export interface EpochCertificate extends CertificateCommon {
  readonly what: 'epoch';
  readonly op: 'refresh' | 'reshare';
  readonly fromGen: number;
  readonly toGen: number;
  /** Hash of what was dealt, by whom, and the new verification shares. */
  readonly transcript: Uint8Array;
  /** Indices of those whose dealings count. */
  readonly qual: readonly number[];
  /** Members of the new generation that verified and stored their shares. */
  readonly attestations: readonly Attestation[];
}

/** All who made the first key of a group say so, each with its own identity (birth.ts). */
export interface BirthCertificate extends CertificateCommon {
  readonly what: 'birth';
  /** By rising index: each over `birthPreimage` of the first KEK record. */
  readonly attestations: readonly Attestation[];
  /** The order to make the key, as it was signed, where that puts the group in the place of another (succession.ts). */
  readonly order?: Uint8Array;
}

export type CertificateBody = RotationCertificate | EpochCertificate | BirthCertificate;

const head = ['kind', 'v', 'writer', 'prev', 'cg', 'ver', 'n', 'beat', 'frostSig', 'what'];
const names = {
  rotation: [...head, 'fromVer', 'count', 'root', 'contributions'],
  birth: [...head, 'attestations', 'order'],
  epoch: [...head, 'op', 'fromGen', 'toGen', 'transcript', 'qual', 'attestations'],
} as const;

/** Checks the body of a certificate record. Throws RECORD_INVALID naming the field. */
export function parseCertificate(body: unknown): CertificateBody {
  const what = tagOf(body, 'certificate', 'what');
  if (what === 'birth') return parseBirth(body);
  return what === 'epoch' ? parseEpoch(body) : parseRotation(body);
}

function parseBirth(body: unknown): BirthCertificate {
  const hasOrder = isMap(body) && body['order'] !== undefined;
  const fields = fieldsOf(body, 'certificate', hasOrder ? names.birth : names.birth.slice(0, -1));
  const what = fields.oneOf('what', ['birth']);
  const birth = { ...readCommon(fields), what, attestations: readAttestations(fields) };
  return hasOrder ? { ...birth, order: fields.bytesUpTo('order', custodyOrderBytesMax) } : birth;
}

function parseRotation(body: unknown): RotationCertificate {
  const fields = fieldsOf(body, 'certificate', names.rotation);
  const common = readCommon(fields);
  return {
    ...common,
    what: fields.oneOf('what', ['rotation']),
    fromVer: fields.integer('fromVer', 1, common.ver - 1),
    count: fields.integer('count', 1, unwrapItemsMax),
    root: fields.bytes('root', 32),
    contributions: readIndexed(fields, 'contributions', 'digest', 32).map(({ i, bytes }) => ({
      i,
      digest: bytes,
    })),
  };
}

function parseEpoch(body: unknown): EpochCertificate {
  const fields = fieldsOf(body, 'certificate', names.epoch);
  const fromGen = fields.integer('fromGen', 1);
  return {
    ...readCommon(fields),
    what: fields.oneOf('what', ['epoch']),
    op: fields.oneOf('op', ['refresh', 'reshare']),
    fromGen,
    toGen: fields.integer('toGen', fromGen + 1, fromGen + 1),
    transcript: fields.bytes('transcript', 64),
    qual: readQual(fields),
    attestations: readAttestations(fields),
  };
}

function readCommon(fields: Fields): CertificateCommon {
  return {
    ...readCustodyHead(fields, 'certificate'),
    cg: readGroup(fields, 'cg'),
    ver: fields.integer('ver', 1),
    n: fields.integer('n', 1),
    beat: fields.integer('beat', 0),
    frostSig: fields.bytes('frostSig', 64),
  };
}

function readAttestations(fields: Fields): readonly Attestation[] {
  return readIndexed(fields, 'attestations', 'sig', 64).map(({ i, bytes }) => ({ i, sig: bytes }));
}

/** `{i, [name]: bytes}`, indices rising. */
function readIndexed(
  fields: Fields,
  field: string,
  name: string,
  sizeBytes: number,
): { readonly i: number; readonly bytes: Uint8Array }[] {
  const items = fields.list(field, custodiansMax).map((value, at) => {
    const item = fieldsOf(value, `certificate.${field}[${at}]`, ['i', name]);
    return { i: item.integer('i', 1, custodiansMax), bytes: item.bytes(name, sizeBytes) };
  });
  checkRising(
    fields,
    field,
    items.map(({ i }) => i),
  );
  return items;
}

function readQual(fields: Fields): readonly number[] {
  const qual = fields.list('qual', custodiansMax).map((i) => (typeof i === 'number' ? i : Number.NaN));
  checkRising(fields, 'qual', qual);
  return qual;
}

function checkRising(fields: Fields, field: string, indices: readonly number[]): void {
  const good = indices.every(
    (i, at) => Number.isInteger(i) && i >= 1 && i <= custodiansMax && i > (indices[at - 1] ?? 0),
  );
  if (!good || indices.length === 0) fields.refuse(field, 'at least one, by rising index, expected');
}

/** A certificate before the group has signed it and somebody has filed it. */
export type UnsignedCertificate =
  | Omit<RotationCertificate, 'writer' | 'frostSig'>
  | Omit<EpochCertificate, 'writer' | 'frostSig'>
  | Omit<BirthCertificate, 'writer' | 'frostSig'>;

/** The bytes that the group signs. */
export function certificatePreimage(certificate: UnsignedCertificate): Uint8Array {
  return preimage('CHORUS-SLURP-CERT-v1', encodeCbor(certificateSignedFields(certificate)));
}

/** What the group signs: all fields but `writer` and the signature. */
export function certificateSignedFields(certificate: UnsignedCertificate): Record<string, unknown> {
  const signed = new Set<string>(
    names[certificate.what].filter((name) => name !== 'writer' && name !== 'frostSig'),
  );
  return Object.fromEntries(Object.entries(certificate).filter(([name]) => signed.has(name)));
}

/** True when the group whose key is `frostPk` signed it. */
export function verifyCertificate(certificate: CertificateBody, frostPk: Uint8Array): boolean {
  return verifySignature(frostPk, certificatePreimage(certificate), certificate.frostSig);
}

/** What a page of a rotation says about one wrap. */
export function switchedLeaf(bkId: Uint8Array, wrap: Pick<SwitchedWrap, 'label' | 'U' | 'V'>): Uint8Array {
  return preimage('CHORUS-SLURP-KS-LEAF-v1', bkId, sha512(wrap.label), wrap.U, wrap.V);
}

/** True when `certificate` lists `wrap` as one of branch key `bkId`. Its signature is checked apart. */
export function listsWrap(certificate: RotationCertificate, bkId: Uint8Array, wrap: SwitchedWrap): boolean {
  return (
    certificate.cg === wrap.cg &&
    certificate.ver === wrap.kekVer &&
    wrap.index < certificate.count &&
    verifyInclusion(
      leafHash(switchedLeaf(bkId, wrap)),
      wrap.index,
      certificate.count,
      wrap.proof,
      certificate.root,
    )
  );
}
