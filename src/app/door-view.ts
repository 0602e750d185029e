// A door's own copy of the registry, on its disk.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { Member } from './member.ts';

/** The door's view is a copy: one that cannot be opened is fetched again. */
export async function openDoorView(member: Member): Promise<BeaconView> {
  const directory = viewDirectory(member);
  await mkdir(directory, { recursive: true });
  try {
    // The steward's process opened every record before its log took it, and clients open what they read.
    return await BeaconView.open(await LevelKv.open(directory), { signatures: 'after' });
  } catch (error) {
    if (!isHoldfastError(error) || !['DATA_DIR_DAMAGED', 'RECORD_CORRUPT'].includes(error.code)) throw error;
    console.error(`the Beacon view is damaged and fetched again: ${error.message}`);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    return BeaconView.open(await LevelKv.open(directory));
  }
}

/** Forgets the view: the next start fetches it anew. The mark goes first, so that what a crash leaves is no damage. */
export async function dropDoorView(member: Member): Promise<void> {
  await rm(join(viewDirectory(member), 'born.json'), { force: true });
  await rm(viewDirectory(member), { recursive: true, force: true });
}

function viewDirectory(member: Member): string {
  return join(member.config.dataDir, 'view');
}
