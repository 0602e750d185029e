import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { agreedWith, generateKeyPair, hpkeTagBytes, openAgreed, openerOf, openWith, sealTo } from './hpke.ts';

const info = utf8('what it is part of');
const aad = utf8('what stands beside it');
const message = utf8('a share of the key');

/** Whoever seals brings an ephemeral key, or has OpenSSL draw one. */
const senders = [randomBytes, undefined];

for (const random of senders)
  test('opens for the holder of the key, and for nobody else', () => {
    const { publicKey, secretKey } = generateKeyPair(randomBytes);
    const { enc, ct } = sealTo(publicKey, info, aad, message, random);
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

test('errors are traced afterwards as they were before', (t) => {
  const { stackTraceLimit } = Error;
  t.after(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });
  Error.stackTraceLimit = 17;
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  const { enc, ct } = sealTo(publicKey, info, aad, message, randomBytes);
  openWith(secretKey, enc, info, aad, ct);
  for (const random of senders) assert.throws(() => sealTo(new Uint8Array(32), info, aad, message, random));
  assert.equal(Error.stackTraceLimit, 17);
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
  assert.notDeepEqual(sealTo(publicKey, info, aad, message), sealTo(publicKey, info, aad, message));
});

test('does not seal to a key whose secret everybody knows, and opens nothing that was', () => {
  const { secretKey } = generateKeyPair(randomBytes);
  const smallOrder = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ];
  for (const pk of [...smallOrder.map((text) => Buffer.from(text, 'hex')), new Uint8Array(31)]) {
    for (const random of senders)
      assert.throws(
        () => sealTo(pk, info, aad, message, random),
        (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
      );
    assert.throws(
      () => openWith(secretKey, pk, info, aad, new Uint8Array(32)),
      (error) => isHoldfastError(error, 'DECRYPT_FAILED'),
    );
  }
});

test('who is shown what was agreed on opens what the holder of the key opens, and no other message', () => {
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  for (const size of [0, 44, 2000]) {
    const long = new Uint8Array(randomBytes(size)); // an info that is hashed where it fits, and one that does not
    const { enc, ct } = sealTo(publicKey, long, aad, message, randomBytes);
    assert.deepEqual(openWith(secretKey, enc, long, aad, ct), message);
    const shown = agreedWith(openerOf(secretKey), enc);
    assert.deepEqual(openAgreed(shown.slice(), publicKey, enc, long, aad, ct), message);
    const other = sealTo(publicKey, long, aad, message);
    assert.deepEqual(
      openAgreed(agreedWith(openerOf(secretKey), other.enc), publicKey, other.enc, long, aad, other.ct),
      message,
    );
    assert.throws(
      () => openAgreed(shown.slice(), publicKey, other.enc, long, aad, other.ct),
      (error) => isHoldfastError(error, 'DECRYPT_FAILED'),
    );
  }
});

// The published vector of mode 0, KEM 0x20, KDF 1, AEAD 2 (test vectors of RFC 9180), its first encryption.
const vector = {
  info: '4f6465206f6e2061204772656369616e2055726e',
  skEm: '179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11',
  skRm: '497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d',
  pkRm: '430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c',
  enc: '6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256',
  aad: '436f756e742d30',
  pt: '4265617574792069732074727574682c20747275746820626561757479',
  ct: 'e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a',
};

test('RFC 9180: the vector of this suite, byte for byte', () => {
  const field = (name: keyof typeof vector): Uint8Array => new Uint8Array(Buffer.from(vector[name], 'hex'));
  const sealed = sealTo(field('pkRm'), field('info'), field('aad'), field('pt'), () => field('skEm'));
  assert.equal(toHex(sealed.enc), vector.enc);
  assert.equal(toHex(sealed.ct), vector.ct);
  assert.deepEqual(
    openWith(field('skRm'), field('enc'), field('info'), field('aad'), field('ct')),
    field('pt'),
  );
  assert.equal(toHex(generateKeyPair(() => field('skRm')).publicKey), vector.pkRm);
});
