// The Pulse's record as one small file: written beside, synced, renamed, and the directory synced.

import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fromUtf8, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import type { PulseStore } from './pulse.ts';
import type { PulseRecord } from './schedule.ts';

/**
 * @param path the file; its directory must exist
 * @param onDamaged told when the file is there and cannot be believed: a new count begins in its place
 */
export function pulseFile(path: string, onDamaged: (error: HoldfastError) => void): PulseStore {
  return {
    read: () => readRecord(path, onDamaged),
    write: (record) => writeRecord(path, record),
  };
}

async function readRecord(
  path: string,
  onDamaged: (error: HoldfastError) => void,
): Promise<PulseRecord | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    if (isAbsent(cause)) return undefined;
    throw new HoldfastError('FILE_UNREADABLE', `cannot read ${path}`, { cause, details: { path } });
  }
  try {
    return parseRecord(bytes);
  } catch (cause) {
    onDamaged(new HoldfastError('RECORD_CORRUPT', `${path} is damaged`, { cause, details: { path } }));
    return undefined;
  }
}

async function writeRecord(path: string, record: PulseRecord): Promise<void> {
  const temporary = `${path}.new`;
  try {
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(formatRecord(record));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `cannot write ${path}`, { cause, details: { path } });
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** `holdfast-pulse-1 <epoch hex> <next index> <first 16 hex digits of the SHA-256 of the text before>` and a line end. */
function formatRecord(record: PulseRecord): string {
  const text = `holdfast-pulse-1 ${toHex(record.epoch)} ${record.nextIndex}`;
  return `${text} ${checksum(text)}\n`;
}

function parseRecord(bytes: Uint8Array): PulseRecord {
  const found = /^(holdfast-pulse-1 ([0-9a-f]{64}) (\d{1,16})) ([0-9a-f]{16})\n$/.exec(fromUtf8(bytes));
  const [, text = '', epoch = '', index = '', sum = ''] = found ?? [];
  if (found === null || checksum(text) !== sum || !Number.isSafeInteger(Number(index))) {
    throw new HoldfastError('RECORD_CORRUPT', 'the checksum or the form is wrong');
  }
  return { epoch: Buffer.from(epoch, 'hex'), nextIndex: Number(index) };
}

function checksum(text: string): string {
  return toHex(sha256(utf8(text))).slice(0, 16);
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
