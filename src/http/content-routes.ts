// Content as plain HTTP callers see it: sealed and opened here, in doors that have a key provider.

import type { PutAnswer, RegisteredAnswer, VersionInfo } from '../api/types.ts';
import type { BeaconQueries, RegisteredVersion } from '../beacon/queries.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { openObject } from '../flows/get.ts';
import { putObject, removeObject } from '../flows/put.ts';
import { mediaOf } from '../core/media.ts';
import type { Reply } from './answer.ts';
import { byteRange, noneMatches } from './byte-range.ts';
import type { DoorPorts } from './door-ports.ts';
import { versionInfo } from './facts.ts';
import type { IdempotencyKeys } from './idempotency.ts';
import { addressParameter, putParameters, rangeParameter, revisionParameter } from './parameters.ts';
import { readClass, readPolicy, seenRevision, wholeNumber } from './read.ts';
import { objectRecords } from './records.ts';
import { readAddress, resolveVersion } from './resolve.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

export function contentRoutes(ports: DoorPorts, keys: IdempotencyKeys): Route[] {
  return [
    {
      method: 'GET',
      path: '/ucxi/v1/get',
      operationId: 'get',
      head: true,
      summary: 'The content of an address, opened (sealing doors only); HEAD for its facts',
      tag: 'ucxi',
      parameters: [addressParameter, rangeParameter, revisionParameter],
      produces: '*/*',
      statuses: [200, 206, 304],
      handle: (request) => getContent(ports, request),
    },
    {
      method: 'PUT',
      path: '/ucxi/v1/put',
      operationId: 'put',
      data: schemas.put,
      summary: 'Store the body as the next version of an address (sealing doors only)',
      tag: 'ucxi',
      parameters: putParameters,
      accepts: '*/*',
      statuses: [201],
      handle: (request) =>
        keys.once(
          request.header('idempotency-key'),
          sameRequest(request),
          request.body(ports.objectBytesMax),
          (body) => putContent(ports, request, body, request.query('expected')),
        ),
    },
    {
      method: 'POST',
      path: '/ucxi/v1/post',
      operationId: 'post',
      data: schemas.put,
      summary: 'Store the body as the first version of an address; 409 when it has one (sealing doors only)',
      tag: 'ucxi',
      parameters: putParameters.filter(({ name }) => name !== 'expected'),
      accepts: '*/*',
      statuses: [201],
      handle: (request) =>
        keys.once(
          request.header('idempotency-key'),
          sameRequest(request),
          request.body(ports.objectBytesMax),
          (body) => putContent(ports, request, body, '0'),
        ),
    },
    {
      method: 'DELETE',
      path: '/ucxi/v1/delete',
      operationId: 'delete',
      data: schemas.registered,
      summary: 'End an address with a tombstone (sealing doors only); its blocks are reclaimed later',
      tag: 'ucxi',
      parameters: [addressParameter, ...putParameters.slice(-3)],
      statuses: [200],
      handle: (request) =>
        keys.once(request.header('idempotency-key'), sameRequest(request), request.body(0), () =>
          deleteContent(ports, request),
        ),
    },
  ];
}

/** What makes two writes the same one, beside the body. */
function sameRequest(request: Request): string {
  const { pathname, search } = request.url;
  return [request.method, pathname, search, request.header('content-type') ?? ''].join('\n');
}

