// What is stranded, and what is to become of it.

import type { StrandedOrder } from '../api/types.ts';
import { HoldfastError } from '../core/errors.ts';
import type { DoorPorts } from './door-ports.ts';
import { linesReply } from './json-lines.ts';
import type { Route } from './server.ts';

export function auditRoutes(ports: DoorPorts): Route[] {
  return [
    {
      method: 'POST',
      path: '/ucxi/v1/audit/stranded',
      operationId: 'auditStranded',
      summary:
        'Compare the blocks of all nodes with the registry: findings as JSON lines, the last one is the result. With an order and its plan, carry it out',
      tag: 'operations',
      parameters: [
        {
          name: 'order',
          in: 'query',
          text: 'what is to be done about the findings; without `plan` it is only said',
          schema: { enum: ['adopt', 'collect'] },
        },
        { name: 'plan', in: 'query', text: '`hash` of the plan of that order, from an audit before' },
      ],
      produces: 'application/jsonl',
      statuses: [200],
      handle: async (request) => {
        const order = orderOf(request.query('order'));
        const plan = request.query('plan');
        const wanted = { ...(order === undefined ? {} : { order }), ...(plan === undefined ? {} : { plan }) };
        return linesReply(ports.audit.stranded(wanted, request.signal), request);
      },
    },
  ];
}

function orderOf(value: string | undefined): StrandedOrder | undefined {
  if (value === undefined || value === 'adopt' || value === 'collect') return value;
  throw new HoldfastError('ARGUMENT_INVALID', `order ${JSON.stringify(value)}: adopt or collect expected`);
}
