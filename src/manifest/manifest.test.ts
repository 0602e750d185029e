import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { CID, cborBlock, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { signerFromSeed } from '../core/hash.ts';
import { segmentBytes } from '../core/limits.ts';
import { parseAddress } from '../ucxl/address.ts';
import {
  buildManifest,
  type ManifestBody,
  type ManifestInput,
  manifestId,
  openManifest,
  parseManifest,
  signManifest,
} from './manifest.ts';
import { openRecord, type RecordBody, signRecord } from './record.ts';

const signer = signerFromSeed(new Uint8Array(32).fill(9));
const address = parseAddress('ucxl://agent:role@project:2.0.0/*^/docs/x.md', { profile: 'lenient' });
const root = rawBlock(utf8('sealed')).cid;
const content = {
  type: 'object',
  root,
  size: 5,
  media: 'text/markdown; charset=utf-8',
  objId: new Uint8Array(16).fill(1),
  hdr: Uint8Array.from({ length: 74 }, (_, index) => index),
  aad: utf8('aad'),
  ctLen: 37,
  kekPolicy: 'dev-file',
} as const;
const input: Omit<ManifestInput, 'writer'> = {
  address,
  version: 1,
  prev: null,
  generatedBy: 'agent:role',
  generatedAt: Date.UTC(2025, 7, 7, 14, 30),
  replication: { min: 3, max: 5, zones: 2 },
  cls: 'internal',
  content,
  complianceTags: ['sec-high', 'audit-required'],
  cites: [{ address: 'ucxl://any:any@chorus:*/*~/planning/requirements.md', reason: 'asked for it' }],
  supersedes: 'ucxl://agent:role@project:1.9.0/*~4/docs/x.md',
};
const good = buildManifest({ ...input, writer: signer.publicKey });

test('a manifest opens as what was built, with what follows filled in', () => {
  const { block } = signManifest(input, signer);
  const { body } = openManifest(block.bytes);
  assert.deepEqual(structured(body), structured(good));
  assert.equal(body.ucxl_address, 'ucxl://agent:role@project:2.0.0/*^/docs/x.md');
  assert.equal(body.generated_at, '2025-08-07T14:30:00.000Z');
  assert.equal(body.source_hash, createHash('sha256').update('sealed').digest('hex'));
  assert.equal(body.blocks, 1);
  assert.equal(body.replica_targets, 3);
  assert.equal(body.encryption?.dek_fingerprint, Buffer.from(content.hdr.subarray(42)).toString('hex'));
});

test('manifest_id is the hash of four parts with their lengths in front', () => {
  const parts = ['project', '2.0.0', good.ucxl_address, '1'];
  const hash = createHash('sha256');
  for (const part of parts) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(part.length);
    hash.update(length).update(part);
  }
  assert.equal(good.manifest_id, hash.digest('hex'));
  assert.notEqual(
    manifestId({ project: 'a', task: 'bc' }, 'k', 1),
    manifestId({ project: 'ab', task: 'c' }, 'k', 1),
  );
});

test('a tombstone has no content', () => {
  const { content: _, ...rest } = input;
  const prev = signManifest(input, signer).cid;
  const { block } = signManifest({ ...rest, version: 2, prev }, signer);
  const { body } = openManifest(block.bytes);
  assert.equal(body.type, 'tombstone');
  assert.equal(body.cid, null);
  assert.equal(body.encryption, null);
  assert(body.prev !== null && body.prev.equals(prev));
});

test('several segments: the root is an index block and the blocks are counted', () => {
  const size = 3 * (segmentBytes - 32) - 1;
  const index = cborBlock({ t: 'index' }).cid;
  const body = buildManifest({
    ...input,
    writer: signer.publicKey,
    content: { ...content, root: index, size, ctLen: 3 * segmentBytes - 1 },
  });
  assert.equal(body.blocks, 4);
});

test('an empty object and one that fills its segments', () => {
  const build = (size: number, ctLen: number) =>
    buildManifest({ ...input, writer: signer.publicKey, content: { ...content, size, ctLen } });
  assert.equal(build(0, 32).blocks, 1);
  assert.equal(build(segmentBytes - 32, segmentBytes).blocks, 1);
});

test('a wildcard is no address to store under', () => {
  const wild = parseAddress('ucxl://any:role@project:task/*^/x', { profile: 'strict' });
  assert.throws(
    () => signManifest({ ...input, address: wild }, signer),
    (error) => isHoldfastError(error, 'ADDRESS_WILDCARD'),
  );
});

