// What moving keys from one provider to another needs: the records of wrapped keys page by page, the objects under
// one of them, and the records that take their place. Nothing here is secret, and the door opens none of it.

import type { FiledAnswer, KeyObjectsAnswer, WrappedKeysAnswer } from '../api/types.ts';
import { asBuffer } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { appendRecordsMax, recordBytesMax } from '../core/limits.ts';
import { readCar } from '../manifest/car.ts';
import type { DoorPorts } from './door-ports.ts';
import { afterParameter, limitParameter, revisionParameter } from './parameters.ts';
import { nextOf, pageOf, seenRevision } from './read.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

/** Records of up to 64 KiB each. */
const keysPerPageMax = 256;
/** Two records each. */
const objectsPerPageMax = 64;

export function keyRoutes(ports: DoorPorts): Route[] {
  return [
    {
      method: 'GET',
      path: '/v1/custody/keys',
      operationId: 'wrappedKeys',
      data: schemas.wrappedKeys,
      summary: 'The newest record of every branch key, and of every object with a key of its own',
      tag: 'custody',
      parameters: [limitParameter, afterParameter, revisionParameter],
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        const data = await keysAnswer(ports, request);
        return { status: 200, message: `${data.records.length} keys`, data };
      },
    },
    {
      method: 'GET',
      path: '/v1/custody/objects',
      operationId: 'keyObjects',
      data: schemas.keyObjects,
      summary: 'Envelopes under a branch key, each with a manifest of its object',
      tag: 'custody',
      parameters: [
        { name: 'key', in: 'query', required: true, text: 'id of the branch key, 32 hex digits' },
        limitParameter,
        afterParameter,
        revisionParameter,
      ],
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        const data = await objectsAnswer(ports, request);
        return { status: 200, message: `${data.items.length} objects`, data };
      },
    },
    {
      method: 'POST',
      path: '/v1/custody/keys',
      operationId: 'rewrapKeys',
      data: schemas.filedKeys,
      summary: 'File newer records of wrapped keys (CAR v1), signed by their writer or the operator',
      tag: 'custody',
      accepts: 'application/vnd.ipld.car',
      statuses: [201],
      handle: async (request) => {
        const data: FiledAnswer = { revision: await keysOf(ports).file(await recordsIn(request)) };
        return { status: 201, message: 'filed', data };
      },
    },
  ];
}

function keysOf({ keys }: DoorPorts): NonNullable<DoorPorts['keys']> {
  if (keys !== undefined) return keys;
  throw new HoldfastError('KEY_UNAVAILABLE', 'this door files no key records');
}

async function keysAnswer(ports: DoorPorts, request: Request): Promise<WrappedKeysAnswer> {
  const { limit, ...after } = pageOf(request);
  const page = await ports.view.wrappedKeys({ limit: Math.min(limit, keysPerPageMax), ...after });
  const records = page.items.map(({ record }) => base64(record.block.bytes));
  return { records, opens: keysOf(ports).opens(), ...nextOf(page.next) };
}

async function objectsAnswer({ view }: DoorPorts, request: Request): Promise<KeyObjectsAnswer> {
  const id = request.need('key');
  if (!/^[0-9a-f]{32}$/.test(id)) throw new HoldfastError('ARGUMENT_INVALID', 'key: 32 hex digits expected');
  const { limit, ...after } = pageOf(request);
  const bkId = new Uint8Array(Buffer.from(id, 'hex'));
  const own = await view.envelope(bkId);
  const page =
    own?.record.body.mode === 'direct' // a key of its own has the id of its object
      ? { items: [await view.wrappedObject(bkId)] }
      : await view.objectsOfBranchKey(bkId, { limit: Math.min(limit, objectsPerPageMax), ...after });
  const items: KeyObjectsAnswer['items'][number][] = [];
  for (const { objId, uses } of page.items) {
    const [use] = uses;
    const envelope = await view.envelope(objId);
    const manifest = use && (await view.version(use.address, use.version));
    if (envelope === undefined || manifest === undefined) continue;
    items.push({
      envelope: base64(envelope.record.block.bytes),
      manifest: base64(manifest.record.block.bytes),
    });
  }
  return { items, ...('next' in page ? nextOf(page.next) : {}) };
}

async function recordsIn(request: Request): Promise<readonly Uint8Array[]> {
  const records: Uint8Array[] = [];
  try {
    for await (const { bytes } of readCar(request.body((appendRecordsMax + 1) * recordBytesMax)))
      records.push(bytes);
  } catch (cause) {
    if (!isHoldfastError(cause, 'BLOCK_CORRUPT')) throw cause;
    throw new HoldfastError('ARGUMENT_INVALID', cause.message, { details: { field: 'car' }, cause });
  }
  return records;
}

function base64(bytes: Uint8Array): string {
  return asBuffer(bytes).toString('base64');
}
