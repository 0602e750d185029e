// A share out of the safe, tried in a process of its own that can write nothing: opened, held against what the group
// has signed about it, used for one partial decryption of each canary, and forgotten. What comes back opens nothing
// alone. The shares of two custodians are never in one process, so nothing here could put the group's key together.

import { concat, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256 } from '../core/hash.ts';
import { parseLabel } from '../envelope/label.ts';
import { proveDleq } from '../threshold/dleq.ts';
import type { Group, HashGroup, RandomBytes } from '../threshold/group.ts';
import { partial, type TdhWrap, verifyWrap } from '../threshold/tdh2.ts';
import { DST } from '../threshold/transcript.ts';
import { canaryProject } from './scope.ts';
import { importShare, type ShareOpener } from './share-export.ts';

/** What one restored share is to do. */
export interface ColdTask {
  /** The export (share-export.ts). */
  readonly message: Uint8Array;
  /** Ed25519 key of the custodian that must have made it. */
  readonly by: Uint8Array;
  /** 32 random bytes of the drill. */
  readonly drill: Uint8Array;
  /** Public key of the version, and a canary under it with its label. */
  readonly Y: Uint8Array;
  readonly label: Uint8Array;
  readonly wrap: TdhWrap;
}

export interface ColdPartial {
  readonly D: Uint8Array;
  /** That D was made with the share that the verification share is of. */
  readonly proof: Uint8Array;
  /** Public part of the share of the signing key, to be held against the record. */
  readonly frost: Uint8Array;
}

/** Context of a drill's proofs: no answer of a custodian has it, so none can be made out of one. */
export function drillContext(drill: Uint8Array, label: Uint8Array): Uint8Array {
  return concat(utf8(DST.drill), sha256(preimage(DST.drill, drill, label)));
}

/**
 * Opens an export and uses it once. `group` is that of the key, `frost` that of the signing key.
 *
 * @throws what `importShare` throws; FORBIDDEN for anything but a canary, which guards nothing; RECORD_INVALID for a
 * wrap whose proof does not verify, or a share of another form
 */
export async function useColdShare(
  task: ColdTask,
  opener: ShareOpener,
  groups: { readonly kek: HashGroup; readonly frost: Group },
  random: RandomBytes,
): Promise<ColdPartial> {
  const { head, secret } = await importShare(task.message, task.by, opener);
  try {
    const label = parseLabel(task.label);
    if (label.project !== canaryProject)
      throw new HoldfastError('FORBIDDEN', 'a share out of the safe opens canaries only here');
    if (label.cg !== head.cg || label.kekVer !== head.kekVer)
      throw new HoldfastError('RECORD_INVALID', 'the canary is of another key than the share');
    if (!verifyWrap(groups.kek, task.Y, task.label, task.wrap))
      throw new HoldfastError('RECORD_INVALID', 'the proof of the canary does not verify');
    const [x, signing] = [secret.subarray(0, 32), secret.subarray(32)];
    const isForm =
      secret.length === 64 && groups.kek.scalar.isScalar(x) && groups.frost.scalar.isScalar(signing);
    if (!isForm) throw new HoldfastError('RECORD_INVALID', 'the export holds no pair of shares');
    const D = partial(groups.kek, x, task.wrap.U);
    const context = drillContext(task.drill, task.label);
    const statement = { context, B: groups.kek.base(x), C: [task.wrap.U], D: [D] };
    return {
      D,
      proof: proveDleq(groups.kek, x, statement, random),
      frost: groups.frost.base(signing),
    };
  } finally {
    secret.fill(0);
  }
}
