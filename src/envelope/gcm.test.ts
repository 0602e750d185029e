import assert from 'node:assert/strict';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { concat, sameBytes, toHex } from '../core/bytes.ts';
import { floeDecryptor, floeEncryptor } from './floe.ts';
import { type GcmEngine, type GcmKey, loadGcm, nodeGcm, takeGcmKey } from './gcm.ts';
import { openOpensslGcm } from './gcm-openssl.ts';
import { importKey } from './primitives.ts';

const folder = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/wycheproof`;
const noVectors = existsSync(folder) ? false : `vectors absent: ${folder}`;
/** Either the engine, or why it cannot be had here. */
const openssl: GcmEngine | string = await openOpensslGcm().catch((error: unknown) => inspect(error));
const engines = [nodeGcm, ...(typeof openssl === 'string' ? [] : [openssl])];

/** Around every way through: pieces of 24 KiB, short texts, whole blocks of AES and a byte beside each. */
const lengths = [
  0, 1, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 1000, 24_575, 24_576, 24_577, 70_001, 262_112,
];

test('this node can encrypt in place: else content is slower than the figures say', () => {
  assert.notEqual(typeof openssl, 'string', inspect(openssl));
});

for (const engine of engines) {
  describe(engine.text, () => {
    test('gives the bytes of node:crypto, and opens them: every length, in place and apart', () => {
      const raw = randomBytes(32);
      using key = keyOf(engine, raw);
      for (const length of lengths)
        for (const aadLength of [0, 9, 64, 128, 129, 5000]) {
          const [nonce, aad, plain] = [random(12), random(aadLength), random(length)];
          const expected = reference(raw, nonce, plain, aad);
          const sealed = new Uint8Array(length + 16);
          key.sealInto(sealed, nonce, plain, aad);
          assert.ok(sameBytes(sealed, expected), `${length} bytes, ${aadLength} of associated data`);
          const opened = new Uint8Array(length);
          assert.ok(key.openInto(opened, nonce, sealed, aad));
          assert.ok(sameBytes(opened, plain));
          assert.ok(sameBytes(sealed, expected), 'opening apart leaves the ciphertext alone');
          const place = sealed.subarray(0, length);
          assert.ok(key.openInto(place, nonce, sealed, aad));
          assert.ok(sameBytes(place, plain), 'in place');
        }
    });

    test('hashes as node:crypto does', () => {
      for (const length of [0, 1, 111, 112, 190, 1023, 1024, 1025, 70_000]) {
        const bytes = random(length);
        assert.equal(toHex(engine.sha512(bytes)), createHash('sha512').update(bytes).digest('hex'));
      }
    });

    test('seals in place too: the target may begin where the plaintext lies', () => {
      const raw = randomBytes(32);
      using key = keyOf(engine, raw);
      for (const length of lengths) {
        const [nonce, aad, plain] = [random(12), random(9), random(length)];
        const target = concat(plain, new Uint8Array(16));
        key.sealInto(target, nonce, target.subarray(0, length), aad);
        assert.ok(sameBytes(target, reference(raw, nonce, plain, aad)), `${length} bytes`);
      }
    });

    test('refuses each changed part, leaves zeros and goes on working', () => {
      using key = keyOf(engine, randomBytes(32));
      for (const length of [0, 1, 32, 128, 129, 30_000]) {
        const [nonce, aad, plain] = [random(12), random(9), random(length)];
        const sealed = new Uint8Array(length + 16);
        key.sealInto(sealed, nonce, plain, aad);
        const refuses = (text: Uint8Array, withNonce = nonce, withAad = aad): void => {
          const target = new Uint8Array(text.length - 16).fill(7);
          assert.equal(key.openInto(target, withNonce, text, withAad), false);
          assert.ok(
            target.every((byte) => byte === 0),
            'nothing of the plaintext stays',
          );
        };
        for (let at = 0; at < 16; at++) refuses(changed(sealed, length + at));
        for (const at of [0, length >> 1, length - 1]) if (length > 0) refuses(changed(sealed, at));
        for (let at = 0; at < 12; at++) refuses(sealed, changed(nonce, at));
        for (let at = 0; at < 9; at++) refuses(sealed, nonce, changed(aad, at));
        refuses(sealed, nonce, new Uint8Array(0));
        if (length > 0) refuses(sealed.subarray(1));
        const place = Uint8Array.from(changed(sealed, length));
        assert.equal(key.openInto(place.subarray(0, length), nonce, place, aad), false);
        assert.ok(place.subarray(0, length).every((byte) => byte === 0));
        assert.ok(key.openInto(new Uint8Array(length), nonce, sealed, aad));
      }
    });

    test('lengths that do not fit are our mistake, and touch nothing', () => {
      using key = keyOf(engine, randomBytes(32));
      const untouched = new Uint8Array(64).fill(3);
      const [nonce, aad] = [random(12), random(9)];
      assert.throws(() => key.sealInto(untouched.subarray(0, 47), nonce, random(32), aad), /target/);
      assert.throws(() => key.sealInto(untouched.subarray(0, 49), nonce, random(32), aad), /target/);
      assert.throws(() => key.openInto(untouched.subarray(0, 31), nonce, random(48), aad), /target/);
      assert.throws(() => key.openInto(untouched.subarray(0, 0), nonce, random(15), aad), /target/);
      for (const wrong of [0, 11, 13, 16])
        assert.throws(() => key.sealInto(untouched.subarray(0, 48), random(wrong), random(32), aad), /nonce/);
      assert.ok(untouched.every((byte) => byte === 3));
    });

    test('a disposed key does nothing more; another goes on', () => {
      const [first, second] = [keyOf(engine, randomBytes(32)), keyOf(engine, randomBytes(32))];
      const sealed = new Uint8Array(48);
      for (const key of [first, second]) key.sealInto(sealed, random(12), random(32), random(9));
      first[Symbol.dispose]();
      first[Symbol.dispose]();
      assert.throws(() => first.sealInto(sealed, random(12), random(32), random(9)), /disposal/);
      assert.throws(() => first.openInto(random(32), random(12), sealed, random(9)), /disposal/);
      second.sealInto(sealed, random(12), random(32), random(9));
    });

    test('Wycheproof: 96-bit nonces', { skip: noVectors }, () => {
      let count = 0;
      for (const { ivSize, keySize, tests } of wycheproof()) {
        if (ivSize !== 96 || keySize !== 256) continue;
        for (const { tcId, result, ...hex } of tests) {
          count++;
          const [iv, aad, msg] = [bytes(hex.iv), bytes(hex.aad), bytes(hex.msg)];
          const sealed = concat(bytes(hex.ct), bytes(hex.tag));
          using key = keyOf(engine, bytes(hex.key));
          const opened = new Uint8Array(sealed.length - 16);
          assert.equal(key.openInto(opened, iv, sealed, aad), result === 'valid', `tcId ${tcId}`);
          if (result !== 'valid') continue;
          assert.ok(sameBytes(opened, msg), `tcId ${tcId}`);
          key.sealInto(sealed, iv, msg, aad);
          assert.equal(toHex(sealed), hex.ct + hex.tag, `tcId ${tcId}`);
        }
      }
      assert.ok(count >= 60, `${count} cases`);
    });
  });
}

test('keys made before and after the engine was chosen open what the other sealed', async () => {
  const [dek, aad] = [random(32), random(40)];
  const before = floeEncryptor(dek, aad, random);
  const sealedBefore = before.encryptSegment(0, random(5000), true);
  const { text } = await loadGcm();
  assert.equal(await loadGcm(), await loadGcm(), 'it is chosen once');
  assert.equal(text, typeof openssl === 'string' ? nodeGcm.text : openssl.text);
  assert.equal(floeDecryptor(dek, aad, before.header).decryptSegment(0, sealedBefore, true).length, 5000);
  using key = takeGcmKey(random(32));
  assert.doesNotMatch(
    `${inspect(key, { showHidden: true, depth: 9 })}${JSON.stringify(key)}`,
    /[0-9a-f]{32}/,
  );
});

function keyOf(engine: GcmEngine, raw: Uint8Array): GcmKey {
  return engine.over(importKey(raw));
}

/** One call of node:crypto in one piece, with none of the code under test. */
function reference(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array, aad: Uint8Array): Uint8Array {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(aad);
  return concat(cipher.update(plain), cipher.final(), cipher.getAuthTag());
}

function random(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

function changed(from: Uint8Array, at: number): Uint8Array {
  const out = Uint8Array.from(from);
  out[at] = (out[at] ?? 0) ^ 0x80;
  return out;
}

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

interface Vectors {
  readonly testGroups: readonly {
    readonly ivSize: number;
    readonly keySize: number;
    readonly tests: readonly {
      readonly tcId: number;
      readonly result: string;
      readonly key: string;
      readonly iv: string;
      readonly aad: string;
      readonly msg: string;
      readonly ct: string;
      readonly tag: string;
    }[];
  }[];
}

function wycheproof(): Vectors['testGroups'] {
  const read: Vectors = JSON.parse(readFileSync(`${folder}/aes_gcm.json`, 'utf8'));
  return read.testGroups;
}
