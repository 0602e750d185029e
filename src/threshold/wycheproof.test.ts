// Project Wycheproof over the primitives of node:crypto that custody stands on, called as the sources here
// call them. AES-256-GCM and HKDF are in the tests of src/envelope.

import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { concat, toHex } from '../core/bytes.ts';
import { verifySignature } from '../core/hash.ts';
import { openXChaCha, sealXChaCha } from './xchacha.ts';

const folder = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/wycheproof`;
const skip = existsSync(folder) ? false : `vectors absent: ${folder}`;

interface Case {
  readonly tcId: number;
  readonly result: 'valid' | 'acceptable' | 'invalid';
  readonly flags: readonly string[];
  readonly [field: string]: unknown;
}

interface Group {
  readonly ivSize?: number;
  readonly publicKey?: { readonly pk: string };
  readonly tests: readonly Case[];
}

describe('Wycheproof', { skip }, () => {
  test('Ed25519: every verdict', () => {
    let count = 0;
    for (const { publicKey, tests } of groups('ed25519')) {
      for (const item of tests) {
        const verdict = verifySignature(bytes(publicKey?.pk), bytes(item['msg']), bytes(item['sig']));
        assert.equal(verdict, item.result === 'valid', `tcId ${item.tcId}`);
        count++;
      }
    }
    assert.equal(count, 151);
  });

  test('X25519: every shared secret; one that everybody knows is refused', () => {
    const counts = { agreed: 0, refused: 0 };
    for (const { tests } of groups('x25519')) {
      for (const item of tests) {
        const zero = item.flags.includes('ZeroSharedSecret');
        const secret = x25519(bytes(item['private']), bytes(item['public']));
        assert.equal(secret === undefined ? undefined : toHex(secret), zero ? undefined : item['shared']);
        counts[zero ? 'refused' : 'agreed']++;
      }
    }
    assert.equal(counts.agreed + counts.refused, 518);
    assert.ok(counts.refused > 0);
  });

  test('XChaCha20-Poly1305: opens what is right, refuses what is not', () => {
    let count = 0;
    for (const { ivSize, tests } of groups('xchacha20_poly1305')) {
      for (const item of tests) {
        count++;
        const [key, nonce, aad] = [bytes(item['key']), bytes(item['iv']), bytes(item['aad'])];
        const sealed = concat(bytes(item['ct']), bytes(item['tag']));
        // A nonce of another size is a fault of the caller.
        if (ivSize !== 192) {
          assert.throws(() => sealXChaCha(key, nonce, bytes(item['msg']), aad), `tcId ${item.tcId}`);
          continue;
        }
        const opened = openXChaCha(key, nonce, sealed, aad);
        if (item.result !== 'valid') {
          assert.equal(opened, undefined, `tcId ${item.tcId}`);
          continue;
        }
        assert.equal(opened === undefined ? undefined : toHex(opened), item['msg'], `tcId ${item.tcId}`);
        assert.equal(toHex(sealXChaCha(key, nonce, bytes(item['msg']), aad)), toHex(sealed));
      }
    }
    assert.equal(count, 315);
  });
});

/** X25519 as HPKE here does it; undefined when node:crypto refuses. */
function x25519(secret: Uint8Array, peer: Uint8Array): Uint8Array | undefined {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), secret]);
  const spki = Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), peer]);
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  try {
    return diffieHellman({ privateKey, publicKey });
  } catch {
    return undefined;
  }
}

function groups(name: string): Group[] {
  return JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8')).testGroups;
}

function bytes(hex: unknown): Uint8Array {
  return new Uint8Array(Buffer.from(String(hex), 'hex'));
}
