// The door's table of routes: what UCXI callers, the client and operators may ask (CONTRACTS.md section 4).

import type {
  BeatAnswer,
  ChangeEvent,
  DoorStatus,
  HealthAnswer,
  HealthCheck,
  HistoryAnswer,
  NavigateAnswer,
  ProviderInfo,
  PutAnswer,
  QueryAnswer,
  RegisteredAnswer,
  StatAnswer,
  StatusAnswer,
  StoredAnswer,
  VersionInfo,
} from '../api/types.ts';
import type { BeaconQueries, RegisteredVersion, RegistryChange } from '../beacon/queries.ts';
import { type Block, CID, parseCid, supportedCid } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { grouped } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { recordBytesMax } from '../core/limits.ts';
import { type ContentClass, contentClasses } from '../envelope/aad.ts';
import { type ByteRange, type GetPorts, type ObjectRecords, openObject } from '../flows/get.ts';
import { type Copies, type PutPorts, putObject, removeObject } from '../flows/put.ts';
import type { RegisteredObject } from '../flows/register.ts';
import { carHeader, carSection, readCar } from '../manifest/car.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import type { ObjectReport, StewardStatus } from '../steward/status.ts';
import { canonicalKey, withVersion } from '../ucxl/address.ts';
import { matches, parsePattern } from '../ucxl/match.ts';
import { IdempotencyKeys } from './idempotency.ts';
import type { DoorMetrics } from './metrics.ts';
import { openApi } from './openapi.ts';
import { readAddress, resolveVersion } from './resolve.ts';
import { schemas } from './schemas.ts';
import type { Reply } from './answer.ts';
import type { Parameter, Request, Route } from './server.ts';

export interface DoorPorts {
  readonly cluster: string;
  readonly version: string;
  readonly clock: Clock;
  readonly view: BeaconQueries;
  readonly metrics: DoorMetrics;
  readonly defaults: ReplicationPolicy;
  /** Largest object that PUT takes, bytes. */
  readonly objectBytesMax: number;
  storeBlocks(blocks: readonly Block[], policy: ReplicationPolicy): Promise<Copies>;
  load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]>;
  register(blocks: readonly Uint8Array[]): Promise<RegisteredObject>;
  /** Present when this door seals for plain HTTP callers. */
  readonly sealing?: { readonly put: PutPorts; readonly get: GetPorts; readonly text: string };
  readonly steward: {
    status(): Promise<StewardStatus>;
    object(manifest: CID): Promise<ObjectReport>;
    heal(): Promise<void>;
  };
  readonly dht: {
    /** Asks the nodes that hold the block to announce it again now; how many do. */
    announce(cid: CID): Promise<number>;
    discover(cid: CID, signal: AbortSignal): Promise<readonly ProviderInfo[]>;
  };
  /** Work on the Beacon as a whole; each yields progress and ends with the result. */
  readonly beacon: {
    verify(signal: AbortSignal): AsyncIterable<unknown>;
    rebuild(signal: AbortSignal): AsyncIterable<unknown>;
    export(signal: AbortSignal): AsyncIterable<Uint8Array>;
    import(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<unknown>;
  };
  /** How long a subscription may be silent, ms. Default 15,000. */
  readonly heartbeatMs?: number;
  beat(): BeatAnswer | undefined;
  peersConnected(): number;
  health(): Promise<readonly HealthCheck[]>;
}

/** Blocks fetched or stored by one request. */
const fetchCidsMax = 1024;
const uploadBytesMax = 64 * 1024 * 1024;
const exportBytesMax = 1024 * 1024 * 1024 * 1024;
const storeBatch = 16;
const heartbeatMs = 15_000;

