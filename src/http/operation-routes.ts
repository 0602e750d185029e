// How the cluster does: the beat, the steward's report, metrics.

import type { DoorStatus, StatusAnswer } from '../api/types.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { StewardStatus } from '../steward/status.ts';
import type { DoorPorts } from './door-ports.ts';
import { tellable, withoutPaths } from './envelope.ts';
import { schemas } from './schemas.ts';
import type { Route } from './server.ts';

export function operationRoutes(ports: DoorPorts): Route[] {
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

async function status(ports: DoorPorts): Promise<StatusAnswer<StewardStatus>> {
  const custody = await ports.custody?.lately();
  const common = {
    cluster: ports.cluster,
    at: ports.clock.now(),
    door: doorStatus(ports),
    ...(custody === undefined ? {} : { custody }),
  };
  try {
    return { ...common, steward: await ports.steward.status() };
  } catch (error) {
    return { ...common, steward: null, stewardError: tellable(error) };
  }
}

function doorStatus(ports: DoorPorts): DoorStatus {
  const { addresses, removed, versions, sizeBytes, rejected, missing } = ports.view.counts();
  const { state, reason, revision } = ports.view.health();
  return {
    sealing: ports.sealing !== undefined,
    sealingText: ports.sealing?.text ?? 'ciphertext only',
    peersConnected: ports.peersConnected(),
    beacon: {
      state,
      reason: withoutPaths(reason),
      refused: ports.beacon.refused() ?? null,
      revision,
      addresses,
      removed,
      versions,
      sizeBytes,
      rejected,
      missing,
    },
  };
}

async function stewardStatus(ports: DoorPorts): Promise<StewardStatus | undefined> {
  try {
    return await ports.steward.status();
  } catch {
    return undefined; // the metric holdfast_steward_up says so
  }
}
