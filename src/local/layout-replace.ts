// Custodians that are lost for good, with their directories: others get their names and places in a local cluster, with
// identities of their own, and the operator signs a membership with these.
//
// Only one whose directory is gone is replaced: what is there may hold shares, and whoever runs this twice must not lose
// the newcomers. The membership is written last, and is completed at the next opening when a crash came before it.

import { readdir } from 'node:fs/promises';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { errnoOf, fileError, isThere, makeDirectory } from '../files/whole.ts';
import type { ClusterFile, ProcessEntry } from './cluster-file.ts';
import { layoutPaths } from './layout.ts';
import { readStateFile, remember, writeStateFile } from './state-file.ts';

/** Identity keys by their files: the peer id of one that is there, and of one that is made where there is none. */
export interface Identities {
  read(path: string): Promise<PeerName>;
  make(path: string): Promise<PeerName>;
}

/**
 * The cluster with newcomers in the places of `names`, whose directories have been made; nothing else is written.
 * Throws ARGUMENT_INVALID for a name that is no custodian's, or of one that is not lost.
 */
export async function withReplaced(
  dir: string,
  file: ClusterFile,
  names: readonly string[],
  identities: Identities,
): Promise<ClusterFile> {
  if (names.length === 0) return file;
  for (const name of names) await requireLost(dir, file, name, identities);
  const paths = layoutPaths(dir);
  const processes: ProcessEntry[] = [];
  for (const entry of file.processes) {
    if (!names.includes(entry.name)) processes.push(entry);
    else {
      await makeDirectory(paths.process(entry.name));
      processes.push({ ...entry, peer: await identities.make(paths.identity(entry.name)) });
    }
  }
  await forget(dir, names);
  return { ...file, processes, membershipVersion: file.membershipVersion + 1 };
}

async function requireLost(
  dir: string,
  file: ClusterFile,
  name: string,
  identities: Identities,
): Promise<void> {
  const entry = file.processes.find((each) => each.name === name && each.role === 'custodian');
  if (entry === undefined)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `--replace: there is no custodian ${JSON.stringify(name)} here`,
    );
  const paths = layoutPaths(dir);
  if (!(await isThere(paths.identity(name)))) {
    if (await isEmpty(paths.process(name))) return;
  } else if ((await identities.read(paths.identity(name))) !== entry.peer) return; // begun before a crash
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `--replace: ${name} is not lost, ${paths.process(name)} is there; move it away if another one is to have its place`,
  );
}

async function isEmpty(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length === 0;
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return true;
    throw fileError(path, 'cannot be read as a directory', cause);
  }
}

/** Newcomers are born anew, and run. */
async function forget(dir: string, names: readonly string[]): Promise<void> {
  const { state: path } = layoutPaths(dir);
  let state = await readStateFile(path);
  for (const name of names) state = remember(state, name, {});
  await writeStateFile(path, state);
}