const addressParameter: Parameter = {
  name: 'address',
  in: 'query',
  required: true,
  text: 'UCXL address; the temporal segment selects the version, default the latest',
};
const patternParameter: Parameter = {
  name: 'pattern',
  in: 'query',
  required: true,
  text: 'UCXL address with wildcards',
};
const limitParameter: Parameter = {
  name: 'limit',
  in: 'query',
  text: 'most items to return, default 100',
  schema: { type: 'integer', minimum: 1, maximum: 1000 },
};
const afterParameter: Parameter = { name: 'after', in: 'query', text: '`next` of the page before' };
const cidParameter: Parameter = { name: 'cid', in: 'query', required: true, text: 'CID of a block' };
const revisionParameter: Parameter = {
  name: 'revision',
  in: 'query',
  text: 'wait until this Beacon revision is visible here, so that you read your own write',
  schema: { type: 'integer', minimum: 0 },
};
const policyParameters: readonly Parameter[] = (['min', 'max', 'zones'] as const).map((name) => ({
  name,
  in: 'query',
  text: { min: 'fewest copies', max: 'most copies', zones: 'fewest zones' }[name],
  schema: { type: 'integer', minimum: 1, maximum: 256 },
}));
const putParameters: readonly Parameter[] = [
  addressParameter,
  ...policyParameters,
  { name: 'cls', in: 'query', text: 'class of confidentiality', schema: { enum: [...contentClasses] } },
  {
    name: 'tag',
    in: 'query',
    text: 'compliance tag; may be repeated',
    schema: { type: 'array', items: { type: 'string' } },
  },
  { name: 'generated_by', in: 'query', text: 'who made it; default the caller' },
  {
    name: 'expected',
    in: 'query',
    text: 'write only if this is the newest version (0: none yet)',
    schema: { type: 'integer', minimum: 0 },
  },
  { name: 'idempotency-key', in: 'header', text: 'the same key and body twice is one write' },
];
const rangeParameter: Parameter = { name: 'range', in: 'header', text: 'bytes=a-b, one range' };

/** All routes of a door. */
export function doorRoutes(ports: DoorPorts): readonly Route[] {
  const keys = new IdempotencyKeys(() => ports.clock.monotonic());
  const routes: Route[] = [
    ...contentRoutes(ports, keys),
    ...registryRoutes(ports),
    ...blockRoutes(ports),
    ...operationRoutes(ports),
    ...healthRoutes(ports),
  ];
  routes.push({
    method: 'GET',
    path: '/openapi.json',
    operationId: 'openapi',
    summary: 'This document',
    tag: 'health',
    statuses: [200],
    token: false,
    produces: 'application/vnd.oai.openapi+json',
    handle: async () => ({
      status: 200,
      headers: { 'content-type': 'application/vnd.oai.openapi+json; charset=utf-8' },
      bytes: utf8(JSON.stringify(openApi(routes, ports.version))),
    }),
  });
  return routes;
}

