import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { concat, toHex, utf8 } from '../core/bytes.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { type DleqStatement, proveDleq, verifyDleq } from './dleq.ts';
import type { HashGroup, Point, Scalar } from './group.ts';
import { nobleRistretto } from '../../test/support/group-noble.ts';
import { loadRistretto } from './group-sodium.ts';

const sodium = await loadRistretto();
const noble = nobleRistretto();

// RFC 9497 appendix A.1.2: ristretto255-SHA512, VOPRF mode.
const vectorContext = concat(utf8('OPRFV1-'), Uint8Array.of(1), utf8('-ristretto255-SHA512'));
const vectorKey = {
  sk: 'e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909',
  pk: 'c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e',
};
const vectors = [
  {
    blinded: ['863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945'],
    evaluated: ['aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e'],
    r: '222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e',
    proof:
      'ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd06' +
      '6d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d',
  },
  {
    blinded: ['cc0b2a350101881d8a4cba4c80241d74fb7dcbfde4a61fde2f91443c2bf9ef0c'],
    evaluated: ['60a59a57208d48aca71e9e850d22674b611f752bed48b36f7a91b372bd7ad468'],
    r: '222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e',
    proof:
      '401a0da6264f8cf45bb2f5264bc31e109155600babb3cd4e5af7d181a2c9dc0a' +
      '67154fabf031fd936051dec80b0b6ae29c9503493dde7393b722eafdf5a50b02',
  },
  {
    blinded: [
      '863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945',
      '90a0145ea9da29254c3a56be4fe185465ebb3bf2a1801f7124bbbadac751e654',
    ],
    evaluated: [
      'aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e',
      'cc5ac221950a49ceaa73c8db41b82c20372a4c8d63e5dded2db920b7eee36a2a',
    ],
    r: '419c4f4f5052c53c45f3da494d2b67b220d02118e0857cdbcf037f9ea84bbe0c',
    proof:
      'cc203910175d786927eeb44ea847328047892ddf8590e723c37205cb74600b0a' +
      '5ab5337c8eb4ceae0494c2cf89529dcf94572ed267473d567aeed6ab873dee08',
  },
];

for (const [name, group] of [
  ['libsodium', sodium],
  ['noble', noble],
] satisfies [string, HashGroup][]) {
  describe(name, () => {
    for (const [number, vector] of vectors.entries()) {
      test(`RFC 9497 VOPRF vector ${number + 1}: evaluation and proof, byte for byte`, () => {
        const sk = hex(vectorKey.sk);
        assert.equal(toHex(group.base(sk)), vectorKey.pk);
        const C = vector.blinded.map(hex);
        const D = C.map((point) => group.mul(sk, point));
        assert.deepEqual(D.map(toHex), vector.evaluated);
        const stated = { context: vectorContext, B: hex(vectorKey.pk), C, D };
        const proof = proveDleq(group, sk, stated, () => concat(hex(vector.r), new Uint8Array(32)));
        assert.equal(toHex(proof), vector.proof);
        assert.ok(verifyDleq(group, stated, proof));
      });
    }
  });
}

test('a batch proof holds for its statement and for no other', () => {
  const { k, stated } = statement(sodium, 5);
  const proof = proveDleq(sodium, k, stated, randomBytes);
  assert.ok(verifyDleq(sodium, stated, proof));
  assert.ok(verifyDleq(noble, stated, proof));
  const other = sodium.base(sodium.scalar.random(randomBytes));
  const swap = <T>(list: readonly T[], i: number, value: T): T[] => list.with(i, value);
  const wrong: DleqStatement[] = [
    { ...stated, context: utf8('another request') },
    { ...stated, B: other },
    { ...stated, C: swap(stated.C, 2, other) },
    { ...stated, D: swap(stated.D, 2, other) },
    { ...stated, C: stated.C.toReversed(), D: stated.D.toReversed() },
    { ...stated, C: stated.C.slice(1), D: stated.D.slice(1) },
    { ...stated, C: stated.C.slice(1) },
  ];
  for (const bad of wrong) assert.equal(verifyDleq(sodium, bad, proof), false);
});

test('one wrong item in a batch breaks the proof even of who knows the key', () => {
  const { k, stated } = statement(sodium, 3);
  const D = stated.D.with(
    1,
    sodium.add(stated.D[1] ?? sodium.identity, sodium.base(sodium.scalar.fromInt(1))),
  );
  const lie = { ...stated, D };
  assert.equal(verifyDleq(sodium, lie, proveDleq(sodium, k, lie, randomBytes)), false);
});

test('every flipped bit of a proof is noticed, by both libraries', () => {
  const { k, stated } = statement(sodium, 1);
  const proof = proveDleq(sodium, k, stated, randomBytes);
  for (let bit = 0; bit < 8 * proof.length; bit++) {
    const forged = proof.slice();
    forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(verifyDleq(sodium, stated, forged), false, `bit ${bit}`);
    if (bit % 64 === 0) assert.equal(verifyDleq(noble, stated, forged), false, `bit ${bit}`);
  }
});

test('malformed points, scalars and sizes are refused, not thrown', () => {
  const { k, stated } = statement(sodium, 2);
  const proof = proveDleq(sodium, k, stated, randomBytes);
  const bad: Uint8Array[] = [
    sodium.identity,
    new Uint8Array(32).fill(0xff),
    new Uint8Array(31),
    new Uint8Array(0),
  ];
  for (const point of bad) {
    for (const group of [sodium, noble]) {
      assert.equal(verifyDleq(group, { ...stated, B: point }, proof), false);
      assert.equal(verifyDleq(group, { ...stated, C: stated.C.with(0, point) }, proof), false);
      assert.equal(verifyDleq(group, { ...stated, D: stated.D.with(1, point) }, proof), false);
    }
  }
  const order = hex('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');
  assert.equal(verifyDleq(sodium, stated, concat(order, proof.subarray(32))), false);
  assert.equal(verifyDleq(sodium, stated, concat(proof.subarray(0, 32), order)), false);
  assert.equal(verifyDleq(sodium, stated, proof.subarray(1)), false);
  assert.equal(verifyDleq(sodium, stated, new Uint8Array(64)), false);
  assert.equal(verifyDleq(sodium, { ...stated, C: [], D: [] }, proof), false);
  assert.equal(verifyDleq(sodium, { ...stated, context: new Uint8Array(0) }, proof), false);
  assert.equal(verifyDleq(sodium, { ...stated, context: new Uint8Array(243) }, proof), false);
  const many = Array.from({ length: unwrapItemsMax + 1 }, () => stated.B);
  assert.equal(verifyDleq(sodium, { ...stated, C: many, D: many }, proof), false);
});

test('a response plus L, the same number in another encoding, is refused', () => {
  const { k, stated } = statement(sodium, 1);
  const proof = proveDleq(sodium, k, stated, randomBytes);
  const order = hex('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');
  const malleable = proof.slice();
  let carry = 0;
  for (let i = 0; i < 32; i++) {
    carry += (proof[32 + i] ?? 0) + (order[i] ?? 0);
    malleable[32 + i] = carry & 0xff;
    carry >>= 8;
  }
  assert.equal(verifyDleq(sodium, stated, malleable), false);
});

function statement(group: HashGroup, items: number): { k: Scalar; stated: DleqStatement } {
  const k = group.scalar.random(randomBytes);
  const C: Point[] = Array.from({ length: items }, () => group.base(group.scalar.random(randomBytes)));
  const D = C.map((point) => group.mul(k, point));
  return { k, stated: { context: utf8('this request'), B: group.base(k), C, D } };
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'));
}
