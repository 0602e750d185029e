// Files that last as long as a request. Whoever is killed in between leaves them behind; the next start clears them.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';

/** Where below `dataDir` such files go; it need not exist. */
export function scratchDirectory(dataDir: string): string {
  return join(dataDir, 'scratch');
}

/** Removes what an earlier process left. Call it before anything uses the directory. */
export async function clearScratch(dataDir: string): Promise<void> {
  await rm(scratchDirectory(dataDir), { recursive: true, force: true });
}
