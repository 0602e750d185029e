import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import * as fc from 'fast-check';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import { asBuffer, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { Slabs } from '../core/slabs.ts';
import { plaintextSegmentBytes } from '../envelope/floe.ts';
import { openManifest } from '../manifest/manifest.ts';
import { canonicalKey } from '../ucxl/address.ts';
import { type ByteRange, type GetPorts, openObject } from './get.ts';
import { putObject, type PutPorts, putSegmentsMax, removeObject } from './put.ts';

const signal = new AbortController().signal;
const segment = plaintextSegmentBytes();
const where = address('decision.md');
const key = canonicalKey(where);

async function read(world: MemoryWorld, range?: ByteRange): Promise<Buffer> {
  const opened = await openObject(world.get, world.recordsOf(key), { range, signal });
  const bytes = await collected(opened.bytes);
  assert.equal(bytes.length, opened.lengthBytes);
  return bytes;
}

async function collected(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

/** `bytes` in pieces of `size`, as a network brings them. */
function* pieces(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('a small object is one registration; a larger one is stored before it', async () => {
  const world = new MemoryWorld();
  const steps: string[] = [];
  const ports: PutPorts = {
    ...world.put,
    store: (blocks, policy) => {
      steps.push('store');
      return world.put.store(blocks, policy);
    },
    registry: {
      ...world.put.registry,
      register: (records, content) => {
        steps.push(content === undefined ? 'register' : 'register with content');
        return world.put.registry.register(records, content);
      },
    },
  };
  const told: number[] = [];
  const options = { ...putOptions, onStored: (bytes: number) => void told.push(bytes) };
  const small = await putObject(ports, where, [utf8('small')], options);
  assert.deepEqual([small.copies, small.wanted, small.short], [3, 3, false]);
  await putObject(ports, where, [randomBytes(100_000)], options);
  assert.deepEqual(steps, ['register with content', 'store', 'register']);
  assert.deepEqual(told, [5, 100_000]);
});

test('what was put comes back, and the answer cites exactly this version', async () => {
  const world = new MemoryWorld();
  const done = await putObject(world.put, where, [utf8('we chose LevelDB')], putOptions);
  assert.equal(done.address, 'ucxl://ann:writer@holdfast:flows/*~1/decision.md');
  assert.deepEqual([done.version, done.sizeBytes, done.short], [1, 16, false]);
  assert.equal((await read(world)).toString(), 'we chose LevelDB');
});

describe('memory of blocks that is used again', () => {
  for (const [what, size, part] of [
    ['in parts', 70 * 262_112 + 77, 65_536],
    ['in whole segments', 40 * 262_112, 262_112],
    ['at once', 40 * 262_112 + 5, 100_000_000],
  ] as const)
    test(`what comes ${what} is sealed in it and opened where it lies`, async () => {
      const world = new MemoryWorld();
      const slabs = new Slabs(putSegmentsMax);
      const taken = new Set<ArrayBufferLike>();
      const put: PutPorts = {
        ...world.put,
        memory: {
          take: (length) => {
            const bytes = slabs.take(length);
            taken.add(bytes.buffer);
            return bytes;
          },
          give: (bytes) => {
            bytes.fill(0xee); // whoever still reads it fails
            slabs.give(bytes);
          },
        },
        store: async (blocks, policy) => {
          await setImmediate();
          return world.put.store(
            blocks.map(({ cid, bytes }) => ({ cid, bytes: bytes.slice() })),
            policy,
          );
        },
      };
      const plain = randomBytes(size);
      const before = Buffer.from(plain);
      await putObject(put, where, pieces(plain, part), putOptions);
      assert.ok(plain.equals(before), 'what is put stays as it was');
      assert.ok(taken.size <= putSegmentsMax, `${taken.size} slabs`);
      const load: GetPorts['load'] = async (cids, stop) =>
        (await world.get.load(cids, stop)).map(({ cid, bytes }) => ({ cid, bytes: bytes.slice() }));
      const ports = { ...world.get, load, ownsBlocks: true };
      const opened = await openObject(ports, world.recordsOf(key), { signal });
      assert.ok((await collected(opened.bytes)).equals(plain));
      assert.ok((await read(world)).equals(plain), 'opened apart, from blocks that are as they were stored');
    });
});

describe('sizes around the edges of segments', () => {
  for (const size of [0, 1, 262_111, 262_112, 262_113, 3 * 262_112, 3 * 262_112 + 1]) {
    test(`${size} bytes`, async () => {
      const world = new MemoryWorld();
      const plain = randomBytes(size);
      const { sizeBytes } = await putObject(world.put, where, pieces(plain, 65_536), putOptions);
      assert.equal(sizeBytes, size);
      assert.ok((await read(world)).equals(plain));
      for (const { block } of world.blocks.values())
        if (size > 64) assert.equal(asBuffer(block.bytes).includes(plain.subarray(0, 32)), false);
    });
  }

  test('any size in any pieces', async () => {
    const sizes = fc.oneof(
      fc.integer({ min: 0, max: 70_000 }),
      fc.integer({ min: -2, max: 2 }).map((delta) => segment + delta),
      fc.integer({ min: -2, max: 2 }).map((delta) => 2 * segment + delta),
    );
    await fc.assert(
      fc.asyncProperty(sizes, fc.integer({ min: 1000, max: 400_000 }), async (size, piece) => {
        const world = new MemoryWorld();
        const plain = randomBytes(size);
        await putObject(world.put, where, pieces(plain, piece), putOptions);
        assert.ok((await read(world)).equals(plain));
      }),
      { numRuns: 40 },
    );
  });
});

describe('ranges', () => {
  test('are what slice gives, from as few blocks as hold them', async () => {
    const world = new MemoryWorld();
    const plain = randomBytes(3 * segment + 1000);
    await putObject(world.put, where, [plain], putOptions);
    const positions = fc.oneof(
      fc.integer({ min: 0, max: plain.length - 1 }),
      fc
        .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: -1, max: 1 }))
        .map(([n, delta]) => n * segment + delta),
    );
    await fc.assert(
      fc.asyncProperty(positions, positions, async (a, b) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)];
        world.loaded.length = 0;
        assert.ok((await read(world, { first, last })).equals(plain.subarray(first, last + 1)));
        const segments = Math.floor(last / segment) - Math.floor(first / segment) + 1;
        assert.equal(world.loaded.length, segments + 1); // and the index over them
      }),
      { numRuns: 60 },
    );
  });

  test('may reach beyond the end, but not begin there', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('0123456789')], putOptions);
    assert.equal((await read(world, { first: 8, last: 99 })).toString(), '89');
    for (const range of [
      { first: 10, last: 10 },
      { first: 5, last: 4 },
      { first: -1, last: 3 },
    ])
      await assert.rejects(read(world, range), { code: 'RANGE_INVALID' });
  });

  test('of nothing there are none', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [], putOptions);
    await assert.rejects(read(world, { first: 0, last: 0 }), { code: 'RANGE_INVALID' });
  });
});

