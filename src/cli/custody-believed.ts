// The custody group as a command believes it: checked from the operator's key down, here.

import type { DoorClient } from '../client/door-client.ts';
import { HoldfastError } from '../core/errors.ts';
import type { CustodyDirectory } from '../custody/directory.ts';
import { custodianKeys } from './connect.ts';
import { openFeed } from './custody-provider.ts';

/** Throws KEY_UNAVAILABLE when the group is not believed, or has made no key yet. */
export async function believed(door: DoorClient, data: string): Promise<CustodyDirectory> {
  const feed = await openFeed(door, data, await custodianKeys(data));
  await feed.reload();
  const directory = feed.directory();
  if (directory.problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', directory.problem);
  if (directory.initialised) return directory;
  throw new HoldfastError('KEY_UNAVAILABLE', `custody group ${directory.cg} has not made its key yet`);
}
