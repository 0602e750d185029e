// The Pulse's record as one small file, replaced whole.

import { readFile } from 'node:fs/promises';
import { fromUtf8, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { errnoOf, fileError, writeWhole } from '../files/whole.ts';
import type { PulseStore } from './sole-lease.ts';
import type { PulseRecord } from './schedule.ts';

/**
 * @param path the file; its directory must exist
 * @param onDamaged told when the file is there and cannot be believed: a new count begins in its place
 */
export function pulseFile(path: string, onDamaged: (error: HoldfastError) => void): PulseStore {
  return {
    read: () => readRecord(path, onDamaged),
    write: (record) => writeWhole(path, formatRecord(record), 0o600),
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
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw fileError(path, 'cannot be read', cause);
  }
  try {
    return parseRecord(bytes);
  } catch (cause) {
    onDamaged(new HoldfastError('RECORD_CORRUPT', `${path} is damaged`, { cause, details: { path } }));
    return undefined;
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
