// What custodians vote about (ballot.ts): the records that the group is to sign for the next place, all of them
// together, as bytes that everybody who computes them gets alike.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { kekPreimage, kekSignedFields, type UnsignedKek } from '../envelope/kek.ts';
import { parseKek } from '../envelope/records.ts';
import { type BallotCertificate, readBallotCertificate } from './ballot.ts';
import {
  certificatePreimage,
  certificateSignedFields,
  parseCertificate,
  type UnsignedCertificate,
} from './certificate.ts';

export interface Proposal {
  /** One of each version that it changes. */
  readonly keks: readonly UnsignedKek[];
  readonly certificates: readonly UnsignedCertificate[];
}

/** Both versions of a key that can change at once, of the most custodians there may be. */
const proposalBytesMax = 131_072;
const recordsMax = 4;

export function encodeProposal({ keks, certificates }: Proposal): Uint8Array {
  return encodeCbor({
    keks: keks.map(kekSignedFields),
    certificates: certificates.map(certificateSignedFields),
  });
}

/** What votes are about, with them: what a custodian is locked on, or a quorum. */
export interface Decision {
  readonly certificate: BallotCertificate;
  /** The proposal; empty when it is decided that nothing comes of an attempt. */
  readonly contents: Uint8Array;
}

/** Reads a decision; what its votes prove is for the caller to see. Throws RECORD_INVALID. */
export function readDecision(value: unknown, name: string): Decision {
  const fields = fieldsOf(value, name, ['certificate', 'contents']);
  const contents = fields.any('contents');
  if (!(contents instanceof Uint8Array) || contents.length > proposalBytesMax)
    return fields.refuse('contents', `at most ${proposalBytesMax} bytes expected`);
  return { certificate: readBallotCertificate(fields.any('certificate'), `${name}.certificate`), contents };
}

/** What is voted about. */
export function valueOf(proposal: Proposal): Uint8Array {
  return sha256(encodeProposal(proposal));
}

/** Reads what `encodeProposal` wrote. Throws RECORD_INVALID. */
export function decodeProposal(bytes: Uint8Array): Proposal {
  const fields = fieldsOf(decodeCbor(bytes, 'proposal'), 'proposal', ['keks', 'certificates']);
  const writer = new Uint8Array(32);
  const frostSig = new Uint8Array(64);
  const keks = fields.list('keks', recordsMax).map((value): UnsignedKek => {
    const kek = parseKek({ ...Object(value), kind: 'kek', v: 1, writer, prev: null, frostSig });
    if (kek.provider === 'tdec') return kek;
    throw new HoldfastError('RECORD_INVALID', 'proposal.keks: a key of a custody group expected');
  });
  const certificates = fields
    .list('certificates', recordsMax)
    .map((value) => parseCertificate({ ...Object(value), writer, frostSig }));
  return { keks, certificates };
}

/** What the group signs for it, in the order of the records: first the keys. */
export function messagesOf({ keks, certificates }: Proposal): readonly Uint8Array[] {
  return [...keks.map(kekPreimage), ...certificates.map(certificatePreimage)];
}
