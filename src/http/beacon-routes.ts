// Work on the registry as a whole: prove it, make it again from the blocks, copy it out and in.

import { fieldOf } from '../core/shape.ts';
import type { DoorPorts } from './door-ports.ts';
import { linesReply } from './json-lines.ts';
import { logParameter, withoutParameter } from './parameters.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

/** Largest log that an import takes. */
const importBytesMax = 1024 * 1024 * 1024 * 1024;

export function beaconRoutes(ports: DoorPorts): Route[] {
  return [
    longWork(
      'verify',
      'beaconVerify',
      'Prove that chain, view and blocks agree: progress as JSON lines, the last one is the result',
      ({ signal }) => ports.beacon.verify(signal),
    ),
    longWork(
      'rebuild',
      'beaconRebuild',
      'Reconstruct the registry from the records found in the blockstores: progress as JSON lines',
      ({ url, signal }) => ports.beacon.rebuild(url.searchParams.getAll('without'), signal),
      { parameters: [withoutParameter] },
    ),
    longWork(
      'reseed',
      'beaconReseed',
      'Begin a new log with what the views hold, in the place of one that lost something: progress as JSON lines',
      ({ signal }) => ports.beacon.reseed(signal),
    ),
    longWork(
      'migrate',
      'beaconMigrate',
      'Move the registry to another engine or other servers: progress as JSON lines',
      async function* (request) {
        yield* ports.beacon.migrate(fieldOf(await request.json(), 'to'), request.signal);
      },
      { accepts: 'application/json' },
    ),
    {
      method: 'POST',
      path: '/ucxi/v1/beacon/accept',
      operationId: 'beaconAccept',
      data: schemas.accepted,
      summary:
        'Have this door follow a log that is in the place of its own and lacks something; it starts again on it',
      tag: 'operations',
      parameters: [logParameter],
      statuses: [200],
      handle: async (request) => {
        const log = request.need('log');
        await ports.beacon.accept(log);
        return { status: 200, message: 'accepted', data: { log } };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/beacon/export',
      operationId: 'beaconExport',
      summary: 'The whole log as one checksummed file',
      tag: 'operations',
      produces: 'application/octet-stream',
      statuses: [200],
      handle: async (request) => ({
        status: 200,
        headers: { 'content-type': 'application/octet-stream' },
        bytes: ports.beacon.export(request.signal),
      }),
    },
    {
      method: 'POST',
      path: '/ucxi/v1/beacon/import',
      operationId: 'beaconImport',
      data: schemas.imported,
      summary: 'Take an exported log into an empty Beacon, or go on with the same one',
      tag: 'operations',
      accepts: 'application/octet-stream',
      statuses: [200],
      handle: async (request) => ({
        status: 200,
        message: 'imported',
        data: await ports.beacon.import(request.body(importBytesMax), request.signal),
      }),
    },
  ];
}

/** Work that lasts: its progress goes out as it comes. */
function longWork(
  name: string,
  operationId: string,
  summary: string,
  work: (request: Request) => AsyncIterable<unknown>,
  more: Pick<Route, 'accepts' | 'parameters'> = {},
): Route {
  return {
    method: 'POST',
    path: `/ucxi/v1/beacon/${name}`,
    operationId,
    summary,
    tag: 'operations',
    produces: 'application/jsonl',
    statuses: [200],
    ...more,
    handle: async (request) => linesReply(work(request), request),
  };
}