/** Field to blame, and a change that makes a good manifest bad. */
const wrong: readonly [string, (body: ManifestBody) => object][] = [
  ['kind', (body) => ({ ...body, kind: 'kek' })],
  ['manifest_id', (body) => ({ ...body, manifest_id: body.manifest_id.replace(/^./, 'z') })],
  ['manifest_id', (body) => ({ ...body, context_version: 2, prev: cborBlock(1).cid })],
  ['prev', (body) => ({ ...body, prev: cborBlock(1).cid })],
  [
    'prev',
    (body) => ({ ...body, context_version: 2, manifest_id: manifestId(address, body.ucxl_address, 2) }),
  ],
  ['ucxl_address', (body) => ({ ...body, ucxl_address: 'x' })],
  ['ucxl_address', (body) => ({ ...body, ucxl_address: 5 })],
  ['ucxl_address', (body) => ({ ...body, ucxl_address: 'ucxl://agent:role@project:2.0.0/docs/x.md' })],
  ['ucxl_address', (body) => ({ ...body, ucxl_address: 'ucxl://any:role@project:2.0.0/*^/docs/x.md' })],
  ['context_version', (body) => ({ ...body, context_version: 0 })],
  ['context_version', (body) => ({ ...body, context_version: 1.5 })],
  ['type', (body) => ({ ...body, type: 'folder' })],
  ['cid', (body) => ({ ...body, type: 'tombstone' })],
  ['source_hash', (body) => ({ ...body, source_hash: '' })],
  ['generated_by', (body) => ({ ...body, generated_by: '' })],
  ['generated_by', (body) => ({ ...body, generated_by: 'é'.repeat(129) })],
  ['generated_by', (body) => ({ ...body, generated_by: 'a\0' })],
  ['generated_at', (body) => ({ ...body, generated_at: '2025-08-07T14:30:00' })],
  ['generated_at', (body) => ({ ...body, generated_at: '2025-02-30T14:30:00Z' })],
  ['generated_at', (body) => ({ ...body, generated_at: 17 })],
  ['media', (body) => ({ ...body, media: '' })],
  ['media', (body) => ({ ...body, media: 'text/plain\r\nx: y' })],
  ['media', (body) => ({ ...body, media: `text/${'x'.repeat(260)}` })],
  ['size', (body) => ({ ...body, size: -1 })],
  ['encryption.ctLen', (body) => ({ ...body, size: 6 })],
  ['codec', (body) => ({ ...body, codec: 'dag-pb' })],
  ['cid', (body) => ({ ...body, cid: null })],
  ['cid', (body) => ({ ...body, cid: cborBlock(1).cid })],
  ['cid', (body) => ({ ...body, cid: CID.parse('QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n') })],
  ['blocks', (body) => ({ ...body, blocks: 2 })],
  ['replication', (body) => ({ ...body, replication: null })],
  ['surprise', (body) => ({ ...body, replication: { ...body.replication, surprise: 1 } })],
  ['replication.min', (body) => ({ ...body, replication: { min: 6, max: 5, zones: 1 }, replica_targets: 6 })],
  ['replication.max', (body) => ({ ...body, replication: { min: 3, max: 257, zones: 1 } })],
  ['replication.zones', (body) => ({ ...body, replication: { min: 3, max: 5, zones: 4 } })],
  ['replica_targets', (body) => ({ ...body, replica_targets: 5 })],
  ['compliance_tags', (body) => ({ ...body, compliance_tags: 'sec-high' })],
  ['compliance_tags', (body) => ({ ...body, compliance_tags: ['a b'] })],
  ['compliance_tags', (body) => ({ ...body, compliance_tags: ['a', 'a'] })],
  [
    'compliance_tags',
    (body) => ({ ...body, compliance_tags: Array.from({ length: 65 }, (_, n) => `t${n}`) }),
  ],
  ['cites', (body) => ({ ...body, cites: {} })],
  ['cites', (body) => ({ ...body, cites: ['x'] })],
  ['reason', (body) => ({ ...body, cites: [{ address: good.ucxl_address }] })],
  ['cites.address', (body) => ({ ...body, cites: [{ address: 'x', reason: '' }] })],
  [
    'cites.reason',
    (body) => ({ ...body, cites: [{ address: good.ucxl_address, reason: 'x'.repeat(1025) }] }),
  ],
  ['supersedes', (body) => ({ ...body, supersedes: 'x' })],
  ['cls', (body) => ({ ...body, cls: 'Top Secret' })],
  ['encryption', (body) => ({ ...body, encryption: null })],
  ['encryption.v', (body) => sealed(body, { v: 2 })],
  ['encryption.suite', (body) => sealed(body, { suite: 'rot13' })],
  ['encryption.objId', (body) => sealed(body, { objId: new Uint8Array(15) })],
  ['encryption.hdr', (body) => sealed(body, { hdr: new Uint8Array(75) })],
  ['encryption.hdr', (body) => sealed(body, { hdr: 'x'.repeat(74) })],
  ['encryption.aad', (body) => sealed(body, { aad: new Uint8Array(8193) })],
  ['encryption.ctLen', (body) => sealed(body, { ctLen: 0 })],
  ['encryption.dek_fingerprint', (body) => sealed(body, { dek_fingerprint: '00'.repeat(32) })],
  ['encryption.kek_policy', (body) => sealed(body, { kek_policy: null })],
  ['dek', (body) => sealed(body, { dek: new Uint8Array(32) })],
  ['surprise', (body) => ({ ...body, surprise: 1 })],
];

