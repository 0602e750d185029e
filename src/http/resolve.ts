// From an address with a temporal segment to the version it means, by asking the view no more than needed.

import type { BeaconQueries, RegisteredVersion } from '../beacon/queries.ts';
import { HoldfastError } from '../core/errors.ts';
import { canonicalKey, parseAddress, type UcxlAddress } from '../ucxl/address.ts';
import { resolveTemporal, type VersionMark } from '../ucxl/temporal.ts';

/** Reads an address as people write it. */
export function readAddress(text: string): UcxlAddress {
  return parseAddress(text, { profile: 'lenient' });
}

/**
 * The version that `address` means.
 *
 * @throws NOT_FOUND when nothing is stored there, or no such version; ADDRESS_WILDCARD
 */
export async function resolveVersion(view: BeaconQueries, address: UcxlAddress): Promise<RegisteredVersion> {
  const key = canonicalKey(address);
  const head = await view.head(key);
  if (head === undefined)
    throw new HoldfastError('NOT_FOUND', `nothing is stored under ${key}`, { details: { key } });
  const wanted = await wantedVersion(view, key, address, head);
  const found =
    wanted === head.version ? head : await (wanted === undefined ? undefined : view.version(key, wanted));
  if (found !== undefined) return found;
  throw new HoldfastError(
    'NOT_FOUND',
    `${key} has versions 1 to ${head.version}; ${address.raw} names none of them`,
    {
      details: { key, newest: head.version },
    },
  );
}

async function wantedVersion(
  view: BeaconQueries,
  key: string,
  address: UcxlAddress,
  head: RegisteredVersion,
): Promise<number | undefined> {
  const temporal = address.temporal_segment;
  const latest: VersionMark = { version: head.version, at: head.at };
  if (temporal.type === 'latest') return head.version;
  if (temporal.type === 'instant') {
    const [first, current] = await Promise.all([view.version(key, 1), view.at(key, temporal.instant)]);
    return resolveTemporal(temporal, {
      first: first === undefined ? latest : { version: first.version, at: first.at },
      latest,
      ...(current === undefined ? {} : { current: { version: current.version, at: current.at } }),
    });
  }
  return resolveTemporal(temporal, { first: { version: 1, at: 0 }, latest });
}
