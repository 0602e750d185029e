// Fields of requests as other members send them: unknown until looked at, and bounded.

import { CID, supportedCid } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';

/** Sources named in one pull. */
const sourcesMax = 32;

export function field(head: unknown, name: string): unknown {
  return typeof head === 'object' && head !== null ? Reflect.get(head, name) : undefined;
}

/** A CID of a kind that is stored. Throws ARGUMENT_INVALID, like all below. */
export function cidField(head: unknown, name: string): CID {
  return asCid(field(head, name), name);
}

export function cidList(head: unknown, name: string, countMax: number): CID[] {
  const list = field(head, name);
  if (!Array.isArray(list) || list.length > countMax)
    throw invalid(name, `a list of at most ${countMax} CIDs`);
  return list.map((each) => asCid(each, name));
}

export function limitField(head: unknown, name: string, max: number): number {
  const limit = field(head, name);
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > max) {
    throw invalid(name, `a whole number from 1 to ${max}`);
  }
  return limit;
}

export function nonceField(head: unknown, name: string): Uint8Array {
  const nonce = field(head, name);
  if (nonce instanceof Uint8Array && nonce.length >= 16 && nonce.length <= 64) return nonce;
  throw invalid(name, '16 to 64 bytes');
}

export function peerList(head: unknown, name: string): PeerName[] {
  const list = field(head, name);
  if (!Array.isArray(list) || list.length > sourcesMax)
    throw invalid(name, `a list of at most ${sourcesMax} peers`);
  return list.map((each: unknown) => {
    if (typeof each !== 'string' || each.length > 128) throw invalid(name, 'peer names');
    return each;
  });
}

/** Where a steward stands in this node's journal; epoch null = nowhere yet. */
export function journalField(
  head: unknown,
  name: string,
): { readonly epoch: string | null; readonly seq: number } {
  const journal = field(head, name);
  const epoch = field(journal, 'epoch');
  const seq = field(journal, 'seq');
  if (
    (epoch !== null && typeof epoch !== 'string') ||
    typeof seq !== 'number' ||
    !Number.isSafeInteger(seq) ||
    seq < 0
  ) {
    throw invalid(name, '{epoch: text or null, seq: whole number}');
  }
  return { epoch, seq };
}

/** `beat_index` of a BeatFrame, or `undefined` when it is none: a beat that is not understood is no beat. */
export function beatIndex(beat: unknown): number | undefined {
  const index = field(beat, 'beat_index');
  return typeof index === 'number' && Number.isSafeInteger(index) && index >= 0 ? index : undefined;
}

function asCid(value: unknown, name: string): CID {
  const cid = CID.asCID(value);
  if (cid === null) throw invalid(name, 'a CID');
  return supportedCid(cid);
}

function invalid(name: string, expected: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', `${name}: ${expected} expected`);
}
