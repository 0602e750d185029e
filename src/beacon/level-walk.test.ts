// What walks blocks is written in WebAssembly. Here the same is said once more, slowly, and must come to the same for
// blocks that LevelDB could have made and for what becomes of them when bytes change.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { utf8 } from '../core/bytes.ts';
import { crc32c } from '../core/crc32c.ts';
import { masked, trailerBytes } from './level-format.ts';
import { blocksOf, tableKey } from './level-tables.ts';
import { filterOf, type KeptRow, openBlockThere, walkRows } from './level-walk.ts';
import { keyBytesMax, tailBytes } from './level-walk-place.ts';
import { unsnap } from './snappy.ts';

interface Row {
  readonly key: string;
  readonly sequence: number;
}

/** Few letters, so that keys share beginnings and come more than once, and some longer than what is moved at a time. */
const someKey = fc
  .tuple(
    fc.stringMatching(/^[ab]{1,20}$/),
    fc.constantFrom('', 'x'.repeat(15), 'y'.repeat(16), 'z'.repeat(300)),
  )
  .map(([a, b]) => a + b);
const someRows = fc
  .array(fc.record({ key: someKey, sequence: fc.integer({ min: 1, max: 5 }) }), {
    minLength: 1,
    maxLength: 60,
  })
  .map((rows) => {
    const once = new Map(rows.map((row) => [`${row.key} ${row.sequence}`, row]));
    return [...once.values()].toSorted(
      (a, b) => Buffer.compare(utf8(a.key), utf8(b.key)) || b.sequence - a.sequence,
    );
  });
/** Which byte, and what it becomes: numbers of the format are small. */
const someChange = fc.tuple(
  fc.nat(),
  fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 255 })),
);

it('reads of blocks what a slow reader does', () =>
  fc.assert(
    fc.property(someRows, fc.boolean(), (rows, isBehind) => {
      const plain = plainOf(rows);
      const kept = isBehind ? keptBefore(rows) : undefined;
      const walked = walkedBy(plain, kept);
      assert.deepEqual(walked, slowly(plain, kept));
      if (!isBehind) assert.equal(typeof walked, 'object');
    }),
    { numRuns: 500 },
  ));

it('says of changed blocks what a slow reader does', () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(someRows, fc.array(someChange, { minLength: 1, maxLength: 3 }), (rows, changes) => {
      const plain = plainOf(rows);
      for (const [at, value] of changes) plain[at % plain.length] = value;
      const walked = walkedBy(plain, undefined);
      assert.deepEqual(walked, slowly(plain, undefined));
      seen.add(typeof walked === 'string' ? walked : 'taken');
    }),
    { numRuns: 5000 },
  );
  assert(seen.size >= 7, [...seen].join(', '));
});

const someTag = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 100 }).map((bytes) => literal(bytes)),
  fc
    .tuple(fc.integer({ min: 4, max: 11 }), fc.integer({ min: 1, max: 300 }))
    .map(([count, back]) => near(count, back)),
  fc
    .tuple(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 60 }))
    .map(([count, back]) => far(count, back)),
);

it('decompresses as the slow reader does, or refuses as it does', () => {
  let taken = 0;
  fc.assert(
    fc.property(
      fc.array(someTag, { maxLength: 12 }),
      fc.option(someChange, { freq: 3 }),
      fc.integer({ min: -1, max: 1 }),
      (tags, change, wrong) => {
        const body = [
          literal(Buffer.from('a beginning that copies can go back to: 0123456789abcdef')),
          ...tags,
        ];
        const size = Math.max(
          0,
          body.reduce((sum, tag) => sum + tag.gives, 0) + (change === null ? 0 : wrong),
        );
        const compressed = Uint8Array.from([...varint(size), ...body.flatMap(({ bytes }) => bytes)]);
        if (change !== null) compressed[change[0] % compressed.length] = change[1];
        const expected = outcome(() => latin(unsnap(compressed)));
        assert.deepEqual(
          outcome(() => latin(openBlockThere(sealed(compressed)))),
          expected,
        );
        if (!expected.startsWith('refused')) taken++;
      },
    ),
    { numRuns: 3000 },
  );
  assert(taken > 500, `${taken}`);
});

