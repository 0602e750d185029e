// A custodian over RPC: requests, orders, and what it says about itself.

import { HoldfastError } from '../core/errors.ts';
import { custodyOrderBytesMax, custodyRequestBytesMax } from '../core/limits.ts';
import type { PeerName, RpcServer } from '../core/rpc.ts';
import type { Custodian } from './custodian.ts';
import type { CustodianOrders } from './custodian-orders.ts';
import type { CustodianHello, CustodianStatus } from './wire.ts';

export interface CustodianServicePorts {
  readonly custodian: Custodian;
  readonly orders: CustodianOrders;
  readonly hello: () => CustodianHello;
  readonly status: () => CustodianStatus;
  /** Throws FORBIDDEN for a peer that may not speak to custodians. */
  readonly allow: (peer: PeerName) => void;
}

/** Registers `custody.unwrap`, `custody.order`, `custody.hello` and `custody.status`. */
export function serveCustodian(server: RpcServer, ports: CustodianServicePorts): void {
  server.handle('custody.unwrap', async ({ body }, { peer }) => {
    ports.allow(peer);
    return { head: {}, body: await ports.custodian.unwrap(bounded(body, custodyRequestBytesMax, 'request')) };
  });
  server.handle('custody.order', async ({ body }, { peer }) => {
    ports.allow(peer);
    await ports.orders.obey(bounded(body, custodyOrderBytesMax, 'order'));
    return { head: {} };
  });
  server.handle('custody.hello', async (_, { peer }) => {
    ports.allow(peer);
    return { head: ports.hello() };
  });
  server.handle('custody.status', async (_, { peer }) => {
    ports.allow(peer);
    return { head: ports.status() };
  });
}

function bounded(body: Uint8Array, most: number, what: string): Uint8Array {
  if (body.length <= most) return body;
  throw new HoldfastError('TOO_LARGE', `a ${what} of ${body.length} bytes: at most ${most} expected`);
}
