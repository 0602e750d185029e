// As much of DER (ITU-T X.690) as a self-signed certificate needs. Pure.

import { concat, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** One value as read. `content` is a view into what was read. */
export interface Der {
  readonly tag: number;
  readonly content: Uint8Array;
}

/** The value with tag `tag` and the given parts one after the other as its content. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concat(...parts);
  return concat(Uint8Array.of(tag, ...lengthOf(content.length)), content);
}

/** A whole number above 0 from its big-endian bytes. */
export function integer(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  const short = bytes.subarray(first);
  // A first bit that is set would make it negative.
  return der(tags.integer, (short[0] ?? 0) > 0x7f ? Uint8Array.of(0) : new Uint8Array(0), short);
}

/** A moment, milliseconds since 1970, in the form that X.509 asks for: two digits of the year before 2050. */
export function time(ms: number): Uint8Array {
  const digits = new Date(ms).toISOString().slice(0, 19).replaceAll(/[-:T]/g, '');
  const isShort = Number(digits.slice(0, 4)) < 2050;
  return der(isShort ? tags.utcTime : tags.generalizedTime, utf8(`${isShort ? digits.slice(2) : digits}Z`));
}

/** Bits whose number is a multiple of 8. */
export function bitString(bytes: Uint8Array): Uint8Array {
  return der(tags.bitString, Uint8Array.of(0), bytes);
}

/** The one value that `bytes` are. Throws RECORD_INVALID when there is less, more, or another tag than asked for. */
export function readDer(bytes: Uint8Array, tag: number): Uint8Array {
  const [only, ...more] = readAll(bytes);
  if (only === undefined || only.tag !== tag || more.length > 0)
    throw invalid(`one value of type ${tag} expected`);
  return only.content;
}

/** The values that `bytes` are, one after the other. Throws RECORD_INVALID. */
export function readAll(bytes: Uint8Array): Der[] {
  const values: Der[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    const [tag = 0, first = 0] = rest;
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    if ((tag & 0x1f) === 0x1f || first === 0x80 || lengthBytes > 3)
      throw invalid('a form that DER does not have');
    const start = 2 + lengthBytes;
    const length =
      lengthBytes === 0 ? first : rest.subarray(2, start).reduce((sum, byte) => sum * 256 + byte, 0);
    if (rest.length < start + length) throw invalid('it ends too early');
    values.push({ tag, content: rest.subarray(start, start + length) });
    rest = rest.subarray(start + length);
  }
  return values;
}

function lengthOf(length: number): number[] {
  if (length < 0x80) return [length];
  if (length < 0x100) return [0x81, length];
  return [0x82, length >> 8, length & 0xff]; // Nothing here is longer than 64 KiB.
}

function invalid(message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `certificate: ${message}`);
}
