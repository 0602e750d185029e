import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { generateKeyPair, hpkeTagBytes, openWith, sealTo } from './hpke.ts';

const info = utf8('what it is part of');
const aad = utf8('what stands beside it');
const message = utf8('a share of the key');

test('opens for the holder of the key, and for nobody else', () => {
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  const { enc, ct } = sealTo(publicKey, info, aad, message, randomBytes);
  assert.equal(ct.length, message.length + hpkeTagBytes);
  assert.deepEqual(openWith(secretKey, enc, info, aad, ct), message);
  const other = generateKeyPair(randomBytes);
  for (const open of [
    () => openWith(other.secretKey, enc, info, aad, ct),
    () => openWith(secretKey, other.publicKey, info, aad, ct),
    () => openWith(secretKey, enc, aad, aad, ct),
    () => openWith(secretKey, enc, info, info, ct),
    () => openWith(secretKey, enc, info, aad, ct.subarray(1)),
    () => openWith(secretKey, enc, info, aad, new Uint8Array(hpkeTagBytes - 1)),
    () => openWith(secretKey, enc.subarray(1), info, aad, ct),
    () => openWith(secretKey, new Uint8Array(32), info, aad, ct),
  ]) {
    assert.throws(open, (error) => isHoldfastError(error, 'DECRYPT_FAILED'));
  }
});

test('every flipped bit of enc and ciphertext is noticed', () => {
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  const { enc, ct } = sealTo(publicKey, info, aad, message, randomBytes);
  const sealed = concat(enc, ct);
  for (let bit = 0; bit < 8 * sealed.length; bit++) {
    const forged = sealed.slice();
    forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.throws(
      () => openWith(secretKey, forged.subarray(0, 32), info, aad, forged.subarray(32)),
      (error) => isHoldfastError(error, 'DECRYPT_FAILED'),
      `bit ${bit}`,
    );
  }
});

test('an empty message and empty contexts are messages too', () => {
  const nothing = new Uint8Array(0);
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  const { enc, ct } = sealTo(publicKey, nothing, nothing, nothing, randomBytes);
  assert.deepEqual(openWith(secretKey, enc, nothing, nothing, ct), nothing);
});

test('the same message to the same key looks different each time; the seed of the ephemeral key is zeroed', () => {
  const { publicKey } = generateKeyPair(randomBytes);
  let drawn = new Uint8Array(0);
  const random = (size: number): Uint8Array => (drawn = new Uint8Array(randomBytes(size)));
  const first = sealTo(publicKey, info, aad, message, random);
  assert.deepEqual(drawn, new Uint8Array(32));
  assert.notDeepEqual(first, sealTo(publicKey, info, aad, message, random));
});

test('does not seal to a key whose secret everybody knows', () => {
  const smallOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ];
  for (const pk of [...smallOrder.map((text) => Buffer.from(text, 'hex')), new Uint8Array(31)]) {
    assert.throws(
      () => sealTo(pk, info, aad, message, randomBytes),
      (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
    );
  }
});

interface Vector {
  readonly mode: number;
  readonly kem_id: number;
  readonly kdf_id: number;
  readonly aead_id: number;
  readonly [field: string]: unknown;
  readonly encryptions: readonly { readonly aad: string; readonly ct: string; readonly pt: string }[];
}

const file = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/rfc/rfc9180.json.gz`;
const skip = existsSync(file) ? false : `vectors absent: ${file}`;

test('RFC 9180: base mode, X25519, HKDF-SHA256, AES-256-GCM, byte for byte', { skip }, () => {
  const vectors: Vector[] = JSON.parse(gunzipSync(readFileSync(file)).toString());
  const ours = vectors.filter(
    ({ mode, kem_id, kdf_id, aead_id }) => mode === 0 && kem_id === 0x20 && kdf_id === 1 && aead_id === 2,
  );
  assert.equal(ours.length, 1);
  for (const vector of ours) {
    const field = (name: string): Uint8Array => Buffer.from(String(vector[name]), 'hex');
    const [first] = vector.encryptions;
    assert.ok(first !== undefined);
    const [additional, plaintext] = [Buffer.from(first.aad, 'hex'), Buffer.from(first.pt, 'hex')];
    const sealed = sealTo(field('pkRm'), field('info'), additional, plaintext, () => field('skEm'));
    assert.equal(toHex(sealed.enc), vector['enc']);
    assert.equal(toHex(sealed.ct), first.ct);
    const opened = openWith(field('skRm'), field('enc'), field('info'), additional, sealed.ct);
    assert.equal(toHex(opened), first.pt);
    assert.equal(toHex(generateKeyPair(() => field('skRm')).publicKey), vector['pkRm']);
  }
});
