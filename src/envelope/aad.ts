// What content is sealed for (docs/formats.md, Content encryption): the associated data of its FLOE stream, as deterministic
// DAG-CBOR. It is kept in the manifest byte for byte and binds every key of the stream, so content sealed
// for one address, class or writer does not open as another's.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { addressBytesMax } from '../core/limits.ts';
import { fieldsOf, invalid } from './fields.ts';

export const suite = 'slurp-env-1';

/** Classes of confidentiality, in rising order. */
export const contentClasses = ['public', 'internal', 'confidential', 'restricted'] as const;
export type ContentClass = (typeof contentClasses)[number];

export const objectIdBytes = 16;
/** RFC 6838 allows 127 + 1 + 127 characters. */
const mediaBytesMax = 256;

export interface FloeAad {
  readonly v: 1;
  readonly suite: typeof suite;
  /** 16 random bytes, never reused. */
  readonly objId: Uint8Array;
  /** The canonical address in its stored form. */
  readonly ucxl: string;
  readonly media: string;
  readonly kind: 'object' | 'tree';
  readonly cls: ContentClass;
  /** Beat at which it was sealed. */
  readonly beat: number;
  /** Ed25519 public key of who sealed it. */
  readonly writer: Uint8Array;
}

const names = ['v', 'suite', 'objId', 'ucxl', 'media', 'kind', 'cls', 'beat', 'writer'] as const;
const aadBytesMax = addressBytesMax + mediaBytesMax + 256;

/** The bytes of `aad`; checks it like a stranger's, so that nothing is sealed that nobody could parse. */
export function encodeAad(aad: Omit<FloeAad, 'v' | 'suite'>): Uint8Array {
  return encodeCbor(validAad({ ...aad, v: 1, suite }));
}

/** Parses associated data from a manifest. Throws RECORD_INVALID naming the field. */
export function parseAad(bytes: Uint8Array): FloeAad {
  if (bytes.length > aadBytesMax) throw invalid('aad', `at most ${aadBytesMax} bytes expected`);
  const aad = validAad(decodeCbor(bytes, 'aad'));
  if (!sameBytes(encodeCbor(aad), bytes)) throw invalid('aad', 'canonical DAG-CBOR expected');
  return aad;
}

function validAad(value: unknown): FloeAad {
  const fields = fieldsOf(value, 'aad', names);
  return {
    v: fields.oneOf('v', [1]),
    suite: fields.oneOf('suite', [suite]),
    objId: fields.bytes('objId', objectIdBytes),
    ucxl: fields.text('ucxl', addressBytesMax),
    media: fields.text('media', mediaBytesMax),
    kind: fields.oneOf('kind', ['object', 'tree']),
    cls: fields.oneOf('cls', contentClasses),
    beat: fields.integer('beat', 0),
    writer: fields.bytes('writer', 32),
  };
}
