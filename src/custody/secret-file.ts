// Reads a small secret from a file: a PIN, a token, a secret id. Configured as a place, never as a value: what
// stands in arguments or in the environment can be read by others and ends up in logs.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { HoldfastError } from '../core/errors.ts';

const secretBytesMax = 8192;
const lineFeed = 10;
const carriageReturn = 13;

/**
 * The bytes of the file at `path` without line ends behind them; whoever reads them zeroes them.
 * `what` names the secret in messages: 'PIN of the token'. A group may read the file, as service managers and
 * secret mounts arrange it; everybody else may not, and nobody but the owner may write it.
 *
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE for a file open to others, ARGUMENT_INVALID when it is empty or too long
 */
export async function readSecretFile(path: string, what: string): Promise<Uint8Array> {
  await using handle = await openPlain(path, what);
  await checkAccess(path, what, handle);
  const bytes = new Uint8Array(secretBytesMax + 1);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
  try {
    let end = bytesRead;
    while (end > 0 && (bytes[end - 1] === lineFeed || bytes[end - 1] === carriageReturn)) end--;
    if (end === 0) throw refused('ARGUMENT_INVALID', path, what, 'it is empty');
    if (end > secretBytesMax) throw refused('ARGUMENT_INVALID', path, what, `over ${secretBytesMax} bytes`);
    return bytes.slice(0, end);
  } finally {
    bytes.fill(0);
  }
}

async function openPlain(path: string, what: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const absent = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
    if (absent) throw refused('FILE_NOT_FOUND', path, what, 'it does not exist', cause);
    throw refused('FILE_UNREADABLE', path, what, 'it cannot be opened', cause);
  }
}

/** On the open handle, so that nothing can be exchanged between check and use. */
async function checkAccess(path: string, what: string, handle: FileHandle): Promise<void> {
  const { mode } = await handle.stat();
  if ((mode & constants.S_IFMT) !== constants.S_IFREG)
    throw refused('FILE_UNREADABLE', path, what, 'it is no plain file');
  const permissions = mode & 0o777;
  if ((permissions & 0o037) === 0) return;
  const shown = permissions.toString(8).padStart(3, '0');
  throw refused('FILE_UNREADABLE', path, what, `its mode is ${shown}; set it to 600`);
}

type Refusal = 'FILE_NOT_FOUND' | 'FILE_UNREADABLE' | 'ARGUMENT_INVALID';

function refused(code: Refusal, path: string, what: string, reason: string, cause?: unknown): HoldfastError {
  return new HoldfastError(code, `${what} in ${path}: ${reason}`, { details: { path }, cause });
}
