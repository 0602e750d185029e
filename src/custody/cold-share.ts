// A share out of the safe, used in a process of its own that can write nothing: opened once, held against what the
// group has signed about it, used for partial decryptions, a page of wraps at a time, and forgotten. What comes back
// opens nothing alone. The shares of two custodians are never in one process, so nothing here could put the group's key
// together.
//
// In a drill the wraps are canaries, which guard nothing, and nothing else is taken. A recovery (cold-custody.ts) opens
// what is stored. Which of the two it is for is said when it is opened, and stays.

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
import { type ExportedShare, importShare, type ShareHead, type ShareOpener } from './share-export.ts';

export const coldPurposes = ['drill', 'recovery'] as const;

/** Which share is opened, and for what. */
export interface ColdOpening {
  readonly purpose: (typeof coldPurposes)[number];
  /** The export (share-export.ts). */
  readonly message: Uint8Array;
  /** Ed25519 key of the custodian that must have made it. */
  readonly by: Uint8Array;
  /** Public key of the version. */
  readonly Y: Uint8Array;
}

/** What an open share is to do: one page. */
export interface ColdTask {
  /** 32 random bytes of this use. */
  readonly nonce: Uint8Array;
  /** 1 to `unwrapItemsMax` wraps under the key of the share. */
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

/** A share that is open somewhere else, until it is disposed of. One task at a time. */
export interface OpenedColdShare extends AsyncDisposable {
  /** Throws what is wrong with the task, or with whoever has the share. */
  use(task: ColdTask): Promise<ColdPartials>;
}

/** Context of the proofs: no answer of a custodian has it, so none can be made out of one. */
export function coldContext({ nonce, items }: ColdTask): Uint8Array {
  return concat(utf8(DST.drill), sha256(preimage(DST.drill, nonce, ...items.map(({ label }) => label))));
}

interface ColdGroups {
  /** Of the key. */
  readonly kek: HashGroup;
  /** Of the signing key. */
  readonly frost: Group;
}

/** One share, in this process. Whoever has it disposes of it: that zeroes it. */
export class ColdShare implements Disposable {
  readonly #opening: ColdOpening;
  readonly #head: ShareHead;
  /** The share of the key, 32 bytes, and behind it that of the signing key. */
  readonly #secret: Uint8Array;
  readonly #groups: ColdGroups;
  readonly #random: RandomBytes;

  private constructor(
    opening: ColdOpening,
    { head, secret }: ExportedShare,
    groups: ColdGroups,
    random: RandomBytes,
  ) {
    this.#opening = opening;
    this.#head = head;
    this.#secret = secret;
    this.#groups = groups;
    this.#random = random;
  }

  /**
   * Opens an export.
   *
   * @throws what `importShare` throws; RECORD_INVALID for a share of another form
   */
  static async open(
    opening: ColdOpening,
    opener: ShareOpener,
    groups: ColdGroups,
    random: RandomBytes,
  ): Promise<ColdShare> {
    const exported = await importShare(opening.message, opening.by, opener);
    const { secret } = exported;
    const isForm =
      secret.length === 64 &&
      groups.kek.scalar.isScalar(secret.subarray(0, 32)) &&
      groups.frost.scalar.isScalar(secret.subarray(32));
    if (isForm) return new ColdShare(opening, exported, groups, random);
    secret.fill(0);
    throw new HoldfastError('RECORD_INVALID', 'the export holds no pair of shares');
  }

  /**
   * One partial decryption of each wrap, with one proof over all.
   *
   * @throws FORBIDDEN for anything but a canary in a drill; ARGUMENT_INVALID for none or too many; RECORD_INVALID for a
   * wrap of another key or whose proof does not verify
   */
  use(task: ColdTask): ColdPartials {
    const { kek, frost } = this.#groups;
    checkItems(this.#opening, task, this.#head, kek);
    const [x, signing] = [this.#secret.subarray(0, 32), this.#secret.subarray(32)];
    const C = task.items.map(({ wrap }) => wrap.U);
    const D = C.map((U) => partial(kek, x, U));
    const statement = { context: coldContext(task), B: kek.base(x), C, D };
    return { D, proof: proveDleq(kek, x, statement, this.#random), frost: frost.base(signing) };
  }

  [Symbol.dispose](): void {
    this.#secret.fill(0);
  }
}

function checkItems(
  { purpose, Y }: ColdOpening,
  { items }: ColdTask,
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
