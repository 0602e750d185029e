// What was granted from a directory, kept beside the operator key: when another group comes into the place of the one of
// now, somebody must know what is to be granted anew. A capability is of use only with the private key that it is made out
// to, so the list gives nothing to who reads it; it says who may what, and is for its owner only.
//
//   custody/granted/ID.cap   a capability file as it was written, under the id of its last link

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { toHex } from '../core/bytes.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { capabilityId, type CapabilityLink, parseCapability } from '../custody/capability.ts';
import { formatCapabilityFile, parseCapabilityFile } from '../custody/capability-file.ts';
import { errnoOf, fileError, makeDirectory, readIfThere, writeWhole } from '../files/whole.ts';
import { layoutPaths } from '../local/layout.ts';

/** A capability that was granted. */
export interface Granted {
  /** Where it was written, or the file that it was read from. */
  readonly file: string;
  /** As they came, outermost first. */
  readonly chain: readonly Uint8Array[];
  readonly last: CapabilityLink;
}

/** Kept at most, each of some hundred bytes; what has ended goes first. */
const grantedMax = 4096;
const writtenTo = '# written to ';

/**
 * Keeps a capability in the list once it is written: what was never given away is not to be granted anew. `file`: where it
 * is. Throws TOO_LARGE when the list is full of what is good still at `beat`, FILE_UNREADABLE, DISK_FULL.
 */
export async function keepGranted(
  data: string,
  chain: readonly Uint8Array[],
  { file, beat }: { readonly file: string; readonly beat: number },
): Promise<void> {
  const dir = layoutPaths(data).granted;
  await makeDirectory(layoutPaths(data).custody);
  await makeDirectory(dir);
  if ((await namesIn(dir)).length >= grantedMax) await removeEnded(dir, beat);
  if ((await namesIn(dir)).length >= grantedMax)
    throw new HoldfastError(
      'TOO_LARGE',
      `${dir} holds ${grantedMax} capabilities that are good still; move away those that need not be granted anew if the group is lost`,
    );
  const text = `${writtenTo}${JSON.stringify(file)}\n${formatCapabilityFile(chain)}`;
  await writeWhole(join(dir, `${idOf(chain)}.cap`), text, 0o600);
}

/**
 * What was granted from here, by key and end. `onDamaged` is told in words of each file that cannot be read: the others are
 * wanted all the same. Throws FILE_UNREADABLE.
 */
export async function readGranted(
  data: string,
  onDamaged: (text: string) => void,
): Promise<readonly Granted[]> {
  const dir = layoutPaths(data).granted;
  const read = await Promise.all(
    (await namesIn(dir)).map((name) =>
      readGrantedFile(join(dir, name)).catch((error: unknown) => {
        if (!isHoldfastError(error, 'RECORD_INVALID')) throw error;
        onDamaged(describeError(error));
        return undefined;
      }),
    ),
  );
  return read.filter((each) => each !== undefined).toSorted((a, b) => orderOf(a).localeCompare(orderOf(b)));
}

/** One capability file, of the list or another. Throws FILE_NOT_FOUND, RECORD_INVALID, FILE_UNREADABLE. */
export async function readGrantedFile(path: string): Promise<Granted> {
  const text = await readIfThere(path);
  if (text === undefined) throw new HoldfastError('FILE_NOT_FOUND', `${path} does not exist`);
  try {
    const chain = parseCapabilityFile(text);
    const last = chain.map(parseCapability).at(-1);
    if (last === undefined) throw new HoldfastError('RECORD_INVALID', 'no capability');
    return { file: fileIn(text) ?? path, chain, last };
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', `${path} holds no capability that can be read`, { cause });
  }
}

/** Names a capability among others, short enough for a file name: 16 hex digits of the id of its last link. */
export function idOf(chain: readonly Uint8Array[]): string {
  return toHex(capabilityId(chain.at(-1) ?? new Uint8Array(0)).subarray(0, 8));
}

function fileIn(text: string): string | undefined {
  const [first = ''] = text.split('\n');
  if (!first.startsWith(writtenTo)) return undefined;
  try {
    const file: unknown = JSON.parse(first.slice(writtenTo.length));
    return typeof file === 'string' ? file : undefined;
  } catch {
    return undefined; // a remark of somebody
  }
}

async function removeEnded(dir: string, beat: number): Promise<void> {
  for (const name of await namesIn(dir)) {
    const granted = await readGrantedFile(join(dir, name)).catch(() => undefined); // it is told where it is wanted
    if (granted !== undefined && granted.last.exp < beat) await rm(join(dir, name), { force: true });
  }
}

async function namesIn(dir: string): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).filter((name) => name.endsWith('.cap'));
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw fileError(dir, 'cannot be read', cause);
  }
}

function orderOf({ last, chain }: Granted): string {
  return `${toHex(last.aud)} ${String(last.exp).padStart(16, '0')} ${idOf(chain)}`;
}
