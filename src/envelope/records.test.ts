import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { CID, cidOf, decodeCbor, encodeCbor, rawBlock } from '../core/block.ts';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { encodeAad, type FloeAad, parseAad } from './aad.ts';
import { type BkLabel, encodeLabel, parseLabel } from './label.ts';
import {
  type BranchKeyBody,
  type EnvelopeBody,
  type KekBody,
  parseBranchKey,
  parseEnvelope,
  parseKek,
  parseKeyRecord,
} from './records.ts';

const writer = fresh(32);
const bkId = fresh(16);
const cid = rawBlock(utf8('x')).cid;
const aad: FloeAad = {
  v: 1,
  suite: 'slurp-env-1',
  objId: fresh(16),
  ucxl: 'ucxl://claude:reviewer@bzzz:auth/*^/decisions/π.md',
  media: 'text/markdown; charset=utf-8',
  kind: 'object',
  cls: 'internal',
  beat: 17,
  writer,
};
const label: BkLabel = {
  v: 1,
  cg: 'dev',
  kekVer: 1,
  bkId,
  bkVer: 1,
  project: 'bzzz',
  cls: 'internal',
  policy: cid,
  window: [10, 129],
  writer,
};
const envelope: EnvelopeBody = {
  kind: 'envelope',
  v: 1,
  writer,
  prev: cid,
  objId: aad.objId,
  envVer: 2,
  mode: 'branch',
  bkId,
  bkVer: 1,
  wrap: fresh(60),
  policy: null,
  cls: 'internal',
  beat: 17,
};
const branchKey: BranchKeyBody = {
  kind: 'branch-key',
  v: 1,
  writer,
  prev: null,
  bkId,
  bkVer: 1,
  scope: { project: 'bzzz', cls: 'internal', writer, window: [10, 129] },
  maxWraps: 4096,
  commit: fresh(32),
  combiner: 'any',
  wraps: [{ t: 'dev', kid: 'k1', label: encodeLabel(label), nonce: fresh(12), ct: fresh(48) }],
};
const kek: KekBody = {
  kind: 'kek',
  v: 1,
  writer,
  prev: null,
  cg: 'dev',
  ver: 1,
  suite: 'dev-file-1',
  state: 'active',
  createdAt: '2026-11-22T19:00:00.000Z',
  provider: 'dev-file',
  kid: 'k1',
};

test('bodies survive encoding and are recognised by their kind', () => {
  for (const body of [envelope, branchKey, kek]) {
    assert.deepEqual(encodeCbor(parseKeyRecord(decodeCbor(encodeCbor(body), 'test'))), encodeCbor(body));
  }
  assert.deepEqual(parseAad(encodeAad(aad)), aad);
  assert.deepEqual(encodeLabel(parseLabel(encodeLabel(label))), encodeLabel(label));
});

describe('every field is required, and no other is taken', () => {
  const parsers: readonly [string, object, (value: unknown) => unknown][] = [
    ['envelope', envelope, parseEnvelope],
    ['branch-key', branchKey, parseBranchKey],
    ['kek', kek, parseKek],
    ['aad', aad, (value) => parseAad(encodeCbor(value))],
    ['label', label, (value) => parseLabel(encodeCbor(value))],
  ];
  for (const [name, body, parse] of parsers) {
    test(name, () => {
      parse(body);
      for (const field of Object.keys(body)) {
        const rest = Object.fromEntries(Object.entries(body).filter(([key]) => key !== field));
        refuses(() => parse(rest), `${name}.${field}`);
        for (const wrong of wrongValues(Reflect.get(body, field))) {
          refuses(() => parse({ ...body, [field]: wrong }), `${name}.${field}`);
        }
      }
      refuses(() => parse({ ...body, extra: 1 }), name);
      for (const none of [null, 1, 'x', [], cid, fresh(3)]) refuses(() => parse(none), name);
    });
  }
});