describe('the content key', () => {
  test('is zeroed when the put is done', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('text')], putOptions);
    const [dek] = world.drawn;
    assert.deepEqual(dek, new Uint8Array(32));
  });

  test('is zeroed when the upload breaks off, and nothing is registered', async () => {
    const world = new MemoryWorld();
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield randomBytes(3 * segment);
      throw new HoldfastError('UPLOAD_TRUNCATED', 'the caller has left');
    }
    await assert.rejects(putObject(world.put, where, broken(), putOptions), { code: 'UPLOAD_TRUNCATED' });
    assert.equal(world.log.length, 0);
    assert.deepEqual(world.drawn[0], new Uint8Array(32));
  });

  test('opens no content that was put under another address', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('text')], putOptions);
    await putObject(world.put, address('other.md'), [utf8('text')], putOptions);
    const mine = world.recordsOf(key);
    const other = world.recordsOf(canonicalKey(address('other.md')));
    const mixed = { ...mine, ...(other.envelope === undefined ? {} : { envelope: other.envelope }) };
    await assert.rejects(openObject(world.get, mixed, { signal }), { code: 'DECRYPT_FAILED' });
  });
});

describe('a flipped bit', () => {
  test('in any segment fails before a byte of it leaves', async () => {
    const world = new MemoryWorld();
    const plain = randomBytes(2 * segment);
    await putObject(world.put, where, [plain], putOptions);
    const second = [...world.blocks.values()][1];
    assert.ok(second !== undefined);
    second.block.bytes[1000] = (second.block.bytes[1000] ?? 0) ^ 1;
    const { bytes } = await openObject(world.get, world.recordsOf(key), { signal });
    let seen = 0;
    await assert.rejects(
      async () => {
        for await (const part of bytes) seen += part.length;
      },
      { code: 'DECRYPT_FAILED' },
    );
    assert.equal(seen, segment);
  });
});

