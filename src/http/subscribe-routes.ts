// New versions as server-sent events, from any revision on: who lost the connection goes on where he was.

import type { ChangeEvent } from '../api/types.ts';
import type { BeaconQueries, RegisteredVersion, RegistryChange } from '../beacon/queries.ts';
import { utf8 } from '../core/bytes.ts';
import { matches, parsePattern } from '../ucxl/match.ts';
import type { Reply } from './answer.ts';
import type { DoorPorts } from './door-ports.ts';
import { versionInfo } from './facts.ts';
import { patternParameter } from './parameters.ts';
import { wholeNumber } from './read.ts';
import type { Request, Route } from './server.ts';

const heartbeatMs = 15_000;

export function subscribeRoutes(ports: DoorPorts): Route[] {
  return [
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
  ];
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
