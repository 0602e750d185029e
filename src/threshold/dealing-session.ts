// One new dealing of the shares of an existing key: who deals, who receives, from which generation to which.
//
//   refresh   the same members; polynomials with the constant zero are added to the shares
//   reshare   t or more of the old members deal their shares again, to any new members and threshold
//
// In both the public key stays. The session's id is a hash of every parameter: messages are signed and sealed
// under it, so nothing of one session fits into another, and whoever was told other parameters shares nothing.

import { sameBytes, uint32, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { DST, transcriptHash } from './transcript.ts';
import type { Group } from './group.ts';
import { sealTo } from './hpke.ts';
import { isKeySet, type KeySet, requireThreshold } from './key-set.ts';
import { counted } from './wire.ts';

const sigPkBytes = 32;
const nonceBytes = 32;
const groupNameBytesMax = 64;

/** Whom shares are dealt to. Its index is its place: 1…n. */
export interface Recipient {
  /** Ed25519 public key that its messages are verified with. */
  readonly sigPk: Uint8Array;
  /** X25519 public key of this epoch, erased after the next activation. */
  readonly prekey: Uint8Array;
}

export interface DealingParams {
  readonly kind: 'refresh' | 'reshare';
  /** Custody group and version of the key. */
  readonly cg: string;
  readonly ver: number;
  /** 32 bytes never used before. */
  readonly nonce: Uint8Array;
  /** The present generation. */
  readonly from: {
    readonly gen: number;
    readonly keys: KeySet;
    /** Ed25519 public keys of the members 1…n. */
    readonly sigPks: readonly Uint8Array[];
  };
  /** The next generation; its number is one more. */
  readonly to: { readonly t: number; readonly recipients: readonly Recipient[] };
}

/** Checked parameters with their hash. Public; made by `openDealing` only. */
export interface DealingSession extends DealingParams {
  readonly group: Group['name'];
  readonly id: Uint8Array;
}

/**
 * Checks the parameters and names the session. Each member calls it with its own view: `from` out of the record
 * it holds, `to` out of an order it has verified. Who was told something else has another id, and its messages
 * are noise here.
 * @throws HoldfastError ARGUMENT_INVALID saying which parameter does not fit
 */
export function openDealing(group: Group, params: DealingParams): DealingSession {
  const { from, to } = params;
  const refuse = (what: string): never => {
    throw new HoldfastError('ARGUMENT_INVALID', `${params.kind}: ${what}`);
  };
  requireThreshold(to.t, to.recipients.length);
  if (!isKeySet(group, from.keys)) refuse('the present key set does not fit together');
  if (!Number.isSafeInteger(from.gen) || from.gen < 0) refuse('the generation is a whole number from 0');
  if (!Number.isSafeInteger(params.ver) || params.ver < 0) refuse('the version is a whole number from 0');
  if (params.nonce.length !== nonceBytes) refuse('a nonce of 32 bytes expected');
  if (params.cg.length === 0 || utf8(params.cg).length > groupNameBytesMax) {
    refuse('the custody group has a name of at most 64 bytes');
  }
  const sigPks = [...from.sigPks, ...to.recipients.map(({ sigPk }) => sigPk)];
  if (from.sigPks.length !== from.keys.n || !sigPks.every((key) => key.length === sigPkBytes)) {
    refuse('an Ed25519 public key of every member expected');
  }
  for (const [at, { prekey }] of to.recipients.entries()) {
    if (!isUsable(prekey)) refuse(`the prekey of recipient ${at + 1} is no X25519 public key`);
  }
  if (hasTwice(from.sigPks) || hasTwice(to.recipients.map(({ sigPk }) => sigPk))) {
    refuse('two members have the same key');
  }
  if (params.kind === 'refresh' && !isRefresh(params)) refuse('a refresh keeps members and threshold');
  return { ...params, group: group.name, id: sessionId(group, params) };
}

/** Domain of this kind of dealing. */
export function domainOf(session: Pick<DealingParams, 'kind'>): string {
  return session.kind === 'refresh' ? DST.refresh : DST.reshare;
}

function sessionId(group: Group, params: DealingParams): Uint8Array {
  const { from, to } = params;
  return transcriptHash(
    domainOf(params),
    utf8('session'),
    utf8(group.name),
    utf8(params.cg),
    uint64(params.ver),
    params.nonce,
    uint64(from.gen),
    uint32(from.keys.t),
    uint32(from.keys.n),
    counted(from.keys.C),
    counted(from.keys.Yi),
    counted(from.sigPks),
    uint32(to.t),
    counted(to.recipients.map(({ sigPk }) => sigPk)),
    counted(to.recipients.map(({ prekey }) => prekey)),
  );
}

function isRefresh({ from, to }: DealingParams): boolean {
  return (
    to.t === from.keys.t &&
    to.recipients.length === from.keys.n &&
    to.recipients.every(({ sigPk }, at) => sameBytes(sigPk, from.sigPks[at] ?? new Uint8Array(0)))
  );
}

/** Tried with a fixed key: a point of small order would make every dealer fail in the middle. */
function isUsable(prekey: Uint8Array): boolean {
  const nothing = new Uint8Array(0);
  try {
    sealTo(prekey, nothing, nothing, nothing, (size) => new Uint8Array(size).fill(1));
    return true;
  } catch (error) {
    if (isHoldfastError(error, 'ARGUMENT_INVALID')) return false;
    throw error;
  }
}

function hasTwice(keys: readonly Uint8Array[]): boolean {
  return new Set(keys.map((key) => key.join())).size !== keys.length;
}