function contentRoutes(ports: DoorPorts, keys: IdempotencyKeys): Route[] {
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

function registryRoutes(ports: DoorPorts): Route[] {
  const { view } = ports;
  return [
    {
      method: 'GET',
      path: '/ucxi/v1/query',
      operationId: 'query',
      data: schemas.query,
      summary: 'Current versions of the addresses that match a pattern',
      tag: 'ucxi',
      parameters: [patternParameter, limitParameter, afterParameter, revisionParameter],
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        const page = await view.query(parsePattern(request.need('pattern')), pageOf(request));
        const data: QueryAnswer = { items: page.items.map(versionInfo), ...nextOf(page.next) };
        return { status: 200, message: `${data.items.length} addresses`, data };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/navigate',
      operationId: 'navigate',
      data: schemas.navigate,
      summary: 'Which version an address means, and its neighbours in time',
      tag: 'ucxi',
      parameters: [addressParameter, revisionParameter],
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        return { status: 200, message: 'navigated', data: await navigate(view, request.need('address')) };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/log',
      operationId: 'log',
      data: schemas.history,
      summary: 'The history of an address, newest first',
      tag: 'ucxi',
      parameters: [addressParameter, limitParameter, afterParameter],
      statuses: [200],
      handle: async (request) => ({ status: 200, message: 'history', data: await history(view, request) }),
    },
    {
      method: 'GET',
      path: '/ucxi/v1/stat',
      operationId: 'stat',
      data: schemas.stat,
      summary: 'Manifest, versions, holders and proofs of an address',
      tag: 'ucxi',
      parameters: [addressParameter, revisionParameter],
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        return { status: 200, message: 'facts', data: await stat(ports, request.need('address')) };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/subscribe',
      operationId: 'subscribe',
      summary: 'New versions as they are registered, as server-sent events (resume with Last-Event-ID)',
      tag: 'ucxi',
      parameters: [
        { ...patternParameter, required: false },
        {
          name: 'from',
          in: 'query',
          text: 'first Beacon revision to tell; default the next one',
          schema: { type: 'integer', minimum: 1 },
        },
      ],
      produces: 'text/event-stream',
      statuses: [200],
      lasting: true,
      handle: async (request) => subscribe(ports, request),
    },
    {
      method: 'POST',
      path: '/ucxi/v1/announce',
      operationId: 'announce',
      data: schemas.announced,
      summary: 'Have the holders of a block announce it again now',
      tag: 'ucxi',
      parameters: [cidParameter],
      statuses: [202],
      handle: async (request) => {
        const providers = await ports.dht.announce(supportedCid(parseCid(request.need('cid'))));
        return { status: 202, message: `${providers} nodes announce it`, data: { providers } };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/discover',
      operationId: 'discover',
      data: schemas.discovered,
      summary: 'Peers that announce a block in the DHT',
      tag: 'ucxi',
      parameters: [cidParameter],
      statuses: [200],
      handle: async (request) => {
        const providers = await ports.dht.discover(
          supportedCid(parseCid(request.need('cid'))),
          request.signal,
        );
        return { status: 200, message: `${providers.length} providers`, data: { providers } };
      },
    },
  ];
}

function blockRoutes(ports: DoorPorts): Route[] {
  const car = 'application/vnd.ipld.car';
  return [
    {
      method: 'POST',
      path: '/ucxi/v1/blocks',
      operationId: 'storeBlocks',
      data: schemas.stored,
      summary: 'Store sealed blocks (CAR v1) on enough disks',
      tag: 'blocks',
      parameters: policyParameters,
      accepts: car,
      statuses: [201],
      handle: async (request) => {
        const data = await storeUpload(ports, request);
        return { status: 201, message: `${data.blocks} blocks stored`, data };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/blocks/{cid}',
      operationId: 'block',
      summary: 'One block as it is: ciphertext or a signed record',
      tag: 'blocks',
      parameters: [{ name: 'cid', in: 'path', required: true, text: 'CID' }],
      produces: 'application/vnd.ipld.raw',
      statuses: [200],
      handle: async (request) => {
        const cid = parseCid(request.path['cid'] ?? '');
        const [block] = await ports.load([cid], request.signal);
        if (block === undefined)
          throw new HoldfastError('BLOCK_UNAVAILABLE', `block ${cid.toString()} was not delivered`);
        return {
          status: 200,
          headers: {
            'content-type': 'application/vnd.ipld.raw',
            etag: `"${cid.toString()}"`,
            'cache-control': 'public, max-age=29030400, immutable',
          },
          bytes: block.bytes,
        };
      },
    },
    {
      method: 'POST',
      path: '/ucxi/v1/blocks/fetch',
      operationId: 'fetchBlocks',
      bodySchema: {
        type: 'object',
        required: ['cids'],
        properties: {
          cids: { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: fetchCidsMax },
        },
      },
      summary: `Blocks by CID, in the order asked (JSON {"cids": […]}, at most ${fetchCidsMax})`,
      tag: 'blocks',
      accepts: 'application/json',
      produces: car,
      statuses: [200],
      handle: async (request) => {
        const cids = cidList(await request.json());
        return { status: 200, headers: { 'content-type': car }, bytes: carOf(ports, cids, request.signal) };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/records',
      operationId: 'records',
      summary: 'The signed records of one version: manifest, envelope, branch key (CAR v1)',
      tag: 'blocks',
      parameters: [addressParameter, revisionParameter],
      produces: car,
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        const found = await resolveVersion(ports.view, readAddress(request.need('address')));
        return recordsReply(ports.view, found);
      },
    },
    {
      method: 'POST',
      path: '/ucxi/v1/register',
      operationId: 'register',
      data: schemas.registered,
      summary: 'Register a version whose blocks are stored: its signed records (CAR v1)',
      tag: 'blocks',
      accepts: car,
      statuses: [201],
      handle: async (request) => {
        const blocks: Uint8Array[] = [];
        for await (const { bytes } of uploadedBlocks(request, 8 * recordBytesMax)) blocks.push(bytes);
        const data = registeredAnswer(await ports.register(blocks));
        return { status: 201, message: 'registered', data, headers: { location: encodeURI(data.address) } };
      },
    },
  ];
}

function operationRoutes(ports: DoorPorts): Route[] {
  return [
    {
      method: 'GET',
      path: '/ucxi/v1/beat',
      operationId: 'beat',
      data: schemas.beat,
      summary: 'The current beat and the key policy: what a client seals under',
      tag: 'operations',
      statuses: [200],
      handle: async () => {
        const data = ports.beat();
        if (data === undefined)
          throw new HoldfastError('BEACON_UNAVAILABLE', 'no beat has been heard yet; retry in a second');
        return { status: 200, message: `beat ${data.index}`, data };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/status',
      operationId: 'status',
      data: schemas.status,
      summary: 'What is lost, at risk, healing and healthy, and how every node does',
      tag: 'operations',
      statuses: [200],
      handle: async () => ({ status: 200, message: 'status', data: await status(ports) }),
    },
    {
      method: 'POST',
      path: '/ucxi/v1/heal',
      operationId: 'heal',
      summary: 'Look for deficits now rather than on the next beat',
      tag: 'operations',
      statuses: [202],
      handle: async () => {
        await ports.steward.heal();
        return { status: 202, message: 'healing brought forward' };
      },
    },
    ...(['verify', 'rebuild'] as const).map(
      (operation): Route => ({
        method: 'POST',
        path: `/ucxi/v1/beacon/${operation}`,
        operationId: `beacon${operation === 'verify' ? 'Verify' : 'Rebuild'}`,
        summary:
          operation === 'verify'
            ? 'Prove that chain, view and blocks agree: progress as JSON lines, the last one is the result'
            : 'Reconstruct the registry from the records found in the blockstores: progress as JSON lines',
        tag: 'operations',
        produces: 'application/jsonl',
        statuses: [200],
        handle: async (request) => ({
          status: 200,
          headers: { 'content-type': 'application/jsonl' },
          bytes: jsonLines(ports.beacon[operation](request.signal)),
        }),
      }),
    ),
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
        data: await ports.beacon.import(request.body(exportBytesMax), request.signal),
      }),
    },
    {
      method: 'GET',
      path: '/metrics',
      operationId: 'metrics',
      summary: 'Prometheus text',
      tag: 'operations',
      produces: 'text/plain',
      statuses: [200],
      handle: async () => ({
        status: 200,
        headers: { 'content-type': ports.metrics.contentType },
        bytes: utf8(await ports.metrics.text(ports.view, await stewardStatus(ports))),
      }),
    },
  ];
}

function healthRoutes(ports: DoorPorts): Route[] {
  const answer = async (): Promise<HealthAnswer> => {
    const checks = await ports.health();
    const worst = (['failed', 'degraded'] as const).find((state) =>
      checks.some((check) => check.status === state),
    );
    return { status: worst ?? 'ok', checks };
  };
  const route = (
    path: string,
    operationId: string,
    summary: string,
    token: boolean,
    handle: () => Promise<Reply>,
  ): Route => ({
    method: 'GET',
    path,
    operationId,
    summary,
    tag: 'health',
    token,
    statuses: [200],
    data: path === '/health/checks' ? schemas.checks : schemas.health,
    handle,
  });
  return [
    route('/health/live', 'healthLive', 'The process answers', false, async () => ({
      status: 200,
      message: 'alive',
      data: { status: 'ok' },
    })),
    route(
      '/health/ready',
      'healthReady',
      '200 when reads and writes work here, else 503',
      false,
      async () => {
        const { status, checks } = await answer();
        // A lost object is an alarm, and no reason to send readers of all the others away.
        const vital = checks.filter(({ name }) => name === 'nodes' || name === 'beacon');
        const failed = vital.filter((check) => check.status === 'failed').map((check) => check.name);
        if (failed.length > 0)
          throw new HoldfastError('BEACON_UNAVAILABLE', `not ready: ${failed.join(', ')}`, {
            details: { failed },
          });
        return { status: 200, message: 'ready', data: { status } };
      },
    ),
    route('/health', 'health', 'Overall state in a word', false, async () => {
      const { status } = await answer();
      return { status: 200, message: status, data: { status } };
    }),
    route('/health/checks', 'healthChecks', 'Each check with its reason', true, async () => {
      const data = await answer();
      return { status: 200, message: data.status, data };
    }),
  ];
}

// Content

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
  return { status: range === undefined ? 200 : 206, headers, bytes: opened.bytes };
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
    media: request.header('content-type') ?? 'application/octet-stream',
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

/** True when If-None-Match names this version, or any. Weak and strong tags are alike here (RFC 9110 section 13.1.2). */
function noneMatches(header: string | undefined, etag: string): boolean {
  const tags = (header ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes(etag) || tags.includes('*');
}

/**
 * One range of a Range header (RFC 9110 section 14). Several, another unit, or one that ends before it begins
 * are ignored, as the RFC asks. Throws RANGE_INVALID for one beyond the end.
 */
export function byteRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const found = /^bytes=(\d*)-(\d*)$/i.exec(header ?? '');
  if (found === null || (found[1] === '' && found[2] === '')) return undefined;
  const [from, to] = [found[1] ?? '', found[2] ?? ''];
  if (from !== '' && to !== '' && Number(to) < Number(from)) return undefined;
  const first = from === '' ? Math.max(0, sizeBytes - Number(to)) : Number(from);
  const last = from === '' || to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1);
  if (first > last || first >= sizeBytes)
    throw new HoldfastError('RANGE_INVALID', `${header} of an object of ${sizeBytes} bytes`, {
      details: { sizeBytes },
    });
  return { first, last };
}

