// A share out of the safe, used in a process of its own that can write nothing: opened, held against what the group
// has signed about it, used for one partial decryption of each wrap, and forgotten. What comes back opens nothing
// alone. The shares of two custodians are never in one process, so nothing here could put the group's key together.
//
// In a drill the wraps are canaries, which guard nothing, and nothing else is taken. A recovery (cold-custody.ts) opens
// what is stored.

import { concat, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256 } from '../core/hash.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { parseLabel } from '../envelope/label.ts';
import { proveDleq } from '../threshold/dleq.ts';
import type { Group, HashGroup, Point, RandomBytes } from '../threshold/group.ts';
import { partial, type TdhWrap, verifyWrap } from '../threshold/tdh2.ts';
import { DST } from '../threshold/transcript.ts';
import { canaryProject } from './scope.ts';
import { importShare, type ShareOpener } from './share-export.ts';

export const coldPurposes = ['drill', 'recovery'] as const;

/** What one restored share is to do. */
export interface ColdTask {
  readonly purpose: (typeof coldPurposes)[number];
  /** The export (share-export.ts). */
  readonly message: Uint8Array;
  /** Ed25519 key of the custodian that must have made it. */
  readonly by: Uint8Array;
  /** 32 random bytes of this use. */
  readonly nonce: Uint8Array;
  /** Public key of the version. */
  readonly Y: Uint8Array;
  /** 1 to `unwrapItemsMax` wraps under it. */
  readonly items: readonly ColdItem[];
}

export interface ColdItem {
  readonly label: Uint8Array;
  /** Without a proof where a rotation switched it to this key: whoever asks has verified the certificate instead. */
  readonly wrap: TdhWrap | Pick<TdhWrap, 'U'>;
}

export interface ColdPartials {
  /** One of each item. */
  readonly D: readonly Point[];
  /** That all of them were made with the share that the verification share is of. */
  readonly proof: Uint8Array;
  /** Public part of the share of the signing key, to be held against the record. */
  readonly frost: Uint8Array;
}

/** Context of the proofs: no answer of a custodian has it, so none can be made out of one. */
export function coldContext({ nonce, items }: Pick<ColdTask, 'nonce' | 'items'>): Uint8Array {
  return concat(utf8(DST.drill), sha256(preimage(DST.drill, nonce, ...items.map(({ label }) => label))));
}

/**
 * Opens an export and uses it once. `kek` is the group of the key, `frost` that of the signing key.
 *
 * @throws what `importShare` throws; FORBIDDEN for anything but a canary in a drill; RECORD_INVALID for a wrap of another
 * key or whose proof does not verify, or a share of another form
 */
export async function useColdShare(
  task: ColdTask,
  opener: ShareOpener,
  groups: { readonly kek: HashGroup; readonly frost: Group },
  random: RandomBytes,
): Promise<ColdPartials> {
  const { head, secret } = await importShare(task.message, task.by, opener);
  try {
    checkItems(task, head, groups.kek);
    const [x, signing] = [secret.subarray(0, 32), secret.subarray(32)];
    const isForm =
      secret.length === 64 && groups.kek.scalar.isScalar(x) && groups.frost.scalar.isScalar(signing);
    if (!isForm) throw new HoldfastError('RECORD_INVALID', 'the export holds no pair of shares');
    const C = task.items.map(({ wrap }) => wrap.U);
    const D = C.map((U) => partial(groups.kek, x, U));
    const statement = { context: coldContext(task), B: groups.kek.base(x), C, D };
    return {
      D,
      proof: proveDleq(groups.kek, x, statement, random),
      frost: groups.frost.base(signing),
    };
  } finally {
    secret.fill(0);
  }
}

function checkItems(
  { purpose, items, Y }: ColdTask,
  head: { readonly cg: string; readonly kekVer: number },
  group: HashGroup,
): void {
  if (items.length === 0 || items.length > unwrapItemsMax)
    throw new HoldfastError('ARGUMENT_INVALID', `1 to ${unwrapItemsMax} wraps at a time`);
  for (const { label: bytes, wrap } of items) {
    const label = parseLabel(bytes);
    if (purpose === 'drill' && label.project !== canaryProject)
      throw new HoldfastError('FORBIDDEN', 'a share out of the safe opens canaries only in a drill');
    if (label.cg !== head.cg || label.kekVer !== head.kekVer)
      throw new HoldfastError('RECORD_INVALID', 'the wrap is of another key than the share');
    const isSwitched = purpose === 'recovery' && !('Ubar' in wrap);
    if (!isSwitched && !('Ubar' in wrap && verifyWrap(group, Y, bytes, wrap)))
      throw new HoldfastError('RECORD_INVALID', 'the proof of the wrap does not verify');
  }
}