describe('versions', () => {
  test('follow each other, each with the CID of the one before', async () => {
    const world = new MemoryWorld();
    const first = await putObject(world.put, where, [utf8('1')], putOptions);
    const second = await putObject(world.put, where, [utf8('2')], putOptions);
    assert.equal(second.version, 2);
    const [, manifest = new Uint8Array()] = world.versions(key);
    assert.equal(openManifest(manifest).body.prev?.toString(), first.cid.toString());
  });

  test('a writer who loses the race writes on top of the winner', async () => {
    const world = new MemoryWorld();
    const done = await Promise.all(
      ['a', 'b', 'c', 'd'].map((text) => putObject(world.put, where, [utf8(text)], putOptions)),
    );
    assert.deepEqual(
      done.map(({ version }) => version).toSorted((a, b) => a - b),
      [1, 2, 3, 4],
    );
    const prevs = world.versions(key).map((bytes) => openManifest(bytes).body.prev?.toString());
    assert.equal(new Set(prevs).size, 4);
  });

  test('who said which version he expects is told instead', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('1')], { ...putOptions, expectedVersion: 0 });
    await assert.rejects(putObject(world.put, where, [utf8('2')], { ...putOptions, expectedVersion: 0 }), {
      code: 'VERSION_CONFLICT',
    });
    const both = await Promise.allSettled(
      ['2', '3'].map((text) =>
        putObject(world.put, where, [utf8(text)], { ...putOptions, expectedVersion: 1 }),
      ),
    );
    assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  });
});

describe('what cannot be described is refused before a byte is read', () => {
  async function* unread(): AsyncGenerator<Uint8Array> {
    yield await Promise.reject(new Error('the body was read'));
  }
  const cases = {
    'a media type that is none': { media: 'text' },
    'a tag with a space': { complianceTags: ['sec high'] },
    'a tag twice': { complianceTags: ['sec-high', 'sec-high'] },
    'nobody who made it': { generatedBy: '' },
    'fewer copies than zones': { replication: { min: 1, max: 5, zones: 2 } },
    'too much to cite': {
      cites: Array.from({ length: 128 }, () => ({ address: where.raw, reason: 'x'.repeat(1024) })),
    },
  } as const;
  for (const [name, wrong] of Object.entries(cases))
    test(name, async () => {
      const world = new MemoryWorld();
      await assert.rejects(putObject(world.put, where, unread(), { ...putOptions, ...wrong }), {
        code: 'ARGUMENT_INVALID',
      });
    });

  test('an address that names a version', async () => {
    const old = { ...where, temporal_segment: { type: 'specific', count: 1 } as const };
    await assert.rejects(putObject(new MemoryWorld().put, old, unread(), putOptions), {
      code: 'ARGUMENT_INVALID',
    });
  });

  test('a wildcard', async () => {
    const any = { ...where, agent: 'any' };
    await assert.rejects(putObject(new MemoryWorld().put, any, unread(), putOptions), {
      code: 'ADDRESS_WILDCARD',
    });
  });
});

describe('a tombstone', () => {
  test('ends an address: reading says so, and what it was stays on record', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('text')], putOptions);
    const done = await removeObject(world.put, where, putOptions);
    assert.equal(done.version, 2);
    await assert.rejects(read(world), { code: 'GONE' });
    assert.equal(openManifest(world.recordsOf(key).manifest).body.cid, null);
  });

  test('is written once, and not for what never was', async () => {
    const world = new MemoryWorld();
    await assert.rejects(removeObject(world.put, where, putOptions), { code: 'NOT_FOUND' });
    await putObject(world.put, where, [utf8('text')], putOptions);
    await removeObject(world.put, where, putOptions);
    await assert.rejects(removeObject(world.put, where, putOptions), { code: 'GONE' });
  });

  test('is no end of writing: the next put is the next version', async () => {
    const world = new MemoryWorld();
    await putObject(world.put, where, [utf8('text')], putOptions);
    await removeObject(world.put, where, putOptions);
    assert.equal((await putObject(world.put, where, [utf8('again')], putOptions)).version, 3);
    assert.equal((await read(world)).toString(), 'again');
  });
});

test('too few copies of any block make the whole put short', async () => {
  const world = new MemoryWorld();
  world.copies = 2;
  const done = await putObject(world.put, where, [utf8('text')], putOptions);
  assert.deepEqual([done.copies, done.wanted, done.short], [2, 3, true]);
});
