// Who announces a block: the DHT as UCXI callers see it.

import { parseCid, supportedCid } from '../core/block.ts';
import type { DoorPorts } from './door-ports.ts';
import { cidParameter } from './parameters.ts';
import { schemas } from './schemas.ts';
import type { Route } from './server.ts';

export function dhtRoutes(ports: DoorPorts): Route[] {
  return [
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
