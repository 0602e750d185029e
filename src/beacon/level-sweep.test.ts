// What another machine says are blocks of LevelDB's: taken is only what gives the same rows to whoever lists them and to
// whoever asks for one, and nothing of it ends the process.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import fc from 'fast-check';
import {
  blocksOfRows,
  cut,
  each,
  pagesOfBlocks,
  pagesOfRuns,
  type TableRow,
} from '../../test/support/snapshot-pages.ts';
import { crc32c } from '../core/crc32c.ts';
import { utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { masked, trailerBytes } from './level-format.ts';
import { openBlockOf, RunRows } from './level-rows.ts';
import { keyBytesMax } from './level-walk-place.ts';
import { Sweep } from './level-sweep.ts';
import { numbers, sealBlock } from './level-tables.ts';
import { blockBytesMax, PageReader, runsMax, snapshotForm } from './snapshot.ts';
import { LevelKv } from './view-level.ts';

const value = utf8('value');
const good = block([
  [0, 'a', 1],
  [0, 'b', 2],
]);

it('takes what is in order', () => {
  const run = new RunRows();
  run.add(good);
  run.add(block([[0, 'c', 7]]));
  assert.equal(run.sequenceMax, 7);
});

const faults: Readonly<Record<string, Uint8Array>> = {
  'ends before it says where a search may begin': Uint8Array.of(0, 0, 0),
  'says that a search may begin nowhere': concat(good.subarray(0, -8), uint32(0)),
  'says that a search may begin more often than it has bytes': concat(good.subarray(0, -4), uint32(2 ** 31)),
  'has no rows but a place to begin': concat(uint32(0), uint32(1)),
  'has a search begin behind its first row': changed(good, good.length - 8, 1),
  'has a search begin in the middle of a row': concat(good.subarray(0, -8), uint32(0), uint32(5), uint32(2)),
  'has a search begin behind its rows': concat(good.subarray(0, -8), uint32(0), uint32(9999), uint32(2)),
  'has a search begin twice at a place': concat(good.subarray(0, -8), uint32(0), uint32(0), uint32(2)),
  'has a search begin at a key that shares': ended(
    concat(row([0, 'aa', 1]), row([1, 'b', 1])),
    row([0, 'aa', 1]).length,
  ),
  'shares more than the key before has': block([
    [0, 'a', 1],
    [10, 'b', 1],
  ]),
  'shares at its first row': block([[1, 'a', 1]]),
  'has a row without a key': block([[0, '', 1]]),
  'has a key without a number': ended(concat(numbers(0, 7, 0), new Uint8Array(7))),
  'has a row whose key does not end': ended(concat(numbers(0, 500, 0), utf8('a'), new Uint8Array(8))),
  'has a row whose value does not end': ended(concat(numbers(0, 9, 500), utf8('a'), tail(1))),
  'has a number without end': ended(concat(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), tail(1))),
  'has a number beyond 32 bits': ended(concat(numbers(0, 9, 2 ** 32), utf8('a'), tail(1))),
  'has a row that is neither there nor removed': ended(concat(numbers(0, 9, 0), utf8('a'), tail(1, 2))),
  'has a sequence number of 56 bits': ended(
    concat(numbers(0, 9, 0), utf8('a'), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 1)),
  ),
  'has keys that fall': block([
    [0, 'b', 1],
    [0, 'a', 1],
  ]),
  'has a key behind a longer one that begins with it': block([
    [0, 'ab', 1],
    [0, 'a', 1],
  ]),
  'has a key twice with the same number': block([
    [0, 'a', 1],
    [0, 'a', 1],
  ]),
  'has an older row of a key in front of a newer one': block([
    [0, 'a', 1],
    [0, 'a', 2],
  ]),
  'has a key longer than any': block([[0, 'k'.repeat(keyBytesMax + 1), 1]]),
  'has more in its keys than any': block([
    [0, 'k'.repeat(keyBytesMax - 8), 2 ** 40],
    ...Array.from({ length: 600 }, (_, at) => [keyBytesMax - 8, String(at).padStart(4, '0'), 1] as const),
  ]),
};
for (const [name, plain] of Object.entries(faults))
  it(`refuses a block that ${name}`, () => {
    assert.throws(
      () => new RunRows().add(plain),
      (error) => error instanceof RangeError && error.message.startsWith('has '),
    );
  });

