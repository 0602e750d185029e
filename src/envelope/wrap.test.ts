import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import * as fc from 'fast-check';
import { rawBlock } from '../core/block.ts';
import { concat, sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { floeDecryptor, floeEncryptor } from './floe.ts';
import { commitmentOf, type DekBinding, matchesCommitment, unwrapDek, WrappingKey, wrapDek } from './wrap.ts';

const branchKey = fresh(32);
const bkId = fresh(16);
const key = new WrappingKey(branchKey, bkId);
const policy = rawBlock(utf8('policy')).cid;
const binding: DekBinding = { objId: fresh(16), headerTag: fresh(32), bkId, bkVer: 1, policy };

test('a DEK comes back from its 60 bytes', () => {
  const dek = fresh(32);
  const wrap = wrapDek(key, dek, binding, randomBytes);
  assert.equal(wrap.length, 60);
  assert.deepEqual(unwrapDek(key, wrap, binding), dek);
  assert.deepEqual(unwrapDek(new WrappingKey(branchKey, bkId), wrap, binding), dek);
});

test('any DEK, any nonce; two wraps of one DEK differ', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (dek) => {
      const wrap = wrapDek(key, dek, binding, randomBytes);
      assert.ok(sameBytes(unwrapDek(key, wrap, binding), dek));
      assert.ok(!sameBytes(wrapDek(key, dek, binding, randomBytes), wrap));
    }),
  );
});

describe('nothing else opens', () => {
  const dek = fresh(32);
  const wrap = wrapDek(key, dek, binding, randomBytes);

  test('each of its 480 bits flipped, and every length but 60', () => {
    for (let bit = 0; bit < 480; bit++) refuses(key, flipped(wrap, bit), binding);
    for (let length = 0; length < 60; length++) refuses(key, wrap.subarray(0, length), binding);
    refuses(key, concat(wrap, Uint8Array.of(0)), binding);
  });

  test('each bit of what it is bound to flipped', () => {
    for (const field of ['objId', 'headerTag', 'bkId'] as const) {
      for (let bit = 0; bit < binding[field].length * 8; bit++) {
        refuses(key, wrap, { ...binding, [field]: flipped(binding[field], bit) });
      }
    }
    for (const bkVer of [0, 2, 257, 2 ** 40]) refuses(key, wrap, { ...binding, bkVer });
    refuses(key, wrap, { ...binding, policy: null });
    refuses(key, wrap, { ...binding, policy: rawBlock(utf8('laxer')).cid });
  });

  test('under another branch key, or the same one under another id', () => {
    for (let bit = 0; bit < 256; bit += 5)
      refuses(new WrappingKey(flipped(branchKey, bit), bkId), wrap, binding);
    refuses(new WrappingKey(branchKey, fresh(16)), wrap, binding);
  });

  // The wrap's own AEAD does not commit; the header tag that it binds, and FLOE checks, does.
  test('a DEK that somebody with the branch key put in place of the right one', () => {
    const aad = utf8('aad');
    const stream = floeEncryptor(dek, aad, randomBytes);
    const bound = { ...binding, headerTag: stream.headerTag };
    const planted = unwrapDek(key, wrapDek(key, fresh(32), bound, randomBytes), bound);
    assert.throws(() => floeDecryptor(planted, aad, stream.header), isDecryptFailed);
  });
});

test('the commitment fits its own branch key only', () => {
  const commit = commitmentOf(branchKey);
  assert.equal(commit.length, 32);
  assert.ok(matchesCommitment(branchKey, commit));
  for (let bit = 0; bit < 256; bit++) {
    assert.ok(!matchesCommitment(flipped(branchKey, bit), commit));
    assert.ok(!matchesCommitment(branchKey, flipped(commit, bit)));
  }
  assert.ok(!matchesCommitment(branchKey, commit.subarray(1)));
});

test('a wrapping key leaves the branch key alone, shows nothing, and is of no use after disposal', () => {
  const own = new Uint8Array(branchKey);
  const wrapping = new WrappingKey(own, bkId);
  assert.deepEqual(own, branchKey);
  assert.equal(JSON.stringify({ wrapping }), '{"wrapping":"[wrapping key]"}');
  assert.equal(inspect(wrapping, { showHidden: true, depth: 9 }), '[wrapping key]');
  assert.equal(Object.keys(wrapping).length, 0);
  wrapping[Symbol.dispose]();
  assert.ok(wrapping.disposed);
  assert.throws(() => wrapDek(wrapping, fresh(32), binding, randomBytes), /used after disposal/);
});

test('errors say nothing of the DEK or the wrap', () => {
  const dek = fresh(32);
  const wrap = wrapDek(key, dek, binding, randomBytes);
  try {
    unwrapDek(key, flipped(wrap, 100), binding);
    assert.fail('opened');
  } catch (error) {
    const shown = `${inspect(error, { showHidden: true, depth: 9 })}${JSON.stringify(error)}`;
    for (const secret of [dek, branchKey, wrap.subarray(12, 44)])
      assert.ok(!shown.includes(toHex(secret).slice(0, 12)));
  }
});

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const out = new Uint8Array(bytes);
  const byte = Math.floor(bit / 8);
  out[byte] = (out[byte] ?? 0) ^ (1 << (bit % 8));
  return out;
}

function isDecryptFailed(error: unknown): boolean {
  return isHoldfastError(error, 'DECRYPT_FAILED');
}

function refuses(key: WrappingKey, wrap: Uint8Array, binding: DekBinding): void {
  assert.throws(() => unwrapDek(key, wrap, binding), isDecryptFailed);
}
