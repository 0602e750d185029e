// The door's table of routes: what UCXI callers, the client and operators may ask.

import { utf8 } from '../core/bytes.ts';
import { auditRoutes } from './audit-routes.ts';
import { beaconRoutes } from './beacon-routes.ts';
import { blockRoutes } from './block-routes.ts';
import { contentRoutes } from './content-routes.ts';
import { custodyRoutes } from './custody-routes.ts';
import { dhtRoutes } from './dht-routes.ts';
import type { DoorPorts } from './door-ports.ts';
import { healthRoutes } from './health-routes.ts';
import { IdempotencyKeys } from './idempotency.ts';
import { openApi } from './openapi.ts';
import { keyRoutes } from './key-routes.ts';
import { operationRoutes } from './operation-routes.ts';
import { registryRoutes } from './registry-routes.ts';
import type { Route } from './server.ts';
import { subscribeRoutes } from './subscribe-routes.ts';

/** All routes of a door. */
export function doorRoutes(ports: DoorPorts): readonly Route[] {
  const keys = new IdempotencyKeys(() => ports.clock.monotonic());
  const routes: Route[] = [
    ...contentRoutes(ports, keys),
    ...registryRoutes(ports),
    ...subscribeRoutes(ports),
    ...dhtRoutes(ports),
    ...blockRoutes(ports),
    ...operationRoutes(ports),
    ...beaconRoutes(ports),
    ...auditRoutes(ports),
    ...custodyRoutes(ports),
    ...keyRoutes(ports),
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
