// Which part of a version a caller asks for, and whether he has it already (RFC 9110, sections 13 and 14).

import { HoldfastError } from '../core/errors.ts';
import type { ByteRange } from '../flows/get.ts';

/** True when If-None-Match names this version, or any. Weak and strong tags are alike here (RFC 9110 section 13.1.2). */
export function noneMatches(header: string | undefined, etag: string): boolean {
  const tags = (header ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes(etag) || tags.includes('*');
}

/**
 * One range of a Range header (RFC 9110 section 14). Several, another unit, or one that ends before it begins
 * are ignored, as the RFC asks. Throws RANGE_INVALID for one beyond the end.
 */
export function byteRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const found = /^bytes=(\d*)-(\d*)$/i.exec(header ?? '');
  if (found === null || (found[1] === '' && found[2] === '')) return undefined;
  const [from, to] = [found[1] ?? '', found[2] ?? ''];
  if (from !== '' && to !== '' && Number(to) < Number(from)) return undefined;
  const first = from === '' ? Math.max(0, sizeBytes - Number(to)) : Number(from);
  const last = from === '' || to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1);
  if (first > last || first >= sizeBytes)
    throw new HoldfastError('RANGE_INVALID', `${header} of an object of ${sizeBytes} bytes`, {
      details: { sizeBytes },
    });
  return { first, last };
}
