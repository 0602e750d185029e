import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import * as wrappers from 'libsodium-wrappers-sumo';
import { asBuffer } from '../core/bytes.ts';
import { fieldOf } from '../core/shape.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { loadRistretto } from './group-sodium.ts';
import { encrypt } from './tdh2.ts';

const group = await loadRistretto();
const ed25519 = await loadEd25519();
const { scalar } = group;

test('it is loaded once', async () => {
  assert.equal(await loadRistretto(), group);
  assert.equal(await loadEd25519(), ed25519);
});

test('no scalar stays in the memory of the compiled module, whatever was done with it', () => {
  const k = scalar.random(randomBytes);
  const other = scalar.random(randomBytes);
  const p = group.base(other);
  const wide = new Uint8Array(64);
  wide.set(k);
  const uses: Readonly<Record<string, () => unknown>> = {
    mul: () => group.mul(k, p),
    'mul, refused': () => assert.throws(() => group.mul(k, new Uint8Array(32).fill(0xff))),
    base: () => group.base(k),
    'mul on ed25519': () => ed25519.mul(k, ed25519.base(other)),
    'mul on ed25519, refused': () => assert.throws(() => ed25519.mul(k, new Uint8Array(32).fill(0xfe))),
    'mul of the identity of ed25519': () => ed25519.mul(k, ed25519.identity),
    'base on ed25519': () => ed25519.base(k),
    reduce: () => scalar.reduce(wide),
    add: () => scalar.add(k, other),
    'add, right': () => scalar.add(other, k),
    sub: () => scalar.sub(k, other),
    'sub, right': () => scalar.sub(other, k),
    'product of scalars': () => scalar.mul(k, other),
    neg: () => scalar.neg(k),
    inv: () => scalar.inv(k),
  };
  for (const [name, use] of Object.entries(uses)) {
    use();
    assert.equal(isInHeap(k), false, name);
  }
  for (const operation of ['add', 'sub', 'mul'] as const) {
    assert.equal(isInHeap(scalar[operation](k, other)), false, `result of ${operation}`);
  }
  assert.equal(isInHeap(scalar.neg(k)), false, 'result of neg');
  assert.equal(isInHeap(scalar.inv(k)), false, 'result of inv');
  assert.equal(isInHeap(scalar.reduce(new Uint8Array(randomBytes(64)))), false, 'result of reduce');
});

test('neither the element of a wrap nor what was drawn for it stays there', () => {
  const drawn: Uint8Array[] = [];
  const random = (size: number): Uint8Array => {
    const bytes = new Uint8Array(randomBytes(size));
    drawn.push(bytes.slice());
    return bytes;
  };
  const { element } = encrypt(group, group.base(scalar.random(randomBytes)), new Uint8Array(3), random);
  assert.equal(isInHeap(element), false);
  for (const wide of drawn) {
    assert.equal(isInHeap(wide), false);
    assert.equal(isInHeap(scalar.reduce(wide)), false);
  }
});

test('the search finds what is there', () => {
  const marker = new Uint8Array(randomBytes(32));
  heap().set(marker, heap().length - 64);
  assert.ok(isInHeap(marker));
  heap().fill(0, heap().length - 64);
});

/** True when 16 bytes in a row of `secret` are anywhere in the module's memory. */
function isInHeap(secret: Uint8Array): boolean {
  const memory = asBuffer(heap());
  const part = secret.length / 2;
  return (
    memory.includes(asBuffer(secret.subarray(0, part))) || memory.includes(asBuffer(secret.subarray(part)))
  );
}

function heap(): Uint8Array {
  const bytes = fieldOf(fieldOf(wrappers, 'libsodium'), 'HEAPU8');
  assert.ok(bytes instanceof Uint8Array);
  return bytes;
}
