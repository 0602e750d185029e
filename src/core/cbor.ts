// Writes deterministic DAG-CBOR, the same bytes as @ipld/dag-cbor, in less than half of its time.
//
// That library makes a token of every value and every map key, encodes each key by itself to sort the maps, and joins
// the pieces. Signing, hashing and proving that something is canonical encode the same small maps over and over, so this
// writes what they are made of at once: maps with names of ASCII, lists, text, bytes, whole numbers, links, true, false
// and null. Everything else (floats, bigints, what DAG-CBOR refuses, what is very deep or long) is the library's.

import * as dagCbor from '@ipld/dag-cbor';
import { CID } from 'multiformats/cid';
import { copied } from './bytes.ts';

/** Encodes `value`. Throws what @ipld/dag-cbor throws for what DAG-CBOR does not have. */
export function encodeDagCbor(value: unknown): Uint8Array {
  at = 0;
  const isWritten = write(value, 0);
  const bytes = isWritten ? copied(room.subarray(0, at)) : undefined;
  room.fill(0, 0, at); // it may have been secret
  return bytes ?? dagCbor.encode(value);
}

/** What is written here: longer values are rare, and the room is kept. */
const roomBytesMax = 262_144;
const depthMax = 16;

let room: Uint8Array = new Uint8Array(8192);
let text = Buffer.from(room.buffer);
let at = 0;

/** Major types of RFC 8949. */
const majors = { uint: 0, negative: 1, bytes: 2, text: 3, list: 4, map: 5, tag: 6 } as const;
const cidTag = 42;

/** False when it is not for this writer; then what was written is of no use. */
function write(value: unknown, depth: number): boolean {
  if (typeof value === 'string') return writeText(value);
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) return false;
    return value < 0 ? head(majors.negative, -1 - value) : head(majors.uint, value);
  }
  if (value === null) return byte(0xf6);
  if (typeof value === 'boolean') return byte(value ? 0xf5 : 0xf4);
  if (typeof value !== 'object' || depth > depthMax) return false;
  if (value instanceof Uint8Array) return head(majors.bytes, value.length) && put(value);
  if (Array.isArray(value)) {
    if (!head(majors.list, value.length)) return false;
    for (const each of value) if (!write(each, depth + 1)) return false;
    return true;
  }
  if (value instanceof CID) return writeLink(value);
  return Object.getPrototypeOf(value) === Object.prototype && writeMap(value, depth);
}

/** Names by length, then by their bytes. */
function writeMap(map: object, depth: number): boolean {
  if ('asCID' in map || '/' in map) return false; // it may be a link of another making
  const names = Object.keys(map);
  if (!isSorted(names)) names.sort((a, b) => (isBefore(a, b) ? -1 : 1));
  if (!head(majors.map, names.length)) return false;
  for (const name of names) {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- one of its own names
    const value = (map as Readonly<Record<string, unknown>>)[name];
    if (!writeShort(name) || !write(value, depth + 1)) return false;
  }
  return true;
}

function isSorted(names: readonly string[]): boolean {
  for (let i = 1; i < names.length; i++) if (!isBefore(names[i - 1] ?? '', names[i] ?? '')) return false;
  return true;
}

/** Of names of ASCII, which is seen when they are written. */
function isBefore(a: string, b: string): boolean {
  return a.length === b.length ? a < b : a.length < b.length;
}

/** A link: tag 42 over a zero byte and the CID. */
function writeLink({ bytes }: CID): boolean {
  return head(majors.tag, cidTag) && head(majors.bytes, bytes.length + 1) && byte(0) && put(bytes);
}

/** Text of ASCII, letter by letter, which is the quicker way for short ones. */
function writeShort(value: string): boolean {
  if (!head(majors.text, value.length) || !fits(value.length)) return false;
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code > 0x7f) return false;
    room[at++] = code;
  }
  return true;
}

const shortMax = 24;

function writeText(value: string): boolean {
  const from = at;
  if (value.length <= shortMax && writeShort(value)) return true;
  at = from;
  if (!value.isWellFormed()) return false;
  const sizeBytes = Buffer.byteLength(value);
  if (!head(majors.text, sizeBytes) || !fits(sizeBytes)) return false;
  text.write(value, at);
  at += sizeBytes;
  return true;
}

/** Major type and a whole number in its shortest form. */
function head(major: number, value: number): boolean {
  if (!fits(9)) return false;
  const type = major << 5;
  if (value < 24) {
    room[at++] = type | value;
    return true;
  }
  const sizeBytes = value < 0x100 ? 1 : value < 0x1_0000 ? 2 : value < 0x1_0000_0000 ? 4 : 8;
  room[at++] = type | (24 + Math.log2(sizeBytes));
  let rest = value;
  for (let i = sizeBytes - 1; i >= 0; i--) {
    room[at + i] = rest % 0x100;
    rest = Math.floor(rest / 0x100);
  }
  at += sizeBytes;
  return true;
}

function byte(value: number): boolean {
  if (!fits(1)) return false;
  room[at++] = value;
  return true;
}

function put(bytes: Uint8Array): boolean {
  if (!fits(bytes.length)) return false;
  room.set(bytes, at);
  at += bytes.length;
  return true;
}

/** Makes room for so many bytes more, as far as there is to be any. */
function fits(sizeBytes: number): boolean {
  const wanted = at + sizeBytes;
  if (wanted <= room.length) return true;
  if (wanted > roomBytesMax) return false;
  const larger = new Uint8Array(Math.min(roomBytesMax, 2 ** Math.ceil(Math.log2(wanted))));
  larger.set(room.subarray(0, at));
  room.fill(0);
  room = larger;
  text = Buffer.from(room.buffer);
  return true;
}
