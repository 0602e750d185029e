// The prime-order subgroup of ed25519 by libsodium compiled to WebAssembly: for the key that a group signs with.
//
// libsodium multiplies elements of the subgroup only, and adds whatever is on the curve. It reads encodings that are not
// canonical, so those are refused here (RFC 8032 5.1.3, strictly).

import assert from 'node:assert/strict';
import { timingSafeEqual } from 'node:crypto';
import { toHex } from '../core/bytes.ts';
import { pointsKnownMax } from '../core/limits.ts';
import { type Group, notAPoint, type Point, pointBytes, type Scalar } from './group.ts';
import { assertScalar, loadSodium, type Sodium } from './sodium.ts';

/**
 * The prime-order subgroup of ed25519. Resolves when the WASM module is compiled; the same group every time, so that what
 * it remembers serves every ceremony.
 *
 * Only `isPoint` and `mul` tell an element of the subgroup from one with a small-order part: every point that comes
 * from outside must pass `isPoint` once. `mul` throws ARGUMENT_INVALID for such a one.
 */
export async function loadEd25519(): Promise<Group> {
  const sodium = await loadSodium();
  loaded ??= groupOver(sodium);
  return loaded;
}

let loaded: Group | undefined;

const identity: Point = Uint8Array.from({ length: pointBytes }, (_, at) => (at === 0 ? 1 : 0));

function groupOver({ kernel, scalar }: Sodium): Group {
  const isElement = remembering(
    (bytes) => isEncoding(bytes) && kernel.check('core_ed25519_is_valid_point', bytes),
  );
  const isIdentity = (p: Point): boolean => p.length === pointBytes && timingSafeEqual(p, identity);
  const points = (operation: string, p: Point, q: Point): Point => {
    if (!isEncoding(p) || !isEncoding(q)) throw notAPoint('ed25519');
    const out = kernel.call(operation, pointBytes, p, q);
    if (out === undefined) throw notAPoint('ed25519');
    return out;
  };
  const add = (p: Point, q: Point): Point => points('core_ed25519_add', p, q);
  const mul = (k: Scalar, p: Point): Point => {
    assertScalar(k);
    if (!isEncoding(p)) throw notAPoint('ed25519');
    const out = kernel.call('scalarmult_ed25519_noclamp', pointBytes, k, p);
    if (out !== undefined) return out;
    // Refused for what is not in the subgroup, for the identity, and for the identity as the result.
    if (!isIdentity(p) && !isElement(p)) throw notAPoint('ed25519');
    return identity.slice();
  };
  const msm = (ks: readonly Scalar[], all: readonly Point[]): Point => {
    assert(ks.length === all.length, 'msm: as many scalars as points');
    return ks.reduce((total, k, at) => add(total, mul(k, all[at] ?? identity)), identity.slice());
  };
  return {
    name: 'ed25519',
    identity,
    isIdentity,
    isPoint: isElement,
    arePoints: (all) => all.every(isElement),
    base: (k) => {
      assertScalar(k);
      // Refused for zero only.
      return kernel.call('scalarmult_ed25519_base_noclamp', pointBytes, k) ?? identity.slice();
    },
    mul,
    add,
    sub: (p, q) => points('core_ed25519_sub', p, q),
    sum: (all) => all.reduce(add, identity.slice()),
    sums: (lists) => lists.map((all) => all.reduce(add, identity.slice())),
    remembering: (run) => run(),
    msm,
    msms: (ks, lists) => lists.map((list) => msm(ks, list)),
    scalar,
  };
}

/**
 * A ceremony looks at the same few points again and again: the key set at every step, commitments before every
 * signature. Bytes that were an element once are one for ever. They are public: all that is checked is.
 */
function remembering(isPoint: (bytes: Point) => boolean): (bytes: Point) => boolean {
  const elements = new Set<string>();
  return (bytes) => {
    if (bytes.length !== pointBytes) return false;
    const name = toHex(bytes);
    if (elements.has(name)) return true;
    if (!isPoint(bytes)) return false;
    if (elements.size >= pointsKnownMax) elements.clear();
    elements.add(name);
    return true;
  };
}

/** True when y is below 2^255 − 19, and the sign is not that of a zero: only y = ±1 have x = 0. */
function isEncoding(bytes: Uint8Array): boolean {
  if (bytes.length !== pointBytes) return false;
  const [first = 0, last = 0] = [bytes[0], bytes[pointBytes - 1]];
  const middle = bytes.subarray(1, pointBytes - 1);
  if ((last & 0x7f) === 0x7f && middle.every((byte) => byte === 0xff)) {
    if (first >= 0xed) return false;
    return !(first === 0xec && last >= 0x80);
  }
  return !(first === 1 && last === 0x80 && middle.every((byte) => byte === 0));
}
