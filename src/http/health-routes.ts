// Is it alive, is it ready, and what is wrong: for supervisors, load balancers and people.

import type { HealthAnswer } from '../api/types.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Reply } from './answer.ts';
import type { DoorPorts } from './door-ports.ts';
import { schemas } from './schemas.ts';
import type { Route } from './server.ts';

export function healthRoutes(ports: DoorPorts): Route[] {
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
