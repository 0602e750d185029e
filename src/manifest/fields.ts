// Looking at decoded values before they are believed.

import { CID } from '../core/block.ts';

export type Fields = Readonly<Record<string, unknown>>;

export function isMap(value: unknown): value is Fields {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** True for an integer from `min` to `max`, both at most 2⁵³−1. */
export function isCount(value: unknown, min: number, max: number = Number.MAX_SAFE_INTEGER): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max;
}

/** True for a CIDv1 of that codec with a whole sha2-256 digest. */
export function isLink(value: unknown, codec: number): value is CID {
  const cid = CID.asCID(value);
  return cid?.version === 1 && cid.code === codec && cid.multihash.code === 0x12 && cid.multihash.size === 32;
}

/** True for text of `min` to `max` UTF-8 bytes without control characters other than tab and line feed. */
export function isText(value: unknown, min: number, max: number): value is string {
  if (typeof value !== 'string' || value.length > max) return false;
  const sizeBytes = Buffer.byteLength(value);
  return sizeBytes >= min && sizeBytes <= max && !/[^\P{Cc}\t\n]/u.test(value);
}
