import assert from 'node:assert/strict';
import { test } from 'node:test';
import sodium from 'libsodium-wrappers-sumo';
import { flipped, fromHex, random } from '../../test/support/threshold.ts';
import { toHex, utf8 } from '../core/bytes.ts';
import { hchacha20, openXChaCha, sealXChaCha } from './xchacha.ts';

await sodium.ready;

test('the vectors of draft-irtf-cfrg-xchacha-03', () => {
  const key = fromHex('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f');
  assert.equal(
    toHex(hchacha20(key, fromHex('000000090000004a0000000031415927'))),
    '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc',
  );
  const text =
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
  const sealed = sealXChaCha(
    fromHex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f'),
    fromHex('404142434445464748494a4b4c4d4e4f5051525354555657'),
    utf8(text),
    fromHex('50515253c0c1c2c3c4c5c6c7'),
  );
  assert.equal(toHex(sealed.subarray(0, 16)), 'bd6d179d3e83d43b9576579493c0e939');
  assert.equal(toHex(sealed.subarray(-16)), 'c0875924c1c7987947deafd8780acf49');
});

test('libsodium seals and opens the same bytes', () => {
  for (const size of [0, 1, 32, 63, 64, 65, 1000]) {
    const [key, nonce, aad, text] = [random(32), random(24), random(size % 40), random(size)];
    const sealed = sealXChaCha(key, nonce, text, aad);
    const theirs = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, aad, null, nonce, key);
    assert.equal(toHex(sealed), toHex(theirs));
    assert.deepEqual(openXChaCha(key, nonce, theirs, aad), text);
  }
});

test('a flipped byte anywhere, or too few, open to nothing', () => {
  const [key, nonce, aad] = [random(32), random(24), random(9)];
  const sealed = sealXChaCha(key, nonce, random(40), aad);
  for (let at = 0; at < sealed.length; at++) {
    assert.equal(openXChaCha(key, nonce, flipped(sealed, at), aad), undefined);
    assert.equal(openXChaCha(key, nonce, sealed.subarray(0, at), aad), undefined);
  }
  for (let at = 0; at < 32; at++) assert.equal(openXChaCha(flipped(key, at), nonce, sealed, aad), undefined);
  for (let at = 0; at < 24; at++) assert.equal(openXChaCha(key, flipped(nonce, at), sealed, aad), undefined);
  for (let at = 0; at < 9; at++) assert.equal(openXChaCha(key, nonce, sealed, flipped(aad, at)), undefined);
});