it('refuses a block whose rows are not behind those of the one before', () => {
  for (const key of ['b', 'aa']) {
    const run = new RunRows();
    run.add(good);
    assert.throws(() => run.add(block([[0, key, 2]])), /not in order/, key);
  }
});

for (const [name, bytes] of [
  ['without a checksum', new Uint8Array(trailerBytes - 1)],
  ['that does not match its checksum', changed(sealBlock(good), 3, 9)],
  ['of unknown compression', sealedAs(literal(concat(good, good)), 2)],
  ['that does not decompress', sealedAs(good, 1)],
  ['that does not decompress', sealedAs(bomb(blockBytesMax + 1), 1)],
  ['without a first row', sealBlock(new Uint8Array(4))],
] as const)
  it(`says of ${bytes.length} bytes that they are a block ${name}`, () => {
    assert.throws(
      () => openBlockOf(bytes),
      (error) => error instanceof RangeError && error.message.includes(`a block ${name}`),
    );
  });

it('decompresses as much as a block may have', () => {
  assert.throws(() => openBlockOf(sealedAs(bomb(blockBytesMax), 1)), /first row/);
});

const [a = good, b = good, c = good] = ['a', 'b', 'c'].map((key) => blocksOfRows([[key, value, 5]])[0]);
for (const [name, blocks] of [
  ['of no run', [[2, a]]],
  [
    'that come in another order than their keys, in one run',
    [
      [0, b],
      [0, a],
    ],
  ],
  [
    'that come in another order than their keys, in two runs',
    [
      [0, b],
      [1, a],
    ],
  ],
  [
    'in which an older run has a row as new as that of a newer one',
    [
      [0, a],
      [1, a],
    ],
  ],
  [
    'in which an older run has a newer row',
    [
      [0, a],
      [1, blocksOfRows([['a', value, 6]])[0]],
    ],
  ],
  [
    'in which the newer row comes later',
    [
      [1, blocksOfRows([['a', value, 6]])[0]],
      [0, a],
      [0, b],
    ],
  ],
  [
    'in which it is among others',
    [
      [1, blocksOfRows(rows('b', 'c', 'd'))[0]],
      [0, c],
    ],
  ],
  ['with a number that none can follow', [[0, blocksOfRows([['a', value, 2 ** 47]])[0]]]],
] as const)
  it(`refuses blocks ${name}`, () => {
    const sweep = new Sweep(2);
    assert.throws(() => {
      for (const [run, bytes] of blocks) sweep.add(run, bytes ?? a);
      sweep.finish();
    }, RangeError);
  });

it('takes many rows of a key across blocks and runs when the newer runs have the higher numbers', () => {
  const sweep = new Sweep(3);
  const many = (from: number): (Uint8Array | undefined)[] =>
    [0, 1, 2].map((at) => blocksOfRows([['k', value, from - at]])[0]);
  for (const [run, bytes] of [many(30), many(20), many(10)].entries())
    for (const one of bytes) sweep.add(run, one ?? a);
  sweep.finish();
  assert.equal(sweep.sequenceMax, 30);
});

