// Reads a decoded CBOR map field by field: exactly the fields that the record has, each of its type and bounds.
// Every refusal is RECORD_INVALID and names record and field, never the value (it may be a secret put in the wrong place).

import { CID, supportedCid } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';

export interface Fields {
  /** Bytes of exactly `sizeBytes`. */
  bytes(field: string, sizeBytes: number): Uint8Array;
  /** Bytes of 1…`sizeBytesMax`. */
  bytesUpTo(field: string, sizeBytesMax: number): Uint8Array;
  /** A safe integer of at least `least` (and at most `most`). */
  integer(field: string, least: number, most?: number): number;
  /** Text of 1…`sizeMax` UTF-8 bytes, without control characters. */
  text(field: string, sizeMax: number): string;
  /** As `text`, and the empty text. */
  textUpTo(field: string, sizeMax: number): string;
  oneOf<T extends string | number>(field: string, choices: readonly T[]): T;
  cid(field: string): CID;
  cidOrNull(field: string): CID | null;
  /** Bytes of exactly `sizeBytes`, or null. */
  bytesOrNull(field: string, sizeBytes: number): Uint8Array | null;
  integerOrNull(field: string, least: number): number | null;
  boolean(field: string): boolean;
  /** `countMin`…`countMax` byte strings of exactly `sizeBytes` each. */
  bytesList(field: string, sizeBytes: number, countMin: number, countMax: number): readonly Uint8Array[];
  list(field: string, countMax: number): readonly unknown[];
  /** Whatever it holds, for a parser of its own. */
  any(field: string): unknown;
  /** A map of its own, with exactly `names`. */
  map(field: string, names: readonly string[]): Fields;
  /** Throws RECORD_INVALID for `field`. */
  refuse(field: string, expected: string): never;
}

/** `value` as a map with exactly `names` as keys. `where` heads each message: 'envelope', 'branch-key.scope'. */
export function fieldsOf(value: unknown, where: string, names: readonly string[]): Fields {
  if (!isMap(value)) throw invalid(where, 'a map expected');
  for (const name of names)
    if (!Object.hasOwn(value, name)) throw invalid(`${where}.${name}`, 'field is missing');
  for (const name of Object.keys(value))
    if (!names.includes(name)) throw invalid(where, 'a field that nobody knows');
  return new MapFields(value, where);
}

/** The text of the field `name` of a map of any shape: what a tagged union is told apart by. */
export function tagOf(value: unknown, where: string, name: string): string {
  const tag = isMap(value) ? value[name] : undefined;
  if (typeof tag !== 'string') throw invalid(`${where}.${name}`, 'text expected');
  return tag;
}

export function invalid(field: string, expected: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `${field}: ${expected}`, { details: { field } });
}

class MapFields implements Fields {
  readonly #map: Readonly<Record<string, unknown>>;
  readonly #where: string;

  constructor(map: Readonly<Record<string, unknown>>, where: string) {
    this.#map = map;
    this.#where = where;
  }

  bytes(field: string, sizeBytes: number): Uint8Array {
    const value = this.#map[field];
    if (!(value instanceof Uint8Array) || value.length !== sizeBytes)
      this.refuse(field, `${sizeBytes} bytes expected`);
    return value;
  }

  bytesUpTo(field: string, sizeBytesMax: number): Uint8Array {
    const value = this.#map[field];
    if (!(value instanceof Uint8Array) || value.length === 0 || value.length > sizeBytesMax) {
      this.refuse(field, `1 to ${sizeBytesMax} bytes expected`);
    }
    return value;
  }

  integer(field: string, least: number, most: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.#map[field];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
      this.refuse(field, `an integer from ${least} to ${most} expected`);
    }
    return value;
  }

  text(field: string, sizeMax: number): string {
    const value = this.#map[field];
    if (
      typeof value !== 'string' ||
      value === '' ||
      Buffer.byteLength(value) > sizeMax ||
      /\p{Cc}/u.test(value)
    ) {
      this.refuse(field, `1 to ${sizeMax} bytes of text without control characters expected`);
    }
    return value;
  }

  textUpTo(field: string, sizeMax: number): string {
    return this.#map[field] === '' ? '' : this.text(field, sizeMax);
  }

  oneOf<T extends string | number>(field: string, choices: readonly T[]): T {
    const value = this.#map[field];
    const choice = choices.find((known) => known === value);
    if (choice === undefined) this.refuse(field, `one of ${choices.join(', ')} expected`);
    return choice;
  }

  cid(field: string): CID {
    const value = this.#map[field];
    // Not CID.asCID: that also takes a crafted map for a CID.
    if (!(value instanceof CID) || !isSupported(value)) {
      this.refuse(field, 'a CIDv1 of sha2-256, raw or dag-cbor, expected');
    }
    return value;
  }

  cidOrNull(field: string): CID | null {
    return this.#map[field] === null ? null : this.cid(field);
  }

  bytesOrNull(field: string, sizeBytes: number): Uint8Array | null {
    return this.#map[field] === null ? null : this.bytes(field, sizeBytes);
  }

  integerOrNull(field: string, least: number): number | null {
    return this.#map[field] === null ? null : this.integer(field, least);
  }

  boolean(field: string): boolean {
    const value = this.#map[field];
    if (typeof value !== 'boolean') this.refuse(field, 'true or false expected');
    return value;
  }

  bytesList(field: string, sizeBytes: number, countMin: number, countMax: number): readonly Uint8Array[] {
    const list = this.list(field, countMax);
    const isGood = (value: unknown): value is Uint8Array =>
      value instanceof Uint8Array && value.length === sizeBytes;
    if (list.length < countMin || !list.every(isGood))
      this.refuse(field, `${countMin} to ${countMax} times ${sizeBytes} bytes expected`);
    return list;
  }

  list(field: string, countMax: number): readonly unknown[] {
    const value = this.#map[field];
    if (!Array.isArray(value) || value.length > countMax)
      this.refuse(field, `a list of at most ${countMax} expected`);
    return value as readonly unknown[];
  }

  any(field: string): unknown {
    return this.#map[field];
  }

  map(field: string, names: readonly string[]): Fields {
    return fieldsOf(this.#map[field], `${this.#where}.${field}`, names);
  }

  refuse(field: string, expected: string): never {
    throw invalid(`${this.#where}.${field}`, expected);
  }
}

function isSupported(cid: CID): boolean {
  try {
    supportedCid(cid);
    return true;
  } catch {
    return false;
  }
}