it('refuses what gives more than all of its memory', () => {
  const body = Array.from({ length: 390_000 }, () => [(63 << 2) | 2, 1, 0]).flat();
  const compressed = Uint8Array.from([...varint(100), ...literal(utf8('a')).bytes, ...body]);
  assert.equal(
    outcome(() => latin(openBlockThere(sealed(compressed)))),
    'refused: has a block that does not decompress',
  );
});

it('sets the bits of a filter that LevelDB would', () =>
  fc.assert(
    fc.property(fc.array(fc.integer(), { minLength: 1, maxLength: 200 }), (hashes) => {
      assert.deepEqual(filterOf(Int32Array.from(hashes)), slowFilter(hashes));
    }),
  ));

it('takes the longest key', () => {
  const plain = plainOf([{ key: 'k'.repeat(keyBytesMax), sequence: 1 }]);
  assert.equal(walkRows(plain, undefined).keys.length, keyBytesMax + tailBytes);
});

function plainOf(rows: readonly Row[]): Uint8Array {
  const all = rows.map(({ key, sequence }) => [tableKey(utf8(key), sequence), utf8('value')] as const);
  const [block = new Uint8Array()] = blocksOf(all);
  return block.slice(0, -trailerBytes);
}

/** A key in front of the rows, or the first one of them with a number that its rows may have or not. */
function keptBefore([first]: readonly Row[]): KeptRow {
  const { key = '', sequence = 0 } = first ?? {};
  return { key: tableKey(utf8(key), sequence + 1), newest: sequence + 1, oldest: sequence + 1 };
}

interface Walked {
  readonly keys: readonly string[];
  readonly newest: readonly number[];
  readonly oldest: readonly number[];
  readonly sequenceMax: number;
  readonly first: string;
  readonly last: string;
  readonly hashes: readonly number[];
}

function walkedBy(plain: Uint8Array, kept: KeptRow | undefined): Walked | string {
  return outcome(() => {
    const { keys, ends, newest, oldest, sequenceMax, first, last, hashes } = walkRows(plain, kept);
    return {
      keys: [...ends].map((end, at) => latin(keys.subarray(at === 0 ? 0 : ends[at - 1], end - tailBytes))),
      newest: [...newest],
      oldest: [...oldest],
      sequenceMax,
      first: latin(first),
      last: latin(last),
      hashes: [...hashes],
    };
  });
}

/** Every rule of level-rows.ts, one after the other. */
function slowly(plain: Uint8Array, kept: KeptRow | undefined): Walked | string {
  return outcome(() => {
    const all = Buffer.from(plain);
    const count = all.readUInt32LE(all.length - 4);
    const end = all.length - 4 * (count + 1);
    refuseIf(count === 0 || end <= 0, 'has a block without rows');
    const restarts = Array.from({ length: count }, (_, at) => all.readUInt32LE(end + 4 * at));
    const found = kept === undefined ? [] : [{ key: kept.key, newest: kept.newest, oldest: kept.oldest }];
    const keys: Buffer[] = [];
    let at = 0;
    const number = (): number => {
      let value = 0;
      for (let scale = 1; scale < 2 ** 35; scale *= 128) {
        const byte = all[at++] ?? 0xff;
        value += (byte & 0x7f) * scale;
        if (byte < 0x80) return value;
      }
      return Infinity;
    };
    while (at < end) {
      const rowAt = at;
      const [shared, own, valueBytes] = [number(), number(), number()];
      refuseIf(at + own + valueBytes > end, 'has a block with a row that does not end');
      if (restarts[0] === rowAt) {
        refuseIf(shared !== 0, 'has a block in which a search may begin at no key');
        restarts.shift();
      }
      const before = keys.at(-1) ?? Buffer.alloc(0);
      refuseIf(shared > before.length, 'has a row that shares what is not there');
      const key = Buffer.concat([before.subarray(0, shared), all.subarray(at, at + own)]);
      refuseIf(key.length <= tailBytes, 'has a row without a key');
      refuseIf(key.length > keyBytesMax + tailBytes, 'has a key that is too long');
      const [kind, ...rest] = key.subarray(-tailBytes);
      refuseIf((kind ?? 0) > 1 || rest[6] !== 0, 'has a row that means nothing');
      const sequence = rest.reduceRight((value, byte) => 256 * value + byte, 0);
      const last = found.at(-1);
      const order = last === undefined ? 1 : Buffer.compare(bare(key), bare(last.key));
      refuseIf(
        order < 0 || (order === 0 && sequence >= (last?.oldest ?? 0)),
        'has rows that are not in order',
      );
      if (order === 0 && last !== undefined) last.oldest = sequence;
      else found.push({ key, newest: sequence, oldest: sequence });
      keys.push(key);
      at += own + valueBytes;
    }
    refuseIf(restarts.length > 0, 'has a block in which a search may begin at no row');
    return {
      keys: found.map(({ key }) => latin(bare(key))),
      newest: found.map(({ newest }) => newest),
      oldest: found.map(({ oldest }) => oldest),
      sequenceMax: Math.max(...keys.map((key) => Number(key.readBigUInt64LE(key.length - 8) >> 8n))),
      first: latin(keys[0] ?? new Uint8Array()),
      last: latin(keys.at(-1) ?? new Uint8Array()),
      hashes: keys.map((key) => slowHash(bare(key))),
    };
  });
}

