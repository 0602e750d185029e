// The coordinator's part in putting a group in the place of one that has lost too many custodians. It is the making of a
// first key (coordinate-init.ts), with which the end of the other is registered in one entry. So it is not begun while
// the other can be used: then nothing is lost, and its key is handed on or replaced with nothing to recover.

import { HoldfastError } from '../core/errors.ts';
import { coordinateInit } from './coordinate-init.ts';
import type { CeremonyResult, CoordinatorPorts, Say } from './coordinator.ts';
import { openOrder } from './order.ts';
import { inPlaceOf } from './succession.ts';
import { holdsVersion } from './wire.ts';

/**
 * Makes the key of the group that `message` orders in the place of another, or finishes what was begun of it.
 * @throws VERSION_CONFLICT when the other can still be used, naming who holds it; ARGUMENT_INVALID for an order that ends
 * nothing; and as `coordinateInit`
 */
export async function coordinateSuccession(
  ports: CoordinatorPorts,
  message: Uint8Array,
  say: Say,
): Promise<CeremonyResult> {
  const ended = inPlaceOf(openOrder(message).order);
  if (ended === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'the order ends no group');
  await requireLost(ports, ended.cg);
  say(`custody group ${ended.cg} ends with the key of the new one: ${ended.reason}`);
  return coordinateInit(ports, message, say);
}

async function requireLost({ custodians, registry }: CoordinatorPorts, cg: string): Promise<void> {
  const filed = await registry.kek(cg);
  if (filed === undefined)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `custody group ${cg} has no key: have it made (\`custody init\`)`,
    );
  const { kek } = filed;
  const holders = await Promise.all(
    custodians.all().map(async (peer) => {
      try {
        return holdsVersion((await custodians.status(peer)).shares, kek) ? custodians.nameOf(peer) : [];
      } catch {
        return []; // it does not answer: it cannot be counted on
      }
    }),
  );
  const live = holders.flat();
  if (live.length >= kek.t) throw notLost(cg, live, kek.t);
}

/** What to do instead, for whoever would end a group that can be used. */
export function notLost(cg: string, live: readonly string[], t: number): HoldfastError {
  return new HoldfastError(
    'VERSION_CONFLICT',
    `custody group ${cg} is not lost: ${live.join(', ')} hold its shares and ${t} suffice; hand its key on to other custodians (\`holdfast custody reshare NAME…\`), or have it replaced (\`holdfast custody rotate\`)`,
    { details: { needed: t, found: live.length } },
  );
}