function sealed(body: ManifestBody, change: object): object {
  return { ...body, encryption: { ...body.encryption, ...change } };
}

for (const [field, change] of wrong) {
  test(`a manifest with a wrong ${field} is refused: ${change.toString().slice(10, 90)}`, () => {
    assert.throws(() => parseManifest(asRecord(change(good))), blaming(field));
  });
}

test('every field is needed', () => {
  for (const name of Object.keys(good)) {
    const rest = Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));
    assert.throws(
      () => parseManifest(asRecord(rest)),
      (error) => isHoldfastError(error, 'RECORD_INVALID'),
      name,
    );
  }
});

test('other records are not manifests', () => {
  const { block } = signRecord({ kind: 'kek', v: 1, writer: signer.publicKey, prev: null }, signer);
  assert.throws(
    () => openManifest(block.bytes),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
});

test('any field with any value is accepted unchanged or blamed, never a crash', () => {
  const names = fc.constantFrom(
    ...Object.keys(good),
    ...Object.keys(good.encryption ?? {}).map((name) => `encryption.${name}`),
  );
  const values = fc.oneof(
    fc.anything({ maxDepth: 2 }),
    fc.string(),
    fc.integer(),
    fc.uint8Array(),
    fc.constant(root),
  );
  fc.assert(
    fc.property(names, values, (name, value) => {
      const [outer = '', inner] = name.split('.');
      const body = inner === undefined ? { ...good, [outer]: value } : sealed(good, { [inner]: value });
      try {
        parseManifest(asRecord(body));
      } catch (error) {
        assert(isHoldfastError(error, 'RECORD_INVALID'), String(error));
        assert.equal(typeof error.details['field'], 'string');
      }
    }),
    { numRuns: 1000 },
  );
});

test('any content size builds, signs and opens', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 2 ** 46 }),
      fc.integer({ min: 1, max: 2 ** 31 }),
      (size, version) => {
        const segments = Math.max(1, Math.ceil(size / (segmentBytes - 32)));
        const top = segments === 1 ? root : cborBlock({ size }).cid;
        const prev = version === 1 ? null : cborBlock({ version }).cid;
        const { block, body } = signManifest(
          { ...input, version, prev, content: { ...content, root: top, size, ctLen: size + 32 * segments } },
          signer,
        );
        assert.deepEqual(structured(openManifest(block.bytes).body), structured(body));
      },
    ),
    { numRuns: 50 },
  );
});

/** A body as `openRecord` would hand it over: these tests are about fields, the signature has its own. */
function asRecord(fields: object) {
  const record = openRecord(signManifest(input, signer).block.bytes);
  assert(isBody(fields));
  return { ...record, body: fields };
}

function isBody(fields: object): fields is RecordBody {
  return Object.keys(fields).length > 0;
}

function blaming(field: string) {
  return (error: unknown) => {
    assert(isHoldfastError(error, 'RECORD_INVALID'), String(error));
    assert.equal(error.details['field'], field, error.message);
    return true;
  };
}

/** Plain values, so that a Buffer equals a Uint8Array and a decoded CID its original. */
function structured(body: object): unknown {
  return JSON.parse(
    JSON.stringify(body, (_, value: unknown) => (value instanceof CID ? value.toString() : value)),
    (_, value: unknown) =>
      value !== null &&
      typeof value === 'object' &&
      'type' in value &&
      value.type === 'Buffer' &&
      'data' in value &&
      Array.isArray(value.data)
        ? Object.fromEntries(value.data.entries())
        : value,
  );
}
