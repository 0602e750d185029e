// The published vectors of RFC 9497 for ristretto255-SHA512, in all three modes, over the primitives that
// threshold decryption is made of: the map into the group, multiplication, and the batch proof.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { sha512 } from '../core/hash.ts';
import { proveDleq, verifyDleq } from './dleq.ts';
import type { HashGroup, Scalar } from './group.ts';
import { nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';

interface Case {
  readonly Blind: string;
  readonly BlindedElement: string;
  readonly EvaluationElement: string;
  readonly Info?: string;
  readonly Input: string;
  readonly Output: string;
  readonly Proof?: { readonly proof: string; readonly r: string };
}

interface Suite {
  readonly identifier: string;
  readonly mode: number;
  readonly seed: string;
  readonly keyInfo: string;
  readonly skSm: string;
  readonly pkSm?: string;
  readonly vectors: readonly Case[];
}

const file = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/rfc/rfc9497.json.gz`;
const skip = existsSync(file) ? false : `vectors absent: ${file}`;
const suites: Suite[] = skip === false ? JSON.parse(gunzipSync(readFileSync(file)).toString()) : [];
const ours = suites.filter(({ identifier }) => identifier === 'ristretto255-SHA512');

test('RFC 9497: the three modes of the suite are there', { skip }, () => {
  assert.deepEqual(
    ours.map(({ mode, vectors }) => [mode, vectors.length]),
    [
      [0, 2],
      [1, 3],
      [2, 3],
    ],
  );
});

for (const [name, group] of [
  ['libsodium', await loadRistretto()],
  ['noble', nobleRistretto()],
] satisfies [string, HashGroup][]) {
  for (const suite of ours) {
    for (const [number, vector] of suite.vectors.entries()) {
      test(`${name}: RFC 9497 mode ${suite.mode}, vector ${number + 1}, byte for byte`, () => {
        check(group, suite, vector);
      });
    }
  }
}

function check(group: HashGroup, suite: Suite, vector: Case): void {
  const context = concat(utf8('OPRFV1-'), Uint8Array.of(suite.mode), utf8('-ristretto255-SHA512'));
  const sk = deriveKey(group, context, suite);
  assert.equal(toHex(sk), suite.skSm);
  if (suite.pkSm !== undefined) assert.equal(toHex(group.base(sk)), suite.pkSm);
  const tweaked = tweakedKey(group, context, sk, vector.Info);
  const [inputs, blinds] = [list(vector.Input), list(vector.Blind)];
  const mapped = inputs.map((input) => group.hashToPoint(xmd(input, concat(utf8('HashToGroup-'), context))));
  const blinded = mapped.map((point, i) => group.mul(at(blinds, i), point));
  assert.equal(blinded.map(toHex).join(','), vector.BlindedElement);
  const factor = suite.mode === 2 ? group.scalar.inv(tweaked) : tweaked;
  const evaluated = blinded.map((point) => group.mul(factor, point));
  assert.equal(evaluated.map(toHex).join(','), vector.EvaluationElement);
  const outputs = inputs.map((input, i) => {
    const element = group.mul(group.scalar.inv(at(blinds, i)), at(evaluated, i));
    const info = vector.Info === undefined ? [] : [short(hex(vector.Info))];
    return sha512(concat(short(input), ...info, short(element), utf8('Finalize')));
  });
  assert.equal(outputs.map(toHex).join(','), vector.Output);
  if (vector.Proof === undefined) return;
  const r = concat(hex(vector.Proof.r), new Uint8Array(32));
  // The third mode divides by its key, and so proves with the two lists exchanged.
  const [C, D] = suite.mode === 2 ? [evaluated, blinded] : [blinded, evaluated];
  const statement = { context, B: group.base(tweaked), C, D };
  const proof = proveDleq(group, tweaked, statement, () => r.slice());
  assert.equal(toHex(proof), vector.Proof.proof);
  assert.ok(verifyDleq(group, statement, proof));
}

function deriveKey(group: HashGroup, context: Uint8Array, { seed, keyInfo }: Suite): Scalar {
  const input = concat(hex(seed), short(hex(keyInfo)), Uint8Array.of(0));
  return group.scalar.reduce(xmd(input, concat(utf8('DeriveKeyPair'), context)));
}

function tweakedKey(group: HashGroup, context: Uint8Array, sk: Scalar, info: string | undefined): Scalar {
  if (info === undefined) return sk;
  const framed = concat(utf8('Info'), short(hex(info)));
  return group.scalar.add(sk, group.scalar.reduce(xmd(framed, concat(utf8('HashToScalar-'), context))));
}

/** expand_message_xmd of RFC 9380 5.3.1 with SHA-512, to 64 bytes. */
function xmd(message: Uint8Array, dst: Uint8Array): Uint8Array {
  const dstPrime = concat(dst, Uint8Array.of(dst.length));
  const b0 = sha512(concat(new Uint8Array(128), message, Uint8Array.of(0, 64, 0), dstPrime));
  return sha512(concat(b0, Uint8Array.of(1), dstPrime));
}

function short(bytes: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes);
}

function list(text: string): Uint8Array[] {
  return text.split(',').map(hex);
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'));
}

function at(items: readonly Uint8Array[], i: number): Uint8Array {
  const item = items[i];
  assert.ok(item !== undefined);
  return item;
}
