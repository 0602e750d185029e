// The fencing tokens of stewards, and which slice of the key space is whose: stewards divide the work by it
// (steward/shares.ts), storage nodes refuse what does not fit (node/epochs.ts).

import { asBuffer, utf8 } from './bytes.ts';
import { sha256 } from './hash.ts';
import type { PeerName } from './rpc.ts';
import { fieldOf } from './shape.ts';

export const slicesCount = 256;

/** The fencing token of an order, and what it stands for. */
export interface Epoch {
  readonly n: number;
  /** Who proposed it: of two with one number the order decides. */
  readonly by: PeerName;
  /** Stewards that share the work, sorted. */
  readonly members: readonly PeerName[];
}

/** Negative when `a` is the earlier one. Two that differ in anything are never equal. */
export function compareEpochs(a: Epoch | undefined, b: Epoch | undefined): number {
  if (a === undefined || b === undefined) return Number(a !== undefined) - Number(b !== undefined);
  if (a.n !== b.n) return a.n - b.n;
  const [left, right] = [epochText(a), epochText(b)];
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/** Who looks after a slice; undefined without members. */
export function ownerOf(slice: number, members: readonly PeerName[]): PeerName | undefined {
  let owner: PeerName | undefined;
  let highest: Buffer | undefined;
  for (const member of members) {
    const weight = asBuffer(sha256(utf8(`${slice}\0${member}`)));
    if (highest !== undefined && weight.compare(highest) <= 0) continue;
    [owner, highest] = [member, weight];
  }
  return owner;
}

/** Stewards of one epoch; more would have nothing to do. */
const epochMembersMax = 64;
const nameBytesMax = 128;

/** Reads an epoch from a message; undefined for what is none. */
export function readEpoch(value: unknown): Epoch | undefined {
  const [n, by, members] = [fieldOf(value, 'n'), fieldOf(value, 'by'), fieldOf(value, 'members')];
  if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < 1 || !isName(by)) return undefined;
  if (!Array.isArray(members) || members.length < 1 || members.length > epochMembersMax) return undefined;
  return members.every(isName) ? { n, by, members } : undefined;
}

function isName(value: unknown): value is PeerName {
  return typeof value === 'string' && value !== '' && value.length <= nameBytesMax && !/\s/.test(value);
}

/** An epoch as one text; two of them are the same epoch when their texts are. */
export function epochText({ n, by, members }: Epoch): string {
  return `${n} ${by} ${members.join(' ')}`;
}