// Registry

async function navigate(view: BeaconQueries, text: string): Promise<NavigateAnswer> {
  const address = readAddress(text);
  const key = canonicalKey(address);
  const head = await view.head(key);
  if (head === undefined)
    return {
      key,
      newest: 0,
      newestCid: null,
      tombstone: false,
      selected: null,
      previous: null,
      following: null,
    };
  let selected: VersionInfo | null = null;
  try {
    selected = versionInfo(await resolveVersion(view, address));
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.code !== 'NOT_FOUND') throw error;
  }
  const step = (version: number): string | null =>
    version >= 1 && version <= head.version ? withVersion(address, version) : null;
  return {
    key,
    newest: head.version,
    newestCid: head.record.cid.toString(),
    tombstone: head.record.body.type === 'tombstone',
    selected,
    previous: selected === null ? null : step(selected.version - 1),
    following: selected === null ? null : step(selected.version + 1),
  };
}

async function history(view: BeaconQueries, request: Request): Promise<HistoryAnswer> {
  const key = canonicalKey(readAddress(request.need('address')));
  const page = await view.versions(key, { ...pageOf(request), reverse: true });
  if (page.items.length === 0 && request.query('after') === undefined)
    throw new HoldfastError('NOT_FOUND', `nothing is stored under ${key}`);
  return {
    key,
    items: page.items.map((line) => ({
      version: line.version,
      type: line.type,
      cid: line.manifestCid?.toString() ?? null,
      at: new Date(line.at).toISOString(),
      revision: line.revision,
    })),
    ...nextOf(page.next),
  };
}

