// The custody group as a command believes it: checked from the operator's key down, here.

import type { DoorClient } from '../client/door-client.ts';
import { HoldfastError } from '../core/errors.ts';
import type { CustodyDirectory } from '../custody/directory.ts';
import type { CustodyFeed } from '../custody/feed.ts';
import { custodianKeys } from './connect.ts';
import { openFeed } from './custody-provider.ts';

/** The group of now, be it believed or not. Throws what reading it throws. */
export async function lastBelieved(door: DoorClient, data: string): Promise<CustodyDirectory> {
  return (await readFeed(door, data)).directory();
}

/**
 * Group `cg` as it is believed, also one that has ended. Throws KEY_UNAVAILABLE when it is not, or was never seen here.
 */
export async function believedGroup(door: DoorClient, data: string, cg: string): Promise<CustodyDirectory> {
  const feed = await readFeed(door, data);
  const present = feed.directory();
  const directory = present.cg === cg ? present : await feed.ended(cg);
  if (directory?.problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', directory.problem);
  if (directory?.initialised === true) return directory;
  const known = present.cg === cg ? 'has made no key yet' : 'was never believed here';
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `custody group ${cg} ${known}; the group of now is ${present.cg}`,
  );
}

async function readFeed(door: DoorClient, data: string): Promise<CustodyFeed> {
  const feed = await openFeed(door, data, await custodianKeys(data));
  await feed.reload();
  return feed;
}

/** Throws KEY_UNAVAILABLE when the group is not believed, or has made no key yet. */
export async function believed(door: DoorClient, data: string): Promise<CustodyDirectory> {
  const directory = await lastBelieved(door, data);
  if (directory.problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', directory.problem);
  if (directory.initialised) return directory;
  throw new HoldfastError('KEY_UNAVAILABLE', `custody group ${directory.cg} has not made its key yet`);
}
