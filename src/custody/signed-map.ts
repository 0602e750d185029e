// Messages that are signed but are no records: {m: canonical DAG-CBOR of the body, s: signature over it}.
//
// As with records the signature covers the bytes that came, never a re-encoding, and the whole must encode to
// itself: one body and one signature have one spelling.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, type Signer, verifySignature } from '../core/hash.ts';
import { fieldsOf, invalid } from '../envelope/fields.ts';

/** A message whose form is proven; its signature is proven by `verifyMessage`. */
export interface SignedMap {
  /** The body as it stands in the message. */
  readonly bytes: Uint8Array;
  readonly body: unknown;
  readonly signature: Uint8Array;
}

/** Signs `body` for `domain`. */
export function signMap(domain: string, body: unknown, signer: Signer): Uint8Array {
  const bytes = encodeCbor(body);
  return encodeCbor({ m: bytes, s: signer.sign(preimage(domain, bytes)) });
}

/** Reads a signed message of at most `sizeBytesMax`. Throws RECORD_INVALID naming `what`. */
export function readSignedMap(message: Uint8Array, what: string, sizeBytesMax: number): SignedMap {
  if (message.length > sizeBytesMax) throw invalid(what, `at most ${sizeBytesMax} bytes expected`);
  const outer = decodeCbor(message, what);
  const fields = fieldsOf(outer, what, ['m', 's']);
  const bytes = fields.bytesUpTo('m', sizeBytesMax);
  const signature = fields.bytes('s', 64);
  const body = canonical(bytes, what);
  if (!sameBytes(encodeCbor({ m: bytes, s: signature }), message))
    throw invalid(what, 'canonical DAG-CBOR expected');
  return { bytes, body, signature };
}

export function isSignedBy(domain: string, signed: SignedMap, by: Uint8Array): boolean {
  return verifySignature(by, preimage(domain, signed.bytes), signed.signature);
}

/** Throws RECORD_INVALID unless `by` signed it for `domain`. */
export function verifyMessage(domain: string, what: string, signed: SignedMap, by: Uint8Array): void {
  if (!isSignedBy(domain, signed, by)) throw invalid(`${what}.s`, 'a signature that verifies expected');
}

/** Decodes bytes that must be what our encoder writes. Throws RECORD_INVALID. */
export function canonical(bytes: Uint8Array, what: string): unknown {
  const value = decodeCbor(bytes, what);
  if (!sameBytes(encodedAgain(value, what), bytes)) throw invalid(what, 'canonical DAG-CBOR expected');
  return value;
}

/** What is nested too deeply decodes and does not encode. */
function encodedAgain(value: unknown, what: string): Uint8Array {
  try {
    return encodeCbor(value);
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', `${what}: cannot be encoded again`, { cause });
  }
}