for (const [name, head] of [
  ['of another form', [snapshotForm + 1, 1, 0]],
  ['of rows, as an earlier release gives them', [0, 0, 0, 3, 0, 0, 0, 1]],
  ['with too many runs', [snapshotForm, runsMax + 1]],
  ['with a level that LevelDB has not', [snapshotForm, 1, 7]],
  ['with levels that fall', [snapshotForm, 2, 2, 1]],
  ['with two runs of one level', [snapshotForm, 2, 3, 3]],
  ['with a block of a run that it has not', [snapshotForm, 1, 3, 1, 0, 0, 0, 0]],
  ['with a block that is too large', [snapshotForm, 1, 3, 0, 1, 0, 0, 0]],
] as const)
  it(`refuses pages ${name}`, () => {
    for (const pageBytes of [1, 100])
      assert.throws(
        () => {
          const reader = new PageReader();
          for (const page of cut(Uint8Array.from(head), pageBytes)) reader.add(page);
        },
        { code: 'RECORD_CORRUPT' },
      );
  });

it('finds the same blocks wherever pages are cut, and sees when the last one is missing', () => {
  const blocks = [...blocksOfRows(rows(...manyKeys(900)))];
  assert(blocks.length > 3);
  const bytes = Buffer.concat(
    pagesOfBlocks(
      [4],
      blocks.map((each) => ({ run: 0, bytes: each })),
    ),
  );
  for (const pageBytes of [1, 2, 7, 999, bytes.length]) {
    const reader = new PageReader();
    const found = cut(bytes, pageBytes).flatMap((page) => reader.add(page));
    reader.finish();
    assert.deepEqual(
      found.map((each) => Buffer.from(each.bytes)),
      blocks.map((each) => Buffer.from(each)),
    );
  }
  const short = new PageReader();
  short.add(bytes.subarray(0, -1));
  assert.throws(() => short.finish(), { code: 'RECORD_CORRUPT' });
  assert.throws(() => new PageReader().finish(), { code: 'RECORD_CORRUPT' });
});

it('refuses every flipped byte of a snapshot, or has the same rows', async (t) => {
  await using kv = await LevelKv.open(await directory(t), { sync: false });
  const runs = [
    { level: 0, rows: rows('b', 'c') },
    { level: 1, rows: [['a', null, 4] as const, ['d', value, 4] as const] },
    { level: 3, rows: [['a', value, 3] as const, ['e', value, 3] as const] },
  ];
  const bytes = Buffer.concat(pagesOfRuns(runs));
  await kv.replaceAll(each([bytes]));
  const expected = await Array.fromAsync(kv.range(all));
  assert.equal(expected.length, 4);
  let refused = 0;
  for (let at = 0; at < bytes.length; at++)
    for (const flip of [1, 0x80, 0xff]) {
      const flipped = changed(bytes, at, (bytes[at] ?? 0) ^ flip);
      try {
        await kv.replaceAll(each([flipped]));
      } catch (error) {
        assert(isHoldfastError(error, 'RECORD_CORRUPT'), String(error));
        refused++;
        continue;
      }
      assert.deepEqual(await sameRows(kv), expected, `byte ${at}`);
    }
  assert(refused > 2.8 * bytes.length, `${refused} of ${3 * bytes.length}`);
});

// What an attacker does who makes the checksums himself.
it('refuses a changed block under a good checksum, or has the same rows in a list as one by one', (t) =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ at: fc.nat(), byte: fc.nat({ max: 255 }) }), { minLength: 1, maxLength: 3 }),
      fc.boolean(),
      async (changes, isCompressed) => {
        await using kv = await LevelKv.open(await directory(t), { sync: false });
        const keys = ['a', 'ab', 'abc', 'b', 'bb'];
        const [sealed = good] = blocksOfRows(rows(...keys));
        const plain = sealed.subarray(0, -trailerBytes);
        const body = Buffer.from(isCompressed ? literal(plain) : plain);
        for (const { at, byte } of changes) body[at % body.length] = byte;
        const bytes = sealedAs(body, isCompressed ? 1 : 0);
        const older = blocksOfRows(rows('aa', 'c'))[0] ?? good;
        const page = concat(Uint8Array.of(snapshotForm, 2, 0, 2), given(0, bytes), given(1, older));
        try {
          await kv.replaceAll(each([page]));
        } catch (error) {
          assert(isHoldfastError(error, 'RECORD_CORRUPT'), String(error));
          return;
        }
        await sameRows(kv);
      },
    ),
    { numRuns: 400 },
  ));