async function stat(ports: DoorPorts, text: string): Promise<StatAnswer> {
  const found = await resolveVersion(ports.view, readAddress(text));
  const head = await ports.view.head(found.address);
  const common = {
    version: versionInfo(found),
    newest: head?.version ?? found.version,
    manifest: plainJson(found.record.body),
  };
  try {
    return { ...common, replicas: await ports.steward.object(found.record.cid) };
  } catch (error) {
    return { ...common, replicas: null, replicasError: describeError(error) };
  }
}

async function subscribe(ports: DoorPorts, request: Request): Promise<Reply> {
  const pattern = request.query('pattern') === undefined ? undefined : parsePattern(request.need('pattern'));
  const resumed = request.header('last-event-id');
  const from =
    resumed !== undefined
      ? wholeNumber('Last-Event-ID', resumed, 0) + 1
      : wholeNumber('from', request.query('from') ?? String(ports.view.position().revision + 1), 1);
  return {
    status: 200,
    headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
    bytes: events(ports, from, (key) => pattern === undefined || matches(pattern, key), request.signal),
  };
}

async function* events(
  ports: DoorPorts,
  from: number,
  wanted: (key: string) => boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield utf8('retry: 1000\n\n');
  let next = from;
  while (!signal.aborted) {
    for await (const change of ports.view.changesSince(next, { signal })) {
      next = change.revision + 1;
      if (change.rejected === undefined) yield* changeEvents(ports.view, change, wanted);
    }
    const pause = AbortSignal.any([signal, AbortSignal.timeout(ports.heartbeatMs ?? heartbeatMs)]);
    const waited = await ports.view.waitFor(next, pause).then(
      () => true,
      () => false,
    );
    // So that a dead connection shows itself; the id spares whoever resumes what did not concern him.
    if (!waited && !signal.aborted) yield utf8(`: still here\nid: ${next - 1}\n\n`);
  }
}

