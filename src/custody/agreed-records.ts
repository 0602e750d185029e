// What the group has signed, as records in their places: who files them signs only for having filed them.

import type { CID } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { parseKek } from '../envelope/records.ts';
import { type RecordBody, signRecord, type SignedRecord } from '../manifest/record.ts';
import { type CertificateBody, parseCertificate } from './certificate.ts';
import type { Agreed } from './coordinate-ballot.ts';

export interface AgreedRecord {
  /** Its place in the registry. */
  readonly key: string;
  readonly record: SignedRecord<RecordBody>;
}

/** What the registry has of the chains that a record is to follow. */
export interface Chains {
  /** The newest record of a version of the key. */
  readonly kek: (ver: number) => CID | undefined;
  /** The newest certificate about a version. */
  readonly certificate: (ver: number) => Promise<{ readonly n: number; readonly cid: CID } | undefined>;
}

/** Keys first. A certificate whose place another one has taken meanwhile is left out: the key does not need it. */
export async function agreedRecords(
  signer: Signer,
  { proposal, signatures }: Agreed,
  chains: Chains,
): Promise<readonly AgreedRecord[]> {
  const writer = signer.publicKey;
  const signatureAt = (at: number): Uint8Array => {
    const found = signatures[at];
    if (found !== undefined) return found;
    throw new HoldfastError('INTERNAL', 'a signature under each record expected');
  };
  const records: AgreedRecord[] = proposal.keks.map((kek, at) => {
    const prev = chains.kek(kek.ver) ?? null;
    const body = parseKek({ ...kek, kind: 'kek', v: 1, writer, prev, frostSig: signatureAt(at) });
    return { key: `kek/${kek.cg}/${kek.ver}`, record: signRecord(body, signer) };
  });
  for (const [at, certificate] of proposal.certificates.entries()) {
    const frostSig = signatureAt(proposal.keks.length + at);
    const body: CertificateBody = parseCertificate({ ...certificate, writer, frostSig });
    const last = await chains.certificate(body.ver);
    const isNext =
      body.n === (last?.n ?? 0) + 1 && (body.prev?.toString() ?? '') === (last?.cid.toString() ?? '');
    if (isNext)
      records.push({ key: `cert/${body.cg}/${body.ver}/${body.n}`, record: signRecord(body, signer) });
  }
  return records;
}
