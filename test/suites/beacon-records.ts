// Signed records for tests of the Beacon: small, valid, and different from each other where a test needs it.

import { encodeCbor, rawBlock, type CID } from '../../src/core/block.ts';
import { toHex, utf8 } from '../../src/core/bytes.ts';
import { sha256, type Signer, signerFromSeed } from '../../src/core/hash.ts';
import type { BranchKeyBody, EnvelopeBody, KekBody } from '../../src/envelope/records.ts';
import { encodeLabel } from '../../src/envelope/label.ts';
import { type ManifestBody, signManifest } from '../../src/manifest/manifest.ts';
import { signRecord, type SignedRecord } from '../../src/manifest/record.ts';
import { parseAddress } from '../../src/ucxl/address.ts';
import type { Append, LogRecord } from '../../src/beacon/log.ts';

export const writer: Signer = signerFromSeed(new Uint8Array(32).fill(1));
export const otherWriter: Signer = signerFromSeed(new Uint8Array(32).fill(2));

export function someAddress(path: string, task = 'beacon'): string {
  return `ucxl://ann:writer@holdfast:${task}/*^/${path}`;
}

/** 16 bytes that only `name` gives. */
export function someId(name: string): Uint8Array {
  return new Uint8Array(sha256(utf8(name)).subarray(0, 16));
}

export interface ManifestOptions {
  readonly version?: number;
  readonly prev?: CID | null;
  readonly removed?: boolean;
  readonly at?: number;
  readonly tags?: readonly string[];
  readonly by?: Signer;
  /** Makes two manifests of one version differ. */
  readonly salt?: string;
}

export function someManifest(address: string, options: ManifestOptions = {}): SignedRecord<ManifestBody> {
  const {
    version = 1,
    prev = null,
    removed = false,
    at = 1000 * version,
    tags = [],
    by = writer,
    salt = '',
  } = options;
  const content = {
    type: 'object' as const,
    root: contentOf(address, version, salt),
    size: 100 + version,
    media: 'text/plain',
    objId: objectOf(address, version, salt),
    hdr: new Uint8Array(74).fill(version % 256),
    aad: encodeCbor({ address }),
    ctLen: 100 + version + 32,
    kekPolicy: 'dev',
  };
  return signManifest(
    {
      address: parseAddress(address, { profile: 'lenient' }),
      version,
      prev,
      generatedBy: 'test',
      generatedAt: at,
      replication: { min: 3, max: 5, zones: 3 },
      cls: 'internal',
      complianceTags: tags,
      ...(removed ? {} : { content }),
    },
    by,
  );
}

export function contentOf(address: string, version: number, salt = ''): CID {
  return rawBlock(utf8(`${address} ${version} ${salt}`)).cid;
}

export function objectOf(address: string, version: number, salt = ''): Uint8Array {
  return someId(`${address} ${version} ${salt}`);
}

export function someEnvelope(
  objId: Uint8Array,
  bkId: Uint8Array,
  options: { readonly version?: number; readonly prev?: CID | null } = {},
): SignedRecord<EnvelopeBody> {
  const { version = 1, prev = null } = options;
  return signRecord(
    {
      kind: 'envelope',
      v: 1,
      writer: writer.publicKey,
      prev,
      objId,
      envVer: version,
      mode: 'branch',
      bkId,
      bkVer: 1,
      wrap: new Uint8Array(60).fill(version % 256),
      policy: null,
      cls: 'internal',
      beat: version,
    },
    writer,
  );
}

export function someBranchKey(
  bkId: Uint8Array,
  options: { readonly version?: number; readonly prev?: CID | null } = {},
): SignedRecord<BranchKeyBody> {
  const { version = 1, prev = null } = options;
  const scope = {
    project: 'holdfast',
    cls: 'internal' as const,
    writer: writer.publicKey,
    window: [0, 100] as const,
  };
  const label = encodeLabel({ v: 1, cg: 'dev', kekVer: 1, bkId, bkVer: version, policy: null, ...scope });
  return signRecord(
    {
      kind: 'branch-key',
      v: 1,
      writer: writer.publicKey,
      prev,
      bkId,
      bkVer: version,
      scope,
      maxWraps: 4096,
      commit: new Uint8Array(32).fill(7),
      combiner: 'any',
      wraps: [{ t: 'dev', kid: 'dev', label, nonce: new Uint8Array(12), ct: new Uint8Array(48) }],
    },
    writer,
  );
}

export function someKek(group: string, version = 1, prev: CID | null = null): SignedRecord<KekBody> {
  return signRecord(
    {
      kind: 'kek',
      v: 1,
      writer: writer.publicKey,
      prev,
      cg: group,
      ver: version,
      suite: 'dev-file-1',
      state: 'active',
      createdAt: '2026-01-01T00:00:00Z',
      provider: 'dev-file',
      kid: 'dev',
    },
    writer,
  );
}

export function logRecord(key: string, record: SignedRecord<unknown>): LogRecord {
  return { key, bytes: record.block.bytes };
}

/** The append that registers one version of an address with its envelope. */
export function putAppend(manifest: SignedRecord<ManifestBody>, bkId: Uint8Array, expected = -1): Append {
  const { ucxl_address: address, encryption } = manifest.body;
  const records = [logRecord(`addr/${address}`, manifest)];
  if (encryption !== null) {
    records.push(
      logRecord(`env/${toHex(encryption.objId)}`, someEnvelope(encryption.objId, bkId)),
      logRecord(`bk/${toHex(bkId)}`, someBranchKey(bkId)),
    );
  }
  return { subject: `addr/${address}`, expected, records, at: 5 };
}

/** The same, with a signature of one of its records that does not verify. */
export function withFalseSignature(append: Append, which = 0): Append {
  const records = append.records.map((record, index) => {
    const bytes = record.bytes.slice();
    if (index === which) bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    return { key: record.key, bytes };
  });
  return { ...append, records };
}
