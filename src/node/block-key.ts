// How the block store names things: keys that sort by digest, index entries, and the sum over all digests.

import { CID } from '../core/block.ts';
import { asBuffer } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { codecDagCbor, codecRaw } from '../core/block.ts';

/** Digest, then codec: 33 bytes. */
export type BlockKey = Uint8Array;

export const blockKeyBytes = 33;
const digestBytes = 32;
/** CIDv1 header for sha2-256: version, codec, hash, length. */
const cidHeadBytes = 4;

export function keyOfCid(cid: CID): BlockKey {
  const key = new Uint8Array(blockKeyBytes);
  key.set(cid.multihash.digest);
  key[digestBytes] = cid.code;
  return key;
}

export function cidOfKey(key: BlockKey): CID {
  const bytes = new Uint8Array(cidHeadBytes + digestBytes);
  bytes.set([1, key[digestBytes] ?? 0, 0x12, digestBytes]);
  bytes.set(key.subarray(0, digestBytes), cidHeadBytes);
  return CID.decode(bytes);
}

/** 66 hex digits, for maps and cursors. */
export function keyText(key: BlockKey): string {
  return asBuffer(key).toString('hex');
}

/** The inverse of keyText; undefined when `text` is no key of a supported block. */
export function keyFromText(text: string): BlockKey | undefined {
  if (!/^[0-9a-f]{66}$/.test(text)) return undefined;
  const key = new Uint8Array(Buffer.from(text, 'hex'));
  return key[digestBytes] === codecRaw || key[digestBytes] === codecDagCbor ? key : undefined;
}

/** Where a block lies. A file is found by its key alone. */
export type BlockEntry =
  | { readonly kind: 'file'; readonly sizeBytes: number }
  | {
      readonly kind: 'segment';
      readonly sizeBytes: number;
      readonly segment: number;
      readonly offset: number;
    };

const entryBytes = 13;

export function encodeEntry(entry: BlockEntry): Uint8Array {
  const out = new Uint8Array(entryBytes);
  const view = new DataView(out.buffer);
  view.setUint8(0, entry.kind === 'file' ? 1 : 2);
  view.setUint32(1, entry.sizeBytes);
  if (entry.kind === 'segment') {
    view.setUint32(5, entry.segment);
    view.setUint32(9, entry.offset);
  }
  return out;
}

/** Throws RECORD_CORRUPT for anything `encodeEntry` does not write. */
export function decodeEntry(bytes: Uint8Array): BlockEntry {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = bytes.length === entryBytes ? view.getUint8(0) : 0;
  if (kind === 1) return { kind: 'file', sizeBytes: view.getUint32(1) };
  if (kind === 2) {
    return {
      kind: 'segment',
      sizeBytes: view.getUint32(1),
      segment: view.getUint32(5),
      offset: view.getUint32(9),
    };
  }
  throw new HoldfastError('RECORD_CORRUPT', `a block index entry has ${bytes.length} bytes and kind ${kind}`);
}

export function sameEntry(a: BlockEntry, b: BlockEntry): boolean {
  if (a.kind !== b.kind || a.sizeBytes !== b.sizeBytes) return false;
  if (a.kind === 'file' || b.kind === 'file') return true;
  return a.segment === b.segment && a.offset === b.offset;
}

const lanesCount = 8;
/** Lanes hold sums of 32-bit numbers exactly up to 2^53: two million of them. */
const additionsMax = 1_000_000;

/** The sum of digests modulo 2^256, in eight 32-bit lanes whose carries are settled late. */
export class DigestSum {
  readonly #lanes = new Float64Array(lanesCount);
  #additions = 0;

  add(key: BlockKey): void {
    this.#apply(key, 1);
  }

  subtract(key: BlockKey): void {
    this.#apply(key, -1);
  }

  /** 32 bytes, big-endian. */
  bytes(): Uint8Array {
    this.#settle();
    const out = new Uint8Array(digestBytes);
    const view = new DataView(out.buffer);
    this.#lanes.forEach((lane, at) => view.setUint32(at * 4, lane));
    return out;
  }

  #apply(key: BlockKey, sign: 1 | -1): void {
    const view = new DataView(key.buffer, key.byteOffset, digestBytes);
    for (let at = 0; at < lanesCount; at++) {
      this.#lanes[at] = (this.#lanes[at] ?? 0) + sign * view.getUint32(at * 4);
    }
    if (++this.#additions >= additionsMax) this.#settle();
  }

  #settle(): void {
    let carry = 0;
    for (let at = lanesCount - 1; at >= 0; at--) {
      const total = (this.#lanes[at] ?? 0) + carry;
      carry = Math.floor(total / 2 ** 32);
      this.#lanes[at] = total - carry * 2 ** 32;
    }
    this.#additions = 0;
  }
}
