// A block is bytes under the CID that they hash to. CIDv1, sha2-256, raw or dag-cbor: nothing else is stored.

import * as dagCbor from '@ipld/dag-cbor';
import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';
import { HoldfastError } from './errors.ts';
import { sameBytes } from './bytes.ts';
import { encodeDagCbor } from './cbor.ts';
import { sha256 } from './hash.ts';

export { CID } from 'multiformats/cid';

export const codecRaw = 0x55;
export const codecDagCbor = 0x71;
const hashSha256 = 0x12;

export interface Block {
  readonly cid: CID;
  readonly bytes: Uint8Array;
}

/** Hashes `bytes` and returns them as a raw block. */
export function rawBlock(bytes: Uint8Array): Block {
  return { cid: cidOf(bytes, codecRaw), bytes };
}

/** Encodes `value` as deterministic DAG-CBOR and returns it as a block. */
export function cborBlock(value: unknown): Block {
  const bytes = encodeCbor(value);
  return { cid: cidOf(bytes, codecDagCbor), bytes };
}

/** Decodes DAG-CBOR strictly. Throws RECORD_INVALID with `what` in the message when it is not canonical. */
export function decodeCbor(bytes: Uint8Array, what: string): unknown {
  try {
    return dagCbor.decode(bytes);
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', `${what}: not valid DAG-CBOR`, { cause });
  }
}

/** Encodes `value` as deterministic DAG-CBOR. Throws for what that does not have. */
export function encodeCbor(value: unknown): Uint8Array {
  return encodeDagCbor(value);
}

export function cidOf(bytes: Uint8Array, codec: number): CID {
  return CID.createV1(codec, Digest.create(hashSha256, sha256(bytes)));
}

/** Parses a CID and refuses what we never store. Throws ARGUMENT_INVALID saying which. */
export function parseCid(text: string): CID {
  let cid: CID;
  try {
    cid = CID.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `not a CID: ${JSON.stringify(text.slice(0, 120))}`, {
      cause,
    });
  }
  return supportedCid(cid);
}

/** `cid` itself if it is CIDv1, sha2-256 and raw or dag-cbor; else ARGUMENT_INVALID. */
export function supportedCid(cid: CID): CID {
  if (
    cid.version !== 1 ||
    cid.multihash.code !== hashSha256 ||
    cid.multihash.digest.length !== 32 ||
    (cid.code !== codecRaw && cid.code !== codecDagCbor)
  ) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `unsupported CID ${cid.toString()}: CIDv1, sha2-256, raw or dag-cbor expected`,
    );
  }
  return cid;
}

/** True when `bytes` hash to `cid`. */
export function matchesCid(cid: CID, bytes: Uint8Array): boolean {
  return sameBytes(cid.multihash.digest, sha256(bytes));
}

/** Returns the block or throws BLOCK_CORRUPT naming the CID and `origin` (a node, a file, a caller). */
export function verifiedBlock(cid: CID, bytes: Uint8Array, origin: string): Block {
  if (!matchesCid(cid, bytes)) {
    throw new HoldfastError('BLOCK_CORRUPT', `bytes from ${origin} do not hash to ${cid.toString()}`, {
      details: { cid: cid.toString(), origin, sizeBytes: bytes.length },
    });
  }
  return { cid, bytes };
}
