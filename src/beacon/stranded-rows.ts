// The scratch of a stranded audit: everything it has seen, sorted on disk, so that its memory does not grow with it.
//
//   b␀cid␀node              a node lists the block; its size
//   k␀cid                   an entry needs it kept; who, as text
//   x␀cid                   an entry names it, and does not need it any more
//   c␀cid                   held, named by nothing: to be looked at again
//   d␀cid                   the same, after nobody said that it leases it
//   u␀cid                   found: no entry reaches it
//   o␀chain␀version␀cid     bytes of a valid record that is not registered
//   q␀chain␀fate            what an orphan that is adopted, or left, needs besides
//   p␀cid                   content of an orphan that is not garbage
//   a␀act␀…                 what could be done about it

import { CID } from '../core/block.ts';
import { asBuffer, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { type Kv, prefixRange } from './kv.ts';
import { rowKey, rowPrefix } from './rows.ts';

export type RowKind = 'b' | 'k' | 'x' | 'c' | 'd' | 'u' | 'o' | 'q' | 'p' | 'a';

/** Rows written together, and CIDs asked about together. */
export const togetherMax = 512;

/** A block as the nodes list it. */
export interface HeldBlock {
  readonly cid: CID;
  readonly sizeBytes: number;
  /** How many nodes list it. */
  readonly copies: number;
}

export class StrandedRows {
  readonly #kv: Kv;
  #batch = new Map<string, Uint8Array>();

  constructor(kv: Kv) {
    this.#kv = kv;
  }

  /** Becomes visible at the next `flush`, or before. */
  async add(kind: RowKind, parts: readonly (string | number)[], value: Uint8Array | string): Promise<void> {
    this.#batch.set(rowKey(kind, ...parts), typeof value === 'string' ? utf8(value) : value);
    if (this.#batch.size >= togetherMax) await this.flush();
  }

  async flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = new Map();
    if (batch.size > 0) await this.#kv.write(batch);
  }

  /** Which of these rows are there. */
  async known(kind: RowKind, cids: readonly CID[]): Promise<boolean[]> {
    const values = await this.#kv.getMany(cids.map((cid) => rowKey(kind, cid.toString())));
    return values.map((value) => value !== undefined);
  }

  async get(kind: RowKind, ...parts: readonly (string | number)[]): Promise<Uint8Array | undefined> {
    return this.#kv.get(rowKey(kind, ...parts));
  }

  /** Parts behind the kind, and the value, in the order of the keys. */
  async *all(
    kind: RowKind,
    ...parts: readonly (string | number)[]
  ): AsyncGenerator<{ readonly parts: readonly string[]; readonly value: Uint8Array }> {
    for await (const [key, value] of this.#kv.range(prefixRange(rowPrefix(kind, ...parts))))
      yield { parts: key.split('\0').slice(1), value };
  }

  /** Orphans whose chain id begins with `prefix`, which ends in a slash: by chain, then version. */
  async *orphans(
    prefix: string,
  ): AsyncGenerator<{ readonly parts: readonly string[]; readonly value: Uint8Array }> {
    for await (const [key, value] of this.#kv.range(prefixRange(rowKey('o', prefix))))
      yield { parts: key.split('\0').slice(1), value };
  }

  async isOrphan(chain: string): Promise<boolean> {
    for await (const _row of this.all('o', chain)) return true;
    return false;
  }

  /** Whether a node listed it. */
  async isHeld(cid: CID): Promise<boolean> {
    for await (const _row of this.all('b', cid.toString())) return true;
    return false;
  }

  /** Every block that a node lists, in the order of the CIDs as text. */
  async *held(): AsyncGenerator<HeldBlock> {
    let block: HeldBlock | undefined;
    let name = '';
    for await (const { parts, value } of this.all('b')) {
      const [cid = ''] = parts;
      const sizeBytes = sizeOf(value);
      if (block !== undefined && name === cid) {
        block = { ...block, copies: block.copies + 1 };
        continue;
      }
      if (block !== undefined) yield block;
      name = cid;
      block = { cid: CID.parse(cid), sizeBytes, copies: 1 };
    }
    if (block !== undefined) yield block;
  }

  /** Blocks that one of the sorted kinds names, with the text of the row. */
  async *named(kind: RowKind): AsyncGenerator<{ readonly cid: CID; readonly text: string }> {
    for await (const { parts, value } of this.all(kind))
      yield { cid: CID.parse(parts[0] ?? ''), text: asBuffer(value).toString() };
  }
}

/** Blocks of two sorted walks, side by side. */
export async function* joined<A extends { readonly cid: CID }, B extends { readonly cid: CID }>(
  left: AsyncIterable<A>,
  right: AsyncIterable<B>,
): AsyncGenerator<{ readonly left?: A; readonly right?: B }> {
  const lefts = left[Symbol.asyncIterator]();
  const rights = right[Symbol.asyncIterator]();
  try {
    let a = await lefts.next();
    let b = await rights.next();
    while (a.done !== true || b.done !== true) {
      const order = orderOf(a.done === true ? undefined : a.value, b.done === true ? undefined : b.value);
      yield {
        ...(order <= 0 && a.done !== true ? { left: a.value } : {}),
        ...(order >= 0 && b.done !== true ? { right: b.value } : {}),
      };
      if (order <= 0) a = await lefts.next();
      if (order >= 0) b = await rights.next();
    }
  } finally {
    await lefts.return?.();
    await rights.return?.();
  }
}

function orderOf(a: { readonly cid: CID } | undefined, b: { readonly cid: CID } | undefined): number {
  if (a === undefined) return 1;
  if (b === undefined) return -1;
  const [left, right] = [a.cid.toString(), b.cid.toString()];
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

export function sizeBytesOf(sizeBytes: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, sizeBytes);
  return out;
}

function sizeOf(value: Uint8Array): number {
  if (value.length !== 4) throw new HoldfastError('RECORD_CORRUPT', 'a scratch row of the audit has no size');
  return new DataView(value.buffer, value.byteOffset).getUint32(0);
}
