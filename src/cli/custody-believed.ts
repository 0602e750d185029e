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

/** The group of now, and the one in whose place it is. */
export interface Succeeded {
  readonly now: CustodyDirectory;
  /** Undefined when the group of now is in nobody's place, or the one before was never believed here. */
  readonly before: CustodyDirectory | undefined;
}

/** Both as they are believed here. Throws KEY_UNAVAILABLE when one of them is not. */
export async function believedSuccession(door: DoorClient, data: string): Promise<Succeeded> {
  const feed = await readFeed(door, data);
  const now = feed.directory();
  const { inPlaceOf } = now;
  const before = inPlaceOf === undefined ? undefined : await feed.ended(inPlaceOf.of);
  for (const { problem } of [now, ...(before === undefined ? [] : [before])])
    if (problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', problem);
  return { now, before };
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
