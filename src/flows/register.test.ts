import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import { type Block, codecRaw, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import { parseBranchKey, parseEnvelope } from '../envelope/records.ts';
import { openManifest } from '../manifest/manifest.ts';
import { openRecord, signRecord } from '../manifest/record.ts';
import { putObject, removeObject } from './put.ts';
import { registerObject } from './register.ts';

const where = address('decision.md');

interface Prepared {
  readonly world: MemoryWorld;
  /** Branch key, envelope, manifest. */
  readonly records: readonly [Uint8Array, Uint8Array, Uint8Array];
}

/** Everything of a put but its last step. */
async function prepared(bytes: Uint8Array = utf8('text')): Promise<Prepared> {
  const world = new MemoryWorld();
  const caught: (readonly Block[])[] = [];
  const register = async (records: readonly Block[], content?: Block): Promise<never> => {
    caught.push(records);
    if (content !== undefined) await world.put.store([content], putOptions.replication);
    throw new HoldfastError('BEACON_UNAVAILABLE', 'not now');
  };
  const ports = { ...world.put, registry: { ...world.put.registry, register } };
  await assert.rejects(putObject(ports, where, [bytes], putOptions), { code: 'BEACON_UNAVAILABLE' });
  const [branchKey, envelope, manifest] = (caught[0] ?? []).map((block) => block.bytes);
  assert.ok(branchKey !== undefined && envelope !== undefined && manifest !== undefined);
  return { world, records: [branchKey, envelope, manifest] };
}

async function refused({ world }: Prepared, records: readonly Uint8Array[], code: string, text: RegExp) {
  await assert.rejects(registerObject(world.register, records), (error) => {
    assert.ok(error instanceof HoldfastError);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    return true;
  });
  assert.equal(world.log.length, 0, 'nothing was registered');
}

test('files manifest, envelope and branch key in one entry, in an order that can be checked as it is read', async () => {
  const { world, records } = await prepared();
  const done = await registerObject(world.register, records.toReversed());
  assert.deepEqual([done.version, done.revision], [1, 1]);
  assert.deepEqual(
    world.log[0]?.records.map(({ key }) => key.split('/')[0]),
    ['bk', 'env', 'addr'],
  );
});

test('content that comes along is stored, and its copies are told, before the Beacon hears of the version', async () => {
  const { world, records } = await prepared();
  const [content] = contentOf(world);
  world.blocks.clear();
  const done = await registerObject(world.register, records, content);
  assert.deepEqual(done.copies, { copies: 3, wanted: 3 });
  assert.deepEqual(world.load(content.cid), content);
  assert.equal(world.log.length, 1);
});

test('content that reached one disk only is not registered, whoever says that it is stored', async () => {
  const { world, records } = await prepared();
  const [content] = contentOf(world);
  world.copies = 1;
  await assert.rejects(registerObject(world.register, records, content), { code: 'BLOCKS_MISSING' });
  assert.equal(world.log.length, 0);
});

test('content that the manifest does not name is neither stored nor registered', async () => {
  const { world, records } = await prepared();
  const other = rawBlock(utf8('other'));
  const large = await prepared(randomBytes(600_000));
  const [first] = contentOf(large.world);
  await assert.rejects(registerObject(world.register, records, other), { code: 'RECORD_INVALID' });
  await assert.rejects(registerObject(large.world.register, large.records, first), {
    code: 'RECORD_INVALID',
  });
  assert.deepEqual([world.log.length, world.blocks.has(other.cid.toString())], [0, false]);
});

function contentOf({ blocks }: MemoryWorld): [Block, ...Block[]] {
  const [first, ...rest] = [...blocks.values()]
    .map(({ block }) => block)
    .filter(({ cid }) => cid.code === codecRaw);
  assert.ok(first !== undefined);
  return [first, ...rest];
}

test('records become blocks before the Beacon hears of them', async () => {
  const { world, records } = await prepared();
  const failing = {
    ...world.register,
    storeRecord: async (): Promise<never> => {
      throw new HoldfastError('QUORUM_UNAVAILABLE', 'one node of five');
    },
  };
  await assert.rejects(registerObject(failing, records), { code: 'QUORUM_UNAVAILABLE' });
  assert.equal(world.log.length, 0);
});

describe('refuses', () => {
  test('blocks that are not stored, by name', async () => {
    const made = await prepared(randomBytes(600_000));
    const [cid = ''] = made.world.blocks.keys();
    made.world.blocks.delete(cid);
    await refused(made, made.records, 'BLOCKS_MISSING', new RegExp(cid));
  });

  test('blocks on one disk only', async () => {
    const made = await prepared();
    for (const [cid, { block }] of made.world.blocks) made.world.blocks.set(cid, { block, copies: 1 });
    await refused(made, made.records, 'BLOCKS_MISSING', /upload them first/);
  });

  test('a version that does not follow the newest', async () => {
    const made = await prepared();
    await putObject(made.world.put, where, [utf8('faster')], putOptions);
    await assert.rejects(registerObject(made.world.register, made.records), (error) => {
      assert.ok(error instanceof HoldfastError && error.code === 'VERSION_CONFLICT');
      assert.deepEqual(error.details, { current: 1, given: 1 });
      return true;
    });
    assert.equal(made.world.log.length, 1);
  });

  test('an unknown branch key', async () => {
    const made = await prepared();
    await refused(made, made.records.slice(1), 'RECORD_INVALID', /neither registered nor among/);
  });

  test('another branch key than the envelope names', async () => {
    const [made, other] = [await prepared(), await prepared()];
    const [, envelope, manifest] = made.records;
    await refused(made, [other.records[0], envelope, manifest], 'RECORD_INVALID', /does not name/);
  });

  test('a missing envelope, or one of another object', async () => {
    const [made, other] = [await prepared(), await prepared()];
    const [branchKey, , manifest] = made.records;
    await refused(made, [branchKey, manifest], 'RECORD_INVALID', /no envelope/);
    await refused(made, [branchKey, other.records[1], manifest], 'RECORD_INVALID', /no envelope/);
  });

  test('a forged signature, whichever record it is on', async () => {
    const made = await prepared();
    for (const index of [0, 1, 2]) {
      const forged = made.records.map((bytes) => new Uint8Array(bytes));
      const bytes = forged[index] ?? new Uint8Array();
      const last = bytes.length - 1;
      bytes[last] = (bytes[last] ?? 0) ^ 1;
      await refused(made, forged, 'RECORD_INVALID', /signature/);
    }
  });

  test('content that was sealed for something else: it could never be opened', async () => {
    const made = await prepared();
    const [branchKey, envelope, manifest] = made.records;
    const { body } = openManifest(manifest);
    const lying = signRecord({ ...body, media: 'text/html' }, made.world.signer).block.bytes;
    await refused(
      made,
      [branchKey, envelope, lying],
      'RECORD_INVALID',
      /was sealed as application\/octet-stream/,
    );
  });

  test('a newer envelope or branch key than the first: those are for who wrote the one before', async () => {
    const made = await prepared();
    const [branchKey, envelope, manifest] = made.records;
    const { body, cid } = openRecord(envelope);
    const first = parseEnvelope(body);
    if (first.mode !== 'branch') throw new TypeError('an envelope under a branch key expected');
    const newer = signRecord({ ...first, envVer: 2, prev: cid }, made.world.signer).block.bytes;
    await refused(made, [branchKey, newer, manifest], 'RECORD_INVALID', /newer envelope/);
    const key = openRecord(branchKey);
    const { wraps, ...rest } = parseBranchKey(key.body);
    const relabelled = wraps.map((wrap) =>
      'label' in wrap ? { ...wrap, label: encodeLabel({ ...parseLabel(wrap.label), bkVer: 2 }) } : wrap,
    );
    const again = { ...rest, bkVer: 2, prev: key.cid, wraps: relabelled };
    const rekeyed = signRecord(again, made.world.signer).block.bytes;
    const under = signRecord({ ...first, bkVer: 2 }, made.world.signer).block.bytes;
    await refused(made, [rekeyed, under, manifest], 'RECORD_INVALID', /newer branch key/);
  });

  test('no manifest, or two', async () => {
    const made = await prepared();
    const [branchKey, envelope, manifest] = made.records;
    await refused(made, [branchKey, envelope], 'RECORD_INVALID', /no manifest/);
    await refused(made, [], 'RECORD_INVALID', /no manifest/);
    await refused(
      made,
      [branchKey, envelope, manifest, manifest],
      'RECORD_INVALID',
      /2 records of kind manifest/,
    );
  });

  test('key records that come in beside a tombstone', async () => {
    const made = await prepared();
    const { world } = made;
    await putObject(world.put, where, [utf8('text')], putOptions);
    const removing: Uint8Array[][] = [];
    const register = async (records: readonly Block[]) => {
      removing.push([made.records[1], ...records.map(({ bytes }) => bytes)]);
      return registerObject(world.register, removing[0] ?? []);
    };
    const ports = { ...world.put, registry: { ...world.put.registry, register } };
    await assert.rejects(removeObject(ports, where, putOptions), /beside a tombstone/);
    assert.equal(world.log.length, 1);
  });
});

test('what was filed can be parsed again', async () => {
  const { world, records } = await prepared();
  await registerObject(world.register, records);
  const [branchKey, envelope] = world.log[0]?.records ?? [];
  assert.equal(parseBranchKey(openRecord(branchKey?.bytes ?? new Uint8Array()).body).bkVer, 1);
  assert.equal(parseEnvelope(openRecord(envelope?.bytes ?? new Uint8Array()).body).envVer, 1);
});
