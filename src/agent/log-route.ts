// The agent's audit log for who may read its directory: a part at a time, for the reader to verify.
//
//   POST /log {from, count}  → {note, leaves (base64)}

import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { AuditLog } from '../custody/audit-log.ts';
import type { LoopbackRoute } from '../local/loopback.ts';

const leavesMax = 64;

export function logRoute(log: AuditLog): LoopbackRoute {
  return async (method, url, body) => {
    if (method !== 'POST' || url !== '/log')
      throw new HoldfastError('NOT_FOUND', `a key agent does not know ${method} ${url.slice(0, 200)}`);
    const [from, count] = [fieldOf(body, 'from'), fieldOf(body, 'count')];
    if (!isWhole(from) || !isWhole(count) || count > leavesMax)
      throw new HoldfastError('ARGUMENT_INVALID', `from: a whole number, count: 0 to ${leavesMax} expected`);
    const leaves = await log.leaves(from, count);
    return [
      200,
      { note: log.checkpoint, leaves: leaves.map((leaf) => Buffer.from(leaf).toString('base64')) },
    ];
  };
}

function isWhole(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
