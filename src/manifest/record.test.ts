import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { cborBlock, encodeCbor, rawBlock } from '../core/block.ts';
import { concat, toHex } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { preimage, signerFromSeed } from '../core/hash.ts';
import { recordBytesMax } from '../core/limits.ts';
import { isRecordBytes, openRecord, type RecordBody, signRecord } from './record.ts';

const signer = signerFromSeed(new Uint8Array(32).fill(7));
const plain = { kind: 'envelope', v: 1, writer: signer.publicKey, prev: null, note: 'hello' } as const;

test('a signed record opens as what was signed', () => {
  const signed = signRecord(plain, signer);
  const opened = openRecord(signed.block.bytes);
  assert.deepEqual({ ...opened.body }, plain);
  assert(opened.cid.equals(signed.cid));
  assert(isRecordBytes(signed.block.bytes));
});

test('the block is canonical DAG-CBOR of {r, s}', () => {
  const { block } = signRecord(plain, signer);
  const again = cborBlock({ r: plain, s: block.bytes.slice(-64) });
  assert.equal(toHex(again.bytes), toHex(block.bytes));
  assert(again.cid.equals(block.cid));
});

test('the first bytes and the last stand where the format says', () => {
  const { bytes } = signRecord(plain, signer).block;
  assert.deepEqual([...bytes.subarray(0, 3)], [0xa2, 0x61, 0x72]);
  assert.deepEqual([...bytes.subarray(-68, -64)], [0x61, 0x73, 0x58, 0x40]);
  assert.equal(toHex(bytes.subarray(3, -68)), toHex(encodeCbor(plain)));
});

test('no byte can change: every other value of every bit is refused', () => {
  const { bytes } = signRecord(
    { ...plain, prev: cborBlock({ a: 1 }).cid, list: [1, -2, 0.5, 'é'] },
    signer,
  ).block;
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const flipped = Uint8Array.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << bit);
      refused(flipped, `byte ${at} bit ${bit}`);
    }
  }
});

test('nothing can be cut off, added or swapped', () => {
  const { bytes } = signRecord(plain, signer).block;
  for (let length = 0; length < bytes.length; length++) refused(bytes.subarray(0, length), `first ${length}`);
  refused(concat(bytes, Uint8Array.of(0)), 'longer');
  refused(concat(bytes, bytes), 'twice');
  const other = signRecord({ ...plain, note: 'other' }, signer).block.bytes;
  refused(concat(bytes.subarray(0, -64), other.subarray(-64)), 'the signature of another');
});

test('a body that is signed but not canonical is refused', () => {
  const canonical = encodeCbor(plain);
  const forms: readonly [string, Uint8Array][] = [
    ['keys in another order', swapFirstTwo()],
    ['1 in two bytes', replaceOnce(canonical, [0x61, 0x76, 0x01], [0x61, 0x76, 0x18, 0x01])],
    [
      '1 as a float',
      replaceOnce(canonical, [0x61, 0x76, 0x01], [0x61, 0x76, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
    ],
    ['undefined for null', replaceOnce(canonical, [0xf6], [0xf7])],
    ['a length in two bytes', replaceOnce(canonical, [0x65, 0x68], [0x78, 0x05, 0x68])],
    ['map of open length', concat(Uint8Array.of(0xbf), canonical.subarray(1), Uint8Array.of(0xff))],
    ['a byte after it', concat(canonical, Uint8Array.of(0xf6))],
  ];
  for (const [what, encoded] of forms) refused(signedBytes(encoded), what);
  openRecord(signedBytes(canonical));
});

test('common fields are checked, on both sides', () => {
  const bad: readonly [string, object][] = [
    ['kind', { ...plain, kind: 'other' }],
    ['v', { ...plain, v: 2 }],
    ['writer', { ...plain, writer: new Uint8Array(31) }],
    ['prev', { ...plain, prev: rawBlock(new Uint8Array(1)).cid }],
    ['prev', { ...plain, prev: 'x' }],
    ['prev', { kind: 'envelope', v: 1, writer: signer.publicKey }],
  ];
  for (const [field, body] of bad) {
    refused(signedBytes(encodeCbor(body)), field, field);
  }
  assert.throws(
    () => signRecord({ ...plain, writer: new Uint8Array(32) }, signer),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
});

test('large and deep blocks are refused before they cost anything', () => {
  assert.throws(
    () => signRecord({ ...plain, note: 'x'.repeat(recordBytesMax) }, signer),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
  refused(new Uint8Array(recordBytesMax + 1), 'large');
  refused(signedBytes(new Uint8Array(60_000).fill(0x81)), 'deep list');
  refused(
    signedBytes(concat(Uint8Array.of(0xa1, 0x61, 0x61), new Uint8Array(60_000).fill(0x81))),
    'deep map',
  );
  const size = recordBytesMax - signRecord({ ...plain, note: '' }, signer).block.bytes.length - 2;
  const largest = signRecord({ ...plain, note: 'x'.repeat(size) }, signer);
  assert.equal(largest.block.bytes.length, recordBytesMax);
  openRecord(largest.block.bytes);
});

test('any body round trips', () => {
  const values = fc.dictionary(
    fc.stringMatching(/^[a-z]{1,8}$/),
    fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)),
  );
  fc.assert(
    fc.property(
      values,
      fc.constantFrom('manifest' as const, 'branch-key' as const, 'kek' as const),
      (values, kind) => {
        const body: RecordBody = { ...values, kind, v: 1, writer: signer.publicKey, prev: null };
        const { block } = signRecord(body, signer);
        assert.deepEqual({ ...openRecord(block.bytes).body }, body);
      },
    ),
  );
});

test('any bytes are a record or refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      refused(bytes, 'random');
      refused(signedBytes(bytes), 'random but signed');
    }),
  );
});

function signedBytes(encoded: Uint8Array): Uint8Array {
  const signature = signer.sign(preimage('holdfast/record/v1', encoded));
  return concat(Uint8Array.of(0xa2, 0x61, 0x72), encoded, Uint8Array.of(0x61, 0x73, 0x58, 0x40), signature);
}

/** `plain` with its second key before its first. */
function swapFirstTwo(): Uint8Array {
  const v = encodeCbor({ v: 1 }).subarray(1);
  const kind = encodeCbor({ kind: plain.kind }).subarray(1);
  const canonical = encodeCbor(plain);
  assert.deepEqual(canonical.subarray(1, 1 + v.length), v);
  const withoutKind = replaceOnce(canonical, [...kind], []);
  return concat(withoutKind.subarray(0, 1), kind, withoutKind.subarray(1));
}

function replaceOnce(bytes: Uint8Array, from: readonly number[], to: readonly number[]): Uint8Array {
  const at = Buffer.from(bytes).indexOf(Uint8Array.from(from));
  assert(at !== -1);
  return concat(bytes.subarray(0, at), Uint8Array.from(to), bytes.subarray(at + from.length));
}

function refused(bytes: Uint8Array, what: string, field?: string): void {
  assert.throws(
    () => openRecord(bytes),
    (error) =>
      isHoldfastError(error, 'RECORD_INVALID') && (field === undefined || error.details['field'] === field),
    what,
  );
}
