// The one place where custody of branch keys is plugged in.
//
// A provider makes branch keys and gives them back; it never sees a DEK. The port has the shape of a key
// encapsulation, not of "wrap these bytes": in the threshold form the branch key comes out of a random
// group element (docs/decisions/0005), nobody can choose it, and making one needs only the public key. Giving it
// back is a request to others, who decide by the label: slow, in batches, refused item by item.
//
// The alternative, wrap(key, label), fits every provider but the one this port exists for.

import type { HoldfastError } from '../core/errors.ts';
import type { BkLabel, BranchScope } from '../envelope/label.ts';
import type { BkWrap, BranchKeyBody, KekFields } from '../envelope/records.ts';

/** Why a key is asked for: custodians write it into their audit log. */
type UnwrapPurpose = 'read' | 'rewrap' | 'canary' | 'recovery';

/** Who asks, and why. */
export interface UnwrapRequest {
  readonly purpose: UnwrapPurpose;
  /** Ed25519 public key of who asks. */
  readonly requester: Uint8Array;
  /** Current beat: a request is good for a short while only. */
  readonly beat: number;
  /** Signed capabilities of the requester, outermost first. None in a development cluster. */
  readonly capabilities?: readonly Uint8Array[];
  readonly signal?: AbortSignal;
}

/** What identifies a fresh branch key; the provider adds its group and key version and so makes the label. */
export interface NewKeyScope extends BranchScope {
  readonly bkId: Uint8Array;
  readonly bkVer: number;
  readonly policy: BkLabel['policy'];
}

/** A fresh branch key: 32 bytes that the caller zeroes, and its wraps, from which the provider gives it back. */
export interface NewKey {
  readonly branchKey: Uint8Array;
  readonly wraps: readonly BkWrap[];
  readonly combiner: BranchKeyBody['combiner'];
}

/** One answer of an unwrap: the branch key (the caller matches it with its commitment and zeroes it), or why not. */
export type Unwrapped =
  | { readonly ok: true; readonly branchKey: Uint8Array }
  | { readonly ok: false; readonly error: HoldfastError };

export interface KekProvider extends AsyncDisposable {
  /** Names the key in logs and records; not secret. */
  readonly id: string;
  readonly kind: string;
  /** Makes a branch key. Threshold custody needs only the public key for it, an organisation's provider one call. */
  createKey(scope: NewKeyScope): Promise<NewKey>;
  /**
   * Gives back 1…`unwrapItemsMax` branch keys, in the order asked, each with an answer of its own. The bodies
   * have been parsed. A body with combiner `all` and one wrap asks for a part of a key, which is not what the body's
   * commitment is of. Rejects only when the whole request fails: KEY_UNAVAILABLE, FORBIDDEN, TIMEOUT.
   */
  unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]>;
  /** What an operator must know about this kind of custody, in words; `production: false` is to be shown loudly. */
  describe(): ProviderDescription;
  health(): Promise<ProviderHealth>;
  /** What the KEK record of the current key says; the caller adds who signs, signs, and registers it. */
  kek(): KekFields;
}

/**
 * A provider that can also wrap a key which exists already. Threshold custody is none: a branch key is derived from
 * a random group element there, so a key made elsewhere has no element that would give it.
 */
export interface KeyWrapper {
  /** Wraps `branchKey`, 32 bytes that stay the caller's. `scope.bkVer` is the version in which the key was first wrapped. */
  wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]>;
}

/** One answer of a renewal: the record's wraps with the provider's own renewed, `undefined` where none was due; or why not. */
export type Renewed =
  | { readonly ok: true; readonly wraps: readonly BkWrap[] | undefined }
  | { readonly ok: false; readonly error: HoldfastError };

/** A provider that brings its own wraps under the newest version of its key without showing the branch key to anybody. */
export interface WrapRenewer {
  /** For 1…`unwrapItemsMax` records, in order. Doing it twice does no harm. */
  renew(records: readonly BranchKeyBody[], signal?: AbortSignal): Promise<readonly Renewed[]>;
}

export function wrapsGivenKeys(provider: KekProvider): provider is KekProvider & KeyWrapper {
  return 'wrapKey' in provider;
}

export function renewsWraps(provider: KekProvider): provider is KekProvider & WrapRenewer {
  return 'renew' in provider;
}

export interface ProviderDescription {
  readonly kind: string;
  readonly text: string;
  readonly production: boolean;
}

export interface ProviderHealth {
  readonly ok: boolean;
  readonly text: string;
}
