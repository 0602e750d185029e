// The development key file: JSON, mode 600, whole or absent.
//
// It is written beside its place, synced, and then linked into it: a link, unlike a rename, never replaces a
// file that another process made in between. The key passes through a JavaScript string, which cannot be
// zeroed; for a file in the clear on the same disk this changes nothing.

import { constants } from 'node:fs';
import { type FileHandle, link, open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { randomUUID } from 'node:crypto';
import { asBuffer } from '../core/bytes.ts';
import { type ErrorCode, HoldfastError } from '../core/errors.ts';

export interface KeyFile {
  /** Custody group. */
  readonly group: string;
  readonly kekVersion: number;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  /** 32 hex digits that name the key. */
  readonly kid: string;
  /** 32 bytes; whoever reads them zeroes them. */
  readonly key: Uint8Array;
}

const format = 'holdfast-dev-kek';
const version = 1;
const warning = 'For development only: whoever reads this file reads every object. Losing it loses them all.';
const fileBytesMax = 4096;

/** Puts the file in its place, synced, if there is none; an existing one stays. Throws FILE_UNREADABLE. */
export async function createKeyFile(path: string, file: KeyFile): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    await writeSynced(temporary, encode(file));
    await link(temporary, path).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error;
    });
  } catch (cause) {
    throw refused('FILE_UNREADABLE', path, 'it cannot be created', cause);
  } finally {
    await unlink(temporary).catch(() => undefined); // absent when it could not be written; else harmless
  }
  await syncDirectory(dirname(path));
}

/** Reads the file if it is what it must be: a plain file of this user, closed to all others, whole, of this version. */
export async function readKeyFile(path: string): Promise<KeyFile> {
  const handle = await openForReading(path);
  try {
    await checkAccess(path, handle);
    const bytes = Buffer.alloc(fileBytesMax + 1);
    try {
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
      if (bytesRead > fileBytesMax) throw refused('RECORD_CORRUPT', path, 'it is too long');
      return decode(path, bytes.toString('utf8', 0, bytesRead));
    } finally {
      bytes.fill(0);
    }
  } finally {
    await handle.close();
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') {
      throw refused('DATA_DIR_DAMAGED', path, 'it is missing and is not replaced by a new one', cause);
    }
    throw refused('FILE_UNREADABLE', path, 'it cannot be opened as a plain file', cause);
  }
}

/** On the open handle, so that nothing can be exchanged between check and use. */
async function checkAccess(path: string, handle: FileHandle): Promise<void> {
  const { mode, uid } = await handle.stat();
  if ((mode & constants.S_IFMT) !== constants.S_IFREG)
    throw refused('FILE_UNREADABLE', path, 'it is no plain file');
  const permissions = mode & 0o7777;
  if ((permissions & ~0o600) !== 0) {
    const shown = permissions.toString(8).padStart(3, '0');
    throw refused(
      'FILE_UNREADABLE',
      path,
      `its mode is ${shown}, which lets in others than its owner; set it to 600`,
    );
  }
  if (process.getuid !== undefined && uid !== process.getuid()) {
    throw refused('FILE_UNREADABLE', path, 'it belongs to another user');
  }
}

function encode({ group, kekVersion, createdAt, kid, key }: KeyFile): string {
  const fields = {
    format,
    warning,
    version,
    group,
    kekVersion,
    createdAt,
    kid,
    key: asBuffer(key).toString('base64'),
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

function decode(path: string, text: string): KeyFile {
  const fields = parseJson(path, text);
  if (fields['format'] !== format) throw refused('RECORD_CORRUPT', path, 'it is no key file of this kind');
  if (fields['version'] !== version) {
    throw refused('DATA_DIR_NEWER', path, `version ${version} expected; this program reads no other`);
  }
  const { group, kekVersion, createdAt, kid } = fields;
  const key =
    typeof fields['key'] === 'string' ? new Uint8Array(Buffer.from(fields['key'], 'base64')) : undefined;
  if (
    typeof group !== 'string' ||
    typeof kekVersion !== 'number' ||
    typeof createdAt !== 'string' ||
    typeof kid !== 'string' ||
    key?.length !== 32
  ) {
    throw refused('RECORD_CORRUPT', path, 'a field is missing or has another form');
  }
  return { group, kekVersion, createdAt, kid, key };
}

function parseJson(path: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Without the cause, which quotes the text, and with it the key.
    throw refused('RECORD_CORRUPT', path, 'it is not JSON');
  }
  if (!isObject(value)) throw refused('RECORD_CORRUPT', path, 'it is no JSON object');
  return value;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

async function writeSynced(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx', 0o600);
  try {
    await handle.chmod(0o600); // a umask can only take away; this gives exactly 600
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
}

function refused(code: ErrorCode, path: string, reason: string, cause?: unknown): HoldfastError {
  return new HoldfastError(code, `key file ${path}: ${reason}`, { details: { path }, cause });
}
