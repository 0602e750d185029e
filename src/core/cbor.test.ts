import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as dagCbor from '@ipld/dag-cbor';
import * as fc from 'fast-check';
import { cidOf, codecDagCbor, codecRaw } from './block.ts';
import { encodeDagCbor } from './cbor.ts';

const links = [codecRaw, codecDagCbor].map((codec) => cidOf(Uint8Array.of(codec), codec));

/** The bytes, or that it is refused. */
function outcome(encode: (value: unknown) => Uint8Array, value: unknown): Uint8Array | string {
  try {
    return new Uint8Array(encode(value));
  } catch (error) {
    return error instanceof Error ? error.message : 'thrown';
  }
}

function assertSame(value: unknown): void {
  assert.deepEqual(outcome(encodeDagCbor, value), outcome(dagCbor.encode, value));
}

const leaf = fc.oneof(
  fc.maxSafeInteger(),
  fc.integer({ min: -300, max: 70_000 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ maxLength: 300 }),
  fc.uint8Array({ maxLength: 300 }),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.boolean(),
  fc.constantFrom(null, ...links),
);
const odd = fc.oneof(
  fc.double(),
  fc.bigInt(),
  fc.constantFrom(undefined, -0, 2 ** 53, -(2 ** 53), '\ud800', 'é', new Map([['a', 1]]), new Date(0)),
  fc.constantFrom(
    { '/': 'x' },
    { asCID: 1 },
    Object.create(null),
    new (class Own {
      a = 1;
    })(),
  ),
);

function tree(part: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc.letrec((tie) => ({
    value: fc.oneof({ depthSize: 'medium', maxDepth: 5 }, part, tie('list'), tie('map')),
    list: fc.array(tie('value'), { maxLength: 30 }),
    map: fc.dictionary(
      fc.oneof(fc.string({ maxLength: 12 }), fc.string({ unit: 'grapheme' })),
      tie('value'),
      {
        maxKeys: 30,
      },
    ),
  }))['value'];
}

test('writes the bytes of the library, for what it writes itself and for what it leaves to it', () => {
  fc.assert(fc.property(tree(leaf), assertSame), { numRuns: 600 });
  fc.assert(fc.property(tree(fc.oneof(leaf, odd)), assertSame), { numRuns: 400 });
});

test('the same at the edges of lengths and numbers, where values are deep or long, and in a circle', () => {
  const edges = [0, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER];
  for (const edge of edges) for (const value of [edge, -edge, -1 - edge]) assertSame(value);
  for (const length of [23, 24, 255, 256, 65_535, 65_536, 300_000]) {
    assertSame(new Uint8Array(length).fill(7));
    assertSame('x'.repeat(length));
    assertSame({ list: Array.from({ length }, (_, at) => at % 100) });
  }
  let deep: unknown = 1;
  for (let depth = 0; depth < 40; depth++) assertSame((deep = depth % 2 === 0 ? [deep] : { deep }));
  const circle: unknown[] = [];
  circle.push({ circle });
  assertSame(circle);
});

test('gives bytes of their own', () => {
  const first = encodeDagCbor({ a: 1 });
  encodeDagCbor({ b: 'longer than that' });
  assert.deepEqual([...first], [0xa1, 0x61, 0x61, 1]);
  assert.equal(first.buffer.byteLength, first.length);
});
