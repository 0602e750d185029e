// Forgetting what a storage node stores. Its identity stays: its address and its seat remain valid.
//
// The directory is moved aside in one step before it is deleted, so that a crash in the middle never leaves
// half of a store that looks like a whole one.

import { randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fileError, syncDirectory } from '../files/whole.ts';

const aside = 'data.wiped-';

/** Deletes `data` in `processDir`. The process must not run. Throws FILE_UNREADABLE. */
export async function wipeData(processDir: string): Promise<void> {
  try {
    await rename(join(processDir, 'data'), join(processDir, `${aside}${randomBytes(6).toString('hex')}`));
    await syncDirectory(processDir);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw fileError(join(processDir, 'data'), 'cannot be wiped', cause);
  }
  await finishWipe(processDir);
}

/** Deletes what an interrupted wipe left behind. Throws FILE_UNREADABLE. */
export async function finishWipe(processDir: string): Promise<void> {
  try {
    const names = (await readdir(processDir)).filter((name) => name.startsWith(aside));
    await Promise.all(names.map((name) => rm(join(processDir, name), { recursive: true, force: true })));
  } catch (cause) {
    throw fileError(processDir, 'cannot be wiped', cause);
  }
}
