// The MANIFEST of a store of LevelDB that consists of finished tables.

import { crc32c } from '../core/crc32c.ts';
import { logBlockBytes, logHeaderBytes, masked } from './level-format.ts';
import { numbers } from './level-tables.ts';

/** A table as a MANIFEST names it. */
export interface NamedTable {
  readonly level: number;
  readonly number: number;
  readonly sizeBytes: number;
  readonly smallest: Uint8Array;
  readonly largest: Uint8Array;
}

/**
 * A MANIFEST of a store that consists of `tables`. `fileNumber`: the first number that no file has; logs with lower ones
 * do not count. `sequence`: no row has a higher number; what is written later counts from there.
 */
export function encodeManifest(
  tables: readonly NamedTable[],
  fileNumber: number,
  sequence: number,
): Uint8Array {
  const parts: Uint8Array[] = [
    field(1, Buffer.from('leveldb.BytewiseComparator')),
    numbers(2, fileNumber),
    numbers(3, fileNumber + 1),
    numbers(4, sequence),
  ];
  for (const { level, number, sizeBytes, smallest, largest } of tables)
    parts.push(numbers(7, level, number, sizeBytes), prefixed(smallest), prefixed(largest));
  return encodeLog(Buffer.concat(parts));
}

/** One record as a log holds it: in parts that do not cross the blocks of 32 KiB. */
function encodeLog(record: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  const roomBytes = logBlockBytes - logHeaderBytes;
  for (let at = 0; at < record.length; at += roomBytes) {
    const body = record.subarray(at, at + roomBytes);
    const [isFirst, isLast] = [at === 0, at + roomBytes >= record.length];
    const part = Buffer.alloc(logHeaderBytes + body.length);
    part.writeUInt16LE(body.length, 4);
    part.writeUInt8(isFirst ? (isLast ? 1 : 2) : isLast ? 4 : 3, 6);
    part.set(body, logHeaderBytes);
    part.writeUInt32LE(masked(crc32c(part.subarray(6))), 0);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function field(tag: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([numbers(tag), prefixed(value)]);
}

function prefixed(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([numbers(bytes.length), bytes]);
}
