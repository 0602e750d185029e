import assert from 'node:assert/strict';
import { it } from 'node:test';
import { crc32c } from './crc32c.ts';

/** RFC 3720, appendix B.4. */
const vectors: readonly [Uint8Array, number][] = [
  [new Uint8Array(32), 0x8a9136aa],
  [new Uint8Array(32).fill(0xff), 0x62a8ab43],
  [Uint8Array.from({ length: 32 }, (_, index) => index), 0x46dd794e],
  [Uint8Array.from({ length: 32 }, (_, index) => 31 - index), 0x113fdb5c],
  [Buffer.from('123456789'), 0xe3069283],
  [new Uint8Array(0), 0],
];

for (const [bytes, expected] of vectors) {
  it(`is ${expected.toString(16)} for ${Buffer.from(bytes).toString('hex').slice(0, 18)}`, () => {
    assert.equal(crc32c(bytes), expected);
  });
}

it('does not depend on where sixteen bytes begin', () => {
  const bytes = Uint8Array.from({ length: 64 }, (_, index) => (index * 37) & 0xff);
  for (let length = 0; length <= 40; length++) {
    const shifted = new Uint8Array(72);
    shifted.set(bytes, 3);
    assert.equal(crc32c(shifted.subarray(3, 3 + length)), bitwise(bytes.subarray(0, length)));
  }
});

function bitwise(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