/** The id comes with the last event of a revision: who lost the connection before it gets all of them again. */
async function* changeEvents(
  view: BeaconQueries,
  change: RegistryChange,
  wanted: (key: string) => boolean,
): AsyncGenerator<Uint8Array, void, undefined> {
  let held: string | undefined;
  for (const name of change.keys) {
    const key = name.startsWith('addr/') ? name.slice('addr/'.length) : undefined;
    if (key === undefined || !wanted(key)) continue;
    const version = await versionOfRevision(view, key, change.revision);
    if (version === undefined) continue;
    if (held !== undefined) yield utf8(held);
    const event: ChangeEvent = { revision: change.revision, version: versionInfo(version) };
    held = `event: version\ndata: ${JSON.stringify(event)}\n\n`;
  }
  if (held !== undefined) yield utf8(`id: ${change.revision}\n${held}`);
}

/** By bisection: revisions rise with versions. A version that a rebuild could not find is stepped over. */
async function versionOfRevision(
  view: BeaconQueries,
  key: string,
  revision: number,
): Promise<RegisteredVersion | undefined> {
  let low = 1;
  let high = (await view.head(key))?.version ?? 0;
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    let at = middle;
    let found = await view.version(key, at);
    while (found === undefined && at < high) found = await view.version(key, ++at);
    if (found?.revision === revision) return found;
    if (found === undefined || found.revision > revision) high = middle - 1;
    else low = at + 1;
  }
  return undefined;
}

// Blocks

