// Something to see: the project's own documents, as decision records of the cluster that was just born.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Context } from './command.ts';
import { openClient } from './connect.ts';

/** The directory of the documents; each file has its address below. */
export const docsRoot = 'ucxl://holdfast:author@holdfast:docs/*^/';

/**
 * Stores the `docs` folder of this package unless something was ever stored in its place.
 *
 * @returns how many documents, or undefined when nothing was to be done
 */
export async function storeFirstDocuments(
  context: Pick<Context, 'data' | 'screen' | 'signal'>,
): Promise<number | undefined> {
  const folder = fileURLToPath(new URL('../../docs', import.meta.url));
  if (!existsSync(folder)) return undefined;
  const { signal } = context;
  await using client = await openClient(context, 'holdfast:author');
  if ((await client.navigate(docsRoot, { signal })).newest > 0) return undefined;
  const { readDirectory } = await import('../client/directory.ts');
  const { files } = await readDirectory(folder);
  if (files.length === 0) return undefined;
  const done = await client.putDirectory(docsRoot, files, {
    tags: ['decision-record'],
    signal,
  });
  return done.files.length;
}
