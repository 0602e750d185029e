import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import { emptyPosition, expectAny, type LogEntry, nextEntry } from '../beacon/log.ts';
import { BeaconView } from '../beacon/view.ts';
import { MemoryKv } from '../beacon/view-memory.ts';
import { putObject, removeObject } from '../flows/put.ts';
import { contentRoutes } from './content-routes.ts';
import type { DoorPorts } from './door-ports.ts';
import { IdempotencyKeys } from './idempotency.ts';
import type { Request } from './server.ts';

test('a removed version is readable until its blocks are reclaimed, then it is GONE', async () => {
  const world = new MemoryWorld();
  const content = randomBytes(700_000);
  await putObject(world.put, address('kept'), pieces(content), putOptions);
  await putObject(world.put, address('mistake'), pieces(content), putOptions);
  await removeObject(world.put, address('mistake'), putOptions);
  await using view = await viewOf(world);
  const first = address('mistake').raw.replace('*^', '*~1');
  assert.ok((await read(world, view, first)).equals(content));
  world.blocks.clear();
  await assert.rejects(read(world, view, first), {
    code: 'GONE',
    message: /version 1 of .*mistake was removed and has been reclaimed/,
  });
  await assert.rejects(read(world, view, address('mistake').raw), { code: 'GONE' });
  await assert.rejects(read(world, view, address('kept').raw), { code: 'BLOCK_UNAVAILABLE' });
});

/** The view of a door that follows the world's registry. */
async function viewOf(world: MemoryWorld): Promise<BeaconView> {
  const view = await BeaconView.open(new MemoryKv());
  let last: Pick<LogEntry, 'revision' | 'chain'> = emptyPosition;
  for (const { subject, records } of world.log) {
    const entry = nextEntry(last, { subject, expected: expectAny, records, at: 1_700_000_000_000 });
    await view.apply([entry]);
    last = entry;
  }
  return view;
}

async function read(world: MemoryWorld, view: BeaconView, from: string): Promise<Buffer> {
  const sealing = { put: world.put, get: world.get, text: '' };
  // oxlint-disable-next-line no-unsafe-type-assertion -- reading content needs these and nothing else
  const ports = { view, sealing } as unknown as DoorPorts;
  const route = contentRoutes(ports, new IdempotencyKeys(() => 0)).find(
    ({ operationId }) => operationId === 'get',
  );
  const request = {
    method: 'GET',
    need: () => from,
    query: () => undefined,
    header: () => undefined,
    signal: new AbortController().signal,
  };
  // oxlint-disable-next-line no-unsafe-type-assertion -- as above
  const reply = await route?.handle(request as unknown as Request);
  assert.ok(reply !== undefined && 'bytes' in reply && !(reply.bytes instanceof Uint8Array));
  return Buffer.concat(await Array.fromAsync(reply.bytes));
}

async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