it('refuses rows that go on for ever under one key', async (t) => {
  await using kv = await LevelKv.open(await directory(t), { sync: false });
  const large = new Uint8Array(blockBytesMax / 2);
  const count = Math.ceil((70 * 2 ** 20) / large.length);
  const blocks = Array.from({ length: count }, (_, at) => ({
    run: 0,
    bytes: blocksOfRows([['k', large, count - at]])[0] ?? good,
  }));
  await assert.rejects(kv.replaceAll(each(pagesOfBlocks([2], blocks, 2 ** 20))), {
    code: 'RECORD_CORRUPT',
    message: /one key/,
  });
});

const all = { from: '', to: '\u{10ffff}' };

/** The rows in the list; the same must be found when asked for, and nothing else. Some may not verify. */
async function sameRows(kv: LevelKv): Promise<unknown[]> {
  const found: unknown[] = [];
  try {
    for await (const one of kv.range(all)) {
      assert.deepEqual(await kv.get(one[0]), one[1]);
      found.push(one);
    }
  } catch (error) {
    assert(isHoldfastError(error, 'RECORD_CORRUPT'), String(error));
  }
  return found;
}

type BlockRow = readonly [shared: number, key: string, sequence: number];

function block(of: readonly BlockRow[]): Uint8Array {
  return ended(concat(...of.map(row)));
}

function row([shared, key, sequence]: BlockRow): Uint8Array {
  const own = utf8(key);
  return concat(numbers(shared, own.length + 8, value.length), own, tail(sequence), value);
}

/** `rows` as a block, with these places to begin a search besides the first row. */
function ended(of: Uint8Array, ...restarts: number[]): Uint8Array {
  return concat(of, uint32(0), ...restarts.map(uint32), uint32(1 + restarts.length));
}

function tail(sequence: number, meaning = 1): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt8(meaning);
  bytes.writeUIntLE(sequence, 1, 6);
  return bytes;
}

function rows(...keys: readonly string[]): TableRow[] {
  return keys.map((key) => [key, value, 7]);
}

function manyKeys(count: number): string[] {
  return Array.from({ length: count }, (_, at) => `key ${String(at).padStart(6, '0')}`);
}

/** `body` with a trailer that is right. */
function sealedAs(body: Uint8Array, compression: number): Uint8Array {
  const bytes = Buffer.concat([body, Uint8Array.of(compression), new Uint8Array(4)]);
  bytes.writeUInt32LE(masked(crc32c(bytes.subarray(0, -4))), bytes.length - 4);
  return bytes;
}

/** `bytes` as Snappy has them, compressed not at all. */
function literal(bytes: Uint8Array): Uint8Array {
  assert(bytes.length > 60 && bytes.length < 256);
  return concat(numbers(bytes.length), Uint8Array.of(60 << 2, bytes.length - 1), bytes);
}

/** What decompresses to `sizeBytes` times the same byte. */
function bomb(sizeBytes: number): Uint8Array {
  const copies = Array.from({ length: Math.floor((sizeBytes - 1) / 64) }, () => [(63 << 2) | 2, 1, 0]);
  const left = (sizeBytes - 1) % 64;
  const last = left === 0 ? [] : [((left - 1) << 2) | 2, 1, 0];
  return concat(numbers(sizeBytes), Uint8Array.of(0, 0xff), Uint8Array.from([...copies.flat(), ...last]));
}

function given(run: number, bytes: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5);
  head.writeUInt8(run);
  head.writeUInt32BE(bytes.length, 1);
  return concat(head, bytes);
}

function changed(bytes: Uint8Array, at: number, byte: number): Uint8Array {
  const copy = Buffer.from(bytes);
  copy[at] = byte;
  return copy;
}

function uint32(number: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-sweep-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}