function bare(key: Uint8Array): Uint8Array {
  return key.subarray(0, -tailBytes);
}

/** util/hash.cc of google/leveldb. */
function slowHash(key: Uint8Array): number {
  const factor = 0xc6a4a793n;
  const bits = (value: bigint): bigint => value & 0xffffffffn;
  let hash = bits(0xbc9f1d34n ^ (BigInt(key.length) * factor));
  let at = 0;
  for (; at + 4 <= key.length; at += 4) {
    hash = bits((hash + BigInt(Buffer.from(key).readUInt32LE(at))) * factor);
    hash ^= hash >> 16n;
  }
  if (at < key.length) {
    const rest = [...key.subarray(at)].reduceRight((value, byte) => 256n * value + BigInt(byte), 0n);
    hash = bits((hash + rest) * factor);
    hash ^= hash >> 24n;
  }
  return Number(BigInt.asIntN(32, hash));
}

/** util/bloom.cc of google/leveldb, with 10 bits a key. */
function slowFilter(hashes: readonly number[]): Uint8Array {
  const bytesCount = Math.ceil(Math.max(64, 10 * hashes.length) / 8);
  const filter = new Uint8Array(bytesCount + 1);
  filter[bytesCount] = 6;
  for (const first of hashes) {
    let hash = BigInt.asUintN(32, BigInt(first));
    const step = BigInt.asUintN(32, (hash >> 17n) | (hash << 15n));
    for (let probe = 0; probe < 6; probe++) {
      const bit = Number(hash % BigInt(8 * bytesCount));
      filter[bit >>> 3] = (filter[bit >>> 3] ?? 0) | (1 << (bit & 7));
      hash = BigInt.asUintN(32, hash + step);
    }
  }
  return filter;
}

interface Tag {
  readonly bytes: readonly number[];
  readonly gives: number;
}

function literal(bytes: Uint8Array): Tag {
  const count = bytes.length - 1;
  return { bytes: [...(count < 60 ? [count << 2] : [60 << 2, count]), ...bytes], gives: bytes.length };
}

function near(count: number, back: number): Tag {
  return { bytes: [((back >>> 8) << 5) | ((count - 4) << 2) | 1, back & 0xff], gives: count };
}

function far(count: number, back: number): Tag {
  return { bytes: [((count - 1) << 2) | 2, back & 0xff, back >>> 8], gives: count };
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
}

/** A block that says that it is compressed. */
function sealed(compressed: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(compressed.length + trailerBytes);
  bytes.set(compressed);
  bytes[compressed.length] = 1;
  bytes.writeUInt32LE(masked(crc32c(bytes.subarray(0, compressed.length + 1))), compressed.length + 1);
  return bytes;
}

function refuseIf(isWrong: boolean, why: string): void {
  if (isWrong) throw new RangeError(why);
}

/** What it says, or why it is refused. */
function outcome<Result>(read: () => Result): Result | string {
  try {
    return read();
  } catch (error) {
    if (error instanceof RangeError) return `refused: ${error.message}`;
    throw error;
  }
}

function latin(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