async function storeUpload(ports: DoorPorts, request: Request): Promise<StoredAnswer> {
  const policy = readPolicy(ports, request);
  let stored: StoredAnswer | undefined;
  for await (const blocks of grouped(uploadedBlocks(request, uploadBytesMax), storeBatch)) {
    for (const { cid } of blocks) supportedCid(cid);
    const { copies, wanted } = await ports.storeBlocks(blocks, policy);
    stored = {
      blocks: (stored?.blocks ?? 0) + blocks.length,
      copies: Math.min(stored?.copies ?? copies, copies),
      wanted,
    };
  }
  if (stored === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'the CAR holds no block');
  return stored;
}

/** The blocks of an uploaded CAR. One that does not hash to its CID is the caller's damage, not ours. */
async function* uploadedBlocks(request: Request, maxBytes: number): AsyncGenerator<Block, void, undefined> {
  try {
    yield* readCar(request.body(maxBytes));
  } catch (cause) {
    if (!isHoldfastError(cause, 'BLOCK_CORRUPT')) throw cause;
    throw new HoldfastError('ARGUMENT_INVALID', cause.message, { details: { field: 'car' }, cause });
  }
}

async function* carOf(
  ports: DoorPorts,
  cids: readonly CID[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield carHeader([]);
  for await (const group of grouped(cids, 16)) {
    for (const block of await ports.load(group, signal)) yield* carSection(block);
  }
}

async function recordsReply(view: BeaconQueries, found: RegisteredVersion): Promise<Reply> {
  const records = await objectRecords(view, found);
  const parts: Uint8Array[] = [carHeader([found.record.cid]), ...carSection(found.record.block)];
  if (records.envelopeBlock !== undefined) parts.push(...carSection(records.envelopeBlock));
  if (records.branchKeyBlock !== undefined) parts.push(...carSection(records.branchKeyBlock));
  return {
    status: 200,
    headers: { 'content-type': 'application/vnd.ipld.car', etag: `"${found.record.cid.toString()}"` },
    bytes: Buffer.concat(parts),
  };
}

async function objectRecords(
  view: BeaconQueries,
  found: RegisteredVersion,
): Promise<ObjectRecords & { readonly envelopeBlock?: Block; readonly branchKeyBlock?: Block }> {
  const { encryption } = found.record.body;
  const manifest = found.record.block.bytes;
  if (encryption === null) return { manifest };
  const envelope = await view.envelope(encryption.objId);
  const branchKey = envelope === undefined ? undefined : await view.branchKey(envelope.record.body.bkId);
  if (envelope === undefined || branchKey === undefined) return { manifest };
  return {
    manifest,
    envelope: envelope.record.block.bytes,
    branchKey: branchKey.record.block.bytes,
    envelopeBlock: envelope.record.block,
    branchKeyBlock: branchKey.record.block,
  };
}

function cidList(body: unknown): CID[] {
  const cids = typeof body === 'object' && body !== null && 'cids' in body ? body.cids : undefined;
  if (!Array.isArray(cids) || cids.length === 0 || cids.length > fetchCidsMax)
    throw new HoldfastError('ARGUMENT_INVALID', `"cids" must be a list of 1 to ${fetchCidsMax} CIDs`, {
      details: { field: 'cids' },
    });
  return cids.map((cid: unknown) => parseCid(String(cid)));
}

// Operations

async function status(ports: DoorPorts): Promise<StatusAnswer<StewardStatus>> {
  const common = { cluster: ports.cluster, at: ports.clock.now(), door: doorStatus(ports) };
  try {
    return { ...common, steward: await ports.steward.status() };
  } catch (error) {
    return { ...common, steward: null, stewardError: describeError(error) };
  }
}

function doorStatus(ports: DoorPorts): DoorStatus {
  const { addresses, removed, versions, sizeBytes, rejected, missing } = ports.view.counts();
  const { state, reason, revision } = ports.view.health();
  return {
    sealing: ports.sealing !== undefined,
    sealingText: ports.sealing?.text ?? 'ciphertext only',
    peersConnected: ports.peersConnected(),
    beacon: { state, reason, revision, addresses, removed, versions, sizeBytes, rejected, missing },
  };
}

async function stewardStatus(ports: DoorPorts): Promise<StewardStatus | undefined> {
  try {
    return await ports.steward.status();
  } catch {
    return undefined; // the metric holdfast_steward_up says so
  }
}

async function* jsonLines(items: AsyncIterable<unknown>): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    for await (const item of items) yield utf8(`${JSON.stringify(plainJson(item))}\n`);
  } catch (error) {
    const reason = error instanceof HoldfastError ? error.code : 'INTERNAL';
    yield utf8(`${JSON.stringify({ error: { reason, message: describeError(error) } })}\n`);
  }
}