async function getContent(ports: DoorPorts, request: Request): Promise<Reply> {
  await seenRevision(ports, request);
  const found = await resolveVersion(ports.view, readAddress(request.need('address')));
  const info = versionInfo(found);
  if (info.type === 'tombstone')
    throw new HoldfastError('GONE', `${info.key} was removed by version ${info.version}`, {
      details: { version: info.version },
    });
  const headers = contentHeaders(info);
  if (noneMatches(request.header('if-none-match'), headers['etag'] ?? ''))
    return { status: 304, headers, bytes: new Uint8Array() };
  if (request.method === 'HEAD')
    return {
      status: 200,
      headers: { ...headers, 'content-length': String(info.sizeBytes) },
      bytes: new Uint8Array(),
    };
  // A part of another version than the one the caller has begun is of no use: he gets the whole.
  const isSame = (request.header('if-range') ?? headers['etag']) === headers['etag'];
  const range = isSame ? byteRange(request.header('range'), info.sizeBytes) : undefined;
  const { get } = sealing(ports);
  const records = await objectRecords(ports.view, found);
  const opened = await openObject(get, records, { range, signal: request.signal });
  headers['content-length'] = String(opened.lengthBytes);
  if (range !== undefined) headers['content-range'] = `bytes ${range.first}-${range.last}/${info.sizeBytes}`;
  const bytes = unlessReclaimed(ports.view, found, opened.bytes);
  return { status: range === undefined ? 200 : 206, headers, bytes };
}

/** Blocks that nobody has, of a version that a tombstone let go of, are no outage: they were reclaimed. */
async function* unlessReclaimed(
  view: BeaconQueries,
  { address, version }: RegisteredVersion,
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* bytes;
  } catch (cause) {
    const now = isHoldfastError(cause, 'BLOCK_UNAVAILABLE')
      ? await view.version(address, version)
      : undefined;
    if (now?.retained !== false) throw cause;
    throw new HoldfastError(
      'GONE',
      `the content of version ${version} of ${address} was removed and has been reclaimed`,
      { details: { version }, cause },
    );
  }
}

async function putContent(
  ports: DoorPorts,
  request: Request,
  body: AsyncIterable<Uint8Array>,
  expected: string | undefined,
): Promise<Reply> {
  const { put } = sealing(ports);
  const address = readAddress(request.need('address'));
  const result = await putObject(put, address, body, {
    media: request.header('content-type') ?? mediaOf(address.path),
    type: 'object',
    cls: readClass(request),
    replication: readPolicy(ports, request),
    generatedBy: request.query('generated_by') ?? 'http caller',
    complianceTags: request.url.searchParams.getAll('tag'),
    ...(expected === undefined ? {} : { expectedVersion: wholeNumber('expected', expected, 0) }),
  });
  const data: PutAnswer = {
    address: result.address,
    version: result.version,
    cid: result.cid.toString(),
    revision: result.revision,
    sizeBytes: result.sizeBytes,
    copies: result.copies,
    wanted: result.wanted,
    short: result.short,
  };
  const remark = result.short ? ` (short: ${result.copies} of ${result.wanted} copies for now)` : '';
  return {
    status: 201,
    message: `stored${remark}`,
    data,
    headers: { location: encodeURI(data.address), etag: `"${data.cid}"` },
  };
}

async function deleteContent(ports: DoorPorts, request: Request): Promise<Reply> {
  const { put } = sealing(ports);
  const expected = request.query('expected');
  const result = await removeObject(put, readAddress(request.need('address')), {
    generatedBy: request.query('generated_by') ?? 'http caller',
    replication: ports.defaults,
    cls: 'internal',
    ...(expected === undefined ? {} : { expectedVersion: wholeNumber('expected', expected, 0) }),
  });
  const data: RegisteredAnswer = { ...result, cid: result.cid.toString() };
  return { status: 200, message: 'removed', data };
}

function sealing(ports: DoorPorts): NonNullable<DoorPorts['sealing']> {
  if (ports.sealing === undefined)
    throw new HoldfastError(
      'NOT_SEALING',
      'this door handles ciphertext only: use the client, or a sealing door beside you',
    );
  return ports.sealing;
}

function contentHeaders(info: VersionInfo): Record<string, string> {
  return {
    'content-type': info.media,
    etag: `"${info.cid}"`,
    'accept-ranges': 'bytes',
    'x-ucxl-address': encodeURI(info.address),
    'x-ucxl-version': String(info.version),
    'last-modified': new Date(info.generatedAt).toUTCString(),
    'x-content-type-options': 'nosniff',
  };
}
