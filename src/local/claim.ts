// Only one supervisor per directory.
//
// Node has no file locks, and a lock file that is removed when its holder is dead has a well-known hole: two
// takers both see the dead holder, and the slower one removes the quicker one's fresh lock. So nobody ever
// removes a claim but its own or a dead one's, by a name that is never used again: every candidate first
// puts down a claim of its own, then looks at all others. Of two that do so at once at least one sees the
// other and steps back; both may, and try again after a moment.

import { randomBytes, randomInt } from 'node:crypto';
import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../core/errors.ts';
import { errnoOf, fileError } from '../files/whole.ts';
import { asProcessId, isAlive, type ProcessId, processId } from './process-id.ts';

export interface Claim extends AsyncDisposable {
  readonly holder: ProcessId;
}

const triesMax = 4;
const suffix = '.claim';

/**
 * Claims the layout in `root` for this process until disposed or dead. The claims lie in `directory`, which
 * must exist. Throws DATA_DIR_LOCKED naming the pid that holds it and how to stop it.
 */
export async function claimDirectory(root: string, directory: string): Promise<Claim> {
  for (let attempt = 1; ; attempt++) {
    const claim = await putDown(directory);
    const others = await otherClaims(directory, claim.path);
    const holder = others.find((other) => other.alive)?.id;
    if (holder === undefined) return settle(claim, others);
    await rm(claim.path, { force: true });
    if (attempt === triesMax) throw locked(root, holder.pid);
    await sleep(randomInt(20, 80));
  }
}

/** The live process that holds `directory`, if any. */
export async function claimHolder(directory: string): Promise<ProcessId | undefined> {
  return (await otherClaims(directory, '')).find((claim) => claim.alive)?.id;
}

interface OtherClaim {
  readonly path: string;
  readonly id: ProcessId | undefined;
  readonly alive: boolean;
}

async function putDown(directory: string): Promise<{ path: string; holder: ProcessId }> {
  const holder = await processId(process.pid);
  if (holder === undefined)
    throw new HoldfastError('INTERNAL', 'this process cannot find itself in the process table');
  const name = `${process.pid}-${randomBytes(8).toString('hex')}`;
  const path = join(directory, `${name}${suffix}`);
  try {
    await writeFile(join(directory, `${name}.new`), JSON.stringify(holder), { mode: 0o600, flag: 'wx' });
    await rename(join(directory, `${name}.new`), path);
  } catch (cause) {
    throw fileError(path, 'cannot be written', cause);
  }
  return { path, holder };
}

async function otherClaims(directory: string, own: string): Promise<OtherClaim[]> {
  const names = await readdir(directory).catch((cause: unknown) => {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw fileError(directory, 'cannot be read', cause);
  });
  const paths = names.filter((name) => name.endsWith(suffix)).map((name) => join(directory, name));
  return Promise.all(paths.filter((path) => path !== own).map(readClaim));
}

async function readClaim(path: string): Promise<OtherClaim> {
  try {
    const id = asProcessId(JSON.parse(await readFile(path, 'utf8')));
    return { path, id, alive: id !== undefined && (await isAlive(id)) };
  } catch (cause) {
    // Given back meanwhile, or cut short by a power loss, which no holder survives.
    if (errnoOf(cause) === 'ENOENT' || cause instanceof SyntaxError)
      return { path, id: undefined, alive: false };
    throw fileError(path, 'cannot be read', cause);
  }
}

async function settle(
  claim: { path: string; holder: ProcessId },
  dead: readonly OtherClaim[],
): Promise<Claim> {
  await Promise.all(dead.map((other) => rm(other.path, { force: true })));
  return {
    holder: claim.holder,
    [Symbol.asyncDispose]: () => rm(claim.path, { force: true }),
  };
}

function locked(root: string, pid: number): HoldfastError {
  return new HoldfastError(
    'DATA_DIR_LOCKED',
    `${root} is in use by process ${pid}; stop it with \`holdfast down --data ${root}\``,
    { details: { path: root, pid } },
  );
}
