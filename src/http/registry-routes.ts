// What the registry knows: versions, their neighbours in time, their history and their copies.

import type { HistoryAnswer, NavigateAnswer, QueryAnswer, StatAnswer, VersionInfo } from '../api/types.ts';
import type { BeaconQueries } from '../beacon/queries.ts';
import { HoldfastError } from '../core/errors.ts';
import { canonicalKey, withVersion } from '../ucxl/address.ts';
import { parsePattern } from '../ucxl/match.ts';
import type { DoorPorts } from './door-ports.ts';
import { tellable } from './envelope.ts';
import { plainJson, versionInfo } from './facts.ts';
import {
  addressParameter,
  afterParameter,
  limitParameter,
  patternParameter,
  revisionParameter,
} from './parameters.ts';
import { nextOf, pageOf, seenRevision } from './read.ts';
import { readAddress, resolveVersion } from './resolve.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

export function registryRoutes(ports: DoorPorts): Route[] {
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
  ];
}

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
    return { ...common, replicas: null, replicasError: tellable(error) };
  }
}
