// Reading the fields of a BACKBEAT message: every limit is checked, and what breaks one is named.

import { HoldfastError } from '../core/errors.ts';

export const hlcForm = /^[0-9a-fA-F]{4}:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}$/;
export const windowForm = /^[0-9a-fA-F]{32}$/;

/** A message of text is refused above this: known frames have some 400 bytes, a report with all its issues a few thousand. */
const messageBytesMax = 16_384;

/** Decodes JSON text. Throws RECORD_INVALID when it is longer than a message may be, or no JSON. */
export function parseJson(text: string, label: string): unknown {
  if (text.length > messageBytesMax)
    throw invalid(label, 'message', `at most ${messageBytesMax} characters`, text.length);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', `${label}: not JSON`, { cause });
  }
}

/** A list of notes that takes those about metadata. */
interface MetadataNotes {
  push(note: 'extra-field' | 'metadata-dropped'): unknown;
}

/** The fields of one message. Every method throws RECORD_INVALID with the field in its details. */
export interface Fields {
  get(name: string): unknown;
  text(name: string, form: RegExp, expected: string): string;
  /** An integer 0…2⁵³−1; upstream's schemas allow up to 2⁶³−1, which cannot be told apart here. */
  index(name: string): number;
  number(name: string, min: number, max: number): number;
  flag(name: string): boolean;
  /** The open object, with every field outside `known` moved into it; notes what was moved or is no object. */
  metadata(known: ReadonlySet<string>, notes: MetadataNotes): Readonly<Record<string, unknown>> | undefined;
  invalid(name: string, expected: string): HoldfastError;
}

/** Throws RECORD_INVALID for what is no object or has another `type`. */
export function fieldsOf(value: unknown, label: string, type: string): Fields {
  if (!isObject(value)) throw invalid(label, 'message', 'an object', value);
  const fields: Fields = {
    get: (name) => value[name],
    text(name, form, expected) {
      const text = value[name];
      if (typeof text !== 'string' || !form.test(text)) throw fields.invalid(name, expected);
      return text;
    },
    index(name) {
      const index = value[name];
      if (typeof index === 'number' && Number.isInteger(index) && index > Number.MAX_SAFE_INTEGER)
        throw fields.invalid(name, 'at most 2^53-1 (larger ones cannot be told apart here)');
      if (typeof index !== 'number' || !Number.isSafeInteger(index) || index < 0)
        throw fields.invalid(name, 'an integer from 0');
      return index;
    },
    number(name, min, max) {
      const number = value[name];
      if (typeof number !== 'number' || !(number >= min && number <= max))
        throw fields.invalid(name, `a number from ${min} to ${max}`);
      return number;
    },
    flag(name) {
      const flag = value[name];
      if (typeof flag !== 'boolean') throw fields.invalid(name, 'true or false');
      return flag;
    },
    metadata: (known, notes) => metadataOf(value, known, notes),
    invalid: (name, expected) => invalid(label, name, expected, value[name]),
  };
  if (value['type'] !== type) throw fields.invalid('type', type);
  return fields;
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function metadataOf(
  value: Readonly<Record<string, unknown>>,
  known: ReadonlySet<string>,
  notes: MetadataNotes,
): Readonly<Record<string, unknown>> | undefined {
  const extra = Object.entries(value).filter(([name]) => !known.has(name));
  const given = value['metadata'];
  const open = isObject(given) ? given : undefined;
  if (given !== undefined && open === undefined) notes.push('metadata-dropped');
  if (extra.length === 0) return open;
  notes.push('extra-field');
  return Object.fromEntries([...extra, ...Object.entries(open ?? {})]);
}

function invalid(label: string, field: string, expected: string, value: unknown): HoldfastError {
  const shown = (JSON.stringify(value) ?? 'nothing').slice(0, 80);
  return new HoldfastError('RECORD_INVALID', `${label}: ${field}: ${expected} expected, got ${shown}`, {
    details: { field },
  });
}
