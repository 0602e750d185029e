import assert from 'node:assert/strict';
import { createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { sameBytes, toHex } from '../core/bytes.ts';
import { takeKey } from '../core/hash.ts';
import { gcmOpen, gcmSealInto, hkdfExpand, importKey, tagBytes } from './primitives.ts';

const folder = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/wycheproof`;
const skip = existsSync(folder) ? false : `vectors absent: ${folder}`;

interface Case {
  readonly tcId: number;
  readonly result: 'valid' | 'invalid';
  readonly [field: string]: string | number | readonly string[];
}

interface Group {
  readonly ivSize?: number;
  readonly keySize: number;
  readonly tests: readonly Case[];
}

test('AES-256-GCM opens what it sealed', () => {
  const key = importKey(randomBytes(32));
  const nonce = randomBytes(12);
  const target = new Uint8Array(3 + tagBytes);
  gcmSealInto(target, key, nonce, Uint8Array.of(1, 2, 3), Uint8Array.of(9));
  assert.deepEqual(gcmOpen(key, nonce, target, Uint8Array.of(9)), Uint8Array.of(1, 2, 3));
  assert.equal(gcmOpen(key, nonce, target, Uint8Array.of(8)), undefined);
  assert.equal(gcmOpen(key, nonce, target.subarray(0, 15), Uint8Array.of(9)), undefined);
});

test('a key taken is zeroed where it was, a key imported is not', () => {
  const taken = randomBytes(32);
  const imported = new Uint8Array(32).fill(5);
  takeKey(taken);
  importKey(imported);
  assert.ok(sameBytes(taken, new Uint8Array(32)));
  assert.deepEqual(imported, new Uint8Array(32).fill(5));
});

test('Wycheproof: AES-256-GCM with 96-bit nonces', { skip }, () => {
  let count = 0;
  for (const { ivSize, keySize, tests } of groups('aes_gcm')) {
    if (ivSize !== 96 || keySize !== 256) continue;
    for (const item of tests) {
      count++;
      const sealed = Buffer.concat([hex(item, 'ct'), hex(item, 'tag')]);
      const key = importKey(hex(item, 'key'));
      const opened = gcmOpen(key, hex(item, 'iv'), sealed, hex(item, 'aad'));
      if (item.result === 'invalid') {
        assert.equal(opened, undefined, `tcId ${item.tcId}`);
        continue;
      }
      assert.ok(opened !== undefined && sameBytes(opened, hex(item, 'msg')), `tcId ${item.tcId}`);
      const target = new Uint8Array(sealed.length);
      gcmSealInto(target, key, hex(item, 'iv'), hex(item, 'msg'), hex(item, 'aad'));
      assert.equal(toHex(target), toHex(sealed), `tcId ${item.tcId}`);
    }
  }
  assert.ok(count >= 60, `${count} cases`);
});

describe('Wycheproof: HKDF', { skip }, () => {
  for (const hash of ['sha384', 'sha512'] as const) {
    test(hash, () => {
      let count = 0;
      for (const { tests } of groups(`hkdf_${hash}`)) {
        for (const item of tests) {
          count++;
          // HKDF-Extract is one HMAC; we use only the second half, with keys that are uniform already.
          const salt =
            hex(item, 'salt').length === 0 ? Buffer.alloc(hash === 'sha384' ? 48 : 64) : hex(item, 'salt');
          const key = createSecretKey(createHmac(hash, salt).update(hex(item, 'ikm')).digest());
          const expand = (): string => toHex(hkdfExpand(hash, key, hex(item, 'info'), Number(item['size'])));
          if (item.result === 'valid') assert.equal(expand(), item['okm'], `tcId ${item.tcId}`);
          else assert.throws(expand, /sizeBytes/, `tcId ${item.tcId}`);
        }
      }
      assert.ok(count >= 80, `${count} cases`);
    });
  }
});

function groups(name: string): readonly Group[] {
  const file: { readonly testGroups: readonly Group[] } = JSON.parse(
    readFileSync(`${folder}/${name}.json`, 'utf8'),
  );
  return file.testGroups;
}

function hex(item: Case, field: string): Buffer {
  return Buffer.from(String(item[field]), 'hex');
}