describe('bounds', () => {
  const cases: readonly [string, () => unknown][] = [
    ['envelope.wrap', () => parseEnvelope({ ...envelope, wrap: fresh(61) })],
    ['envelope.envVer', () => parseEnvelope({ ...envelope, envVer: 0 })],
    ['envelope.mode', () => parseEnvelope({ ...envelope, mode: 'other' })],
    ['envelope.key', () => parseEnvelope({ ...envelope, mode: 'direct' })],
    ['envelope.beat', () => parseEnvelope({ ...envelope, beat: 2 ** 53 })],
    ['envelope.cls', () => parseEnvelope({ ...envelope, cls: 'secret' })],
    ['envelope.prev', () => parseEnvelope({ ...envelope, prev: cidOf(utf8('x'), 0x70) })],
    [
      'envelope.prev',
      () => parseEnvelope({ ...envelope, prev: CID.parse('QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG') }),
    ],
    ['branch-key.maxWraps', () => parseBranchKey({ ...branchKey, maxWraps: 4097 })],
    ['branch-key.wraps', () => parseBranchKey({ ...branchKey, wraps: [] })],
    ['branch-key.wraps', () => parseBranchKey({ ...branchKey, wraps: Array(9).fill(branchKey.wraps[0]) })],
    ['branch-key.wraps[0].t', () => parseBranchKey({ ...branchKey, wraps: [{ t: 'toString' }] })],
    ['branch-key.wraps[0].t', () => parseBranchKey({ ...branchKey, wraps: [7] })],
    ['branch-key.wraps[0].ct', () => parseBranchKey(withWrap({ ct: fresh(47) }))],
    ['branch-key.wraps[0].nonce', () => parseBranchKey(withWrap({ nonce: fresh(13) }))],
    ['branch-key.wraps[0]', () => parseBranchKey(withWrap({ more: 1 }))],
    ['branch-key.scope', () => parseBranchKey({ ...branchKey, scope: { ...branchKey.scope, more: 1 } })],
    [
      'branch-key.scope.window',
      () => parseBranchKey({ ...branchKey, scope: { ...branchKey.scope, window: [9, 8] } }),
    ],
    [
      'branch-key.scope.window',
      () => parseBranchKey({ ...branchKey, scope: { ...branchKey.scope, window: [9] } }),
    ],
    ['kek.createdAt', () => parseKek({ ...kek, createdAt: '2026-13-22T19:00:00Z' })],
    ['kek.createdAt', () => parseKek({ ...kek, createdAt: 'yesterday' })],
    ['aad.ucxl', () => parseAad(encodeCbor({ ...aad, ucxl: 'x'.repeat(4097) }))],
    ['aad.media', () => parseAad(encodeCbor({ ...aad, media: 'text/plain\n' }))],
    ['aad.kind', () => parseAad(encodeCbor({ ...aad, kind: 'tombstone' }))],
    ['aad', () => parseAad(new Uint8Array(5000))],
    ['record.kind', () => parseKeyRecord({ ...kek, kind: 'manifest' })],
  ];
  for (const [field, parse] of cases) test(field, () => refuses(parse, field));
});

test('a wrap whose label says something else than its record is refused', () => {
  const others: Partial<BkLabel>[] = [
    { bkId: fresh(16) },
    { bkVer: 2 },
    { project: 'other' },
    { cls: 'public' },
    { writer: fresh(32) },
    { window: [10, 130] },
    { window: [9, 129] },
  ];
  for (const other of others) {
    const changed = encodeLabel({ ...label, ...other });
    refuses(() => parseBranchKey(withWrap({ label: changed })), 'branch-key.wraps[0].label');
  }
});

test('a map made up to look like a CID is none', () => {
  const forged = {
    '/': 'x',
    bytes: 'x',
    version: 1,
    code: 0x55,
    multihash: { code: 0x12, digest: fresh(32) },
  };
  refuses(() => parseEnvelope({ ...envelope, policy: forged }), 'envelope.policy');
});