// Small readers

function versionInfo(found: RegisteredVersion): VersionInfo {
  const { body, cid } = found.record;
  return {
    address: withVersion(readAddress(found.address), found.version),
    key: found.address,
    version: found.version,
    cid: cid.toString(),
    type: body.type,
    sizeBytes: body.size,
    media: body.media,
    cls: body.cls,
    tags: body.compliance_tags,
    generatedBy: body.generated_by,
    generatedAt: body.generated_at,
    root: body.cid?.toString() ?? null,
    revision: found.revision,
  };
}

function registeredAnswer(done: RegisteredObject): RegisteredAnswer {
  return {
    address: withVersion(readAddress(done.address), done.version),
    version: done.version,
    cid: done.manifest.toString(),
    revision: done.revision,
  };
}

/** How long a reader waits for the revision it asks to see. */
const seenWaitMs = 10_000;

async function seenRevision(ports: DoorPorts, request: Request): Promise<void> {
  const text = request.query('revision');
  if (text === undefined) return;
  const revision = wholeNumber('revision', text, 0);
  try {
    await ports.view.waitFor(revision, AbortSignal.any([request.signal, AbortSignal.timeout(seenWaitMs)]));
  } catch (cause) {
    throw new HoldfastError(
      'TIMEOUT',
      `Beacon revision ${revision} did not become visible here in ${seenWaitMs / 1000} s`,
      { cause },
    );
  }
}

function readPolicy(ports: DoorPorts, request: Request): ReplicationPolicy {
  const read = (name: keyof ReplicationPolicy, fallback: number): number => {
    const text = request.query(name);
    return text === undefined ? fallback : wholeNumber(name, text, 1, 256);
  };
  const min = read('min', ports.defaults.min);
  const max = read('max', Math.max(min, ports.defaults.max));
  const zones = read('zones', Math.min(min, ports.defaults.zones));
  if (min > max || zones > min)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `copies: zones ${zones} ≤ min ${min} ≤ max ${max} must hold`,
      { details: { field: 'min' } },
    );
  return { min, max, zones };
}

function readClass(request: Request): ContentClass {
  const text = request.query('cls') ?? 'internal';
  const found = contentClasses.find((cls) => cls === text);
  if (found === undefined)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `cls must be one of ${contentClasses.join(', ')}, not ${JSON.stringify(text)}`,
      { details: { field: 'cls' } },
    );
  return found;
}

function wholeNumber(
  field: string,
  text: string,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || value < min || value > max)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${field} must be a whole number from ${min} to ${max}, not ${JSON.stringify(text)}`,
      { details: { field } },
    );
  return value;
}

function pageOf(request: Request): { limit: number; after?: string } {
  const limit = wholeNumber('limit', request.query('limit') ?? '100', 1, 1000);
  const after = request.query('after');
  return after === undefined ? { limit } : { limit, after };
}

function nextOf(next: string | undefined): { next?: string } {
  return next === undefined ? {} : { next };
}

/** Links as text, bytes as base64: what JSON can hold. */
function plainJson(value: unknown): unknown {
  const link = CID.asCID(value);
  if (link !== null) return link.toString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (Array.isArray(value)) return value.map(plainJson);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plainJson(each)]));
  return value;
}
