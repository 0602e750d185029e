// Restricted content: a key of its own for each object, through put, register and get, and no way around it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import type { Block } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import { HighWaterMarks } from '../envelope/high-water.ts';
import { type DirectEnvelope, parseEnvelope } from '../envelope/records.ts';
import { openRecord, signRecord } from '../manifest/record.ts';
import { canonicalKey } from '../ucxl/address.ts';
import { type ObjectRecords, openObject } from './get.ts';
import { putObject } from './put.ts';
import { registerObject } from './register.ts';

const signal = new AbortController().signal;
const where = address('decision.md');
const key = canonicalKey(where);
const restricted = { ...putOptions, cls: 'restricted' } as const;

async function read(world: MemoryWorld, records: ObjectRecords, seen?: HighWaterMarks): Promise<string> {
  const ports = seen === undefined ? world.get : { ...world.get, seen };
  const opened = await openObject(ports, records, { signal });
  const parts: Uint8Array[] = [];
  for await (const part of opened.bytes) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function stored(): Promise<{ world: MemoryWorld; records: ObjectRecords; envelope: DirectEnvelope }> {
  const world = new MemoryWorld();
  await putObject(world.put, where, [utf8('for few')], restricted);
  const records = world.recordsOf(key);
  assert.ok(records.envelope !== undefined);
  const envelope = parseEnvelope(openRecord(records.envelope).body);
  assert.ok(envelope.mode === 'direct');
  return { world, records, envelope };
}

/** The records of an object with another envelope, signed by its writer. */
function withEnvelope(world: MemoryWorld, records: ObjectRecords, envelope: object): ObjectRecords {
  const body = parseEnvelope(envelope);
  return { ...records, envelope: signRecord(body, world.signer).block.bytes };
}

test('comes back, with a key that no other object shares, in two records', async () => {
  const { world, records, envelope } = await stored();
  assert.equal(await read(world, records), 'for few');
  assert.deepEqual(
    world.log[0]?.records.map((each) => each.key.split('/')[0]),
    ['env', 'addr'],
  );
  assert.deepEqual(parseLabel(envelope.key.wraps[0]?.label ?? new Uint8Array()).bkId, envelope.objId);
  await putObject(world.put, address('other.md'), [utf8('for few')], restricted);
  assert.equal(world.keys.held.writing, 0, 'no key is kept for the next object');
  assert.equal(world.keys.held.reading, 0, 'nor for the next read: each is a question of its own');
});

describe('does not open', () => {
  test('with the key of another object', async () => {
    const { world, records, envelope } = await stored();
    const other = await stored();
    const swapped = { ...envelope, wrap: other.envelope.wrap };
    await assert.rejects(read(world, withEnvelope(world, records, swapped)), { code: 'DECRYPT_FAILED' });
  });

  test('under another policy', async () => {
    const { world, records, envelope } = await stored();
    const policy = openRecord(records.manifest).cid;
    const wraps = envelope.key.wraps.map((wrap) => ({
      ...wrap,
      label: encodeLabel({ ...parseLabel(wrap.label), policy }),
    }));
    const swapped = { ...envelope, policy, key: { ...envelope.key, wraps } };
    await assert.rejects(read(world, withEnvelope(world, records, swapped)), { code: 'DECRYPT_FAILED' });
    assert.throws(() => withEnvelope(world, records, { ...envelope, policy }), { code: 'RECORD_INVALID' });
  });

  test('as less than restricted: neither label nor key gives way', async () => {
    const { world, records, envelope } = await stored();
    assert.throws(() => withEnvelope(world, records, { ...envelope, cls: 'public' }), {
      code: 'RECORD_INVALID',
    });
    await assert.rejects(read(world, withEnvelope(world, records, shared(envelope))), {
      code: 'KEY_UNAVAILABLE',
    });
  });

  test('by an older envelope than was seen before', async () => {
    const { world, records, envelope } = await stored();
    const seen = new HighWaterMarks();
    const newer = withEnvelope(world, records, {
      ...envelope,
      envVer: 2,
      prev: openRecord(records.manifest).cid,
    });
    assert.equal(await read(world, newer, seen), 'for few');
    await assert.rejects(read(world, records, seen), { code: 'RECORD_INVALID' });
  });
});

describe('is not registered', () => {
  const attempts: readonly [string, RegExp, (envelope: DirectEnvelope) => object][] = [
    ['under a shared key', /key of its own/, shared],
    [
      'with an envelope of another class',
      /not restricted/,
      (envelope) => ({ ...shared(envelope), cls: 'internal' }),
    ],
  ];
  for (const [name, text, change] of attempts) {
    test(name, async () => {
      const { world, blocks } = await prepared();
      const [envelope, manifest] = blocks;
      assert.ok(envelope !== undefined && manifest !== undefined);
      const body = parseEnvelope(openRecord(envelope).body);
      assert.ok(body.mode === 'direct');
      const changed = signRecord(parseEnvelope(change(body)), world.signer).block.bytes;
      await assert.rejects(registerObject(world.register, [changed, manifest]), (error) => {
        assert.ok(error instanceof HoldfastError && error.code === 'RECORD_INVALID', String(error));
        assert.match(error.message, text);
        return true;
      });
      assert.equal(world.log.length, 0);
      await registerObject(world.register, blocks);
    });
  }
});

/** The same envelope, naming a branch key instead of describing its own. */
function shared(envelope: DirectEnvelope): object {
  const { key: _, ...rest } = envelope;
  return { ...rest, mode: 'branch', bkId: rest.objId, bkVer: 1 };
}

/** Everything of a put but its last step. */
async function prepared(): Promise<{ world: MemoryWorld; blocks: readonly Uint8Array[] }> {
  const world = new MemoryWorld();
  const caught: (readonly Block[])[] = [];
  const register = async (records: readonly Block[], content?: Block): Promise<never> => {
    caught.push(records);
    if (content !== undefined) await world.put.store([content], putOptions.replication);
    throw new HoldfastError('BEACON_UNAVAILABLE', 'not now');
  };
  const ports = { ...world.put, registry: { ...world.put.registry, register } };
  await assert.rejects(putObject(ports, where, [utf8('x')], restricted), { code: 'BEACON_UNAVAILABLE' });
  return { world, blocks: (caught[0] ?? []).map(({ bytes }) => bytes) };
}