test('other bytes of the same meaning are refused: trailing data, long integers, keys out of order or twice', () => {
  const bytes = encodeAad(aad);
  assert.throws(() => parseAad(concat(bytes, Uint8Array.of(0))), isRecordInvalid);
  const longInteger = toHex(bytes).replace('617601', '61761801'); // v: 1, in two bytes
  assert.notEqual(longInteger, toHex(bytes));
  assert.throws(() => parseAad(Buffer.from(longInteger, 'hex')), isRecordInvalid);
  // The first key, v, moved to the end: the same map, in an order that the encoder never gives.
  const reordered = concat(bytes.subarray(0, 1), bytes.subarray(4), bytes.subarray(1, 4));
  assert.equal(toHex(reordered.subarray(-3)), '617601');
  assert.throws(() => parseAad(reordered), isRecordInvalid);
  const head = bytes[0] ?? 0;
  const twice = concat(Uint8Array.of(head + 1), bytes.subarray(1), Uint8Array.of(0x61, 0x76, 1)); // v again
  assert.throws(() => parseAad(twice), isRecordInvalid);
});

test('a flipped byte never passes for the same associated data or label', () => {
  for (const [bytes, parse] of [
    [encodeAad(aad), parseAad],
    [encodeLabel(label), parseLabel],
  ] as const) {
    for (let byte = 0; byte < bytes.length; byte++) {
      const changed = new Uint8Array(bytes);
      changed[byte] = (changed[byte] ?? 0) ^ 1;
      let parsed: unknown;
      try {
        parsed = parse(changed);
      } catch (error) {
        assert.ok(isRecordInvalid(error));
        continue;
      }
      assert.notDeepEqual(parsed, parse(bytes)); // another value: then the AEAD over these bytes refuses
    }
  }
});

test('anything at all is parsed or refused with RECORD_INVALID', () => {
  fc.assert(
    fc.property(fc.anything({ withNullPrototype: true, withTypedArray: true }), (value) => {
      for (const parse of [parseKeyRecord, parseEnvelope, parseBranchKey, parseKek]) {
        assert.throws(() => parse(value), isRecordInvalid);
      }
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.throws(() => parseAad(bytes), isRecordInvalid);
      assert.throws(() => parseLabel(bytes), isRecordInvalid);
    }),
  );
});

test('a refusal never shows the value', () => {
  const misplaced = 'correct horse battery staple';
  assert.throws(
    () => parseEnvelope({ ...envelope, [misplaced]: 1, cls: misplaced }),
    (error: unknown) => isRecordInvalid(error) && !String(error).includes('horse'),
  );
  assert.throws(
    () => parseEnvelope({ ...envelope, cls: misplaced }),
    (error: unknown) => isRecordInvalid(error) && !String(error).includes('horse'),
  );
});

function wrongValues(value: unknown): unknown[] {
  const encodable: unknown[] = [true, 1.5, -1, {}];
  if (value instanceof Uint8Array) encodable.push(value.subarray(1), 'text', Array.from(value));
  if (typeof value === 'string') encodable.push('', fresh(4), 'a\u0000b', 'x'.repeat(4200));
  if (typeof value === 'number') encodable.push(String(value), 2 ** 53 + 2);
  if (value === null || value instanceof CID) encodable.push('x', fresh(36));
  return encodable;
}

function withWrap(fields: object): object {
  return { ...branchKey, wraps: [{ ...branchKey.wraps[0], ...fields }] };
}

function isRecordInvalid(error: unknown): boolean {
  return isHoldfastError(error, 'RECORD_INVALID');
}

/** RECORD_INVALID whose message and details name `field` or something inside it. */
function refuses(parse: () => unknown, field: string): void {
  assert.throws(parse, (error: unknown) => {
    assert.ok(isHoldfastError(error, 'RECORD_INVALID'), String(error));
    assert.ok(error.message.startsWith(field), `${error.message}: ${field} expected`);
    return true;
  });
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
