// Which address each file of a directory gets, checked before anything is stored.

import { mapInOrder } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { treeEntriesMax } from '../core/limits.ts';
import type { PutResult } from '../flows/put.ts';
import type { TreeEntry } from '../manifest/tree.ts';
import { canonicalKey, type UcxlAddress, withPath } from '../ucxl/address.ts';
import type { SourceFile } from './directory.ts';

export interface DirectoryPut {
  /** The version of the directory's own address. */
  readonly tree: PutResult;
  /** In the order of their names. */
  readonly files: readonly StoredFile[];
}

export interface StoredFile extends PutResult {
  readonly name: string;
}

export interface PlannedFile {
  readonly file: SourceFile;
  readonly address: UcxlAddress;
}

/** Files of one directory under way at a time. Large ones fill the line alone; small ones wait on round trips. */
const filesUnderway = 4;

/**
 * Gives each file its address below `root`. Throws ADDRESS_INVALID for a name no address can hold, ARGUMENT_INVALID
 * when two names mean the same address, TOO_LARGE for too many files.
 */
export function planDirectory(root: UcxlAddress, files: readonly SourceFile[]): readonly PlannedFile[] {
  if (files.length > treeEntriesMax)
    throw new HoldfastError(
      'TOO_LARGE',
      `${files.length} files: a directory holds at most ${treeEntriesMax}`,
    );
  const names = new Map<string, string>([[canonicalKey(root), '.']]);
  return files.map((file) => {
    const address = withPath(root, root.path === '' ? file.name : `${root.path}/${file.name}`);
    const key = canonicalKey(address);
    const other = names.get(key);
    if (other !== undefined)
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `${JSON.stringify(file.name)} and ${JSON.stringify(other)} would have the same address ${key}`,
        { details: { field: 'name' } },
      );
    names.set(key, file.name);
    return { file, address };
  });
}

/** Stores the files a few at a time; the first failure ends it. */
export async function storeFiles(
  plan: readonly PlannedFile[],
  store: (planned: PlannedFile) => Promise<PutResult>,
): Promise<{ readonly files: readonly StoredFile[]; readonly entries: readonly TreeEntry[] }> {
  const files: StoredFile[] = [];
  const entries: TreeEntry[] = [];
  const results = mapInOrder(plan, filesUnderway, async (planned) => ({
    planned,
    result: await store(planned),
  }));
  for await (const { planned, result } of results) {
    const { name } = planned.file;
    files.push({ name, ...result });
    const { cid: manifest, version, sizeBytes: size } = result;
    entries.push({ name, address: canonicalKey(planned.address), version, manifest, size });
  }
  return { files, entries };
}
